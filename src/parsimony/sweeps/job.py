"""One run of a sweep: `python train.py` in a process of its own.

So it trains as the same command does alone, bit for bit, and takes no other run with it when it crashes. Its threads,
its GPU and its DDP processes are its own.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from parsimony.config import check, override_key, quoted
from parsimony.errors import InputError
from parsimony.runs import PROJECT, Result, cores, finished, refusal_recorded
from parsimony.sweeps.plan import Plan, override_texts
from parsimony.sweeps.sharing import gpus, share, slot

GRACE = 30.0  # seconds for a run that was told to stop
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def in_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def train_apart(cfg: DictConfig) -> float | None:
    """The best validation accuracy of the run that `cfg` describes; None where it failed: result.json says why.

    A run that is complete is left as it is, one that broke off goes on.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if result := finished(folder):
        return result.best_validation_accuracy
    with suppress(InputError), refusal_recorded(cfg):
        check(cfg)
        (folder / "result.json").unlink(missing_ok=True)  # an earlier attempt's
        typed = override_texts(HydraConfig.get().overrides.task)
        overrides = [override for override in typed if override_key(override).partition(".")[0] != "sweep"]
        code, error = _run(overrides, folder)
        if not (folder / "result.json").exists():
            ended = f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
            why = error or f"its process {ended}; its output.log may say more"
            Result(str(cfg.name), overrides, cfg.seed, status=f"failed: {why}").write(folder)
    result = finished(folder)
    return result.best_validation_accuracy if result else None


def take_out_sweep(cfg: DictConfig) -> None:
    """A run's own config says nothing of the sweep it may belong to."""
    if cfg.sweep.resume is not None:
        raise InputError("sweep.resume goes on with a sweep: add -m, and the rest of the command that began it.")
    with open_dict(cfg):
        del cfg["sweep"]


def _run(overrides: Sequence[str], folder: Path) -> tuple[int, str]:
    """The exit code of `python train.py OVERRIDES` with its run in `folder`, and the error that it told of, if any."""
    plan = Plan.read(folder.parent)
    command = [
        sys.executable,
        str(PROJECT / "train.py"),
        *overrides,
        "hydra.mode=RUN",
        f"hydra.run.dir={quoted(folder)}",
    ]
    environment, mine = dict(os.environ), cores()
    with ExitStack() as stack:
        if plan.at_once:
            if plan.pid == os.getppid():
                _end_with_parent()  # a launcher's worker, which would outlive the sweep
            number = stack.enter_context(slot(folder.parent, plan.at_once))
            mine = share(mine, number, plan.at_once)
            if cards := gpus(environment):
                environment["CUDA_VISIBLE_DEVICES"] = cards[number % len(cards)]
        log = stack.enter_context((folder / "output.log").open("a+", encoding="utf-8", errors="replace"))
        began = log.tell()
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, process_group=0, preexec_fn=_prepare(mine)
        )
        code = _wait(process)
        log.seek(began)
        errors = [line for line in log.read().splitlines() if line.startswith("error: ")]
    return code, errors[-1].removeprefix("error: ") if errors else ""


def _prepare(mine: Sequence[int]) -> Callable[[], None]:
    """What a new process does first."""

    def prepare() -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, mine)
        _end_with_parent()

    return prepare


def _end_with_parent() -> None:
    """Has Linux kill this process when the one that started it ends, in whatever way."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Its exit code. It has a process group of its own, so that Ctrl-C reaches it once: from here."""
    try:
        return process.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(GRACE)
            except BaseException:  # it hangs, or Ctrl-C came a second time
                os.killpg(process.pid, signal.SIGKILL)
        raise
