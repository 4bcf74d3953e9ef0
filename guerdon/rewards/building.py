# SPDX-License-Identifier: Apache-2.0
"""What all nodes of the algebra are built with: intervals, text, names, checks; and the two nodes that only label a part."""

from __future__ import annotations

import math
from dataclasses import dataclass

from guerdon.errors import ExpressionError
from guerdon.levels import finest
from guerdon.rewards.node import ATOM, Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component

# ---- intervals


def hull(*bounds: Bounds) -> Bounds:
    """The smallest interval that holds them all."""
    return Bounds(min(b.low for b in bounds), max(b.high for b in bounds))


def product(a: Bounds, b: Bounds) -> Bounds:
    """Interval of x * y for x in ``a``, y in ``b``; 0 times an unbounded side is 0.

    >>> product(Bounds(-1, 2), Bounds(0, math.inf))
    Bounds(low=-inf, high=inf)
    >>> product(Bounds(0, 1), Bounds(-1, 3))
    Bounds(low=-1, high=3)
    """
    corners = [0.0 if x == 0 or y == 0 else x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return Bounds(min(corners), max(corners))


# ---- labels


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Watch(Reward):
    """Evaluated and shown, never part of a total."""

    def expression(self) -> str:
        return call(self.parts[0], "watch")

    def label(self) -> str:
        return "watch"

    def total_bounds(self) -> Bounds:
        return self.parts[0].total_bounds()

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        return parts[0]


def watch(part: Reward) -> Reward:
    if isinstance(part, Watch):
        return part
    return Watch(name=part.name, level=part.level, spread=part.spread, bounds=part.bounds, parts=(part,))


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Named(Reward):
    """The same values under a name of one's own."""

    def expression(self) -> str:
        return call(self.parts[0], "named", repr(self.name))

    def label(self) -> str:
        return f"{self.name} ="

    def total_bounds(self) -> Bounds:
        return self.parts[0].total_bounds()

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        return parts[0]


def named(part: Reward, name: str) -> Reward:
    if not isinstance(name, str) or not name.isidentifier():
        raise ExpressionError(f"named: a name consists of letters, digits and _ and starts with a letter, got {name!r}.")
    if isinstance(part, Watch):
        return watch(named(part.parts[0], name))
    return Named(name=name, level=part.level, spread=part.spread, bounds=part.bounds, parts=(part,))


# ---- text


def inside(part: Reward, least: int) -> str:
    """The part's text, in parentheses where it binds less tightly than ``least``."""
    return str(part) if part.binds >= least else f"({part})"


def call(part: Reward, method: str, *arguments: str) -> str:
    return f"{inside(part, ATOM)}.{method}({', '.join(arguments)})"


def names_itself(part: Reward) -> bool:
    """True for leaves and renamed leaves, whose reasons a reader can't place without the name."""
    return not part.parts or (isinstance(part, Named) and names_itself(part.parts[0]))


def auto_name(*words: str) -> str:
    """A readable name of at most 48 characters."""
    name = "_".join(words)
    return name if len(name) <= 48 else name[:48].rstrip("_")


# ---- checks while building


def finest_part(parts: tuple[Reward, ...], whose: str) -> Reward:
    """The first of the parts at the finest level."""
    try:
        level = finest([p.level for p in parts], whose)
    except ExpressionError as error:
        named = ", ".join(f"`{p}` ({p.level})" for p in parts)
        raise ExpressionError(f"{error} The parts are {named}.") from None
    return next(p for p in parts if p.level == level)


def unwatched(whose: str, *parts: Reward) -> None:
    for part in parts:
        if isinstance(part, Watch):
            raise ExpressionError(
                f"{whose}: `{part}` is watched, so nothing may be computed from it. Watch the whole instead, or add it with +."
            )


def number(whose: str, name: str, x: object) -> float:
    if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x):
        raise ExpressionError(f"{whose}: `{name}` should be a finite number, got {x!r}.")
    return float(x)


def check_level(whose: str, level: object) -> None:
    if not isinstance(level, str) or not level.isidentifier():
        raise ExpressionError(f"{whose}: a level is a name such as 'step', 'line' or 'episode', got {level!r}.")
