"""`parsimony card`: the model card of a run, or of a published result with all its seeds."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from parsimony.errors import InputError
from parsimony.published.cards import card
from parsimony.published.rows import Row, changes, read_runs, rows
from parsimony.runs import Result, replace_file
from parsimony.use import arguments as shared

EXAMPLES = """\
  parsimony card runs/mnist_sep/TIME                 to the terminal
  parsimony card results/reproduce/mnist_narrow      all seeds of a published result
"""


def main(arguments: Sequence[str]) -> None:
    parser = shared.parser(
        "card",
        "A model card in Markdown: task, data, parameters, recipe, figures, known limits.",
        EXAMPLES,
        of_a_run=False,
    )
    parser.add_argument(
        "result", type=Path, metavar="RESULT", help="a run's folder, a result file, or a folder of them"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="written to; by default the terminal")
    shared.add_allow(parser)
    typed = parser.parse_args(arguments)
    if typed.out:
        shared.not_a_folder(typed.out)
    try:
        text = card(row_of(typed.result), typed.allow)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{typed.result} is damaged or no result of a run: {error!r}.") from error
    if typed.out:
        replace_file(typed.out, text)
        print(f"written: {typed.out}", file=sys.stderr)
    else:
        print(text, end="")


def row_of(path: Path) -> Row:
    """The run or runs at `path`, with what the original reported where they are a published recipe's.

    Raises InputError where there is none, and what Result.read raises.
    """
    if path.is_file():
        runs = [Result.read(path)]
    elif (path / "result.json").is_file():
        runs = [Result.read(path / "result.json")]
    else:
        runs = read_runs(path)
    if not runs:
        raise InputError(f"There is no result in {path}: expected result.json, or seed-0.json and the like.")
    for row in rows():
        if all(run.name == row.experiment and not changes(run, row) for run in runs):
            return replace(row, runs=runs)
    return Row(runs[0].name, runs, seeds=len(runs))
