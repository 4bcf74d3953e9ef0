# SPDX-License-Identifier: Apache-2.0
"""Rewards from functions of the whole batch's tensors: no call per row, so thousands of rows take a millisecond."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.errors import InputError, check_shape
from guerdon.levels import unit_count
from guerdon.rewards.aligning import stacked
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
        return self.together([self], rollouts, [parts], step)[0]

    @classmethod
    def together(
        cls, nodes: Sequence[TensorReward], rollouts: Rollouts, parts: Sequence[list[Component]], step: int
    ) -> list[Component]:
        units, tensors = rollouts.level(nodes[0].level), _tensors(rollouts)
        k, written = unit_count(units), [x._version for x in tensors]
        found = [node._measured(rollouts, k, tensors, written) for node in nodes]
        there = torch.arange(k, device=units.device) <= units.max(1).values[:, None]
        whole = torch.where(there, int(Status.OK), int(Status.NONE)).to(torch.int8)
        values, status = list[Tensor](), list[Tensor]()
        for x in stacked(found):
            values += torch.where(there, x, torch.nan)
            some_abstain = x.sum().isnan()  # or padding is NaN; the look at each value costs as much as all the rest
            status += torch.where(there & x.isnan(), int(Status.ABSTAIN), whole) if some_abstain else [whole] * len(x)
        one = Component(nodes[0].name, nodes[0].level, values[0], status[0])
        return [
            one.unchecked(name=n.name, values=v, status=s, bounds=n.bounds, spread=n.spread, version=n.version)
            for n, v, s in zip(nodes, values, status, strict=True)
        ]

    def _measured(self, rollouts: Rollouts, k: int, tensors: list[Tensor], written: list[int]) -> Tensor:
        """[N, K] what the function says; ``written``: how often each of the rollouts' tensors was, and is after it."""
        values = self.function(rollouts)
        if [x._version for x in tensors] != written:
            raise InputError(
                f"{self.name}: expected the rollouts to be left as they are, but the function wrote into one of their tensors, "
                "which other rewards and the update read too. Usual cause: an operation in place; clone first."
            )
        if not isinstance(values, Tensor) or values.is_complex():
            got = f"one of {values.dtype}" if isinstance(values, Tensor) else type(values).__name__
            raise InputError(
                f"{self.name}: expected a tensor of real numbers, got {got}. Usual cause: a list, or a return that is missing."
            )
        if values.dim() == 1 and k == 1:
            values = values[:, None]
        check_shape(
            self.name, "the result", values, (len(rollouts), k), f"values of other units than those of level {self.level}"
        )
        return values


def _tensors(rollouts: Rollouts) -> list[Tensor]:
    """Those of the rollouts that count how often they are written to."""
    own = [*vars(rollouts).values(), *rollouts.levels.values(), *(f.values for f in rollouts.fields.values())]
    return [x for x in own if isinstance(x, Tensor) and not x.is_inference()]


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
