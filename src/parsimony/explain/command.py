"""`parsimony explain`: a trained network explained on itself, as a page in its run's folder."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from parsimony.checkpoints import LAST
from parsimony.errors import InputError


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="parsimony explain",
        description="What convolution, kernels, epochs, 1x1 and 3x3 convolution, feature maps, activation and\n"
        "receptive field are, shown on the network that a run trained: one HTML page that needs nothing beside it.",
        epilog="example:\n  parsimony explain runs/mnist_sep/TIME",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--picture", type=int, metavar="N", help="which test image, from 0; default: the first answered rightly"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; default: explain.html in RUN")
    parser.add_argument("--checkpoint", default=LAST, metavar="NAME", help=f"in RUN/checkpoints; default: {LAST}")
    typed = parser.parse_args(arguments)
    out = typed.out or typed.run / "explain.html"
    if out.is_dir():
        raise InputError(f"{out} is a folder: name a file for the page.")
    path = explain(typed.run, out, typed.picture, typed.checkpoint)
    print(f"written: {path}")


def explain(folder: Path, out: Path, picture: int | None = None, checkpoint: str = LAST) -> Path:
    """Writes the page of the run in `folder`. Raises InputError for what is no trained run or no test image."""
    from parsimony.trained import load

    trained = load(folder, checkpoint)
    from parsimony.explain.page import page  # matplotlib and Lightning, which bad input need not wait for
    from parsimony.explain.sections import sections

    text = page(f"What {trained.name} learned", sections(trained, picture))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    return out
