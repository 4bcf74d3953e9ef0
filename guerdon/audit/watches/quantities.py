# SPDX-License-Identifier: Apache-2.0
"""A watched quantity: a number for each row or episode of Rollouts, and whether a reward reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from guerdon.rewards.evaluating import live_nodes
from guerdon.rewards.node import Reward
from guerdon.rollouts import Rollouts

TIED = 0.8
"""From this rank correlation on, in the reference sample, a reward that reads what a quantity is made of reads the quantity."""


@dataclass(frozen=True)
class Quantity:
    """``of``: rollouts -> [N] a number a row, or [N, K] a number an episode; NaN where there is none.

    fields   what it is made of, by the names that a reward's ``needs`` use
    measures names of leaves, and of arguments of functions, that are this very quantity
    harm     the direction that means trouble: 1 up, -1 down, 0 either
    margin   how far it may drift, in standard deviations of the reference, before it can alarm
    change   how far, as a share of the reference's mean; both must be exceeded
    fit      for one that needs to see the reference first: (rollouts) -> settings, tensors by name, passed to ``of``
    """

    name: str
    of: Callable[..., Tensor]
    fields: frozenset[str]
    unit: str
    measures: frozenset[str] = frozenset()
    harm: int = 0
    margin: float = 1.0
    change: float = 0.25
    fit: Callable[[Rollouts], dict[str, Tensor]] | None = None
    settings: tuple[tuple[str, Tensor], ...] = ()

    def __call__(self, rollouts: Rollouts) -> Tensor:
        return self.of(rollouts, **dict(self.settings)).detach().double()

    def applies(self, rollouts: Rollouts) -> bool:
        own = {"log_prob": rollouts.log_prob, "mask": rollouts.mask, "action": rollouts.action}
        return all(name in rollouts.fields or own.get(name) is not None for name in self.fields)

    def fitted(self, rollouts: Rollouts) -> Quantity:
        return self if self.fit is None else self.with_settings(self.fit(rollouts))

    def with_settings(self, settings: dict[str, Tensor]) -> Quantity:
        return replace(self, settings=tuple(settings.items()))


def reading(quantity: Quantity, reward: Any) -> str:
    """How a reward reads a quantity: "no" (none of its live parts reads what it is made of), "itself" (a part measures it), or
    "its fields" (a part reads what it is made of; whether that comes to the quantity is to be measured).

    A part that is only watched is no part of the reward. A scorer that is no expression says by its ``needs`` alone.

    >>> from guerdon.audit.watches.text import LENGTH, REPETITION
    >>> from guerdon.rewards.checkers import kl, length, numeric
    >>> reading(LENGTH, numeric()), reading(LENGTH, -0.1 * length()), reading(REPETITION, kl() + numeric().watch())
    ('its fields', 'itself', 'no')
    """
    leaves = [n for n in live_nodes(reward) if not n.parts] if isinstance(reward, Reward) else [reward]
    for leaf in leaves:
        said = {getattr(leaf, "name", ""), *getattr(leaf, "reads", {}).values(), *leaf.needs}
        if said & quantity.measures:
            return "itself"
    return "its fields" if any(leaf.needs & quantity.fields for leaf in leaves) else "no"


def row_mean(x: Tensor, mask: Tensor) -> Tensor:
    """[N] mean of ``x`` [N, T] over the steps that count; NaN where there is none."""
    return torch.where(mask, x, 0).sum(1) / mask.sum(1)
