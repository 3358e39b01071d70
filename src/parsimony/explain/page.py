"""An explanation as one HTML page that needs nothing beside it."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.image import imsave

from parsimony.explain.colours import STOPS, picture, signed
from parsimony.explain.document import Chart, Figure, Row, Section, Sum, Table, Tile
from parsimony.report.page import document, inline
from parsimony.report.plots import STYLE as PLOT_STYLE

NO_SOFTWARE: Any = {"Software": None}  # matplotlib's version, which would make the same picture another file
MAP_LEGEND = ", ".join(f"rgb({r},{g},{b})" for r, g, b in STOPS.tolist())

STYLE = f"""
:root {{ color-scheme: light dark; --ink: #1c1d21; --soft: #5c6069; --paper: #ffffff; --rule: #d5d7db; --shade: #f2f3f5;
  --accent: #0072b2 }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e4e5e8; --soft: #a0a4ad; --paper: #17181b; --rule: #43464d; --shade: #222429; --accent: #56b4e9 }}
}}
* {{ box-sizing: border-box }}
body {{ color: var(--ink); background: var(--paper); font: 16px/1.55 system-ui, sans-serif; margin: 0 auto;
  max-width: 64rem; padding: 1rem 1rem 4rem; overflow-wrap: anywhere }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: 1rem 0 }}
