# SPDX-License-Identifier: Apache-2.0
"""Nelder and Mead's simplex, asked for a point and told its value: a search over a few numbers without gradients."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

Point = np.ndarray


def simplex_search(
    corners: Sequence[Point], *, reflect: float = 1.0, expand: float = 2.0, contract: float = 0.5, shrink: float = 0.5
) -> Generator[Point, float]:
    """Yields points and is sent their values, lower better; never ends. ``corners``: n + 1 points of n numbers.

    Nelder and Mead 1965, A simplex method for function minimization.
    """
    simplex, values = list(corners), [0.0] * len(corners)
    for i, corner in enumerate(corners):
        values[i] = yield corner
    while True:
        order = np.argsort(values, kind="stable")
        simplex, values = [simplex[i] for i in order], [values[i] for i in order]
        centre = np.mean(simplex[:-1], axis=0)

        def along(distance: float, centre: Point = centre, worst: Point = simplex[-1]) -> Point:
            return centre + distance * (centre - worst)

        reflected = along(reflect)
        value = yield reflected
        if value < values[0]:
            further = along(reflect * expand)
            beyond = yield further
            simplex[-1], values[-1] = (further, beyond) if beyond < value else (reflected, value)
        elif value < values[-2]:
            simplex[-1], values[-1] = reflected, value
        else:
            outside = value < values[-1]
            nearer = along(reflect * contract if outside else -contract)
            inner = yield nearer
            if inner < min(value, values[-1]):
                simplex[-1], values[-1] = nearer, inner
                continue
            for i in range(1, len(simplex)):
                simplex[i] = simplex[0] + shrink * (simplex[i] - simplex[0])
                values[i] = yield simplex[i]


class NelderMead:
    """``point`` is to be tried next; ``tell`` its value. ``best`` is the best so far.

    >>> search = NelderMead([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> for _ in range(60):
    ...     x, y = search.point
    ...     search.tell((x - 0.3) ** 2 + (y + 0.2) ** 2)
    >>> [round(float(x), 3) for x in search.best]
    [0.3, -0.2]
    """

    def __init__(self, corners: Sequence[Sequence[float]]) -> None:
        self.corners = [np.asarray(c, dtype=np.float64) for c in corners]
        self.values: list[float] = []
        self._begin()

    def _begin(self) -> None:
        self._search = simplex_search(self.corners)
        self.point, self.best, self._least = next(self._search), self.corners[0], np.inf

    def tell(self, value: float) -> None:
        if value < self._least:
            self.best, self._least = self.point, value
        self.values.append(value)
        self.point = self._search.send(value)

    def state_dict(self) -> dict[str, Any]:
        """The values told so far, by which the search can be repeated."""
        return {"values": list(self.values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.values = []
        self._begin()
        for value in state["values"]:
            self.tell(value)
