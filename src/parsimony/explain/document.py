"""What an explanation is made of, before it is a page or Markdown."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Plot


@dataclass(frozen=True)
class Tile:
    """A small picture: `pixels` (h, w, 3), or (h, w, 4) with transparency, uint8.

    `box` is (left, top, side) of a square drawn over it, in its pixels.
    """

    pixels: np.ndarray
    label: str = ""
    box: tuple[int, int, int] | None = None

    def zoom(self, size: int) -> int:
        """Screen pixels for each of its own, so that it fits into a square of `size`."""
        return max(1, size // max(self.pixels.shape[:2]))


@dataclass(frozen=True)
class Row:
    label: str
    tiles: list[Tile]
    size: int = 56  # a tile's room on the screen, which whole screen pixels for each of its own fill as far as they can


@dataclass(frozen=True)
class Figure:
    caption: str
    rows: list[Row]
    compact: bool = False  # rows may stand side by side


@dataclass(frozen=True)
class Sum:
    """One place of a convolution: sum(patch * kernel) over the terms (name, patch, kernel), + bias = result."""

    caption: str
    terms: list[tuple[str, np.ndarray, np.ndarray]]
    bias: float
    result: float


@dataclass(frozen=True)
class Table:
    caption: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Chart:
    caption: str
    plot: Plot


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Section:
    title: str
    text: list[str]
    parts: list[Any] = field(default_factory=list)  # Figure, Sum, Table, Chart
