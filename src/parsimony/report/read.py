"""Finds the runs under folders and reads what each left: event files, result.json, config.yaml, hparams.yaml."""

import multiprocessing
import os
import re
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tensorboard.backend.event_processing.io_wrapper import IsSummaryEventsFile

from parsimony.config import printable
from parsimony.errors import InputError
from parsimony.report.events import Log, read_log
from parsimony.report.run import Run, other_run, our_run
from parsimony.report.tags import SPLIT_OF, splits
from parsimony.runs import Result, cores

POOL = 30  # folders of event files from which on several processes read them


def read_runs(tops: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Every run under the folders `tops`, and a warning for each thing that could not be read.

    Raises InputError where one of them is no folder or where there is no run.
    """
    warnings: list[str] = []
    event_files: dict[Path, list[str]] = {}
    seen: set[Path] = set()
    for top in tops:
        if not top.is_dir():
            raise InputError(f"{top} is no folder: name one that holds runs, such as runs.")
        for folder, names in _walk(top, warnings):
            if folder.resolve() not in seen:  # tops may lie in each other
                seen.add(folder.resolve())
                event_files[folder] = names
    logs = _read_logs({folder: names for folder, names in event_files.items() if names})
    warnings += [warning for log in logs.values() for warning in log.warnings]
    parts = _parts(logs)
    runs = []
    for folder in {**event_files, **parts}:
        path, run_parts = _shown(folder, tops), parts.get(folder, {})
        if run := _finished(path, folder, run_parts, warnings):
            runs.append(run)
        elif run_parts:
            runs.append(other_run(path, folder, run_parts, warnings))
    if not runs:
        where = ", ".join(map(str, tops))
        raise InputError(f"There is no run in {where}: expected TensorBoard event files or a result.json below it.")
    return runs, [printable(warning) for warning in warnings]


def _shown(folder: Path, tops: Sequence[Path]) -> str:
    """Below the only folder that was named, or else with the name that it was found by."""
    if folder in tops:
        return printable(folder.resolve().name)
    return printable(folder.relative_to(tops[0]) if len(tops) == 1 and folder.is_relative_to(tops[0]) else folder)


def _walk(top: Path, warnings: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """The folders below `top` that hold a result.json or event files, with the names of these."""
    unreadable = lambda error: warnings.append(f"{error.filename}: {error.strerror}")  # noqa: E731
    for folder, subfolders, files in os.walk(top, onerror=unreadable):
        subfolders.sort()
        event_files = sorted(filter(IsSummaryEventsFile, files))
        if event_files or "result.json" in files:
            yield Path(folder), event_files


def _read_logs(event_files: dict[Path, list[str]]) -> dict[Path, Log]:
    folders, names = event_files.keys(), event_files.values()
    if len(event_files) < POOL or len(cores()) == 1:
        return dict(zip(folders, map(read_log, folders, names), strict=True))
    with ProcessPoolExecutor(len(cores()), multiprocessing.get_context("spawn")) as pool:
        heeded = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the processes inherit: Ctrl-C ends this one alone
        logs = pool.map(read_log, folders, names, chunksize=4)
        signal.signal(signal.SIGINT, heeded)
        return dict(zip(folders, logs, strict=True))


def _parts(logs: dict[Path, Log]) -> dict[Path, dict[str, Log]]:
    """Run folder -> part -> log. A part is what a run wrote into a folder of its own; what lies in the run's own is "".

    Keras writes train/ and validation/; SummaryWriter's add_scalars("loss", {"val": ...}) a folder loss_val/, its
    add_hparams one named by the time.
    """
    runs: dict[Path, dict[str, Log]] = {}
    for folder, log in logs.items():
        parent = logs.get(folder.parent)
        named = set().union(*map(splits, log.scalars))
        keras_part = folder.name if folder.name in SPLIT_OF and named <= {SPLIT_OF[folder.name]} else None
        # SummaryWriter.add_scalars writes one tag into a folder that is called by it
        prefixes = [tag.replace("/", "_") + "_" for tag in log.scalars] if len(log.scalars) == 1 else []
        added = next((folder.name.removeprefix(p) for p in prefixes if folder.name.startswith(p)), None)
        if keras_part or (added and parent):
            runs.setdefault(folder.parent, {})[keras_part or added or ""] = log
        elif parent and log.hyperparameters and re.fullmatch(r"\d+\.\d+", folder.name):
            parent.hyperparameters.update(log.hyperparameters)
        else:
            runs.setdefault(folder, {})[""] = log
    return runs


def _finished(path: str, folder: Path, parts: dict[str, Log], warnings: list[str]) -> Run | None:
    """None without a result.json of ours."""
    try:
        return our_run(path, Result.read(folder / "result.json"), parts)
    except FileNotFoundError:
        return None
    except OSError as error:
        warnings.append(f"{folder / 'result.json'}: {error.strerror}")
    except (ValueError, TypeError, KeyError, AttributeError):  # no JSON, or that of another program
        warnings.append(f"{folder / 'result.json'} is damaged or no result of a run: it is left out")
    return None
