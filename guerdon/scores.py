# SPDX-License-Identifier: Apache-2.0
"""Scores: how good it was. Named components, each with its own level, a status per unit and bounds.

A value is NaN exactly where its status is not ok, so a failure can never be read as a zero. NaN is also how a status travels
through the tensor functions of ``guerdon.credit``: it makes every return it would enter NaN, and the loop drops those steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from guerdon import levels
from guerdon.errors import InputError, ShapeError, check_shape
from guerdon.rollouts import Rollouts


class Status(IntEnum):
    """What became of a unit; the larger, the worse. NONE: the row has no such unit (padding of [N, K])."""

    NONE = -1
    OK = 0
    ABSTAIN = 1
    TIMEOUT = 2
    ERROR = 3


@dataclass(frozen=True)
class Bounds:
    """Closed interval that a unit's value lies in.

    >>> Bounds(0, 1) * -2, Bounds(0, 1) + Bounds(-1, 1)
    (Bounds(low=-2, high=0), Bounds(low=-1, high=2))
    """

    low: float = -math.inf
    high: float = math.inf

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(self.low + other.low, self.high + other.high)

    def __mul__(self, k: float) -> Bounds:
        if k == 0:
            return Bounds(0.0, 0.0)
        return Bounds(*sorted((self.low * k, self.high * k)))

    def of_total(self, level: str) -> Bounds:
        """Of the sum over an episode: a sum over an unknown number of units is unbounded on the side where units can lie."""
        if level == "episode":
            return self
        return Bounds(0.0 if self.low >= 0 else -math.inf, 0.0 if self.high <= 0 else math.inf)


@dataclass(frozen=True, eq=False)
class Component:
    """One named column of Scores: values per unit of its level.

    values [N, K], NaN exactly where the status is not ok; status [N, K] int8 (Status); reasons (row, unit) -> text for units that
    are not ok, rationales for those that are; bounds per unit; spread: how it moves to finer levels ("last", "uniform", "copy",
    "first"); weight: what the whole multiplies it by (None: watch-only, nothing is trained on it).
    """

    name: str
    level: str
    values: Tensor
    status: Tensor
    reasons: Mapping[tuple[int, int], str] = field(default_factory=dict)
    bounds: Bounds = Bounds()
    spread: str = "last"
    weight: float | None = 1.0
    version: str = ""
    uncertainty: Tensor | None = None

    def __post_init__(self) -> None:
        check_shape(f"Component {self.name}", "status", self.status, tuple(self.values.shape))
        missing, not_ok = torch.isnan(self.values), self.status.bool()
        if not torch.equal(missing, not_ok):
            n, k = (missing != not_ok).nonzero()[0].tolist()
            raise ShapeError(
                f"Component {self.name}: values should be NaN exactly where the status is not ok; at row {n}, unit {k} "
                f"the value is {self.values[n, k].item()} and the status {Status(int(self.status[n, k])).name.lower()}."
            )

    def replace(self, **changes: Any) -> Component:
        return self.unchecked(**changes) if changes.keys() <= _LABELS else replace(self, **changes)

    def unchecked(self, **changes: Any) -> Component:
        """``replace`` for values and statuses that agree by how they were made."""
        made = object.__new__(Component)
        vars(made).update(vars(self), **changes)
        return made

    @property
    def ok(self) -> Tensor:
        """[N, K] True where the value can be used."""
        return self.status == Status.OK

    def shares(self) -> dict[str, float]:
        """Share of its units with each status that is not ok (of all units there are)."""
        _, ok, *others = torch.bincount(self.status.flatten() + 1, minlength=len(Status)).tolist()
        there = max(ok + sum(others), 1)
        return {name: count / there for name, count in zip(("abstain", "timeout", "error"), others, strict=True)}

    def mean(self) -> float:
        """Mean over the units that are ok; NaN where there is none."""
        found = self.values[self.ok] if self.status.any() else self.values.flatten()
        return found.mean().item() if len(found) else math.nan

    def steps(self, level: Tensor, mask: Tensor) -> Tensor:
        """[N, T] the values on steps, spread by the component's own rule; NaN where a unit that falls there is not ok."""
        return levels.spread(self.values, level, self.spread, mask)


