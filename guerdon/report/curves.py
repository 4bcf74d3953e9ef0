# SPDX-License-Identifier: Apache-2.0
"""The arithmetic behind the charts: curves of several seeds as one, noise thinned, the samples it took to reach a level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from guerdon.report.reading import Points


@dataclass(frozen=True)
class Curve:
    """The mean of several seeds at each x with the smallest and largest seed, and the seeds' own lines."""

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: list[Points]


def over_seeds(seeds: Sequence[Points]) -> Curve:
    """One curve of several.

    Where the seeds have the same x, mean and extremes are taken of their values there. Where they differ (seconds always do),
    each seed is interpolated linearly at every x that lies within the range all seeds cover, so that the mean is always over
    the same seeds.

    >>> curve = over_seeds([([0.0, 2.0], [0.0, 1.0]), ([1.0, 3.0], [1.0, 1.0])])
    >>> curve.x, curve.mean, curve.low
    ([1.0, 2.0], [0.75, 1.0], [0.5, 1.0])
    """
    seeds = [s for s in seeds if s[0]]
    if not seeds:
        return Curve([], [], [], [], [])
    first, last = max(x[0] for x, _ in seeds), min(x[-1] for x, _ in seeds)
    grid = np.unique([at for x, _ in seeds for at in x if first <= at <= last])
    if not len(grid):
        return Curve([], [], [], [], list(seeds))
    y = np.stack([np.interp(grid, x, y) for x, y in seeds])
    return Curve(grid.tolist(), y.mean(0).tolist(), y.min(0).tolist(), y.max(0).tolist(), list(seeds))


def thinned(points: Points, most: int = 120) -> tuple[Points, int]:
    """At most ``most`` points, each the mean of as many neighbours as it takes, and that number.

    >>> thinned(([1, 2, 3, 4, 5], [0, 2, 4, 6, 9]), most=3)
    (([1.5, 3.5, 5.0], [1.0, 5.0, 9.0]), 2)
    """
    x, y = points
    width = max(math.ceil(len(x) / most), 1)
    cuts = range(0, len(x), width)
    return ([float(np.mean(x[i : i + width])) for i in cuts], [float(np.mean(y[i : i + width])) for i in cuts]), width


def first_reach(points: Points, level: float) -> float | None:
    """The first measured x whose y is at least ``level``; None if it is never reached.

    >>> first_reach(([0, 100, 200], [0.1, 0.4, 0.6]), 0.5), first_reach(([0], [0.1]), 0.5)
    (200, None)
    """
    return next((x for x, y in zip(*points, strict=True) if y >= level), None)


@dataclass(frozen=True)
class Reach:
    """How many samples one arm needed at one chain length: its seeds, the middle one, and how many never got there."""

    arm: str
    length: int
    reached: list[float]
    missed: int

    @property
    def middle(self) -> float | None:
        """The median over seeds, those that never got there counting as more than any number; None if it is one of them."""
        middle = median([*self.reached, *[math.inf] * self.missed])
        return middle if math.isfinite(middle) else None


def reaches(points: Sequence[Mapping[str, Any]]) -> list[Reach]:
    """Stored points ``{"arm", "length", "seed", "samples_to_half"}`` by arm and length.

    >>> [r] = reaches([{"arm": "a", "length": 2, "seed": s, "samples_to_half": n} for s, n in enumerate([100, None, 300])])
    >>> r.reached, r.missed, r.middle
    ([100, 300], 1, 300)
    """
    groups: dict[tuple[str, int], list[float | None]] = {}
    for point in points:
        groups.setdefault((point["arm"], int(point["length"])), []).append(point["samples_to_half"])
    arms = list(dict.fromkeys(arm for arm, _ in groups))
    keys = sorted(groups, key=lambda key: (arms.index(key[0]), key[1]))
    return [Reach(*key, sorted(n for n in groups[key] if n is not None), groups[key].count(None)) for key in keys]
