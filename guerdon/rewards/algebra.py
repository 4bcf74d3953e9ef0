# SPDX-License-Identifier: Apache-2.0
"""The nodes of reward expressions and the functions that build them.

Rules, for every node:

- In a sum a coarser part is spread by its own rule (default: on the last step of its unit); products, conditions, minima, maxima
  and means copy it to each finer unit. The result has the finest level.
- A finer part never becomes coarser without ``pool``; where it would have to, building the expression is an error.
- A unit is ok only if every part it reads is. Otherwise it has the worst status and every reason, unless ``otherwise`` says
  differently.
- Bounds are those of interval arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guerdon.errors import ExpressionError
from guerdon.levels import is_finer
from guerdon.rewards import aligning
from guerdon.rewards.building import (
    Watch,
    auto_name,
    call,
    finest_part,
    hull,
    inside,
    names_itself,
    number,
    product,
    unwatched,
    watch,
)
from guerdon.rewards.node import ATOM, PRODUCT, SUM, Reward
from guerdon.rewards.schedule import Linear, number_text
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Status

Factor = float | Linear


def on_level(part: Reward, level: str) -> Bounds:
    """Interval of what a unit of ``level`` gets from ``part`` in a sum."""
    if isinstance(part, Sum):
        sides = [on_level(p, level) for p in part.terms]
        return sum(sides[1:], sides[0])
    if isinstance(part, Scale):
        return product(on_level(part.parts[0], level), part.factor_bounds())
    if part.level == level:
        return part.bounds
    many = part.spread == "copy" and level != "step"
    return hull(part.bounds.of_total("step") if many else part.bounds, Bounds(0.0, 0.0))


def _combine(reward: Reward, rollouts: Rollouts, components: list[Component], function: Callable[..., Tensor]) -> Component:
    """``function`` of the parts' values at the node's level, coarser parts copied."""
    copies = [aligning.copied(c, rollouts, reward.level) for c in components]
    return aligning.combined(copies, function, [names_itself(p) for p in reward.parts])


# ---- sums and weights


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Sum(Reward):
    """a + b + ...: coarser parts spread by their rule. Watched parts take no part in it."""

    binds: ClassVar[int] = SUM

    @property
    def terms(self) -> tuple[Reward, ...]:
        return tuple(p for p in self.parts if not isinstance(p, Watch)) or self.parts

    def expression(self) -> str:
        text = inside(self.parts[0], PRODUCT)
        for part in self.parts[1:]:
            if isinstance(part, Scale) and isinstance(part.factor, float) and part.factor < 0:
                text += f" - {part.unsigned()}"
            else:
                text += f" + {inside(part, PRODUCT)}"
        return text

    def total_bounds(self) -> Bounds:
        sides = [p.total_bounds() for p in self.terms]
        return sum(sides[1:], sides[0])

    def label(self) -> str:
        return "sum"

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        terms, values = self.terms, dict(zip(self.parts, parts, strict=True))
        found = [aligning.landed(values[p], rollouts, self.level) for p in terms]
        return aligning.combined(found, lambda *xs: torch.stack(xs).sum(0), [names_itself(p) for p in terms])


def plus(*parts: Reward) -> Reward:
    flat = tuple(q for p in parts for q in (p.parts if isinstance(p, Sum) else (p,)))
    terms = tuple(p for p in flat if not isinstance(p, Watch)) or flat
    first = finest_part(terms, "+")
    sides = [on_level(p, first.level) for p in terms]
    return Sum(
        name=auto_name("sum", *(p.name for p in terms)),
        level=first.level,
        spread=first.spread,
        bounds=sum(sides[1:], sides[0]),
        parts=flat,
    )


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Scale(Reward):
    """factor * a, the factor a number or a schedule."""

    factor: Factor
    binds: ClassVar[int] = PRODUCT

    def weight(self, step: int) -> float:
        return self.factor if isinstance(self.factor, float) else self.factor(step)

    def factor_bounds(self) -> Bounds:
        return Bounds(self.factor, self.factor) if isinstance(self.factor, float) else self.factor.bounds

    def total_bounds(self) -> Bounds:
        return product(self.parts[0].total_bounds(), self.factor_bounds())

    def label(self) -> str:
        return "-1 *" if self.factor == -1 else f"{self._factor_text()} *"

    def _factor_text(self) -> str:
        return number_text(self.factor) if isinstance(self.factor, float) else str(self.factor)

    def expression(self) -> str:
        if self.factor == -1:
            return f"-{self._operand()}"
        return f"{self._factor_text()} * {self._operand()}"

    def unsigned(self) -> str:
        """The text after the minus sign that stands for a negative factor."""
        return self._operand() if self.factor == -1 else f"{self._factor_text().lstrip('-')} * {self._operand()}"

    def _operand(self) -> str:
        part = self.parts[0]
        return f"({part})" if isinstance(part, Scale) else inside(part, PRODUCT)

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        (x,), factor = parts, self.weight(step)
        reasons = aligning.reasons_of(parts, [names_itself(self.parts[0])])
        return x.unchecked(values=x.values * factor, status=x.status.to(torch.int8), reasons=reasons, uncertainty=None)


def scaled(part: Reward, by: object) -> Reward:
    """by * part, with factors of factors and of watched terms brought together."""
    factor: Factor = by if isinstance(by, Linear) else number("*", "factor", by)
    if isinstance(part, Watch):
        return watch(scaled(part.parts[0], factor))
    if isinstance(part, Scale) and isinstance(factor, float):
        return scaled(part.parts[0], part.factor * factor)
    if isinstance(part, Scale) and isinstance(part.factor, float):
        return scaled(part.parts[0], factor * part.factor)
    if factor == 1:
        return part
    bounds = Bounds(factor, factor) if isinstance(factor, float) else factor.bounds
    return Scale(
        name=part.name,
        level=part.level,
        spread=part.spread,
        bounds=product(part.bounds, bounds),
        parts=(part,),
        factor=factor,
    )


# ---- unit by unit


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Product(Reward):
    """a * b * ...: coarser parts copied."""

    binds: ClassVar[int] = PRODUCT

    def expression(self) -> str:
        return " * ".join(inside(p, PRODUCT) for p in self.parts)

    def label(self) -> str:
        return "product"

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        return _combine(self, rollouts, parts, lambda *xs: torch.stack(xs).prod(0))


def times(a: Reward, b: Reward) -> Reward:
    """a * b, with number and schedule factors taken out to the front."""
    unwatched("*", a, b)
    if isinstance(a, Scale):
        return scaled(times(a.parts[0], b), a.factor)
    if isinstance(b, Scale):
        return scaled(times(a, b.parts[0]), b.factor)
    flat = tuple(q for p in (a, b) for q in (p.parts if isinstance(p, Product) else (p,)))
    first = finest_part(flat, "*")
    bounds = flat[0].bounds
    for part in flat[1:]:
        bounds = product(bounds, part.bounds)
    name = auto_name(*" times ".join(p.name for p in flat).split(" "))
    return Product(name=name, level=first.level, spread=first.spread, bounds=bounds, parts=flat)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Extreme(Reward):
    """min_of, max_of or mean_of its parts, unit by unit; coarser parts copied."""

    how: str

    def expression(self) -> str:
        return f"{self.how}_of({', '.join(map(str, self.parts))})"

    def label(self) -> str:
        return f"{self.how} of"

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        functions = {"min": lambda x: x.amin(0), "max": lambda x: x.amax(0), "mean": lambda x: x.mean(0)}
        return _combine(self, rollouts, parts, lambda *xs: functions[self.how](torch.stack(xs)))


def _extreme(how: str, parts: tuple[Reward, ...]) -> Reward:
    whose = f"{how}_of"
    if len(parts) < 2 or not all(isinstance(p, Reward) for p in parts):
        hint = "A constant side is .clip(low, high)" if how != "mean" else "Pass rewards one by one"
        raise ExpressionError(f"{whose}: expected two rewards or more, got {', '.join(map(repr, parts)) or 'none'}. {hint}.")
    unwatched(whose, *parts)
    first = finest_part(parts, whose)
    low, high = [p.bounds.low for p in parts], [p.bounds.high for p in parts]
    bounds = {"min": (min(low), min(high)), "max": (max(low), max(high)), "mean": (sum(low) / len(low), sum(high) / len(high))}[
        how
    ]
    name = auto_name(how, *(p.name for p in parts))
    return Extreme(name=name, level=first.level, spread=first.spread, bounds=Bounds(*bounds), parts=parts, how=how)


def min_of(*parts: Reward) -> Reward:
    """The least of several rewards, unit by unit."""
    return _extreme("min", parts)


def max_of(*parts: Reward) -> Reward:
    """The greatest of several rewards, unit by unit."""
    return _extreme("max", parts)


def mean_of(*parts: Reward) -> Reward:
    """The mean of several rewards about the same units (coarser ones copied, unlike in a sum)."""
    return _extreme("mean", parts)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Clip(Reward):
    """Values moved to the nearest point of [low, high]."""

    low: float | None
    high: float | None

    def _arguments(self) -> list[str]:
        sides = [("low", self.low), ("high", self.high)]
        if self.low is not None and self.high is not None:
            return [number_text(self.low), number_text(self.high)]
        return [f"{name}={number_text(x)}" for name, x in sides if x is not None]

    def expression(self) -> str:
        return call(self.parts[0], "clip", *self._arguments())

    def label(self) -> str:
        return f"clip({', '.join(self._arguments())})"

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        return _combine(self, rollouts, parts, lambda x: x.clamp(self.low, self.high))


def clip(part: Reward, low: float | None, high: float | None) -> Reward:
    unwatched("clip", part)
    if low is None and high is None:
        raise ExpressionError("clip: expected `low`, `high` or both, got neither.")
    low = None if low is None else number("clip", "low", low)
    high = None if high is None else number("clip", "high", high)
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    if least > most:
        raise ExpressionError(f"clip: `low` should be at most `high`, got {least:g} and {most:g}.")
    bounds = Bounds(min(max(part.bounds.low, least), most), min(max(part.bounds.high, least), most))
    return Clip(
        name=auto_name(part.name, "clipped"),
        level=part.level,
        spread=part.spread,
        bounds=bounds,
        parts=(part,),
        low=low,
        high=high,
    )


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Gate(Reward):
    """value * 1[on > above], or value * sigmoid((on - above) / softness); the condition copied to finer units."""

    above: float
    softness: float | None

    def expression(self) -> str:
        arguments = [f"on={self.parts[1]}", f"above={number_text(self.above)}"]
        return call(self.parts[0], "gate", *arguments, *self._soft())

    def _soft(self) -> list[str]:
        return [] if self.softness is None else [f"softness={number_text(self.softness)}"]

    def label(self) -> str:
        return f"gate({', '.join([f'above={number_text(self.above)}', *self._soft()])})"

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        def opened(x: Tensor, on: Tensor) -> Tensor:
            if self.softness is None:
                return torch.where(on > self.above, x, 0)
            return x * torch.sigmoid((on - self.above) / self.softness)

        return _combine(self, rollouts, parts, opened)


def gate(part: Reward, on: Reward, above: float, softness: float | None) -> Reward:
    unwatched("gate", part, on)
    if is_finer(on.level, part.level):
        raise ExpressionError(
            f"gate: the condition `{on}` is finer ({on.level}) than `{part}` ({part.level}), so one unit would have several "
            f"conditions. Say which counts with `on={inside(on, ATOM)}.pool('mean', {part.level!r})` "
            "(or sum, last, first, min, max)."
        )
    finest_part((part, on), "gate")
    above = number("gate", "above", above)
    if softness is not None and number("gate", "softness", softness) <= 0:
        raise ExpressionError(f"gate: `softness` should be greater than 0, got {softness!r}. For a hard gate leave it out.")
    return Gate(
        name=auto_name(part.name, "if", on.name),
        level=part.level,
        spread=part.spread,
        bounds=hull(part.bounds, Bounds(0.0, 0.0)),
        parts=(part, on),
        above=above,
        softness=None if softness is None else float(softness),
    )


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Otherwise(Reward):
    """The first part where it is ok, else the second; where neither is, the worse status and both reasons."""

    def expression(self) -> str:
        return call(self.parts[0], "otherwise", str(self.parts[1]))

    def label(self) -> str:
        return "otherwise"

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        a, b = (aligning.copied(c, rollouts, self.level) for c in parts)
        neither = torch.maximum(a.status, b.status)
        status = torch.where(a.ok | b.ok, int(Status.OK), neither).to(torch.int8)
        values = torch.where(a.ok, a.values, b.values)
        reasons = aligning.reasons_of([a, b], [names_itself(p) for p in self.parts])
        lost = status.tolist()
        kept = {(n, k): text for (n, k), text in reasons.items() if lost[n][k] > Status.OK}
        return a.replace(values=values, status=status, reasons=kept, uncertainty=None)


def otherwise(part: Reward, other: Reward) -> Reward:
    unwatched("otherwise", part, other)
    first = finest_part((part, other), "otherwise")
    name = auto_name(part.name, "else", other.name)
    return Otherwise(
        name=name, level=first.level, spread=first.spread, bounds=hull(part.bounds, other.bounds), parts=(part, other)
    )
