# SPDX-License-Identifier: Apache-2.0
"""The tests behind the alarms: is a series a trend, did a sample drift from another, and how often one may look."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

Array = np.ndarray

FIRST_LOOK = 20
"""Points before the first look: below that a trend can't be told from a series that wanders."""


# ---- trend


@dataclass(frozen=True)
class Trend:
    """slope a point (Theil-Sen), z, two-sided p."""

    slope: float
    z: float
    p: float


def trend(series: Array) -> Trend:
    """Mann-Kendall test of a monotone trend in ``series`` [n], its variance made larger for autocorrelation; NaN are left out.

        S = sum_{i<j} sign(x_j - x_i)          Var(S) = n (n - 1) (2n + 5) / 18
        z = (S - sign(S)) / sqrt(Var(S) f)     f = 1 + 2 c sum_{k=1}^{n-1} (1 - k/n) r^k

    r is the first autocorrelation of what is left of the series beside its best monotone fit in the direction of S, plus
    1.5 (1 + 4 max(r, 0)) / sqrt(n) for what the fit hides, at least 0; c = min(1, 10 times the share of the variance that is
    left), since what hardly moves the series hardly moves S. A straight line in place of the monotone fit would take a change
    that levels off for autocorrelation, and miss it. Ties make the test cautious. Sources: Mann 1945, Kendall 1975, the
    correction by an effective sample size as in Yue and Wang 2004; the fit, the allowance and c are ours, calibrated by
    simulation.

    >>> found = trend(np.arange(20.0))
    >>> round(found.slope, 3), round(found.z, 2), found.p < 1e-6
    (1.0, 6.13, True)
    """
    x = np.asarray(series, dtype=float)
    x = x[np.isfinite(x)]
    n = len(x)
    if n < 4:
        return Trend(math.nan, 0.0, 1.0)
    i, j = np.triu_indices(n, 1)
    differences = x[j] - x[i]
    s = float(np.sign(differences).sum())
    slope = float(np.median(differences / (j - i)))
    if s == 0:
        return Trend(slope, 0.0, 1.0)
    rest = x - math.copysign(1, s) * increasing(math.copysign(1, s) * x)
    left = float(rest @ rest) / float(((x - x.mean()) ** 2).sum())
    factor = 1 + (inflation(n, autocorrelation(rest)) - 1) * min(1.0, 10 * left)
    z = (s - math.copysign(1, s)) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18 * factor)
    return Trend(slope, z, math.erfc(abs(z) / math.sqrt(2)))


def inflation(n: int, r: float) -> float:
    """How many times larger Var(S) is, given the first autocorrelation ``r`` of the residuals of the monotone fit."""
    allowed = min(max(r + 1.5 * (1 + 4 * max(r, 0.0)) / math.sqrt(n), 0.0), 0.99) if r > -0.5 else 0.0
    k = np.arange(1, n)
    return float(1 + 2 * ((1 - k / n) * allowed**k).sum())


def autocorrelation(x: Array) -> float:
    """sum (x_t - m)(x_{t+1} - m) / sum (x_t - m)^2; 0 where x is constant."""
    x = x - x.mean()
    squares = float(x @ x)
    return float(x[1:] @ x[:-1]) / squares if squares > 1e-12 * len(x) else 0.0


def increasing(x: Array) -> Array:
    """The increasing series nearest to ``x`` in squares, by pooling neighbours that are out of order.

    >>> increasing(np.array([1.0, 3.0, 2.0, 4.0])).tolist()
    [1.0, 2.5, 2.5, 4.0]
    """
    value: list[float] = []
    weight: list[int] = []
    for v in x.tolist():
        value.append(v)
        weight.append(1)
        while len(value) > 1 and value[-2] > value[-1]:
            total = weight[-2] + weight[-1]
            value[-2] = (value[-2] * weight[-2] + value[-1] * weight[-1]) / total
            weight[-2] = total
            value.pop()
            weight.pop()
    return np.repeat(value, weight)


