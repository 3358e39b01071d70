"""One run, from what its folder holds."""

import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from parsimony.config import leaves, printable
from parsimony.report.events import Log
from parsimony.report.tags import IMAGES_PER_SECOND, meaning
from parsimony.resume import MAY_CHANGE, default_settings
from parsimony.runs import Result

# Of a config: where it ran, what it was called and how it was watched, not what it trained.
PLACES = {"folder", "resume", "name", "logger", "budget", "sweep"}
PLACES_INSIDE = {"root", "dirpath", "save_dir", "default_root_dir", "log_every_n_steps"}
WATCHERS = re.compile(r"callbacks\.(best|last|learning_rate|progress|pictures)\.")
SEEDS = {"seed", "random_seed", "random_state"}

ALIVE = 600.0  # seconds since the last event within which a run without an end counts as running

Points = dict[float, float]  # x -> value


@dataclass
class Run:
    """One training. Accuracies are from 0 to 1; `ended` is true where the last epoch logged is the last to come."""

    name: str  # "" where its hyperparameters say what it is
    path: str
    status: str
    ended: bool
    seed: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)  # dotted key -> value; empty: not known
    overrides: list[str] = field(default_factory=list)
    series: dict[str, Points] = field(default_factory=dict)  # tags.meaning -> points
    unit: str = "epoch"  # of the points' x; "step" where nothing says at which step an epoch ends
    final: dict[str, float] = field(default_factory=dict)  # "validation/accuracy" and so on, at the last epoch
    best: float | None = None  # validation accuracy at its best epoch
    epochs: int | None = None
    parameters: int | None = None
    images_per_second: float | None = None
    evaluated_on: str | None = None  # what each epoch was scored on, in the words of result.json
    data: str | None = None
    files: str | None = None  # the data's name; for a copy with the beginning of its checksum; None: not known
    written: float = 0.0  # when its event files were last written to: seconds since 1970


def our_run(path: str, result: Result, parts: dict[str, Log]) -> Run:
    """A run with a result.json. The curves are those of the event files; without them, of the history."""
    series, unit = _series(parts)
    for entry in [] if series else result.history:
        for tag, value in entry.items():
            if (what := meaning(tag)) and value is not None:  # null: it was no number
                series.setdefault(what, {})[entry["epoch"]] = value
    final = {}
    for split in ("train", "validation", "test"):
        for metric, value in (getattr(result.final, split, None) or {}).items():
            if value is not None:
                final[f"{split}/{metric}"] = value
    return Run(
        name=result.name,
        path=path,
        status=result.status,
        ended=result.status == "completed",
        seed=result.seed,
        hyperparameters=_what_was_trained(result.config),
        overrides=result.overrides,
        series=series,
        unit=unit,
        final=final,
        best=result.best_validation_accuracy,
        epochs=result.epochs,
        parameters=result.parameters.get("total"),
        images_per_second=result.images_per_second,
        evaluated_on=result.validation,
        data=result.data.get("name"),
        files=_files(result.data),
        written=_written(parts),
    )


def other_run(path: str, folder: Path, parts: dict[str, Log], warnings: list[str]) -> Run:
    """A run without a result.json: one of ours that has not come to its end, or another program's."""
    series, unit = _series(parts)
    accuracies = series.get("validation/accuracy", {}).values()
    last = {what: points[max(points)] for what, points in series.items() if what.endswith(("accuracy", "loss"))}
    epochs = max((max(points) for what, points in series.items() if not what.startswith("test/")), default=0)
    pace = list(series.get(IMAGES_PER_SECOND, {}).values())
    run = Run(
        name=path,
        path=path,
        status="event files only",
        ended=True,
        series=series,
        unit=unit,
        final={what.removeprefix("watched "): value for what, value in last.items() if np.isfinite(value)},
        best=max(filter(np.isfinite, accuracies), default=None),
        epochs=int(epochs) if unit == "epoch" else None,
        images_per_second=median(pace) if pace else None,
        written=_written(parts),
    )
    age = time.time() - run.written
    config = _yaml(folder / "config.yaml", warnings)
    trainer, data = config.get("trainer"), config.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if {"name", "folder", "seed"} <= config.keys() and isinstance(trainer, dict) and isinstance(source, dict):
        run.name, run.seed = printable(config["name"]), config["seed"]
        run.hyperparameters = _what_was_trained(config)
        run.data = source.get("name")
        run.ended = False
        run.status = f"{'still running' if age < ALIVE else 'broke off'}: epoch {run.epochs or 0} of "
        run.status += f"{trainer.get('max_epochs')}, last written {_duration(age)} ago"
        return run
    logged = next((log.hyperparameters for log in parts.values() if log.hyperparameters), None)
    logged = logged or _yaml(folder / "hparams.yaml", warnings)
    hyperparameters = dict(leaves(logged)) if logged else {}
    for key in [key for key in hyperparameters if _last(key) in SEEDS]:
        run.seed = hyperparameters.pop(key)
    run.hyperparameters = {key: value for key, value in hyperparameters.items() if _last(key) not in PLACES_INSIDE}
    run.name = "" if run.hyperparameters else path
    if age < ALIVE:
        warnings.append(f"{path}: written to {_duration(age)} ago, so it may still be running")
    return run


