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

    A single run shows no spread: then it is the binomial difference of two runs over as many `images`, though seeds may
    differ by more; 0 where that number is not known.
    """
    n = len(accuracies)
    if n == 1:
        return binomial((accuracies[0], images), (accuracies[0], images)) if images else 0.0
    return one_more(statistics.stdev(accuracies), n)


def of_mean(values: Sequence[float]) -> float:
    """How far the mean of two or more `values` may lie from that of all there could be: its confidence interval."""
    return student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def one_more(sd: float, n: int) -> float:
    """How far one more run may land from the mean of `n`, 2 or more, whose standard deviation is `sd`."""
    return student(n - 1) * sd * math.sqrt(1 + 1 / n)


def binomial(*runs: tuple[float, int]) -> float:
    """How far two single runs may be apart, each given by its accuracy (0 to 1) and how many images showed it."""
    return NORMAL * math.sqrt(sum(accuracy * (1 - accuracy) / images for accuracy, images in runs))
