# SPDX-License-Identifier: Apache-2.0
"""Watches for a recipe that has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from guerdon.audit.watches.quantities import Quantity
from guerdon.audit.watches.watching import Watches
from guerdon.errors import InputError
from guerdon.rewards.node import Reward
from guerdon.rewards.oracle import oracle
from guerdon.rollouts import Rollouts
from guerdon.training.recipe import Recipe, Stage


def watched(
    recipe: Recipe,
    gold: Reward | None = None,
    *,
    quantities: Sequence[Quantity] | None = None,
    reference: Rollouts | None = None,
    stop: str = "",
    alpha: float = 0.01,
    **more: Any,
) -> Recipe:
    """The recipe with every stage that has a reward watched; nothing of what it trains changes.

    ``gold`` is added to each reward as ``oracle(gold).watch()``: measured, never trained on. The other arguments, and ``more``,
    are those of ``Watches``.
    """
    start = partial(_start, recipe)

    def stage(s: Stage) -> Stage:
        reward = _with_gold(s, gold)
        found = Watches(reward, quantities, reference, start, stop, alpha, micro_rows=s.micro_rows, **more)
        return replace(s, reward=reward, evolving=[*s.evolving, found])

    return replace(recipe, stages=[stage(s) if s.reward is not None else s for s in recipe.stages])


def _with_gold(stage: Stage, gold: Reward | None) -> Any:
    if gold is None:
        return stage.reward
    if not isinstance(stage.reward, Reward):
        raise InputError(
            f"watched: stage `{stage.name}` scores with a {type(stage.reward).__name__}, expected a Reward to add a gold to."
        )
    return stage.reward + oracle(gold).watch()


def _start(recipe: Recipe) -> Any:
    """The policy as the run begins with it; made anew, so that a resumed run has the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return recipe.policy()