_LABELS = {f.name for f in fields(Component)} - {"values", "status"}


@dataclass(frozen=True, eq=False)
class Scores:
    """What a Reward says of Rollouts.

    total       the composed reward, at its own level
    components  the additive terms of the total by name, unweighted, each with its weight and its own level (what credit sees)
    trace       every named part of the expression by name, watch-only terms included (what people see)
    levels      name -> [N, T] unit ids of every level that occurs (a reward may bring its own, e.g. `segment`)
    mask        [N, T] True: the policy took this step
    """

    total: Component
    components: Mapping[str, Component]
    trace: Mapping[str, Component]
    levels: Mapping[str, Tensor]
    mask: Tensor

    def at(self, level: str) -> Tensor:
        """[N, K, D] values of the components of one level, in order; NaN where not ok."""
        found = [c.values for c in self.components.values() if c.level == level]
        if not found:
            have = ", ".join(f"{c.name}:{c.level}" for c in self.components.values())
            raise InputError(f"Scores: no component at level `{level}`; there are {have}.")
        return torch.stack(found, -1)

    def reward(self) -> Tensor:
        """[N, T] the total on decision steps."""
        return self.total.steps(self.levels[self.total.level], self.mask)

    def unweighted(self) -> dict[str, Tensor]:
        """name -> [N, T] each component on steps. NaN where the total isn't ok."""
        bad, out = torch.isnan(self.reward()), dict.fromkeys(self.components, self.mask)
        alike: dict[Any, list[str]] = {}
        for name, c in self.components.items():
            alike.setdefault((c.level, c.spread, c.values.dtype, c.values.shape), []).append(name)
        for (level, how, *_), names in alike.items():
            x = levels.spread(torch.stack([self.components[k].values for k in names]), self.levels[level], how, self.mask)
            out.update(zip(names, torch.where(bad, torch.nan, x), strict=True))
        return out

    def rewards(self) -> dict[str, Tensor]:
        """name -> [N, T] each component on steps, times its weight; they sum to ``reward()``. NaN where the total isn't ok."""
        weights = {name: 1.0 if c.weight is None else c.weight for name, c in self.components.items()}
        return {name: x * weights[name] for name, x in self.unweighted().items()}

    def save(self, path: Any) -> None:
        """Write a parquet file (one row per unit and part) that pandas and datasets read; needs ``guerdon[data]``."""
        from guerdon.storage import save_scores

        save_scores(self, path)

    @staticmethod
    def load(path: Any) -> Scores:
        from guerdon.storage import load_scores

        return load_scores(path)


def component(name: str, level: str, values: Tensor, **extra: Any) -> Component:
    """A Component for Scores made by hand: units are ok where they have a value and absent (NONE) where it is NaN."""
    status = torch.where(torch.isnan(values), int(Status.NONE), int(Status.OK)).to(torch.int8)
    return Component(name, level, values, status, **extra)


def scores_of(rollouts: Rollouts, components: list[Component]) -> Scores:
    """Scores made by hand: the total is the weighted sum of the components on steps."""
    mask = rollouts.mask
    on_steps = [c.steps(rollouts.level(c.level), mask) * (1.0 if c.weight is None else c.weight) for c in components]
    there = rollouts.level("step") >= 0
    total = torch.where(there, torch.stack(on_steps).sum(0), torch.nan)
    status = [_on_steps(c.status, rollouts.level(c.level)) for c in components]
    worst = [torch.where(torch.isnan(x), s, int(Status.OK)) for s, x in zip(status, on_steps, strict=True)]
    # a unit that a component calls absent, though the rollouts have it, was not judged: the total abstains
    failed = torch.stack(worst).amax(0).clamp(min=int(Status.ABSTAIN))
    code = torch.where(there, torch.where(torch.isnan(total), failed, int(Status.OK)), int(Status.NONE)).to(torch.int8)
    named = {c.name: c for c in components}
    return Scores(Component("total", "step", total, code, spread="copy"), named, named, dict(rollouts.levels), mask)


def _on_steps(status: Tensor, level: Tensor) -> Tensor:
    """[N, T] the status of each step's unit."""
    return status.long().gather(1, level.clamp(min=0)) if status.shape[1] else torch.full_like(level, int(Status.NONE))
