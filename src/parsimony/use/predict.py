"""`parsimony predict`: what a trained network sees in pictures."""

import csv
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parsimony.errors import InputError
from parsimony.use import arguments as shared
from parsimony.use.picture_files import INVERT, files, read

if TYPE_CHECKING:
    from parsimony.trained import Trained

EXAMPLES = """\
  parsimony predict RUN seven.png photo.jpg         files
  parsimony predict RUN scans --format csv          every picture in a folder and below it
  find . -name '*.png' | parsimony predict RUN -    those listed on standard input, one a line
"""
AT_A_TIME = 250  # pictures; a reader of a pipe sees answers early, and a batch is large enough to be fast


@dataclass(frozen=True)
class Prediction:
    """The class of a picture, how probable it is, and how probable each class is, from 0 to 1."""

    picture: str
    answer: str
    probability: float
    inverted: bool
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be read: which and why."""

    reason: str


def main(arguments: Sequence[str]) -> None:
    parser = shared.parser(
        "predict",
        "The class of pictures of any size, mode and format, and its probability. Exits with 1 if a picture had to be\n"
        "skipped.",
        EXAMPLES,
    )
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="a file, a folder, or - for a list on standard input"
    )
    parser.add_argument("--format", choices=FORMS, default="table", help="of the answers; default: table")
    parser.add_argument(
        "--invert",
        choices=INVERT,
        default="auto",
        help="turn light and dark round, for networks of one channel; auto, the default: where the border is light",
    )
    typed = parser.parse_args(arguments)
    paths = list(files(_named(typed.pictures)))
    trained = shared.trained(typed)
    for stream in (sys.stdout, sys.stderr):  # names of files can be any bytes
        if stream:
            stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    warnings.filterwarnings("ignore", module="PIL")  # of oddities in files that can be read all the same
    print(f"{trained.name}, {trained.weights}", file=sys.stderr)
    write, inverted, skipped = FORMS[typed.format](paths), 0, 0
    for prediction in predict(trained, paths, typed.invert):
        if isinstance(prediction, Skipped):
            skipped += 1
            print(f"skipped: {prediction.reason}", file=sys.stderr)
        else:
            inverted += prediction.inverted
            write(prediction)
    if inverted:
        print(
            f"{inverted:,} of {len(paths) - skipped:,} pictures were dark on light and were inverted", file=sys.stderr
        )
    if skipped:
        sys.stdout.flush()
        sys.exit(f"{skipped:,} of {len(paths):,} pictures skipped")


def predict(trained: "Trained", paths: Sequence[Path], invert: str = "auto") -> Iterator[Prediction | Skipped]:
    """For each of `paths`, in their order, `invert` being one of INVERT."""
    import torch

    def attempt(path: Path) -> tuple[torch.Tensor, bool] | Skipped:
        try:
            pixels, inverted = read(path, trained.shape, invert)
        except InputError as error:
            return Skipped(str(error))
        return torch.from_numpy(pixels.copy()), inverted

    readers = ThreadPoolExecutor(min(4, os.cpu_count() or 1))  # Pillow decodes outside Python's lock
    for start in range(0, len(paths), AT_A_TIME):
        some = paths[start : start + AT_A_TIME]
        pictures = list(readers.map(attempt, some))
        sound = [picture[0] for picture in pictures if not isinstance(picture, Skipped)]
        with torch.inference_mode():
            answers = iter(trained.logits(torch.stack(sound)).double().softmax(1).tolist() if sound else [])
        for path, picture in zip(some, pictures, strict=True):
            if isinstance(picture, Skipped):
                yield picture
                continue
            shares = dict(zip(trained.classes, next(answers), strict=True))
            answer = max(shares, key=shares.__getitem__)
            yield Prediction(str(path), answer, shares[answer], picture[1], shares)


def _named(typed: Sequence[str]) -> Iterator[Path]:
    for name in typed:
        if name != "-":
            yield Path(name)
        elif sys.stdin is None:
            raise InputError("Standard input is closed: - needs a list of pictures there, one a line.")
        else:
            sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
            yield from (Path(line) for line in sys.stdin.read().splitlines() if line)


def _table(paths: Sequence[Path]) -> Callable[[Prediction], None]:
    width = max([len("picture"), *(len(str(path)) for path in paths)])
    print(f"{'picture':<{width}}  probability  class")

    def write(prediction: Prediction) -> None:
        note = " (inverted)" if prediction.inverted else ""
        print(f"{prediction.picture:<{width}}  {100 * prediction.probability:>9.2f} %  {prediction.answer}{note}")

    return write


def _csv(paths: Sequence[Path]) -> Callable[[Prediction], None]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["picture", "class", "probability", "inverted"])
    return lambda p: writer.writerow([p.picture, p.answer, f"{p.probability:.6f}", str(p.inverted).lower()])


def _jsonl(paths: Sequence[Path]) -> Callable[[Prediction], None]:
    def write(prediction: Prediction) -> None:
        shares = {name: round(share, 6) for name, share in prediction.probabilities.items()}
        content = {
            "picture": prediction.picture,
            "class": prediction.answer,
            "probability": round(prediction.probability, 6),
            "inverted": prediction.inverted,
            "probabilities": shares,
        }
        print(json.dumps(content))

    return write


FORMS: dict[str, Callable[[Sequence[Path]], Callable[[Prediction], None]]] = {
    "table": _table,
    "csv": _csv,
    "jsonl": _jsonl,
}
