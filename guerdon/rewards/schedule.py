# SPDX-License-Identifier: Apache-2.0
"""Schedules: weights that change with the training step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from guerdon.errors import ExpressionError
from guerdon.scores import Bounds


@dataclass(frozen=True)
class Linear:
    """A straight line from ``start`` at step 0 to ``end`` at step ``steps``, constant after.

    w(s) = start + (end - start) * min(s, steps) / steps

    >>> warm = linear(0, 1, 100)
    >>> warm(0), warm(25), warm(400)
    (0.0, 0.25, 1.0)
    >>> print(0.5 * warm)
    linear(0, 0.5, 100)
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1 or self.steps != int(self.steps):
            raise ExpressionError(f"linear: `steps` should be a whole number, 1 or more, got {self.steps!r}.")
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise ExpressionError(f"linear: `start` and `end` should be finite, got {self.start} and {self.end}.")

    def __call__(self, step: int) -> float:
        share = min(max(step, 0), self.steps) / self.steps
        return self.start * (1 - share) + self.end * share

    def __mul__(self, number: float) -> Linear:
        if isinstance(number, bool) or not isinstance(number, int | float):
            return NotImplemented
        return Linear(self.start * number, self.end * number, self.steps)

    __rmul__ = __mul__

    def __neg__(self) -> Linear:
        return self * -1

    def __str__(self) -> str:
        return f"linear({number_text(self.start)}, {number_text(self.end)}, {self.steps})"

    @property
    def bounds(self) -> Bounds:
        return Bounds(min(self.start, self.end), max(self.start, self.end))


def linear(start: float, end: float, steps: int) -> Linear:
    """A weight that goes from ``start`` to ``end`` over the first ``steps`` training steps, then stays."""
    return Linear(float(start), float(end), int(steps) if steps == int(steps) else steps)


def constant(value: float) -> float:
    """A weight that stays; for symmetry with ``linear``."""
    return float(value)


def number_text(x: float) -> str:
    """The shortest text that reads back as the same number.

    >>> number_text(1.0), number_text(0.1 * 3), number_text(-2)
    ('1', '0.30000000000000004', '-2')
    """
    return str(int(x)) if x == int(x) and abs(x) < 1e15 else repr(float(x))
