# SPDX-License-Identifier: Apache-2.0
"""Intervals of means over seeds, by Student's t; numpy has no quantile of it, so it is integrated here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval."""

    estimate: float
    low: float
    high: float


def t_quantile(probability: float, freedom: float) -> float:
    """The t with P(T <= t) = ``probability`` (above 1/2) of Student's distribution with ``freedom`` >= 1 degrees.

    With t = √ν tan θ the density becomes cos^(ν-1) θ, smooth on [0, π/2]: Gauss-Legendre integrates it, bisection inverts it.

    >>> [round(t_quantile(0.975, v), 4) for v in (1, 4, 8, 30)]
    [12.7062, 2.7764, 2.306, 2.0423]
    """

    def area(end: float) -> float:
        return float(end / 2 * (_WEIGHTS * np.cos(end / 2 * (_NODES + 1)) ** (freedom - 1)).sum())

    wanted = (2 * probability - 1) * area(math.pi / 2)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if area(middle) < wanted else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def of_mean(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Of the mean of independent values.

    >>> of_mean([1.0, 2.0, 3.0])  # 2 ± 4.3027 / √3
    Interval(estimate=2.0, low=-0.484..., high=4.484...)
    """
    mean, half = statistics.fmean(values), 0.0
    error = statistics.variance(values) / len(values) if len(values) > 1 else math.inf
    if error > 0:
        half = t_quantile((1 + confidence) / 2, len(values) - 1) * math.sqrt(error) if len(values) > 1 else math.inf
    return Interval(mean, mean - half, mean + half)


def of_difference(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Of mean(a) - mean(b) of independent values, variances not taken to be equal (Welch).

    >>> of_difference([1.0, 2.0, 3.0], [0.0, 1.0, 2.0])  # 1 ± 2.7764 √(2/3)
    Interval(estimate=1.0, low=-1.266..., high=3.266...)
    """
    errors = [statistics.variance(x) / len(x) for x in (a, b)]
    difference, half = statistics.fmean(a) - statistics.fmean(b), 0.0
    if sum(errors) > 0:
        freedom = sum(errors) ** 2 / sum(e**2 / (len(x) - 1) for e, x in zip(errors, (a, b), strict=True))
        half = t_quantile((1 + confidence) / 2, freedom) * math.sqrt(sum(errors))
    return Interval(difference, difference - half, difference + half)
