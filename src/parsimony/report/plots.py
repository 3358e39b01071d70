"""The report's pictures: curves, heat map, accuracy against parameters, learning rate and speed."""

import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from parsimony.report.settings import Setting, by_data, rivals, short, shown
from parsimony.report.tags import IMAGES_PER_SECOND, LEARNING_RATE

INK, PAPER = "#1c1d21", "#fefefe"  # of text and axes, and of what is behind them: the page puts its own instead
GREY = "#9a9a9a"
# Okabe and Ito's colours, which the colour-blind tell apart; without yellow, too faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: Any = ("-", "--")
NAMED = len(COLOURS) * len(DASHES)  # settings with a colour of their own
LEAST_ERROR = 1e-4
STYLE: Any = {
    "text.parse_math": False,  # a run may be called $x
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GREY,
    "grid.alpha": 0.3,
    "font.size": 10,
    "legend.frameon": False,
    "svg.hashsalt": "parsimony",  # the same picture is the same file
}


def draw(settings: Sequence[Setting], folder: Path) -> dict[str, str]:
    """Writes every picture that `settings` allow into `folder` as PNG and SVG: name -> SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands for it
        for name, figure in figures(settings).items():
            figure.savefig(folder / f"{name}.png", dpi=120)
            figure.set_layout_engine("none")  # stay as laid out: that takes half the time
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            drawn[name] = (folder / f"{name}.svg").read_text()
    return drawn


def figures(settings: Sequence[Setting]) -> dict[str, Figure]:
    """All that have something to show; of several data sets each has its own."""
    found: dict[str, Figure | None] = {}
    data_sets = by_data(settings)
    suffixes: list[str] = []
    for data, compared in data_sets.items():
        suffix = "-" + (re.sub(r"[^A-Za-z0-9]+", "-", data).strip("-") or "other") if len(data_sets) > 1 else ""
        suffixes.append(suffix)
        if (alike := suffixes.count(suffix)) > 1:
            suffix += f"-{alike}"
        for unit, unit_suffix in (("epoch", suffix), ("step", f"{suffix}-steps")):
            there = [setting for setting in compared if setting.first.unit == unit]
            found[f"curves{unit_suffix}"] = curves(there, unit)
            found[f"pace{unit_suffix}"] = pace(there, unit)
        found[f"heat-map{suffix}"] = heat_map(compared)
        found[f"parameters{suffix}"] = accuracy_against_parameters(rivals(compared))
    return {name: figure for name, figure in found.items() if figure}


def curves(settings: Sequence[Setting], unit: str) -> Figure | None:
    """Accuracy and loss of each split; a band is one standard deviation over seeds to either side."""
    named = {"validation": "validation", "watched test": "watched test", "train": "training"}
    panels: dict[str, str] = {}
    for split, name in named.items():
        panels |= {f"{split}/accuracy": f"{name} accuracy (%)", f"{split}/loss": f"{name} loss"}
    return _lines(settings, panels, unit)


def pace(settings: Sequence[Setting], unit: str) -> Figure | None:
    panels = {LEARNING_RATE: "learning rate", IMAGES_PER_SECOND: "training speed (images/s)"}
    return _lines(settings, panels, unit)


def heat_map(settings: Sequence[Setting]) -> Figure | None:
    """Accuracy over the two hyperparameters, where just two differ."""
    judged = rivals(settings)
    keys = [k for k in (settings[0].values if settings else ()) if len({repr(s.values[k]) for s in settings}) > 1]
    if not judged or len(keys) != 2:
        return None
    rows, columns = (_order({repr(setting.values[key]): setting.values[key] for setting in settings}) for key in keys)
    if len(settings) <= max(len(rows), len(columns)):  # both vary together
        return None
    grid = np.full((len(rows), len(columns)), np.nan)
    texts = {}
    for setting in settings:
        down, across = (
            list(order).index(repr(setting.values[k])) for order, k in zip((rows, columns), keys, strict=True)
        )
        if (accuracy := setting.accuracy) and setting in judged:
            grid[down, across] = 100 * accuracy.mean
            spread = f"± {100 * accuracy.sd:.2f}\n" if accuracy.sd is not None else ""
            texts[down, across] = f"{100 * accuracy.mean:.2f}\n{spread}n={accuracy.n}"
        else:
            why = f"{setting.judged_on} only" if accuracy else "no accuracy" if setting.runs else "not ended"
            texts.setdefault((down, across), why)
    figure = Figure(figsize=(2.2 + 1.05 * len(columns), 1.6 + 0.75 * len(rows)), layout="constrained")
    axes = figure.subplots()
    low = _low_end(grid)
    image = axes.imshow(grid, cmap="cividis", vmin=low, aspect="auto")
    for (down, across), text in texts.items():
        light = grid[down, across] > (low + np.nanmax(grid)) / 2
        colour = INK if np.isnan(grid[down, across]) else "#000000" if light else "#ffffff"
        axes.text(across, down, text, ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(columns)), [shown(value) for value in columns.values()])
    axes.set_yticks(range(len(rows)), [shown(value) for value in rows.values()])
    axes.set(xlabel=short(keys[1], settings[0].values), ylabel=short(keys[0], settings[0].values))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    extend = "min" if np.nanmin(grid) < low else "neither"
    figure.colorbar(image, extend=extend).set_label(f"{judged[0].judged_on} accuracy (%)")
    return figure


def accuracy_against_parameters(settings: Sequence[Setting]) -> Figure | None:
    """With the Pareto front: the settings that no other beats with as few parameters."""
    points = [(s.first.parameters, s.accuracy, s) for s in settings if s.first.parameters and s.accuracy]
    if len({parameters for parameters, _, _ in points}) < 2:
        return None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    front = pareto_front((parameters, error(accuracy.mean)) for parameters, accuracy, _ in points)
    labels = {}
    for parameters, accuracy, setting in sorted(points, key=lambda point: (point[0], -point[1].mean)):
        point, sd = (parameters, error(accuracy.mean)), accuracy.sd or 0
        bar = [[point[1] - error(accuracy.mean + sd)], [error(accuracy.mean - sd) - point[1]]]
        axes.errorbar(*point, bar, fmt="o", color=COLOURS[0] if point in front else GREY, capsize=3)
        labels[point] = setting.label()
    axes.step(*zip(*front, strict=True), where="post", color=COLOURS[0], linewidth=1)
    axes.set_xscale("log")
    log_ticks(axes.xaxis, [parameters for parameters, _, _ in points])
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set(xlabel="parameters", ylabel=f"{points[0][2].judged_on} accuracy (%)")
    scale(axes, errors=True)
    label_points(axes, labels, first=front)
    return figure


def pareto_front(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Of (parameters, error) those that no other beats with as few parameters, by size."""
    front: list[tuple[int, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def label_points(axes: Axes, labels: dict[tuple[int, float], str], first: Sequence[tuple[int, float]] = ()) -> None:
    """Writes each beside its point, those of the points in `first` before others; one that has no room is left out."""
    axes.get_figure().draw_without_rendering()  # type: ignore[union-attr]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in axes.transData.transform(list(labels))]
    for point in sorted(labels, key=lambda point: point not in first):
        for across, up in ((6, 4), (6, -4), (-6, 4), (-6, -4)):
            side: Any = {"ha": "left" if across > 0 else "right", "va": "bottom" if up > 0 else "top", "fontsize": 8}
            text = axes.annotate(labels[point], point, (across, up), textcoords="offset points", **side)
            box = text.get_window_extent()
            if box.x0 > axes.bbox.x0 and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _lines(settings: Sequence[Setting], panels: dict[str, str], unit: str) -> Figure | None:
    panels = {what: label for what, label in panels.items() if any(_points(setting, what) for setting in settings)}
    if not panels:
        return None
    figure = Figure(figsize=(10, 3.6 * -(-len(panels) // 2)), layout="constrained")
    all_axes = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).flatten()
    for axes, (what, label) in zip(all_axes, panels.items(), strict=False):
        for place, setting in reversed(list(enumerate(settings))):
            _line(axes, _points(setting, what), what, place)
        axes.set(xlabel=unit, ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if what.endswith(("accuracy", "loss")):
            scale(axes, errors=what.endswith("accuracy"))
    for axes in all_axes[len(panels) :]:
        axes.remove()
    if len(settings) > 1:
        handles = [Line2D([], [], color=_colour(place), linestyle=_dashes(place)) for place in range(len(settings))]
        labels = [f"{setting.label()}{'' if setting.runs else ' (not ended)'}" for setting in settings]
        if len(settings) > NAMED:
            handles, labels = handles[: NAMED + 1], [*labels[:NAMED], f"{len(settings) - NAMED} others"]
        figure.legend(handles, [f" {label}" for label in labels], loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _line(axes: Axes, points: dict[float, list[float]], what: str, place: int) -> None:
    if not points:
        return
    x = sorted(points)
    mean = np.array([sum(points[at]) / len(points[at]) for at in x])
    line, band = mean, None
    if place < NAMED and max(map(len, points.values())) > 1:
        sd = np.array([np.std(points[at], ddof=1) if len(points[at]) > 1 else 0.0 for at in x])
        band = mean - sd, mean + sd
    if what.endswith("accuracy"):
        line, band = error(mean), band and (error(band[0]), error(band[1]))
    style: Any = {"color": _colour(place), "linestyle": _dashes(place), "linewidth": 1.5 if place < NAMED else 0.7}
    axes.plot(x, line, marker="o" if len(x) < 4 else "", markersize=4, **style)
    if band:
        axes.fill_between(x, *band, color=_colour(place), alpha=0.15, linewidth=0)


def _points(setting: Setting, what: str) -> dict[float, list[float]]:
    """x -> the value of each run; of the runs that ended, if any did, as far as all of them went."""
    series = [run.series[what] for run in setting.runs or setting.unfinished if run.series.get(what)]
    end = min(map(max, series), default=0.0)
    points: dict[float, list[float]] = {}
    for run in series:
        for x, value in run.items():
            if x <= end:
                points.setdefault(x, []).append(value)
    return points


def scale(axes: Axes, *, errors: bool) -> None:
    """A logarithmic axis where what is drawn spans much. Errors grow downwards, labelled by accuracies."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    values = values[np.isfinite(values)]
    low, high = sorted(axes.get_ylim())
    if len(values) and 0 < 4 * values.min() < values.max():
        axes.set_yscale("log")
        log_ticks(axes.yaxis, values)
        low, high = values.min() / 1.2, values.max() * 1.2
    axes.set_ylim((high, low) if errors else (low, high))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * (1 - y) if errors else y:.6g}"))


def log_ticks(axis: Axis, values: Sequence[float] | np.ndarray) -> None:
    narrow = max(values) < 20 * min(values)
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if narrow else (1, 2, 5)))
    axis.set_minor_formatter(NullFormatter())


def error(accuracy: Any) -> Any:
    return np.maximum(1 - accuracy, LEAST_ERROR)


def _low_end(grid: np.ndarray) -> float:
    """Where the colours begin: a setting that failed to learn must not make the others look alike."""
    first, third = np.nanquantile(grid, (0.25, 0.75))
    return max(float(np.nanmin(grid)), first - 1.5 * (third - first))


def _order(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers by size, before all else by name."""
    number = (int, float)
    return dict(sorted(values.items(), key=lambda kv: (0, kv[1], "") if isinstance(kv[1], number) else (1, 0, kv[0])))


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)] if place < NAMED else GREY


def _dashes(place: int) -> Any:
    return DASHES[place // len(COLOURS)] if place < NAMED else "-"
