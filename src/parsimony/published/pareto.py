"""The picture of accuracy against parameters: ours, the originals', and what others have published."""

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from omegaconf import OmegaConf

from parsimony.published.rows import RESULTS, Row
from parsimony.report.plots import COLOURS, GREY, error, label_points, log_ticks, pareto_front, scale


def public() -> list[dict[str, Any]]:
    """What others have published, in results/public.yaml."""
    found: Any = OmegaConf.to_container(OmegaConf.load(RESULTS / "public.yaml"))
    return found


def pareto(task: str, rows: Sequence[Row]) -> Figure:
    """Accuracy against parameters of `task` (mnist or cifar): our means over seeds, the originals, public figures.

    Of the ablations those that change a record's size. The line is the Pareto front of ours.
    """
    drawn = [row for row in rows if row.runs and row.network.startswith(task)]
    whole = {row.parameters for row in drawn if not row.change}
    drawn = [row for row in drawn if not row.change or row.parameters not in whole]
    ours = [(row.parameters, statistics.mean(row.accuracies()) / 100, row) for row in drawn]
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
    names = [f"{row.network}, {row.change.replace('_', ' ')}" if row.change else row.network for row in drawn]
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
