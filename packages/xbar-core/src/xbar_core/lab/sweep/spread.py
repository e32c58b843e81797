"""Means over repeats with confidence intervals, and when a difference is a finding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

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
    _check_level(level)
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


def estimate_crossed(values: Mapping[tuple[Any, Any], float], level: float = LEVEL) -> Estimate:
    """Return the estimate of repeats that share seeds: every training seed on every chip.

    Repeats of one seed, or of one chip, are alike, so that n seeds on m chips tell less than n x m
    repeats would that share nothing. The variance of the mean is taken as that of the seeds' means over
    n plus that of the chips' means over m, which counts what is particular to a pair twice: intervals
    are rather too wide than too narrow. Degrees of freedom after Welch and Satterthwaite.

    Parameters
    ----------
    values : mapping of (seed, chip) to float
        NaNs are left out.
    level : float
        Confidence of the interval, between 0 and 1.

    References
    ----------
    F. E. Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics
    Bulletin 2, 110 (1946).

    Examples
    --------
    Two seeds that differ by one, on five chips that do not differ at all, are two repeats, not ten:

    >>> values = {(seed, chip): float(seed) for seed in range(2) for chip in range(5)}
    >>> round(estimate_crossed(values).half, 2), round(estimate(values.values()).half, 2)
    (6.35, 0.38)
    """
    _check_level(level)
    known = {pair: value for pair, value in values.items() if not math.isnan(value)}
    plain = estimate(known.values(), level)
    variances: list[tuple[float, int]] = []  # of the mean, with degrees of freedom
    for side in (0, 1):
        means = [
            float(np.mean([value for pair, value in known.items() if pair[side] == one]))
            for one in dict.fromkeys(pair[side] for pair in known)
        ]
        if len(means) > 1:
            variances.append((float(np.var(means, ddof=1)) / len(means), len(means) - 1))
    total = sum(variance for variance, _ in variances)
    if len(known) < 2 or total == 0.0:
        return plain
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in variances)
    half = float(stats.t.ppf(0.5 + level / 2, freedom)) * math.sqrt(total)
    return replace(plain, half=half)


def _check_level(level: float) -> None:
    check_number("level", level, minimum=0.0, maximum=1.0, open_minimum=True)
