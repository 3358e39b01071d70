"""What the tests of whole runs share: one thread, and configs composed as a command composes them."""

import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: processes that share a machine get in each other's way
os.environ.setdefault("RUN_ID", "test")

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from parsimony.config import CONF

torch.set_num_threads(1)


def compose_run(folder: Path, *overrides: str) -> DictConfig:
    """The config that `python train.py OVERRIDES` hands to main(), with its run in `folder`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(folder)
        cfg.hydra.mode = "RUN"
        HydraConfig.instance().set_config(cfg)
        del cfg["hydra"]
    return cfg
