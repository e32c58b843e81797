"""Means over repeats with confidence intervals, and when a difference is a finding."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from xbar_core._checks import check_number

LEVEL = 0.95
"""Confidence of every interval that is not asked for otherwise."""


@dataclass(frozen=True)
class Estimate:
    """A mean over repeats.

    Attributes
    ----------
    mean, std : float
        Of the repeats; the standard deviation is that of the population they come from (n - 1), NaN
        for a single one.
    half : float
        Half width of the confidence interval of the mean (Student's t); NaN for a single repeat.
    count : int
        Repeats.
    """

    mean: float
    std: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half

    @property
    def beyond_spread(self) -> bool:
        """Whether the mean differs from 0 by more than its interval, over at least three repeats.

        For differences: a difference smaller than the spread is not a finding, and one or two
        repeats show no spread.
        """
        return self.count >= 3 and abs(self.mean) > self.half


def estimate(values: Iterable[float], level: float = LEVEL) -> Estimate:
    """Return mean, standard deviation and confidence interval of the mean; NaNs are left out.

    Parameters
    ----------
    values : iterable of float
        One for each repeat.
    level : float
        Confidence of the interval, between 0 and 1.

    Examples
    --------
    >>> found = estimate([0.97, 0.98, 0.99])
    >>> round(found.mean, 4), round(found.half, 4)
    (0.98, 0.0248)
    """
    check_number("level", level, minimum=0.0, maximum=1.0, open_minimum=True)
    numbers = np.array([value for value in values if not math.isnan(value)], dtype=float)
    count = len(numbers)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = float(numbers.mean())
    if count == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    std = float(numbers.std(ddof=1))
    half = float(stats.t.ppf(0.5 + level / 2, count - 1)) * std / math.sqrt(count)
    return Estimate(mean, std, half, count)
