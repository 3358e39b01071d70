"""The report as one HTML page that needs nothing beside it."""

import base64
import hashlib
import shlex
from collections.abc import Sequence
from html import escape

from parsimony.config import override_key, printable
from parsimony.report.plots import INK, PAPER
from parsimony.report.run import SEEDS
from parsimony.report.settings import Setting
from parsimony.report.table import columns

CAPTIONS = {
    "curves": "Accuracy and loss, mean over the seeds; a band is one standard deviation to either side.",
    "pace": "Learning rate and training speed.",
    "heat-map": "Accuracy at the last epoch: mean ± standard deviation over n seeds.",
    "parameters": "Accuracy against parameters; the line is the Pareto front: no other has more accuracy for as few.",
}

STYLE = """
:root { color-scheme: light dark; --ink: #1c1d21; --paper: #ffffff; --rule: #d5d7db; --shade: #f2f3f5 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e5e8; --paper: #17181b; --rule: #43464d; --shade: #222429 }
}
body { color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif;
  margin: 0 auto; max-width: 70rem; padding: 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { border-bottom: 1px solid var(--rule); padding: .25rem .75rem; text-align: left }
th { background: var(--shade) }
th button { all: unset; cursor: pointer; font-weight: 600 } th button:focus-visible { outline: 2px solid }
th[aria-sort=ascending] button::after { content: " ▲" } th[aria-sort=descending] button::after { content: " ▼" }
figure { margin: 1.5rem 0 } figcaption { max-width: 45rem }
svg { min-width: 44rem; width: 100%; height: auto } .small svg { min-width: 20rem; max-width: 32rem }
pre { background: var(--shade); overflow-x: auto; padding: .75rem } li { overflow-wrap: anywhere }
"""

# A click on a heading sorts by it, a second one the other way round.
SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const heading = button.parentElement, body = heading.closest("table").tBodies[0];
  const down = heading.getAttribute("aria-sort") === "ascending", at = heading.cellIndex;
  const value = row => row.cells[at].textContent, number = text => parseFloat(text.replaceAll(",", ""));
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...body.rows].sort((a, b) => {
    const x = number(value(a)), y = number(value(b));
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y) || value(a).localeCompare(value(b)) * (down ? -1 : 1);
    return (x - y) * (down ? -1 : 1);
  });
  body.append(...rows);
});
"""


def page(
    title: str,
    settings: Sequence[Setting],
    verdicts: Sequence[str],
    unfinished: Sequence[str],
    warnings: Sequence[str],
    pictures: dict[str, str],
    command: str,
) -> str:
    """HTML; `pictures` are names with their SVG, `command` is what makes the report again."""
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(sentence)}</p>" for sentence in verdicts),
        _table(settings),
        _list("Not in the table", unfinished),
        _list("Warnings", warnings),
        *(_figure(name, svg) for name, svg in pictures.items()),
        f"<h2>Commands</h2>\n<pre>{escape(chr(10).join([*commands(settings), command]))}</pre>",
    ]
    return document(title, "\n".join(filter(None, parts)), STYLE, SCRIPT)


def document(title: str, body: str, style: str, script: str = "") -> str:
    """An HTML page that may ask for nothing and run nothing but `script`."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{digest}'" if script else "script-src 'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; {allowed}"
    head = (
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>"
    )
    end = f"<script>{script}</script>\n" if script else ""
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n{end}</body>\n</html>\n'


def inline(svg: str) -> str:
    """matplotlib's SVG for a page, in the page's own colours."""
    return svg[svg.index("<svg") :].replace(INK, "currentColor").replace(f"fill: {PAPER}", "fill: none")


def commands(settings: Sequence[Setting]) -> list[str]:
    """What trains each setting again, over its seeds. None for runs whose overrides are not known."""
    lines = []
    for setting in settings:
        overrides = setting.first.overrides
        if not overrides or not setting.runs or "resume" in map(override_key, overrides):
            continue
        seeds = sorted({run.seed for run in setting.runs if isinstance(run.seed, int)})
        kept = [text for text in overrides if override_key(text).partition(".")[0] not in SEEDS | {"sweep"}]
        sweep = ["-m"] if len(seeds) > 1 else []
        words = ["python", "train.py", *sweep, *kept, f"seed={','.join(map(str, seeds))}"]
        lines.append(printable(shlex.join(words)))
    return lines


def _table(settings: Sequence[Setting]) -> str:
    table = columns(settings)
    if not table:
        return ""
    heads = "".join(f"<th><button>{escape(heading)}</button></th>" for heading in table)
    cells = zip(*table.values(), strict=True)
    rows = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
    return f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def _list(heading: str, lines: Sequence[str]) -> str:
    items = "\n".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{escape(heading)}</h2>\n<ul>\n{items}\n</ul>" if lines else ""


def _figure(name: str, svg: str) -> str:
    kind, _, data = next((kind, *name.partition(kind)[1:]) for kind in CAPTIONS if name.startswith(kind))
    small = " small" if kind in ("heat-map", "parameters") else ""
    caption = f"{CAPTIONS[kind]}{f' ({data[1:]})' if data else ''}"
    return f'<figure><div class="wide{small}">{inline(svg)}</div><figcaption>{escape(caption)}</figcaption></figure>'
