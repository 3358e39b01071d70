"""How far chance alone moves an accuracy: at 95 %, over seeds or over the images of a test set."""

import math
import statistics
from collections.abc import Sequence

# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom; the last, for more of them, is on the safe side.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
NORMAL = 1.96
TEST_IMAGES = {"mnist": 10_000, "fashion_mnist": 10_000, "cifar10": 10_000, "digits": 360}


def student(freedom: int) -> float:
    """The quantile for `freedom` degrees of freedom, 1 or more."""
    return STUDENT[min(freedom, len(STUDENT)) - 1]


def of_one_more_run(accuracies: Sequence[float], images: int | None) -> float:
    """How far one more run may land from the mean of those with these `accuracies` (0 to 1): their prediction interval.

    A single run shows no spread: then it is the binomial difference of two runs over as many `images`; 0 where that
    number is not known.
    """
    n = len(accuracies)
    if n == 1:
        return binomial(accuracies[0], accuracies[0], images=images) if images else 0.0
    return student(n - 1) * statistics.stdev(accuracies) * math.sqrt(1 + 1 / n)


def binomial(*accuracies: float, images: int) -> float:
    """How far two single runs with these `accuracies` (0 to 1) may be apart, over as many `images`."""
    return NORMAL * math.sqrt(sum(p * (1 - p) / images for p in accuracies))
