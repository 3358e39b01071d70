"""The records: what a small budget allows, what each part of a recipe adds to it, and accuracy against parameters.

`python -m parsimony.published` (make results) writes docs/records.md and its picture from this.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from omegaconf import OmegaConf

from parsimony.noise import of_mean
from parsimony.published import RESULTS, Row, read_runs, spread
from parsimony.report.plots import COLOURS, GREY, STYLE, error, label_points, log_ticks, pareto_front, scale

Records = dict[str, dict[str, Any]]
TIME = RESULTS / "record_time.json"  # written by benchmarks/record_time.py


def records() -> Records:
    """results/records.yaml: its comments say what each key is."""
    found: Any = OmegaConf.to_container(OmegaConf.load(RESULTS / "records.yaml"))
    return found


def record_rows(results: Path = RESULTS) -> list[Row]:
    return [
        Row(
            name,
            read_runs(results / "record" / name),
            record["seeds"],
            reported=record["aim"],
            source=record["budget"],
            note=record.get("note", ""),
            group="record",
        )
        for name, record in records().items()
    ]


def ablation_rows(results: Path = RESULTS) -> list[Row]:
    """Each record's recipe with one change at a time."""
    return [
        Row(
            name,
            read_runs(results / "ablation" / name / change),
            record["ablation_seeds"],
            group="record",
            change=change,
            overrides=tuple(overrides),
        )
        for name, record in records().items()
        for change, overrides in record.get("ablations", {}).items()
    ]


def record_table(rows: Sequence[Row]) -> str:
    lines = [
        "| record | within | aim | parameters (trainable) | MACs | epochs | ours: mean ± sd (runs) | | each, by seed |",
        "|---|---|--:|--:|--:|--:|--:|---|---|",
    ]
    for row in rows:
        cells = [f"`{row.network}`", row.source, f"{row.reported:.2f} %"]
        if row.runs:
            run = row.runs[0]
            size = f"{run.parameters['total']:,} ({run.parameters['trainable']:,})"
            verdict = row.verdict.replace("beaten by", "exceeded by").replace("met", "reached")
            each = " ".join(f"{accuracy:.2f}" for accuracy in row.accuracies())
            cells += [size, f"{run.macs:,}", str(run.epochs), spread(row.accuracies()), verdict, each]
        else:
            cells += ["-", "-", "-", "not run yet", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ablation_table(rows: Sequence[Row], ablations: Sequence[Row]) -> str:
    """What one change does to each record, in points, over the seeds that both have."""
    lines = [
        "| record | change | by | parameters | test accuracy: mean ± sd (runs) | difference, seed by seed: 95 % |",
        "|---|---|---|--:|--:|--:|",
    ]
    for row in rows:
        changed = [ablation for ablation in ablations if ablation.network == row.network and ablation.runs]
        whole = {run.seed: accuracy for run, accuracy in zip(row.runs, row.accuracies(), strict=True)}
        if changed and whole:
            lines.append(f"| `{row.network}` | none | | {_size(row):,} | {spread([*whole.values()])} | |")
        for ablation in changed:
            found = {run.seed: accuracy for run, accuracy in zip(ablation.runs, ablation.accuracies(), strict=True)}
            both = [found[seed] - whole[seed] for seed in found.keys() & whole.keys()]
            difference = f"{statistics.mean(both):+.2f}" if both else "-"
            if len(both) > 1:
                difference += f" ± {of_mean(both):.2f}"
            by = f"`{' '.join(ablation.overrides)}`"
            cells = [_change(ablation), by, f"{_size(ablation):,}", spread([*found.values()]), difference]
            lines.append(f"| | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else "Not run yet."


def _change(ablation: Row) -> str:
    return ablation.change.replace("_", " ")


def _size(row: Row) -> int:
    return row.runs[0].parameters["total"]


def time_table(path: Path) -> str:
    """Seconds from the command to the prompt, against the record's aim."""
    if not path.exists():
        return "Not measured yet."
    found = json.loads(path.read_text())
    seconds = [run["seconds"] for run in found["runs"]]
    accuracies = [100 * run["accuracy"] for run in found["runs"]]
    aim, median = records()[found["record"]]["seconds"], statistics.median(seconds)
    return "\n".join(
        [
            f"On {found['machine']}, {found['date']}, with nothing beside it:",
            "",
            "| record | median | aim | each | test accuracy: mean ± sd (runs) |",
            "|---|--:|--:|---|--:|",
            f"| `{found['record']}` | {median:.0f} s | {aim} s | {' '.join(f'{each:.0f}' for each in seconds)} "
            f"| {spread(accuracies)} |",
        ]
    )


def public() -> list[dict[str, Any]]:
    """What others have published, in results/public.yaml."""
    found: Any = OmegaConf.to_container(OmegaConf.load(RESULTS / "public.yaml"))
    return found


def pareto(task: str, rows: Sequence[Row]) -> Figure:
    """Accuracy against parameters of `task` (mnist or cifar): our means over seeds, the originals, public figures.

    Of the ablations those that change a record's size. The line is the Pareto front of ours.
    """
    drawn = [row for row in rows if row.runs and row.network.startswith(task)]
    whole = {_size(row) for row in drawn if not row.change}
    drawn = [row for row in drawn if not row.change or _size(row) not in whole]
    ours = [(_size(row), statistics.mean(row.accuracies()) / 100, row) for row in drawn]
    originals = [
        (parameters, row.reported / 100)
        for parameters, _, row in ours
        if row.group == "reproduce" and row.reported and not row.network.endswith("_plus")
    ]
    others = [(entry["parameters"], entry["accuracy"] / 100) for entry in public() if entry["task"] == task]
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    _scatter(axes, others, "public, single runs, some picked by their best test epoch", "s", GREY)
    _scatter(axes, originals, "the originals, single runs", "^", COLOURS[1])
    _scatter(axes, [point[:2] for point in ours], "ours, means over seeds, final epoch", "o", COLOURS[0])
    axes.set_xscale("log")
    log_ticks(axes.xaxis, [parameters for parameters, *_ in [*ours, *originals, *others]])
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set(xlabel="parameters", ylabel="test accuracy (%)")
    scale(axes, errors=True)
    names = [f"{row.network}, {_change(row)}" if row.change else row.network for row in drawn]
    places = [(parameters, float(error(accuracy))) for parameters, accuracy, _ in ours]
    front = pareto_front(places)
    if front:
        axes.step(*zip(*front, strict=True), where="post", color=COLOURS[0], linewidth=1, label="their Pareto front")
    label_points(axes, dict(zip(places, names, strict=True)), first=front)
    figure.legend(loc="outside lower center", ncols=1, fontsize=9)
    return figure


def _scatter(axes: Axes, points: Sequence[tuple[int, float]], label: str, marker: str, colour: str) -> None:
    if points:
        parameters, accuracies = zip(*points, strict=True)
        errors = [float(error(accuracy)) for accuracy in accuracies]
        axes.plot(parameters, errors, marker, color=colour, label=label, markersize=6)


def save_pareto(task: str, rows: Sequence[Row], path: Path) -> None:
    with rc_context(STYLE):
        pareto(task, rows).savefig(path, metadata={"Date": None})
