"""What `parsimony evaluate` finds out: a trained network's scores on a labelled split."""

from dataclasses import dataclass

from torch import Tensor

from parsimony.data.sources import Split
from parsimony.trained import Trained
from parsimony.use import scores
from parsimony.use.views import described, probabilities

SHORT = 5  # letters of a class at the head of a column, so that ten classes fit a terminal


@dataclass(frozen=True)
class Evaluation:
    """Accuracies and errors are shares from 0 to 1; `confusion` has a row a true class, a column an answer."""

    name: str
    weights: str
    data: str
    images: int
    views: str | None  # those averaged over
    accuracy: float
    interval: tuple[float, float]  # Wilson's, 95 %
    loss: float
    calibration_error: float
    classes: list[scores.ClassScore]
    confusion: list[list[int]]

    def text(self) -> str:
        accuracy, low, high = (f"{100 * share:.2f}" for share in (self.accuracy, *self.interval))
        averaged = f"averaged over {self.views}" if self.views else "one view an image"
        lines = [
            f"{self.name}, {self.weights}",
            f"on {self.data}, {self.images:,} images, {averaged}, in float32",
            "",
            f"accuracy           {accuracy} %, 95 % interval {low} to {high} (Wilson's)",
            f"loss               {self.loss:.4f}",
            f"calibration error  {100 * self.calibration_error:.2f} points (expected, 15 bins)",
            "",
            *self._class_lines(),
            "",
            "confusion matrix: rows are the true classes, columns the network's answers",
            *self._confusion_lines(),
        ]
        return "\n".join(lines)

    def _class_lines(self) -> list[str]:
        width = max(len("class"), *(len(score.name) for score in self.classes))
        lines = [f"{'class':<{width}}  precision    recall  images"]
        for score in self.classes:
            precision, recall = _percent(score.precision), _percent(score.recall)
            lines.append(f"{score.name:<{width}}  {precision:>9}  {recall:>8}  {score.images:>6,}")
        return lines

    def _confusion_lines(self) -> list[str]:
        names = [score.name for score in self.classes]
        width = max(map(len, names))
        cell = max(min(width, SHORT), len(str(max(map(max, self.confusion)))))
        lines = [" " * width + "".join(f"  {name[:cell]:>{cell}}" for name in names)]
        for name, row in zip(names, self.confusion, strict=True):
            lines.append(f"{name:<{width}}" + "".join(f"  {count or '.':>{cell}}" for count in row))
        return lines


def score(trained: Trained, data: str, split: Split, *, averaged: bool = False) -> tuple[Evaluation, Tensor]:
    """The scores on `split`, which is shown as `data`; and the probabilities (n, classes) that they come from."""
    answers = probabilities(trained.logits, split.images, averaged=averaged)
    counts = scores.confusion(split.labels, answers.argmax(1), len(trained.classes))
    right, images = int(counts.diag().sum()), len(split.labels)
    evaluation = Evaluation(
        name=trained.name,
        weights=trained.weights,
        data=data,
        images=images,
        views=described(trained.shape[0]) if averaged else None,
        accuracy=right / images,
        interval=scores.wilson(right, images),
        loss=scores.losses(answers, split.labels).mean().item(),
        calibration_error=scores.calibration_error(answers, split.labels),
        classes=scores.per_class(counts, trained.classes),
        confusion=counts.tolist(),
    )
    return evaluation, answers


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
