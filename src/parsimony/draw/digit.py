"""From a drawing, (height, width) with 1 for ink, to a picture like those that a network was trained on."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

FAINT = 0.1  # less ink is taken for none
MNIST_BOX = 20 / 28  # of the picture's side, for the digit's longer side
UCI_SIDE, UCI_WIDTH = 8, 6  # the embedded digits fill eight rows, and mostly six of eight columns
STRETCH = 2.0  # at most, so that a straight 1 does not become a block


def like_mnist(drawing: Tensor, side: int = 28) -> Tensor:
    """(1, side, side): the digit in a box of 20/28 of the side, its centre of mass in the middle, as MNIST was made.

    LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998).
    """
    ink = _cropped(drawing)
    if ink is None:
        return torch.zeros(1, side, side)
    box = MNIST_BOX * side
    scale = box / max(ink.shape)
    small = _resized(ink, [max(1, round(scale * length)) for length in ink.shape])
    weight, middle = small.sum(), side // 2 + 0.5  # MNIST's centres lie in the middle of pixel 14, counted from 0
    top, left = (
        round(middle - float((small.sum(1 - axis) * (torch.arange(length) + 0.5)).sum() / weight))
        for axis, length in enumerate(small.shape)
    )
    height, width = small.shape
    edges = (left, side - left - width, top, side - top - height)
    return pad(small, edges)[None]  # a negative edge cuts off


def like_uci(drawing: Tensor, side: int = 28) -> Tensor:
    """(1, side, side): the digit in the middle of 8x8 pixels and as high as they are, which are then scaled up."""
    ink = _cropped(drawing)
    if ink is None:
        return torch.zeros(1, side, side)
    height, width = ink.shape
    wide = min(UCI_WIDTH, max(1, round(STRETCH * UCI_SIDE * width / height)))
    small = _resized(ink, [UCI_SIDE, wide])
    left = (UCI_SIDE - wide) // 2
    small = pad(small, (left, UCI_SIDE - wide - left))
    return interpolate(small[None, None], (side, side), mode="bilinear")[0]


def _cropped(drawing: Tensor) -> Tensor | None:
    """To what there is of ink; None without any."""
    inked = drawing > FAINT
    rows, columns = (inked.any(1 - axis).nonzero().flatten().tolist() for axis in (0, 1))
    return drawing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if rows else None


def _resized(ink: Tensor, size: list[int]) -> Tensor:
    return interpolate(ink[None, None], size, mode="bilinear", antialias=True)[0, 0].clamp(0, 1)