h2 {{ font-size: 1.2rem; margin: 0 0 .5rem }}
h3 {{ font-size: .85rem; font-weight: 600; margin: 1rem 0 .35rem }}
p {{ max-width: 42rem; margin: .5rem 0 }}
a {{ color: var(--accent) }}
nav {{ display: flex; flex-wrap: wrap; gap: .25rem 1rem; border-block: 1px solid var(--rule); padding: .6rem 0 }}
section {{ border-top: 1px solid var(--rule); margin-top: 2.5rem; padding-top: 1.5rem }}
section:first-of-type {{ border: 0; margin-top: 1rem; padding-top: 0 }}
figure {{ margin: 1.25rem 0 }}
figcaption {{ color: var(--soft); font-size: .875rem; line-height: 1.45; max-width: 42rem }}
figure > figcaption {{ margin-top: .6rem }}
.parts {{ display: flow-root }}
section:first-of-type .parts {{ display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: start }}
.compact {{ display: grid; gap: 0 1.5rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)) }}
.tiles {{ display: grid; gap: 6px; grid-template-columns: repeat(auto-fill, var(--cell)); align-items: start }}
.tiles.labelled {{ gap: 12px }}
.compact .tiles {{ grid-template-columns: repeat(2, minmax(0, var(--cell))) }}
@media (max-width: 40rem) {{
  .tiles:not(.labelled) {{ gap: 4px; grid-template-columns: repeat(auto-fill, calc(.73 * var(--cell))) }}
}}
.tile {{ margin: 0; max-width: 100% }}
.tile figcaption {{ font-size: .75rem; line-height: 1.3; margin-top: .25rem; font-variant-numeric: tabular-nums }}
.tile img, .tile svg {{ display: block; max-width: 100%; height: auto; image-rendering: pixelated }}
.tile svg rect {{ fill: none; stroke: #56b4e9; stroke-width: 2; vector-effect: non-scaling-stroke }}
.legend {{ display: flex; align-items: center; gap: .6rem; color: var(--soft); font-size: .8rem }}
.legend i {{ flex: 1; max-width: 12rem; height: .7rem; background: linear-gradient(90deg, {MAP_LEGEND}) }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; margin: 0 }}
th, td {{ border-bottom: 1px solid var(--rule); padding: .25rem 1.25rem .25rem 0; text-align: left;
  white-space: nowrap }}
.sum {{ display: flex; flex-wrap: wrap; align-items: center; gap: .4rem .6rem }}
.sum + .sum {{ margin-top: .75rem }}
.sum table {{ margin: 0; font-size: .75rem }}
.sum td {{ border: 1px solid var(--paper); padding: 0; width: 2.7rem; height: 1.7rem; text-align: center }}
.sum .light {{ color: #000 }} .sum .dark {{ color: #fff }}
.chart svg {{ display: block; width: 100%; max-width: 36rem; height: auto }}
"""


def page(title: str, sections: Sequence[Section]) -> str:
    links = "\n".join(f'<a href="#{_anchor(section)}">{escape(section.title)}</a>' for section in sections[1:])
    legend = '<div class="legend">below zero <i></i> above zero</div>'
    opening = [f"<h1>{escape(title)}</h1>", f"<nav>{links}</nav>", _section(sections[0]), legend]
    return document(title, "\n".join([*opening, *map(_section, sections[1:])]), STYLE)


def png(pixels: np.ndarray) -> bytes:
    """Of pixels (h, w, 3 or 4) uint8; the same on every machine."""
    file = io.BytesIO()
    imsave(file, pixels, format="png", metadata=NO_SOFTWARE)
    return file.getvalue()


def _section(section: Section) -> str:
    texts = "\n".join(f"<p>{escape(text)}</p>" for text in section.text)
    parts = "\n".join(map(_part, section.parts))
    heading = f"<h2>{escape(section.title)}</h2>"
    return f'<section id="{_anchor(section)}">\n{heading}\n{texts}\n<div class="parts">\n{parts}\n</div>\n</section>'


def _anchor(section: Section) -> str:
    return section.title.lower().replace(" ", "-")


def _part(part: Any) -> str:
    if isinstance(part, Figure):
        rows = f'<div class="{"compact" if part.compact else "rows"}">\n{"".join(map(_row, part.rows))}</div>'
        return f"<figure>\n{rows}\n<figcaption>{escape(part.caption)}</figcaption>\n</figure>"
    if isinstance(part, Table):
        head = "".join(f"<th>{escape(cell)}</th>" for cell in part.header)
        rows = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in part.rows)
        table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
        return f'<figure><div class="wide">{table}</div><figcaption>{escape(part.caption)}</figcaption></figure>'
    if isinstance(part, Sum):
        return _sum(part)
    assert isinstance(part, Chart)
    return f'<figure class="chart">{_svg(part)}<figcaption>{escape(part.caption)}</figcaption></figure>'


def _row(row: Row) -> str:
    heading = f"<h3>{escape(row.label)}</h3>\n" if row.label else ""
    labelled = " labelled" if any(tile.label for tile in row.tiles) else ""
    named = [(tile, tile.label or f"{row.label}, {i + 1}".lstrip(", ")) for i, tile in enumerate(row.tiles)]
    tiles = "\n".join(_tile(tile, name, row.size) for tile, name in named)
    return (
        f'<div class="row">{heading}<div class="tiles{labelled}" style="--cell:{row.size}px">\n{tiles}\n</div></div>\n'
    )


def _tile(tile: Tile, name: str, size: int) -> str:
    height, width = tile.pixels.shape[:2]
    zoom = tile.zoom(size)
    source = f"data:image/png;base64,{base64.b64encode(png(tile.pixels)).decode()}"
    shown = f'width="{zoom * width}" height="{zoom * height}"'
    if tile.box is None:
        drawn = f'<img src="{source}" alt="{escape(name)}" {shown}>'
    else:
        left, top, side = tile.box
        right, bottom = min(left + side, width), min(top + side, height)  # what is beyond the picture has no pixels
        left, top = max(left, 0), max(top, 0)
        drawn = (
            f'<svg viewBox="0 0 {width} {height}" {shown} role="img" aria-label="{escape(name)}">'
            f'<image href="{source}" width="{width}" height="{height}"/>'
            f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/></svg>'
        )
    caption = f"<figcaption>{escape(tile.label)}</figcaption>" if tile.label else ""
    return f'<figure class="tile">{drawn}{caption}</figure>'


def _sum(part: Sum) -> str:
    lines = []
    total = 0.0
    for name, patch, kernel in part.terms:
        products = patch * kernel
        total += float(products.sum())
        pixels = picture(torch.from_numpy(patch)[None].clamp(0, 1))
        grids = f"{_grid(patch, pixels)} &times; {_grid(kernel)} = {_grid(products)}"
        summed = f"sum {products.sum():.2f}" if len(part.terms) > 1 else ""
        lines.append(f'<div class="sum">{escape(name)} {grids} {summed}</div>')
    result = f"Together {total:.2f}" if len(lines) > 1 else f"The sum is {total:.2f}"
    result += f"; with the layer's bias of {part.bias:.2f}, {part.result:.2f}." if part.bias else "."
    grids = "\n".join(lines)
    return f"<figure>\n{grids}\n<p>{result}</p>\n<figcaption>{escape(part.caption)}</figcaption>\n</figure>"


def _grid(numbers: np.ndarray, pixels: np.ndarray | None = None) -> str:
    pixels = signed(torch.from_numpy(numbers)) if pixels is None else pixels
    rows = []
    for values, colours in zip(numbers, pixels, strict=True):
        cells = []
        for value, (r, g, b) in zip(values, colours.tolist(), strict=True):
            tone = "light" if 0.3 * r + 0.59 * g + 0.11 * b > 140 else "dark"
            cells.append(
                f'<td class="{tone}" style="background:rgb({r},{g},{b})">{round(float(value), 2) + 0:.2f}</td>'
            )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def _svg(chart: Chart) -> str:
    file = io.StringIO()
    with matplotlib.rc_context(PLOT_STYLE):
        chart.plot.savefig(file, format="svg", metadata={"Date": None})
    return inline(file.getvalue())
