"""`parsimony evaluate`: how good a trained network is on a labelled split, and where it errs."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from parsimony.use import arguments as shared

EXAMPLES = """\
  parsimony evaluate runs/mnist_sep/TIME                     on the test set
  parsimony evaluate RUN --best --data validation            the best epoch, on the run's validation split
  parsimony evaluate RUN --data digits/train --tta           on another data set's training images
"""
WORST = 25


def main(arguments: Sequence[str]) -> None:
    parser = shared.parser(
        "evaluate",
        "Accuracy with its 95 % interval, precision and recall of each class, confusion matrix, calibration error and\n"
        "the worst mistakes of a trained network.",
        EXAMPLES,
    )
    parser.add_argument(
        "--data",
        default="test",
        metavar="NAME/SPLIT",
        help="a data set, a split (train, validation or test) or both; by default the run's own test set",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="average over views: in grey the image moved by a pixel each way, in colour its mirror image",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="for pictures and JSON; by default in RUN/evaluation"
    )
    shared.add_data_root(parser)
    typed = parser.parse_args(arguments)
    trained = shared.trained(typed)

    from parsimony import pictures  # matplotlib, which a mistake in the arguments does without
    from parsimony.runs import replace_file
    from parsimony.use.data import split_of
    from parsimony.use.evaluation import score
    from parsimony.use.scores import losses

    data, split = split_of(trained, typed.data)
    evaluation, answers = score(trained, data, split, averaged=typed.tta)
    content = json.dumps(asdict(evaluation), indent=1, ensure_ascii=False)
    kind = "-".join([re.sub(r"\W+", "-", data), *(["best"] if typed.best else []), *(["tta"] if typed.tta else [])])
    out = typed.out or typed.run / "evaluation" / kind
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "evaluation.json", f"{content}\n")
    guesses = answers.argmax(1)
    pictures.confusion_matrix(split.labels, guesses, trained.classes).savefig(out / "confusion.png", dpi=150)
    written = ["evaluation.json", "confusion.png"]
    wrong = int((guesses != split.labels).sum())
    (out / "mistakes.png").unlink(missing_ok=True)
    if shown := min(WORST, wrong):
        lost = losses(answers, split.labels)
        worst = pictures.worst_mistakes(
            split.images / 255, split.labels, guesses, lost, classes=trained.classes, count=shown
        )
        worst.savefig(out / "mistakes.png", dpi=150)
        written.append(f"mistakes.png (the worst {shown} of {wrong:,})")

    print(content if typed.json else evaluation.text())
    print(f"\nwritten to {out}: {', '.join(written)}", file=sys.stderr if typed.json else sys.stdout)
