# SPDX-License-Identifier: Apache-2.0
"""Rewards from functions of the whole batch's tensors: no call per row, so thousands of rows take a millisecond."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.errors import InputError, check_shape
from guerdon.levels import unit_count
from guerdon.rewards.function import source_version
from guerdon.rewards.node import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Status


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TensorReward(Reward):
    """``function``: rollouts -> a value for each unit of ``level``: [N] of episodes, [N, K] of anything else.

    A unit that it gives NaN abstains. Units of the padding are never read.
    """

    function: Callable[[Rollouts], Tensor]

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        before = _written(rollouts)
        values = self.function(rollouts)
        if _written(rollouts) != before:
            raise InputError(
                f"{self.name}: expected the rollouts to be left as they are, but the function wrote into one of their tensors, "
                "which other rewards and the update read too. Usual cause: an operation in place; clone first."
            )
        if not isinstance(values, Tensor) or values.is_complex():
            got = f"one of {values.dtype}" if isinstance(values, Tensor) else type(values).__name__
            raise InputError(
                f"{self.name}: expected a tensor of real numbers, got {got}. Usual cause: a list, or a return that is missing."
            )
        units = rollouts.level(self.level)
        k = unit_count(units)
        if values.dim() == 1 and k == 1:
            values = values[:, None]
        check_shape(
            self.name, "the result", values, (len(rollouts), k), f"values of other units than those of level {self.level}"
        )
        there = torch.arange(k, device=values.device) <= units.max(1).values[:, None]
        status = torch.where(values.isnan(), int(Status.ABSTAIN), int(Status.OK))
        status = torch.where(there, status, int(Status.NONE)).to(torch.int8)
        values = torch.where(status == Status.OK, values, torch.nan)
        return Component(self.name, self.level, values, status, {}, self.bounds, self.spread, version=self.version)


def _written(rollouts: Rollouts) -> list[int]:
    """How often each tensor of the rollouts was written to."""
    own = [x for x in vars(rollouts).values() if isinstance(x, Tensor)]
    fields = [f.values for f in rollouts.fields.values() if isinstance(f.values, Tensor)]
    return [x._version for x in (*own, *rollouts.levels.values(), *fields) if not x.is_inference()]


def tensor_reward(
    *,
    level: str = "episode",
    bounds: tuple[float, float] = (-math.inf, math.inf),
    needs: tuple[str, ...] = (),
    relation: str = "self",
    spread: str = "last",
    name: str = "",
) -> Callable[[Callable[[Rollouts], Tensor]], TensorReward]:
    """A Reward made of a function of Rollouts, for what can be said with tensors alone.

    ``needs``: fields, or outputs of the policy such as ``ref_log_prob``, that the function reads from the rollouts.

    >>> @tensor_reward(bounds=(0, 1))
    ... def odd(rollouts):
    ...     return (rollouts.action[:, 0] % 2).double()
    >>> rollouts = Rollouts(torch.tensor([[3], [4]]), torch.ones(2, 1, dtype=torch.bool), ["a", "a"])
    >>> (2 * odd).score(rollouts).total.values.tolist()
    [[2.0], [0.0]]
    """

    def made(function: Callable[[Rollouts], Tensor]) -> TensorReward:
        return TensorReward(
            name=name or getattr(function, "__name__", type(function).__name__),
            level=level,
            bounds=Bounds(*bounds),
            spread=spread,
            relation=relation,
            needs=frozenset(needs),
            version=source_version(function),
            identity=function,
            function=function,
        )

    return made
