"""`parsimony report`: its table to the terminal, its pictures and its page into a folder."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from parsimony.report import table
from parsimony.report.read import read_runs
from parsimony.report.settings import group, verdicts
from parsimony.runs import replace_file

EPILOG = """
examples:
  parsimony report runs/sweeps/TIME     table, verdict, pictures and page of a sweep
  parsimony report runs --csv           only the table, every digit of it
  parsimony report lightning_logs keras_logs --out comparison
"""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="parsimony report",
        description="Tables, pictures and one HTML page of all runs under folders: from result.json and TensorBoard\n"
        "event files, those of Keras, other Lightning versions and plain SummaryWriters included.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="every run in it or below it is read")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where pictures and page go; default: report in the first FOLDER"
    )
    forms = parser.add_mutually_exclusive_group()
    for form in ("csv", "markdown", "json"):
        what = f"print nothing but the table, as {form}; pictures and page only with --out"
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=what)
    typed = parser.parse_args(arguments)
    report(typed.folders, typed.out, typed.form)


def report(folders: Sequence[Path], out: Path | None = None, form: str | None = None) -> None:
    """Prints the table, in words or in a `form`: csv, markdown or json. Draws into `out`.

    Without a form `out` is by default report/ in the first folder. Raises InputError where there is no run.
    """
    given = out is not None
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
        out = out or folders[0] / "report"
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if out is None:
        return

    from parsimony.report.page import page  # matplotlib, which a table does without
    from parsimony.report.plots import draw

    pictures = draw(settings, out)
    title = f"Report on {', '.join(map(str, folders))}"
    command = shlex.join(["parsimony", "report", *map(str, folders), *(["--out", str(out)] if given else [])])
    path = out / "index.html"
    replace_file(path, page(title, settings, sentences, unfinished, warnings, pictures, command))
    written = f"written: {path}, and {', '.join(pictures)} beside it as PNG and SVG"
    print(f"\n{written}", file=sys.stderr if form else sys.stdout)