# ---- drift


@dataclass(frozen=True)
class Sample:
    """Values [U] of units, and which of them belong together [U] (the rows of a prompt, say)."""

    values: Array
    cluster: Array

    def __len__(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return float(self.values.mean()) if len(self) else math.nan


@dataclass(frozen=True)
class Drift:
    """Standardised mean difference and its interval, in standard deviations of the reference."""

    size: float
    low: float
    high: float

    def beyond(self, margin: float) -> int:
        """1: the whole interval lies above ``margin``; -1: below ``-margin``; 0: neither."""
        return int(self.low > margin) - int(self.high < -margin)


def drift(now: Sample, then: Sample, level: float) -> Drift:
    """How far the mean of ``now`` lies from that of ``then``, with an interval that misses the truth with probability ``level``.

        d = (mean(now) - mean(then)) / sd(then)      d ± z sqrt(V(now) + V(then)) / sd(then)
        V(x) = G / (G - 1) / n^2  sum_g ( sum_{i in g} (x_i - mean) )^2,    G clusters of n units together

    Units of a cluster need not be independent. With fewer than two clusters the interval is unbounded. Where all of ``then`` is
    equal, the deviation is that of both samples.

    >>> a = Sample(np.array([0., 1., 2., 3.] * 8), np.arange(32))
    >>> found = drift(Sample(a.values + 3, a.cluster), a, 0.05)
    >>> round(found.size, 2), found.beyond(1.0)
    (2.64, 1)
    """
    deviation = float(then.values.std(ddof=1)) if len(then) > 1 else 0.0
    apart = now.mean - then.mean
    if deviation == 0:
        deviation = float(np.concatenate([now.values, then.values]).std())
    if not deviation > 0:
        return Drift(0.0, 0.0, 0.0) if apart == 0 else Drift(math.nan, -math.inf, math.inf)
    half = NormalDist().inv_cdf(1 - level / 2) * math.sqrt(_variance(now) + _variance(then)) / deviation
    size = apart / deviation
    return Drift(size, size - half, size + half)


def _variance(x: Sample) -> float:
    """Of the mean, robust to clusters; infinite with fewer than two."""
    _, at = np.unique(x.cluster, return_inverse=True)
    groups = int(at.max()) + 1 if len(at) else 0
    if groups < 2:
        return math.inf
    sums = np.bincount(at, x.values - x.values.mean())
    return groups / (groups - 1) / len(x) ** 2 * float(sums @ sums)


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's, over the pairs that are finite; 0 where either does not vary.

    >>> rank_correlation(np.array([1., 2., 9.]), np.array([-1., -2., -3.]))
    -1.0
    """
    both = np.isfinite(a) & np.isfinite(b)
    x, y = (_ranks(v[both]) for v in (a, b))
    x, y = x - x.mean() if len(x) else x, y - y.mean() if len(y) else y
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / size if size > 0 else 0.0


def _ranks(x: Array) -> Array:
    """Mean ranks of ties."""
    _, at, count = np.unique(x, return_inverse=True, return_counts=True)
    last = count.cumsum()
    return (last - (count - 1) / 2)[at]


# ---- how often one looks


def is_look(points: int) -> bool:
    """Whether a series of this many points is looked at: at 20, 28, 40, 57, 80 ..., each 1.41 times as late as the one before.

    >>> [n for n in range(200) if is_look(n)]
    [20, 28, 40, 57, 80, 113, 160]
    """
    return points >= FIRST_LOOK and points in {round(FIRST_LOOK * 2 ** (k / 2)) for k in range(64)}


def level_of(look: int, alpha: float, tests: int) -> float:
    """What one test may spend at look 1, 2, ... so that ``tests`` of them, however often, err with probability ``alpha`` at most.

    alpha / tests * 6 / (pi^2 look^2)
    """
    return alpha / tests * 6 / (math.pi**2 * look**2)
