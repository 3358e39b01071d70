"""What is waited for besides training, and how much memory it takes: `python benchmarks/start_up.py`.

Needs the files of MNIST and CIFAR-10 in data/. Writes start_up.json, from which table.py writes README.md's lines.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
from worker import peak_mb

from parsimony import runs
from parsimony.runs import PROJECT

FOUND = Path(__file__).with_name("start_up.json")
SHORT = ("trainer=cpu", "trainer.max_epochs=1", "data.train_images=3000", "data.validation=0")
STARTED = "START_UP_STARTED"  # the time at which the command was given


class Watch(pl.Callback):
    """Prints a line of JSON: seconds from the command to the end of the first step, of a test, peak memory."""

    first_step: float | None = None

    def on_train_batch_end(self, *arguments: Any) -> None:
        if self.first_step is None:
            self.first_step = time.time() - float(os.environ[STARTED])

    def on_test_epoch_start(self, *arguments: Any) -> None:
        self.test_started = time.perf_counter()

    def on_test_epoch_end(self, *arguments: Any) -> None:  # what comes after it are pictures
        seconds = time.perf_counter() - self.test_started
        print(json.dumps({"first_step": self.first_step, "test": seconds, "peak_mb": peak_mb()}), flush=True)


def watched(network: str) -> dict[str, float]:
    """One short run of `network` on its own data set."""
    with tempfile.TemporaryDirectory() as folder:
        watch = ("allow_targets=[start_up]", "+callbacks.watch._target_=start_up.Watch")
        command = [sys.executable, "train.py", f"model={network}", *SHORT, *watch, f"hydra.run.dir={folder}/run"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), STARTED: str(time.time())}
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        sys.exit(f"The run of {network} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return json.loads(lines[0])


def helped() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "train.py", "--help"], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(rounds: int = 5) -> dict[str, Any]:
    """Medians of seconds and, of 10**6 bytes, the most that a training held."""
    helps, sep = [helped() for _ in range(rounds)], [watched("mnist_sep") for _ in range(rounds)]
    return {
        "machine": runs.cpu_name(),
        "date": time.strftime("%Y-%m-%d"),
        "rounds": rounds,
        "help": median(helps),
        "first_step": median(run["first_step"] for run in sep),
        "test": median(run["test"] for run in sep),
        "peak_mb": watched("cifar_sep")["peak_mb"],
    }


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    FOUND.write_text(json.dumps(measure(), indent=1) + "\n")
    print(FOUND.read_text(), end="")
