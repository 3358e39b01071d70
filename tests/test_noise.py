"""The constants of the noise, from the density they are quantiles of."""

import math

import numpy as np
import pytest

from parsimony.noise import STUDENT, student


@pytest.mark.parametrize("freedom", range(1, len(STUDENT) + 1))
def test_the_quantiles_are_students(freedom: int) -> None:
    """Half of 95 % of the density lies between 0 and the quantile, by Simpson's rule."""
    constant = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
    t = np.linspace(0, student(freedom), 20_001)
    density = constant * (1 + t**2 / freedom) ** (-(freedom + 1) / 2)
    area = (density[0] + density[-1] + 4 * density[1:-1:2].sum() + 2 * density[2:-1:2].sum()) * (t[1] - t[0]) / 3
    assert area == pytest.approx(0.475, abs=3e-4)


def test_many_seeds_have_the_last_quantile() -> None:
    assert [student(freedom) for freedom in (10, 11, 1000)] == [STUDENT[-1]] * 3
