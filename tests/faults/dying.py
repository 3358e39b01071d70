"""`python dying.py POINT OVERRIDES`: `python train.py OVERRIDES` that the power leaves at a point of its own choosing.

POINT is KIND:NAME:COUNT: in the COUNTth time that a file NAME is `half` written, `before` it is renamed to NAME or
`after` it was; or `step::COUNT`, in that training step.
"""

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from parsimony.classifier import Classifier

TRAIN = Path(__file__).parents[2] / "train.py"


def arm(point: str) -> None:
    kind, name, count = point.split(":")
    left = int(count)

    def passed(here: str, path: Path | str = "") -> bool:
        nonlocal left
        left -= here == kind and Path(path).name == name
        return left == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    fsync, replace, training_step = os.fsync, Path.replace, Classifier.training_step

    def dying_fsync(number: int) -> None:
        beside = os.readlink(f"/proc/self/fd/{number}")
        if passed("half", Path(beside).name.rpartition(".")[0].removeprefix(".")):  # .last.ckpt.PID
            os.ftruncate(number, os.fstat(number).st_size // 2)
            die()
        fsync(number)

    def dying_replace(self: Path, target: Any) -> Path:
        if passed("before", target):
            die()
        replaced = replace(self, target)
        if passed("after", target):
            die()
        return replaced

    def dying_step(self: Classifier, *arguments: Any) -> Any:
        if passed("step"):
            die()
        return training_step(self, *arguments)

    os.fsync, Path.replace, Classifier.training_step = dying_fsync, dying_replace, dying_step  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    arm(sys.argv.pop(1))
    sys.argv[0] = str(TRAIN)
    runpy.run_path(str(TRAIN), run_name="__main__")
