"""The picture of how the records were trained, and how far each came short of its aim or beyond."""

import statistics
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from parsimony.published.rows import Row
from parsimony.report.plots import COLOURS, GREY, error, scale

COLUMNS = 2


def curves(records: Sequence[Row]) -> Figure:
    """A panel a record: accuracy on the training set by epoch, on the test set at the end, and the aim.

    Lines and points are means over seeds; bands and bars reach to the lowest and the highest of them. The training's
    is of the images as augmented, by the weights while they change: it may end below the test's.
    """
    records = [row for row in records if row.runs]
    lines = -(-len(records) // COLUMNS)
    figure = Figure(figsize=(7.5, 2.3 * lines + 0.8), layout="constrained")
    grid = figure.subplots(lines, COLUMNS, squeeze=False).flatten()
    for axes, row in zip(grid, records, strict=False):
        _panel(axes, row)
    for axes in grid[len(records) :]:
        axes.remove()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _panel(axes: Axes, row: Row) -> None:
    seeds = np.array([[epoch["train/accuracy"] for epoch in run.history] for run in row.runs])
    epochs = np.arange(1, seeds.shape[1] + 1)
    axes.plot(epochs, error(seeds.mean(axis=0)), color=COLOURS[0], label="training set")
    axes.fill_between(epochs, error(seeds.min(axis=0)), error(seeds.max(axis=0)), color=COLOURS[0], alpha=0.15)
    test = np.array(row.accuracies()) / 100
    middle = float(error(statistics.mean(test)))
    reach = [[middle - float(error(test.max()))], [float(error(test.min())) - middle]]
    axes.errorbar(epochs[-1:], [middle], yerr=reach, color=COLOURS[1], fmt="o", markersize=5, label="test set")
    if row.reported:
        axes.axhline(float(error(row.reported / 100)), color=GREY, linestyle="--", label="aim")
    axes.set(title=f"{row.network}, n={len(row.runs)}", xlabel="epoch", ylabel="accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    scale(axes, errors=True)
