"""What is exported: a network with its preprocessing inside; and how a file of it is checked before it is kept."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from parsimony.errors import InputError
from parsimony.trained import Trained

TOLERANCE = 1e-4  # of a probability
INPUT, OUTPUT = "images", "probabilities"


class Deployed(nn.Module):
    """uint8 pictures (n, h, w, c), as Pillow, OpenCV and NumPy have them -> probabilities (n, classes)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.permute(0, 3, 1, 2).float() / 255).softmax(1)


def deployed(trained: Trained) -> Deployed:
    return Deployed(trained.net).eval()


def samples(trained: Trained, count: int = 64) -> Tensor:
    """uint8 (count, h, w, c): noise of every contrast, always the same, so that a check needs no data set."""
    channels, height, width = trained.shape
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(count, height, width, channels, generator=generator)
    contrast = torch.linspace(0, 255, count).view(-1, 1, 1, 1)
    return (noise * contrast).round().to(torch.uint8)


@torch.inference_mode()
def difference(trained: Trained, run: Callable[[Tensor], Tensor]) -> float:
    """The largest between the network's probabilities and those of `run`, which has read them from a file.

    Raises InputError above TOLERANCE.
    """
    images, net = samples(trained), deployed(trained)
    largest = max((net(part) - run(part)).abs().max().item() for part in (images, images[:1]))  # two sizes of batch
    if not largest <= TOLERANCE:  # nor NaN
        raise InputError(
            f"The exported network's probabilities differ by up to {largest:.1e} from the original's, more than "
            f"{TOLERANCE:g}: no file was written."
        )
    return largest


def check_probabilities(answers: Tensor) -> None:
    """Raises InputError where a row of `answers` (n, classes) is none of probabilities."""
    sums = answers.sum(1)
    if not ((answers >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=TOLERANCE)):  # nor NaN
        raise InputError("The exported network's answers are no probabilities: no file was written.")


@contextmanager
def kept_if_sound(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; becomes `path` at the end, or nothing where an error is raised."""
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def written(path: Path, largest: float, what: str) -> str:
    return f"{path}: {kilobytes(path)}, {what}; largest difference from the network {largest:.1e}"


def kilobytes(path: Path) -> str:
    return f"{path.stat().st_size / 1000:,.1f} KB"
