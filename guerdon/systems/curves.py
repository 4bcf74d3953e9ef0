# SPDX-License-Identifier: Apache-2.0
"""Curves of several seeds as one: median and quartiles at a few places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

POINTS = 40
"""Places at which a stored curve is kept, at most."""


def curve_over_seeds(curves: Sequence[Sequence[tuple[float, float]]], points: int = POINTS) -> dict[str, list[float]]:
    """``x``, ``low``, ``median``, ``high`` (quartiles) over the range that all curves cover, linear between points.

    >>> curve_over_seeds([[(0, 0.0), (2, 1.0)], [(0, 1.0), (2, 1.0)]])
    {'x': [0.0, 2.0], 'low': [0.25, 1.0], 'median': [0.5, 1.0], 'high': [0.75, 1.0]}
    """
    first, last = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    grid = np.unique([float(x) for c in curves for x, _ in c if first <= x <= last])
    if len(grid) > points:
        grid = np.linspace(first, last, points)
    y = np.stack([np.interp(grid, [x for x, _ in c], [v for _, v in c]) for c in curves])
    low, median, high = np.quantile(y, [0.25, 0.5, 0.75], axis=0).tolist()
    return {"x": grid.tolist(), "low": low, "median": median, "high": high}
