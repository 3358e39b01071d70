"""Test-time averaging: which views of an image are shown to the network, and the mean of its answers."""

from collections.abc import Callable

import torch
from torch import Tensor

from parsimony.data.datamodule import EVALUATION_BATCH

FLIPPED = "2 views: the image and its mirror image"
MOVED = "5 views: the image, and it moved by one pixel up, down, left and right"


def described(channels: int) -> str:
    """The views of an image of so many channels."""
    return FLIPPED if channels == 3 else MOVED


def views(images: Tensor) -> list[Tensor]:
    """Images (n, c, h, w) first as they are. In colour, then their mirror images; in grey, then each moved by a pixel
    up, down, left and right, with black behind, since a mirrored digit would be no digit.
    """
    if images.shape[1] == 3:
        return [images, images.flip(-1)]
    height, width = images.shape[-2:]
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    corners = [(2, 1), (0, 1), (1, 2), (1, 0)]  # top and left of the window; lower in the picture: the image moves up
    return [images, *(padded[..., top : top + height, left : left + width] for top, left in corners)]


@torch.inference_mode()
def probabilities(logits: Callable[[Tensor], Tensor], images: Tensor, *, averaged: bool = False) -> Tensor:
    """(n, classes), float64, of images (n, c, h, w): the network's, or their mean over the views."""
    parts = []
    for batch in images.split(EVALUATION_BATCH):
        seen = views(batch) if averaged else [batch]
        parts.append(torch.stack([logits(view).double().softmax(1) for view in seen]).mean(0))
    return torch.cat(parts)
