"""Figures of images and of what a network made of them."""

import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor


def grid(images: Tensor, columns: int = 8) -> Tensor:
    """Images (n, c, h, w) side by side, one pixel apart: (c, rows * (h + 1), columns * (w + 1))."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = images.new_ones(rows * columns, channels, height + 1, width + 1)
    sheet[:count, :, :height, :width] = images
    sheet = sheet.view(rows, columns, channels, height + 1, width + 1).permute(2, 0, 3, 1, 4)
    return sheet.reshape(channels, rows * (height + 1), columns * (width + 1))


def confusion_matrix(labels: Tensor, guesses: Tensor, classes: Sequence[str]) -> Figure:
    """Rows are the true classes, columns the network's; each cell's count, coloured by its share of the row."""
    size = len(classes)
    counts = torch.bincount(labels * size + guesses, minlength=size * size).view(size, size)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares.sqrt().numpy(), cmap="Blues", vmin=0, vmax=1)  # the square root makes the few mistakes visible
    for row in range(size):
        for column in range(size):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column].item()), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(size), classes, rotation=45, ha="right")
    axes.set_yticks(range(size), classes)
    axes.set_xlabel("network's answer")
    axes.set_ylabel("true class")
    return figure


def worst_mistakes(
    images: Tensor, labels: Tensor, guesses: Tensor, losses: Tensor, *, classes: Sequence[str], count: int
) -> Figure:
    """The `count` wrongly classified images (n, c, h, w) of the greatest loss: "network's answer, not the truth"."""
    side = math.ceil(math.sqrt(count))
    figure = Figure(figsize=(1.6 * side, 1.75 * side), layout="constrained")
    wrong = (guesses != labels).nonzero().squeeze(1)
    order = wrong[losses[wrong].argsort(descending=True)][:count].tolist()
    for axes in figure.subplots(side, side, squeeze=False).flat:
        axes.set_axis_off()
    for axes, i in zip(figure.axes, order, strict=False):
        axes.imshow(images[i].float().permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{classes[int(guesses[i])]}, not {classes[int(labels[i])]}", fontsize=8)
    return figure
