"""`parsimony report`: its table to the terminal, its pictures and its page into a folder."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from parsimony.report import table
from parsimony.report.read import read_runs
from parsimony.report.settings import group, verdicts


def report(folders: Sequence[Path], out: Path | None, form: str | None) -> None:
    """Without a `form` the text goes to standard output and the pictures into `out`, by default report/ in the first
    folder; with one only this does, and the pictures only where `out` says.

    Raises InputError where there is no run.
    """
    runs, warnings = read_runs(folders)
    settings = group(runs, warnings)
    sentences, unfinished = verdicts(settings), table.not_in_table(runs)
    if form == "csv":
        print(table.as_csv(settings))
    elif form == "markdown":
        print(table.as_markdown(settings))
    elif form == "json":
        print(table.as_json(settings, runs, sentences, warnings))
    else:
        parts = [table.as_text(settings), "\n".join(sentences)]
        if unfinished:
            parts.append("\n".join(["Not in the table:", *unfinished]))
        print("\n\n".join(filter(None, parts)))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if form is None or out:
        from parsimony.report.page import page  # matplotlib, which a table does without
        from parsimony.report.plots import draw

        out = out or folders[0] / "report"
        pictures = draw(settings, out)
        title = f"Report on {', '.join(map(str, folders))}"
        command = shlex.join(["parsimony", "report", *map(str, folders)])
        path = out / "index.html"
        path.write_text(page(title, settings, sentences, unfinished, warnings, pictures, command), encoding="utf-8")
        written = f"written: {path}, and {', '.join(pictures)} beside it as PNG and SVG"
        print(f"\n{written}", file=sys.stdout if form is None else sys.stderr)
