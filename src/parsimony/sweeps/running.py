"""A sweep that runs: its folder is held against other processes, and a line is printed after each run.

What is known of a run is read from its result.json, whoever runs it and wherever.
"""

import shlex
import signal
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any, NoReturn

from filelock import FileLock, Timeout

from parsimony.config import override_key, to_type
from parsimony.errors import InputError
from parsimony.interrupts import raise_again, remove_made
from parsimony.runs import Result, counted, curves
from parsimony.sweeps.plan import Plan

MOST_REASONS = 3  # told in a sweep's last line; every result.json has its own


class Sweep:
    """A sweep that runs: holds its folder against other processes, prints a line after each run and one at the end."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        self.lock = FileLock(folder / ".lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"Another process runs the sweep {folder}: wait for its end.") from None
        plan.write(folder)
        raise_again()
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # as Ctrl-C: its runs are told to stop
        self.written: dict[Path, int] = {}  # when each result.json was written
        # Of the runs that have ended: those of an earlier process that completed, and all of this one.
        self.results = {path: result for path, result in self._new_results() if result.status == "completed"}
        self.before = len(self.results)
        self.began = time.monotonic()
        at_once = f", {plan.at_once} at once" if plan.at_once else ""
        complete = f"; {self.before} complete already" if self.before else ""
        print(f"sweep of {counted(plan.runs, 'run')}{at_once} in {folder}{complete}", flush=True)
        self.end = Event()
        self.watcher = Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def ended(self) -> None:
        """Its last line; exits with code 1 where a run failed."""
        self._close()
        completed = self._completed()
        if failed := self.plan.runs - len(completed):
            sys.exit(f"error: {failed} of {self.plan.runs} runs failed: {self._reasons()}. Results in {self.folder}")
        took = _duration(time.monotonic() - self.began)
        parts = [f"{counted(len(completed), 'run')} completed in {took}", best_figure(self.plan, completed)]
        print(" | ".join(filter(None, parts)))
        print(f"results in {self.folder}{curves(self.folder)}", flush=True)

    def stopped(self, code: Any) -> NoReturn:
        """By Ctrl-C or a signal."""
        self._close()
        print(f"\nstopped with {len(self._completed())} of {self.plan.runs} runs completed. {self._how_to_go_on()}")
        sys.exit(code)

    def failed(self, error: Exception) -> None:
        """Where Hydra's sweeper or launcher gave up; what is no matter of the runs is left to the caller."""
        self._close()
        if not any(path.is_dir() for path in self.folder.iterdir()):  # the runs could not be composed
            for path in self.folder.iterdir():
                path.unlink()
            remove_made()
        elif type(error).__module__.partition(".")[0] in ("joblib", "submitit"):
            why = str(error).partition("\n")[0].rstrip(".")
            sys.exit(f"error: the launcher lost a run: {why}. {self._how_to_go_on()}")
        elif self.results and not self._completed():  # nothing for a sweeper to choose from
            self.ended()

    def _how_to_go_on(self) -> str:
        command = f"{shlex.join(self.plan.command)} {to_type('sweep.resume', self.folder)}"
        return f"To go on: python train.py -m {command}"

    def _close(self) -> None:
        self.end.set()
        self.watcher.join()
        self._tell()

    def _watch(self) -> None:
        while not self.end.wait(0.5):
            self._tell()

    def _tell(self) -> None:
        for path, result in self._new_results():
            self.results[path] = result
            accuracy, outcome = result.best_validation_accuracy, " ".join(result.status.split())
            if outcome == "completed" and accuracy is not None:
                outcome = f"{100 * accuracy:.2f} %"
            setting = " ".join(self.plan.setting(result.overrides))
            parts = [
                f"{len(self.results)}/{self.plan.runs}",
                outcome,
                setting,
                best_figure(self.plan, self._completed()),
                self._left(),
            ]
            print("  ".join(filter(None, parts)), flush=True)

    def _new_results(self) -> Iterator[tuple[Path, Result]]:
        """Those written since the last call."""
        for path in sorted(self.folder.glob("*/result.json")):
            try:
                written = path.stat().st_mtime_ns
                if self.written.get(path) != written:
                    result = Result.read(path)
                    self.written[path] = written
                    yield path, result
            except (OSError, InputError):
                continue  # gone, as that of a run that has begun again, or damaged: then it will run again

    def _completed(self) -> list[Result]:
        return [result for result in self.results.values() if result.status == "completed"]

    def _left(self) -> str:
        """By the runs that trained: one that is refused takes no time."""
        trained = sum(result.epochs > 0 for result in self.results.values()) - self.before
        left = self.plan.runs - len(self.results)
        return f"{_duration((time.monotonic() - self.began) / trained * left)} left" if trained and left > 0 else ""

    def _reasons(self) -> str:
        """Why runs failed: each reason once, with the run that gave it first."""
        reasons: dict[str, str] = {}
        for path, result in self.results.items():
            if result.status != "completed":
                why = " ".join(result.status.removeprefix("failed: ").split()).rstrip(".")
                reasons.setdefault(why, path.parent.name)
        told = [f"{reason} ({run})" for reason, run in reasons.items()]
        if silent := self.plan.runs - len(self.results):
            told.append(f"{silent} left no result.json")
        return "; ".join(
            told[:MOST_REASONS] + [f"and {len(told) - MOST_REASONS} other reasons"] * (len(told) > MOST_REASONS)
        )


def best_figure(plan: Plan, completed: Iterable[Result]) -> str:
    """The validation accuracy of the best setting so far, and which that is. "" where no run has one.

    Where seeds are swept it is their mean: among them is nothing to choose.
    """
    settings: dict[str, list[float]] = {}
    for run in completed:
        if run.best_validation_accuracy:
            changed = [text for text in plan.setting(run.overrides) if override_key(text) != "seed"]
            settings.setdefault(" ".join(changed), []).append(100 * run.best_validation_accuracy)
    if not settings:
        return ""
    best = max(settings, key=lambda setting: statistics.mean(settings[setting]))
    scores = settings[best]
    spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    figure = f"{statistics.mean(scores):.2f}{spread} %"
    if "seed" in plan.swept:
        figure = f"mean {figure} (n={len(scores)})"
    return f"best {figure}: {best}" if best else figure


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
