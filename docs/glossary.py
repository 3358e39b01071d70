"""Writes docs/glossary.md and its pictures from the run in docs/run: `python docs/glossary.py`."""

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from parsimony.explain.document import Chart, Figure, Row, Section, Sum, Table, Tile
from parsimony.explain.page import png
from parsimony.explain.sections import sections
from parsimony.report.plots import STYLE
from parsimony.trained import load

DOCS = Path(__file__).resolve().parent
PICTURE = 1  # the test image that is shown
WIDTH, GAP = 720, 6  # of a picture, in pixels: at most, and between its tiles
BOX = (0x56, 0xB4, 0xE9)
OPENING = """\
# Glossary

What the words mean, shown on one network. `python docs/glossary.py` makes this page of the run in `docs/run`, which
`python train.py data=digits` trained on the digits that come with the package. Of any other run `parsimony explain RUN`
makes [a page like it](explain.md).
"""


def main() -> None:
    write(DOCS)
    print("written: docs/glossary.md and docs/images/glossary-*.png")


def write(folder: Path) -> None:
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for old in images.glob("glossary-*.png"):
        old.unlink()
    text = [OPENING]
    for section in sections(load(DOCS / "run"), PICTURE):
        text.append(f"\n## {section.title}\n")
        text += [_wrapped(paragraph) for paragraph in section.text]
        text += _parts(section, images)
    (folder / "glossary.md").write_text("\n".join(text), encoding="utf-8")


def _parts(section: Section, images: Path) -> Iterator[str]:
    prefix = f"glossary-{section.title.lower().replace(' ', '-')}"
    number = 0

    def kept(content: bytes, alt: str) -> str:
        nonlocal number
        number += 1
        name = f"{prefix}-{number}.png"
        (images / name).write_bytes(content)
        return f"![{alt}](images/{name})"

    for part in section.parts:
        if isinstance(part, Figure):
            for row in part.rows:
                picture = kept(png(_strip(row)), row.label or section.title)
                yield f"**{row.label}**\n\n{picture}\n" if row.label else f"{picture}\n"
                if not part.compact and (labels := "; ".join(tile.label for tile in row.tiles if tile.label)):
                    yield _wrapped(f"In reading order: {labels}.")
        elif isinstance(part, Table):
            yield "\n".join(_table(part.header, part.rows)) + "\n"
        elif isinstance(part, Sum):
            yield _sum(part)
        elif isinstance(part, Chart):
            yield f"{kept(_chart(part, images), section.title)}\n"
        yield _wrapped(part.caption)


def _strip(row: Row) -> np.ndarray:
    """The tiles in lines of at most WIDTH: (h, w, 4), transparent between them."""
    tiles = [_enlarged(tile, row.size) for tile in row.tiles]
    cell = max(tile.shape[1] for tile in tiles) + GAP
    columns = max(1, (WIDTH + GAP) // cell)
    lines = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(tile.shape[0] for tile in line) for line in lines]
    sheet = np.zeros((sum(heights) + GAP * (len(lines) - 1), cell * len(lines[0]) - GAP, 4), np.uint8)
    top = 0
    for line, height in zip(lines, heights, strict=True):
        for i, tile in enumerate(line):
            sheet[top : top + tile.shape[0], i * cell : i * cell + tile.shape[1]] = tile
        top += height + GAP
    return sheet


def _enlarged(tile: Tile, size: int) -> np.ndarray:
    height, width, channels = tile.pixels.shape
    zoom = tile.zoom(size)
    pixels = tile.pixels.repeat(zoom, 0).repeat(zoom, 1)
    if channels == 3:
        pixels = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], 2)
    if tile.box is not None:
        left, top, side = tile.box
        right, bottom = min(left + side, width) * zoom, min(top + side, height) * zoom
        left, top = max(left, 0) * zoom, max(top, 0) * zoom
        frame = np.zeros(pixels.shape[:2], bool)
        frame[top:bottom, left:right] = True
        frame[top + 2 : bottom - 2, left + 2 : right - 2] = False
        pixels[frame] = (*BOX, 255)
    return pixels


def _table(header: list[str], rows: list[list[str]]) -> Iterator[str]:
    for row in [header, ["---"] * len(header), *rows]:
        yield f"| {' | '.join(row)} |"


def _sum(part: Sum) -> str:
    lines = ["```text"]
    room = max(len(name) for name, _, _ in part.terms)
    for name, patch, kernel in part.terms:
        for row in range(len(patch)):
            signs = (" x ", " = ") if row == len(patch) // 2 else ("   ", "   ")
            left, middle, right = (
                "".join(f"{round(float(value), 2) + 0:7.2f}" for value in numbers[row])
                for numbers in (patch, kernel, patch * kernel)
            )
            lines.append(f"{name:{room}}{left}{signs[0]}{middle}{signs[1]}{right}")
    total = sum(float((patch * kernel).sum()) for _, patch, kernel in part.terms)
    bias = f", with the layer's bias of {part.bias:.2f}: {part.result:.2f}" if part.bias else ""
    return "\n".join([*lines, "", f"sum {total:.2f}{bias}", "```\n"])


def _chart(chart: Chart, images: Path) -> bytes:
    path = images / "glossary-chart.png"
    metadata: Any = {"Software": None}
    with matplotlib.rc_context(STYLE):
        chart.plot.savefig(path, dpi=100, metadata=metadata)
    content = path.read_bytes()
    path.unlink()
    return content


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
