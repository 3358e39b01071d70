"""What the commands on a trained network are told alike: the run, and which of its weights."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from parsimony.errors import InputError

if TYPE_CHECKING:
    from parsimony.trained import Trained


def parser(command: str, description: str, examples: str, *, of_a_run: bool = True) -> argparse.ArgumentParser:
    """That of `parsimony COMMAND`, with RUN, --best and --allow where it works on a run's folder."""
    made = argparse.ArgumentParser(
        prog=f"parsimony {command}",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if of_a_run:
        made.add_argument("run", type=Path, metavar="RUN", help="the folder of a run, such as runs/mnist_sep/TIME")
        made.add_argument("--best", action="store_true", help="the best epoch's weights; without it the last epoch's")
        add_allow(made)
    return made


def add_allow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PACKAGE", help="a package that the run's config may use"
    )


def add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root", type=Path, metavar="FOLDER", help="where the data lies, if not where it lay in training"
    )


def trained(typed: argparse.Namespace) -> "Trained":
    """The network of the run that was typed, with its data where they were said to lie."""
    from parsimony.checkpoints import LAST  # torch, so after the arguments were read
    from parsimony.trained import BEST, load

    found = load(typed.run, BEST if typed.best else LAST, typed.allow)
    return found.with_data_in(typed.data_root) if getattr(typed, "data_root", None) else found


def not_a_folder(out: Path) -> Path:
    """The file to write. Raises InputError where there is a folder of that name."""
    if out.is_dir():
        raise InputError(f"{out} is a folder: name a file.")
    return out


def short_name(name: str) -> str:
    """A run's name as part of a file's: reproduce/mnist_sep -> mnist_sep."""
    return name.rpartition("/")[2] or name
