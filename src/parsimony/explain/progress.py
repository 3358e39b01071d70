"""The network's whole, its epochs and its mistakes."""

import math
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure as Plot
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn.functional import cross_entropy

from parsimony.checkpoints import LAST
from parsimony.data.datamodule import EVALUATION_BATCH, ImageData
from parsimony.data.sources import Split
from parsimony.explain.colours import picture
from parsimony.explain.document import Chart, Figure, Row, Section, Table, Tile, count, percent
from parsimony.report.plots import COLOURS, STYLE, error, scale
from parsimony.summary import summarize
from parsimony.trained import Trained

MOST_MISTAKES = 24
LINES = {"train": "training", "val": "validation", "watched_test": "test, watched each epoch"}


def whole(trained: Trained, data: ImageData, image: Tensor, label: int, answers: Tensor, test: Split) -> Section:
    """What the network is, and the picture that the rest is about; `answers` are the test images' logits."""
    summary = summarize(trained.net, trained.shape)
    right = int((answers.argmax(1) == test.labels).sum())
    with torch.no_grad():
        probabilities = trained.logits(image[None])[0].softmax(0)
    best = "" if trained.checkpoint == LAST else f" ({trained.weights})"
    top = probabilities.topk(min(3, len(trained.classes)))
    rows = [[trained.classes[i], percent(p, 1)] for p, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)]
    assert data.images is not None
    return Section(
        "The network and the picture",
        [
            f"{trained.name}, {count(len(trained.history), 'epoch')}{best} on {data.images.name} with seed "
            f"{trained.config['seed']}: {summary.total:,} parameters, {summary.macs:,} multiply-accumulates an image. "
            f"It answers {right:,} of {len(test.labels):,} test images correctly, "
            f"{percent(right / len(test.labels), 2)}. What follows is shown on it, and on one test image.",
            "In all pictures of weights and maps black is zero, orange is above zero and blue below.",
        ],
        [
            Figure(
                f"A test image, class {trained.classes[label]}, as the network gets it.",
                [Row("", [Tile(picture(image))], 140)],
            ),
            Table("The network's answer.", ["Class", "Probability"], rows),
        ],
    )


def epochs(trained: Trained, data: ImageData) -> Section:
    last = trained.history[-1]
    images = len(data.train.labels)
    best = max(trained.history, key=lambda entry: entry.get("val/accuracy", -1))
    text = [
        "An epoch is one pass over all training images. They come in batches, in a new order each time, and after each "
        "batch every weight moves a little. "
        f"Here that is {images:,} images, {data.batch_size} in a batch, for {count(len(trained.history), 'epoch')}.",
    ]
    if "val/accuracy" in last:
        text.append(
            "Validation images, which it is not trained on, tell when more epochs stop helping: "
            f"{percent(last['val/accuracy'], 2)} of them right after the last epoch, "
            f"{percent(best['val/accuracy'], 2)} after the best, number {int(best['epoch'])}."
        )
    caption = "Accuracy by epoch; that of training is the mean over the epoch, with dropout and augmentation on."
    return Section("Epochs", text, [Chart(caption, _curves(trained.history))])


def mistakes(trained: Trained, answers: Tensor, test: Split) -> Section:
    guesses = answers.argmax(1)
    losses = cross_entropy(answers, test.labels, reduction="none")
    wrong = (guesses != test.labels).nonzero().squeeze(1)
    worst = wrong[losses[wrong].argsort(descending=True, stable=True)][:MOST_MISTAKES].tolist()
    sure = answers.softmax(1).amax(1)
    names = trained.classes
    tiles = [
        Tile(picture(test.images[i]), f"{names[guesses[i]]} ({percent(sure[i].item())}), not {names[test.labels[i]]}")
        for i in worst
    ]
    shown = f"the {len(worst)} worst of {len(wrong):,}" if len(worst) < len(wrong) else f"all {len(wrong)}"
    parts: list[Any] = [Figure(f"Its answer, how sure it was, and the truth: {shown}.", [Row("", tiles, 102)])]
    text = "Confident mistakes show what it goes by; over some of these images people would argue as well."
    if not wrong.numel():
        return Section("Mistakes", [f"It makes none on the {len(test.labels):,} test images."])
    return Section("Mistakes", [text], parts)


def answers(trained: Trained, images: Tensor) -> Tensor:
    """Logits (n, classes)."""
    with torch.no_grad():
        return torch.cat([trained.logits(part) for part in images.split(EVALUATION_BATCH)])


def _curves(history: list[dict[str, float]]) -> Plot:
    with matplotlib.rc_context(STYLE):
        plot = Plot(figsize=(6.4, 3.4), layout="constrained")
        axes = plot.subplots()
        for (tag, name), colour in zip(LINES.items(), COLOURS, strict=False):
            accuracies = {e["epoch"]: e.get(f"{tag}/accuracy", math.nan) for e in history}
            points = [(epoch, error(value)) for epoch, value in accuracies.items() if math.isfinite(value)]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=name, marker="o" if len(points) < 4 else "")
        axes.set(xlabel="epoch", ylabel="accuracy (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        scale(axes, errors=True)
        axes.legend()
    return plot
