# SPDX-License-Identifier: Apache-2.0
"""Rewards that are there already: a number that the rollouts carry for each of their units, as an environment's own reward is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from guerdon.errors import ExpressionError, InputError
from guerdon.levels import unit_count
from guerdon.rewards.aligning import taken
from guerdon.rewards.node import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Component, Status

ENVIRONMENT = "environment_reward"


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class FieldReward(Reward):
    """The values of ``field`` for the units in which the policy took a step; one that is not finite is an error of its unit."""

    field: str
    written: str

    def expression(self) -> str:
        return self.written

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        dtype = torch.get_default_dtype() if rollouts.log_prob is None else rollouts.log_prob.dtype
        there = taken(rollouts, self.level)
        values = self._values(rollouts).to(there.device, dtype)
        status = torch.where(there, int(Status.OK), int(Status.NONE)).to(torch.int8)
        values, reasons = torch.where(there, values, torch.nan), dict[tuple[int, int], str]()
        for n, k in (there & ~values.isfinite()).nonzero().tolist():
            reasons[n, k] = f"`{self.field}` is {values[n, k].item()}"
            values[n, k], status[n, k] = torch.nan, int(Status.ERROR)
        return Component(self.name, self.level, values, status, reasons, self.bounds, self.spread)

    def _values(self, rollouts: Rollouts) -> torch.Tensor:
        """[N, K] one number a unit."""
        of = rollouts.field(self.field)
        if of.level != self.level:
            raise InputError(
                f"{self.written}: expected a value per {self.level}, `{self.field}` has one per {of.level}. "
                "Say level=... as the field has it; .pool(how, level) makes it coarser."
            )
        k = unit_count(rollouts.level(self.level))
        values: Any = of.values
        if not isinstance(values, torch.Tensor):
            rows = [[float(x) for x in row] + [torch.nan] * (k - len(row)) for row in values]
            values = torch.tensor(rows, dtype=torch.float64)
        if self.level == "step":
            values = values[:, :k]  # some rows of a whole may be shorter than the longest of it
        if tuple(values.shape) != (len(rollouts), k) or values.is_complex():
            raise InputError(
                f"{self.written}: expected one number for each {self.level}, `{self.field}` has the shape {list(values.shape)}. "
                "Usual cause: a field of vectors; a function of your own can make one number of each."
            )
        return values


def environment() -> FieldReward:
    """The environment's own reward at each step.

    >>> rollouts = Rollouts(action=torch.zeros(1, 2), mask=torch.tensor([[True, True]]), task=["a"])
    >>> environment().score(rollouts.with_field("environment_reward", "step", torch.tensor([[1.0, -2.0]]))).total.values.tolist()
    [[1.0, -2.0]]
    """
    return _of(ENVIRONMENT, "step", "environment", "environment")


def field(name: str, level: str = "step") -> FieldReward:
    """A number that the rollouts carry for each unit of ``level``, whatever it is called.

    >>> rollouts = Rollouts(action=torch.zeros(1, 2), mask=torch.tensor([[True, True]]), task=["a"])
    >>> print(field("speed"), field("speed").score(rollouts.with_field("speed", "step", torch.ones(1, 2))).total.values.tolist())
    field('speed') [[1.0, 1.0]]
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ExpressionError(f"field: expected the name of a field, got {name!r}.")
    if level == "task":
        raise ExpressionError("field: `level` should be step, turn, episode or a level between, got 'task', which is of rows.")
    return _of(name, level, name, f"field({name!r})" if level == "step" else f"field({name!r}, {level!r})")


def _of(name: str, level: str, called: str, written: str) -> FieldReward:
    return FieldReward(name=called, level=level, needs=frozenset({name}), causal=True, field=name, written=written)
