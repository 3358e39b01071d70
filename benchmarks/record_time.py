"""Times a record from the command to the prompt: `python benchmarks/record_time.py`, with nothing beside it.

Needs MNIST's files in data/. Writes results/record_time.json, from which `make results` writes docs/records.md's lines.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from parsimony import runs
from parsimony.published.rows import TIME
from parsimony.runs import PROJECT, finished

RECORD = "mnist_5_epochs"


def timed(seed: int) -> dict[str, float]:
    """One whole command on all cores: Python's start, training and test."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", f"experiment=record/{RECORD}", f"seed={seed}"]
        started = time.perf_counter()
        done = subprocess.run([*command, f"hydra.run.dir={folder}"], cwd=PROJECT, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        result = finished(Path(folder))
    if done.returncode or not result or not result.final or not result.final.test:
        sys.exit(f"The run of seed {seed} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return {"seed": seed, "seconds": seconds, "accuracy": result.final.test["accuracy"]}


def measure(seeds: int = 3) -> dict[str, Any]:
    return {
        "record": RECORD,
        "machine": runs.cpu_name(),
        "date": time.strftime("%Y-%m-%d"),
        "runs": [timed(seed) for seed in range(seeds)],
    }


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    runs.replace_file(TIME, json.dumps(measure(), indent=1) + "\n")
    print(TIME.read_text(), end="")
