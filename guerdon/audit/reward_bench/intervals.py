# SPDX-License-Identifier: Apache-2.0
"""Intervals of shares and of other figures, at 95 %. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Z = 1.959963984540054
"""Of the standard normal distribution, P(|z| <= Z) = 0.95."""


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its interval and the number of lines it rests on; NaN where there are none."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        finite = {
            k: (v if math.isfinite(v) else None) for k, v in (("value", self.value), ("low", self.low), ("high", self.high))
        }
        return {**finite, "n": self.n}


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


def wilson(successes: float, n: int) -> Estimate:
    """Wilson's score interval of a share, (p + z²/2n ± z √(p (1 - p)/n + z²/4n²)) / (1 + z²/n); Wilson 1927.

    ``successes`` may be a sum of credits between 0 and 1, whose variance is at most that of a share: the interval is then wider
    than it has to be.

    >>> e = wilson(8, 10)
    >>> e.value, round(e.low, 4), round(e.high, 4)
    (0.8, 0.4902, 0.9433)
    >>> round(wilson(10, 10).low, 4)
    0.7225
    """
    if n == 0:
        return NOTHING
    p, f = successes / n, 1 + Z**2 / n
    half = Z * math.sqrt(max(p * (1 - p), 0.0) / n + Z**2 / (4 * n**2)) / f
    middle = (p + Z**2 / (2 * n)) / f
    return Estimate(p, min(max(middle - half, 0.0), p), max(min(middle + half, 1.0), p), n)  # rounding never leaves p outside


def mean_share(credits: np.ndarray) -> Estimate:
    """Of the mean of credits between 0 and 1, one a line."""
    return wilson(float(np.sum(credits)), len(credits))


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of two shares of different lines, by the square-and-add rule of their Wilson intervals (Newcombe 1998, method 10).

    >>> e = difference(wilson(56, 70), wilson(48, 80))  # Newcombe's example
    >>> round(e.value, 4), round(e.low, 4), round(e.high, 4)
    (0.2, 0.0524, 0.3339)
    """
    if not a.n or not b.n:
        return NOTHING
    d = a.value - b.value
    low = d - math.hypot(a.value - a.low, b.high - b.value)
    high = d + math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(d, low, high, a.n + b.n)


def bootstrap(statistic: Callable[[np.ndarray], float], n: int, replicates: int = 1000, seed: int = 0) -> Estimate:
    """Percentile interval of ``statistic(index)``, index [n] of lines drawn with replacement; NaN replicates are left out.

    >>> x = np.arange(10.0)
    >>> e = bootstrap(lambda i: x[i].mean(), 10)
    >>> e.value, 2.2 < e.low < 3.2, 5.8 < e.high < 6.8
    (4.5, True, True)
    """
    if n == 0:
        return NOTHING
    rng = np.random.default_rng(seed)
    value = statistic(np.arange(n))
    drawn = np.array([statistic(rng.integers(0, n, n)) for _ in range(replicates)])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or not math.isfinite(value):
        return Estimate(value, math.nan, math.nan, n)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), n)
