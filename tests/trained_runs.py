"""Trained networks for the tests of the commands that use one, without the time that training takes."""

from pathlib import Path

import torch
from conftest import RECORDS, compose_run
from omegaconf import OmegaConf, open_dict

from parsimony.checkpoints import KEYS
from parsimony.runs import portable
from parsimony.targets import build

EPOCH = {"seconds": 1.0, "elapsed": 1.0, "train/loss": 1.0, "train/accuracy": 0.6}


def untrained_run(folder: Path, *overrides: str, epochs: int = 2, name: str = "") -> Path:
    """The folder of a run whose network has the weights that its seed gives, and a made-up history."""
    cfg = compose_run(folder, *overrides)
    with open_dict(cfg):
        cfg.name = name or cfg.name
        if cfg.data.source._target_.endswith("Cifar10"):
            cfg.data.source.records = RECORDS
    config = OmegaConf.to_container(cfg, resolve=True)
    torch.manual_seed(cfg.seed)
    net = build(cfg.model)
    history = [{"epoch": i + 1, **EPOCH, "val/accuracy": 0.5 + i / 10, "val/loss": 1.0} for i in range(epochs)]
    checkpoint = dict.fromkeys(KEYS) | {
        "epoch": epochs - 1,
        "history": history,
        "state_dict": {f"net.{key}": value for key, value in net.state_dict().items()},
    }
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(portable(config, str(folder)), folder / "config.yaml")
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    return folder
