"""Trains the published recipes, the records and their ablations, several runs at a time, one thread each.

What results/ holds already is skipped; a run that broke off goes on. `make reproduce` runs them all.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from parsimony.errors import InputError
from parsimony.published.rows import RESULTS, Row, ablation_rows, changes, record_rows, rows
from parsimony.runs import PROJECT, Result, cores, finished, replace_file
from parsimony.sentences import one_sentence_errors

_processes: list[subprocess.Popen[bytes]] = []  # the trainings, those that have ended too


def missing(row: Row, results: Path) -> list[int]:
    """The seeds of `row` whose result is not there. Raises InputError for one that another recipe made."""
    for run in row.runs:
        if changed := changes(run, row):
            path = results / row.name / f"seed-{run.seed}.json"
            raise InputError(f"{path} was made by another recipe ({', '.join(changed)}): remove it to train it again.")
    return sorted(set(range(row.seeds)) - {run.seed for run in row.runs})


def folder_of(name: str, seed: int) -> Path:
    return PROJECT / "runs" / name / f"seed-{seed}"


def end(number: int, frame: FrameType | None) -> NoReturn:
    """Ends the trainings too, which would else go on alone; each keeps the epochs it has."""
    for process in _processes:
        process.send_signal(number)
    sys.exit(128 + number)


def trained(experiment: str, seed: int, *overrides: str, name: str) -> Result | None:
    """The run of a process of its own, which may go on with one that broke off; None if it failed."""
    folder = folder_of(name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    keys = (f"experiment={experiment}", f"name={name}", *overrides, f"seed={seed}", "engine.threads=1")
    with (folder / "output.log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "train.py", *keys]
        with subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log, env=environment) as process:
            _processes.append(process)
    result = finished(folder)
    if process.returncode or not result:
        print(f"{name} seed {seed} failed: {folder / 'output.log'} says why", flush=True)
        return None
    return result


def train_teachers(rows: Iterable[Row]) -> None:
    """Those that `rows` learn from, where they are not there. One that fails is told; its row's runs then fail too."""
    for name, seed in sorted({row.teacher for row in rows if row.teacher}):
        if not finished(folder_of(name, seed)):
            trained(name, seed, name=name)


def train(row: Row, seed: int, results: Path) -> bool:
    """Trains one run and copies its result.json; false if it failed or read other data."""
    result = trained(row.experiment, seed, *row.overrides, name=row.name)
    if not result:
        return False
    if any(run.data.get("sha256") != result.data.get("sha256") for run in row.runs):
        print(
            f"{row.name} seed {seed} was trained on other files than the runs in {results}. Name another folder with "
            "--results: what has been trained is not trained again.",
            flush=True,
        )
        return False
    target = results / row.name / f"seed-{seed}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, (folder_of(row.name, seed) / "result.json").read_text())
    assert result.final is not None
    assert result.final.test is not None
    print(f"{row.name} seed {seed}: {100 * result.final.test['accuracy']:.2f} %", flush=True)
    return True


def asked_for(row: Row, recipe: str) -> bool:
    """`recipe` is a network, a row's whole name or its beginning: mnist_sep, record/mnist_micro, ablation."""
    return row.name == recipe or row.name.startswith(f"{recipe}/") or (row.network == recipe and not row.change)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m parsimony.reproduce", description=__doc__)
    parser.add_argument(
        "recipes", nargs="*", help="mnist_sep, record/mnist_micro or all of a kind: record; all if none"
    )
    parser.add_argument("--seeds", type=int, help="of each network, instead of those in results/*.yaml")
    parser.add_argument("--jobs", type=int, default=len(cores()), help="trainings at a time, one thread each")
    parser.add_argument("--results", type=Path, default=RESULTS, help="another folder to begin from nothing")
    arguments = parser.parse_args()
    if any(number is not None and number < 1 for number in (arguments.jobs, arguments.seeds)):
        parser.error("--jobs and --seeds take whole numbers of at least 1")
    all_rows = [*rows(arguments.results), *record_rows(arguments.results), *ablation_rows(arguments.results)]
    chosen = [row for row in all_rows if not arguments.recipes]
    for recipe in arguments.recipes:
        found = [row for row in all_rows if asked_for(row, recipe)]
        if not found:
            parser.error(f"there is no recipe {recipe}; there are {', '.join(row.name for row in all_rows)}")
        chosen += [row for row in found if row not in chosen]
    if arguments.seeds:
        chosen = [replace(row, seeds=arguments.seeds) for row in chosen]
    left = [(row, seed, arguments.results) for row in chosen for seed in missing(row, arguments.results)]
    signal.signal(signal.SIGTERM, end)
    train_teachers(row for row, _, _ in left)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        succeeded = list(pool.map(lambda run: train(*run), left))
    sys.exit(0 if all(succeeded) else 1)


if __name__ == "__main__":
    with one_sentence_errors():
        main()
