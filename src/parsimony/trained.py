"""A trained network, read back from its run's folder: what every command that uses one begins with.

Imports no Lightning, which takes seconds, unless the data are asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from parsimony.checkpoints import LAST, read
from parsimony.data.augment import to_float
from parsimony.data.sources import Source
from parsimony.errors import InputError
from parsimony.resume import kept_config, may_download
from parsimony.targets import RUN_OPTION, build, check_objects

if TYPE_CHECKING:
    from parsimony.data.datamodule import ImageData

BEST = "best.ckpt"
EDGE = 1e-3  # by which rounding may have images leave [0, 1]


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
    checkpoint: str = LAST
    epoch: int = 0  # that of the weights, counted from 1
    allow: Sequence[str] = ()

    @property
    def weights(self) -> str:
        """Which weights these are, as the commands tell it."""
        if self.checkpoint != LAST:
            watched = "the test set" if self.config["data"]["validation"] == "test" else "validation"
            return f"best weights on {watched}, of epoch {self.epoch}"
        planned = self.config["trainer"]["max_epochs"]
        return f"final weights, of epoch {self.epoch}" + (f" of {planned}" if self.epoch != planned else "")

    def logits(self, images: Tensor) -> Tensor:
        """(n, classes) of images (n, c, h, w), uint8 or floats in [0, 1]. Raises InputError for anything else."""
        shape = " x ".join(map(str, self.shape))
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1:] != self.shape:
            given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise InputError(f"{self.name} takes a tensor of images, n x {shape}, not {given}.")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise InputError(f"Images are uint8 or floats in [0, 1], not {images.dtype}.")
        if images.is_floating_point() and images.numel() and not -EDGE <= images.min() <= images.max() <= 1 + EDGE:
            raise InputError("Images as floats lie in [0, 1]: divide by 255, or hand them over as uint8.")
        return self.net(to_float(images))

    def initial(self) -> nn.Module:
        """The network as training began, in evaluation mode: drawn again from the run's seed, as training drew it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config["seed"])
            net: nn.Module = build(OmegaConf.create(self.config["model"]), nn.Module)
        return net.eval()

    def with_data_in(self, root: Path) -> "Trained":
        """The same with its data under `root`."""
        data = {**self.config["data"], "root": str(root)}
        if "root" in data["source"]:
            data["source"] = {**data["source"], "root": str(root)}
        return replace(self, config={**self.config, "data": data})

    def source(self) -> Source:
        """The data set it was trained on, not read yet."""
        return build(OmegaConf.create(self.config["data"]["source"]), Source)

    def data(self) -> "ImageData":
        """What it was trained on, split as it was then, not read yet."""
        from parsimony.data.datamodule import ImageData

        config = self.config
        check_objects([config["data"], config["augment"]], self.allow, RUN_OPTION)
        augment = build(OmegaConf.create(config["augment"]))
        given = {"augment": augment, "seed": config["seed"], "download": may_download(config)}
        return build(OmegaConf.create(config["data"]), ImageData, **given)


def load(folder: Path | str, checkpoint: str = LAST, allow: Sequence[str] = (), option: str = RUN_OPTION) -> Trained:
    """The network of the run in `folder`, at its last epoch or, with `checkpoint=BEST`, at its best.

    Raises InputError for a folder that is no run, a checkpoint that is missing or damaged, and a config whose network
    or data come from anywhere but the usual packages and those that `allow` names, by the command's `option`.
    """
    folder = Path(folder)
    config = kept_config(folder)
    check_objects([config["model"], config["data"]["source"]], allow, option)
    if checkpoint not in (LAST, BEST):
        raise InputError(f"A run keeps {LAST} and {BEST}, not {checkpoint}.")
    path = folder / "checkpoints" / checkpoint
    if not path.exists():
        raise InputError(f"{folder} has no {path.relative_to(folder)}: {_why_missing(checkpoint, config)}")
    kept = read(path)
    net = build(OmegaConf.create(config["model"]), nn.Module)
    weights = {key.removeprefix("net."): value for key, value in kept["state_dict"].items() if key.startswith("net.")}
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path} is of another network than {folder / 'config.yaml'} describes.") from error
    source = build(OmegaConf.create(config["data"]["source"]), Source)
    last = folder / "checkpoints" / LAST  # the other ends with the best epoch, its history too
    history = read(last)["history"] if checkpoint != LAST and last.exists() else kept["history"]
    return Trained(
        folder,
        str(config["name"]),
        net.eval(),
        tuple(source.classes),
        source.shape,
        history,
        config,
        checkpoint,
        kept["epoch"] + 1,
        allow,
    )


def _why_missing(checkpoint: str, config: dict[str, Any]) -> str:
    if checkpoint == BEST and config["data"].get("validation") == 0:
        return "without a validation split a run keeps only its last weights."
    return "the run ended before its first epoch did, or left out callbacks.last."
