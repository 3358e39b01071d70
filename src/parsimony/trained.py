"""A trained network, read back from its run's folder: what every command that uses one begins with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor, nn

from parsimony.checkpoints import LAST, read
from parsimony.data.augment import to_float
from parsimony.data.datamodule import ImageData
from parsimony.errors import InputError
from parsimony.resume import kept_config
from parsimony.targets import check_objects
from parsimony.training import build


@dataclass(frozen=True)
class Trained:
    """`net` is in evaluation mode on the CPU; `history` has one entry an epoch trained."""

    folder: Path
    name: str
    net: nn.Module
    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # (c, h, w) of an image
    history: list[dict[str, float]]
    config: dict[str, Any]

    def logits(self, images: Tensor) -> Tensor:
        """(n, classes) of images (n, c, h, w), uint8 or floats in [0, 1]."""
        return self.net(to_float(images))

    def data(self) -> ImageData:
        """What it was trained on, not read yet."""
        return _data(self.config)


def load(folder: Path, checkpoint: str = LAST) -> Trained:
    """The network of the run in `folder`, at its last epoch or, with `checkpoint="best.ckpt"`, at its best.

    Raises InputError for a folder that is no run, a checkpoint that is missing or damaged, and a config that would run
    anything but the usual packages.
    """
    config = kept_config(folder)
    check_objects(config, [])
    path = folder / "checkpoints" / checkpoint
    if not path.exists():
        raise InputError(f"{folder} has no {path.relative_to(folder)}: the run ended before its first epoch did.")
    kept = read(path)
    net: nn.Module = build(OmegaConf.create(config["model"]))
    weights = {key.removeprefix("net."): value for key, value in kept["state_dict"].items() if key.startswith("net.")}
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path} is of another network than {folder / 'config.yaml'} describes.") from error
    source = _data(config).source
    return Trained(folder, config["name"], net.eval(), source.classes, source.shape, kept["history"], config)


def _data(config: dict[str, Any]) -> ImageData:
    augment = build(OmegaConf.create(config["augment"]))
    return build(OmegaConf.create(config["data"]), augment=augment, seed=config["seed"])
