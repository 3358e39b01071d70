"""Statistics of a classifier's answers."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn.functional import nll_loss
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

BINS = 15


@dataclass(frozen=True)
class ClassScore:
    """`precision` is None where the class was never answered, `recall` where there is no image of it; both 0 to 1."""

    name: str
    precision: float | None
    recall: float | None
    images: int


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson, 1927): unlike the usual one it is right near 0 and 1 too."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))  # rounding may miss the ends


def confusion(labels: Tensor, answers: Tensor, classes: int) -> Tensor:
    """(classes, classes) counts: the row is the true class, the column the answer."""
    return multiclass_confusion_matrix(answers, labels, classes, validate_args=False)


def per_class(counts: Tensor, names: tuple[str, ...]) -> list[ClassScore]:
    """From a confusion matrix."""
    right, answered, there = counts.diag().tolist(), counts.sum(0).tolist(), counts.sum(1).tolist()
    return [
        ClassScore(
            name, right[i] / answered[i] if answered[i] else None, right[i] / there[i] if there[i] else None, there[i]
        )
        for i, name in enumerate(names)
    ]


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error (Guo et al., arXiv 1706.04599): how far confidence lies from accuracy, 0 to 1.

    The answers are sorted into 15 equally wide bins of confidence; the mean of the bins' distances, by their images.
    """
    classes = probabilities.shape[1]
    below_one = probabilities.float().clamp(max=1 - torch.finfo(torch.float32).eps)  # torchmetrics bins 1 by itself
    error = multiclass_calibration_error(below_one, labels, classes, n_bins=BINS, norm="l1")
    return error.item()


def losses(probabilities: Tensor, labels: Tensor) -> Tensor:
    """(n,) cross-entropy of each image, in nats."""
    logs = probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
    return nll_loss(logs, labels, reduction="none")
