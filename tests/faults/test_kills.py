"""kill -9 anywhere in a run: it goes on, and ends with the weights, figures and curves of one that was left alone."""

import random
import signal
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from commands import EPOCHS, SMALL, STEPS, Ended, busy, end, run_forked, start, wait_for, wait_until_busy
from tally import tally
from test_resume import curves, last, optimizer_values, untimed

from parsimony.runs import Result

DYING = (str(Path(__file__).with_name("dying.py")),)
RUN = (*SMALL, "hydra.run.dir=run")
POINTS = {
    "half of a checkpoint written": f"half:last.ckpt:{EPOCHS // 2}",
    "before a checkpoint's place is free": "before:previous.ckpt:1",
    "after its place is free": "after:previous.ckpt:3",
    "after it is in its place": f"after:last.ckpt:{EPOCHS}",
    "half of the best checkpoint written": "half:best.ckpt:1",
    "before the result is in its place": "before:result.json:1",
    "before the config is in its place": "before:config.yaml:1",
}


KEPT = frozenset({"best.ckpt", "last.ckpt", "previous.ckpt"})


def differences(folder: Path, unbroken: Path, files: Set[str] = KEPT) -> list[str]:
    """What of a run that went on is not as in one that was never stopped."""
    ours, theirs = (Result.read(path / "result.json") for path in (folder, unbroken))
    one, other = last(folder), last(unbroken)
    same = {
        "status": (ours.status, theirs.status) == ("completed", "completed"),
        "weights": one["state_dict"].keys() == other["state_dict"].keys()
        and all(tensor.equal(other["state_dict"][name]) for name, tensor in one["state_dict"].items()),
        "optimizer": optimizer_values(one) == optimizer_values(other),
        "schedule": one["lr_schedulers"] == other["lr_schedulers"],
        "history": untimed(ours.history) == untimed(theirs.history),
        "scores": (ours.final, ours.best) == (theirs.final, theirs.best),
        "curves": curves(folder) == curves(unbroken),
        "files": {path.name for path in (folder / "checkpoints").iterdir()} == files,
    }
    return [what for what, is_same in same.items() if not is_same]


def outcome(killed: Ended, goes_on: Callable[[], Ended], folder: Path, unbroken: Path) -> str:
    """What was lost; nothing where the run was killed, goes on and ends as if it never had been."""
    if killed.code != -signal.SIGKILL:
        return f"it ended before, with {killed.code}: {killed.err[-300:]}"
    ended = goes_on()
    if ended.code != 0 or ended.traceback:
        return f"it did not go on ({ended.code}): {ended.err[-300:]}"
    return ", ".join(differences(folder, unbroken))


@pytest.mark.parametrize("point", [POINTS["half of a checkpoint written"], POINTS["after its place is free"]])
def test_a_kill_while_a_checkpoint_is_written(point: str, tmp_path: Path) -> None:
    (tmp_path / "unbroken").mkdir()
    (tmp_path / "broken").mkdir()
    assert run_forked(tmp_path / "unbroken", *RUN).code == 0
    killed = run_forked(tmp_path / "broken", point, *RUN, program=DYING)
    folders = tmp_path / "broken" / "run", tmp_path / "unbroken" / "run"
    assert outcome(killed, partial(run_forked, tmp_path / "broken", *RUN), *folders) == ""


@pytest.mark.faults
def test_kills_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(2024)
    (tmp_path / "unbroken").mkdir()
    whole = start(tmp_path / "unbroken", *RUN)
    wait_for(tmp_path / "unbroken" / "run" / "checkpoints" / "last.ckpt", whole)
    at_first = busy(whole.pid)  # seconds of processor time, so that no other load shifts the moments
    wait_until_busy(whole, 1e9)
    assert end(whole).code == 0

    def killed_at(folder: Path, moment: str | float) -> Ended:
        if isinstance(moment, str):
            return run_forked(folder, moment, *RUN, program=DYING)
        process = start(folder, *RUN)
        wait_until_busy(process, moment)
        process.kill()
        return end(process)

    moments = {f"start-up, {(seconds := chance.uniform(0, at_first)):.2f} s": seconds for _ in range(5)}
    moments |= {f"training, {(seconds := at_first + chance.uniform(0, 1)):.2f} s": seconds for _ in range(4)}
    moments |= {f"step {(step := chance.randrange(1, EPOCHS * STEPS))}": f"step::{step}" for _ in range(4)}
    moments |= POINTS

    def lost(moment: str) -> str:
        folder = tmp_path / moment
        folder.mkdir()
        killed = killed_at(folder, moments[moment])
        return outcome(killed, partial(run_forked, folder, *RUN), folder / "run", tmp_path / "unbroken" / "run")

    with (
        tally(
            "kill -9",
            "Trainings killed at 20 seeded moments: in start-up, in a step, while a checkpoint, the result or the "
            "config is written. The same command goes on; weights, figures and curves are compared bit for bit.",
        ) as counted,
        ThreadPoolExecutor(2) as pool,
    ):
        assert len(moments) == 20
        for moment, loss in zip(moments, pool.map(lost, moments), strict=True):
            kind = moment.partition(",")[0].rstrip("0123456789 ")
            counted.check(
                not loss,
                {"step": "in a step"}.get(kind, f"in {kind}") if moment not in POINTS else "in writing",
                f"{moment}: {loss}",
            )
