"""The command `parsimony`: work on the folders that runs leave. Trainings are started by train.py.

A subcommand imports what it needs when it runs, so that --help and typos are answered at once.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="parsimony", description="Work on the folders that runs leave.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_report(commands)
    typed = parser.parse_args(arguments)

    from parsimony.config import one_sentence_errors

    with one_sentence_errors():
        typed.run(typed)


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    what = "tables, pictures and a page from result.json and TensorBoard event files, ours or not"
    parser = commands.add_parser("report", help=what, description=what[0].upper() + what[1:] + ".")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="every run in it or below it is read")
    parser.add_argument("--out", type=Path, help="where pictures and index.html go; default: FOLDER/report")
    for form in ("csv", "markdown", "json"):
        parser.add_argument(
            f"--{form}",
            dest="form",
            action="store_const",
            const=form,
            help=f"the table as {form} to standard output, and nothing else without --out",
        )

    def run(typed: argparse.Namespace) -> None:
        from parsimony.report.command import report

        report(typed.folders, typed.out, typed.form)

    parser.set_defaults(run=run)


if __name__ == "__main__":
    main()