def _written(parts: dict[str, Log]) -> float:
    return max((log.written for log in parts.values()), default=0.0)


def _files(data: dict[str, Any]) -> str | None:
    if not data.get("sha256") or data.get("publisher"):
        return data.get("name")
    checksum = hashlib.sha256(json.dumps(data["sha256"], sort_keys=True).encode()).hexdigest()
    return f"{data.get('name')}, {checksum[:8]}"


def _series(parts: dict[str, Log]) -> tuple[dict[str, Points], str]:
    """What the logs of a run hold, and the unit of x. Of several tags that mean the same, the shortest."""
    candidates: dict[str, list[tuple[int, str, dict[int, float]]]] = {}
    ends = {-1: 0.0}  # the last step of an epoch -> epochs done
    for part, log in parts.items():
        for tag, points in log.scalars.items():
            if points and (what := meaning(tag, part)):
                candidates.setdefault(what, []).append((len(tag), tag, points))
        last_steps = {epoch: step for step, epoch in sorted(log.scalars.get("epoch", {}).items()) if 0 <= epoch < 1e9}
        ends.update({step: epoch + 1 for epoch, step in last_steps.items()})
    accuracies = [found for what, found in candidates.items() if what.endswith("accuracy")]
    percentages = any(value > 1 + 1e-6 for *_, points in chain(*accuracies) for value in points.values())
    known = sorted(ends)
    series: dict[str, dict[str, Points]] = {"epoch": {}, "step": {}}
    for what, found in candidates.items():
        _, tag, points = min(found, key=lambda candidate: candidate[:2])
        steps, values = list(points), np.array(list(points.values()))
        if percentages and what.endswith("accuracy"):
            values = values / 100
        unit = "epoch"
        if len(known) > 1:
            last, epochs = known[-1], ends[known[-1]]
            later = last + 1000 * (last + 1) / epochs  # an epoch that has not ended takes as long as those before it
            x = np.interp(steps, [*known, later], [*(ends[step] for step in known), epochs + 1000]).round(4).tolist()
        elif tag.startswith("epoch_"):  # Keras counts epochs, from 0
            x = [step + 1.0 for step in steps]
        else:
            x, unit = list(map(float, steps)), "step"
        series[unit][what] = dict(sorted(zip(x, values.tolist(), strict=True)))
    # One for all: what is counted otherwise than most accuracies is left out.
    unit = max(series, key=lambda unit: (sum(what.endswith("accuracy") for what in series[unit]), len(series[unit])))
    return series[unit], unit


def _what_was_trained(config: dict[str, Any]) -> dict[str, Any]:
    """By dotted keys. Those that came after the run have their defaults, so that it is one setting with later runs."""
    values = {**default_settings(), **dict(leaves(config))} if config else {}
    return {key: value for key, value in values.items() if not _is_beside_the_point(key)}


def _is_beside_the_point(key: str) -> bool:
    beside = key.partition(".")[0] in PLACES | SEEDS or _last(key) in PLACES_INSIDE
    return beside or key in MAY_CHANGE or WATCHERS.match(key) is not None


def _last(key: str) -> str:
    return key.replace("/", ".").rpartition(".")[2]


def _yaml(path: Path, warnings: list[str]) -> dict[str, Any]:
    """Empty where there is none, or no mapping in it."""
    try:
        content = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return _plain(content) if isinstance(content, dict) else {}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:  # a node may hold itself
        warnings.append(f"{path} cannot be read: {str(error).splitlines()[0]}")
        return {}


def _plain(node: Any) -> Any:
    """As JSON could hold it: YAML knows other keys than texts, and dates and sets."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, set):
        return sorted(map(str, node))
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    return node if node is None or isinstance(node, str | int | float) else str(node)


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
