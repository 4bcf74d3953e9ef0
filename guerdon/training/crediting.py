# SPDX-License-Identifier: Apache-2.0
"""From scores to advantages: the part of a step that decides which steps earned the reward, and what was measured on the way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guerdon.credit import group_relative, variance_shares
from guerdon.errors import InputError
from guerdon.protocols import Policy
from guerdon.scores import Scores
from guerdon.training.binding import BEFORE, Ingredients, needs_of, needs_of_all
from guerdon.training.recipe import Batch, Stage
from guerdon.training.scoring import policy_outputs


class Crediting:
    """One batch on its way from scores to advantages."""

    def __init__(self, stage: Stage, batch: Batch, scores: Scores | None, policy: Policy, step: int) -> None:
        self.stage, self.scores, self.step = stage, scores, step
        self.given = Ingredients(batch.rollouts, batch.comparisons)
        before = policy_outputs(policy, batch.rollouts, _needed_before(stage, self.given), stage.micro_rows)
        self.before = frozenset(before)
        self.given.update(before)
        if scores is not None:
            self.given.levels = scores.levels

    def ingredients(self) -> Ingredients:
        """What the losses may ask for, but for the advantage; the policy's outputs as they are now they get with gradient."""
        some = self.given.copy()
        for name in self.before:
            some.setdefault(BEFORE + name, some.pop(name))
        return some

    @torch.no_grad()
    def apart(self) -> dict[str, Tensor]:
        """name -> [N, T] each component's own credit, not weighted."""
        if self.stage.credit is None or self.scores is None:
            raise InputError(f"stage `{self.stage.name}`: advantages of components need a reward and a credit.")
        rewards = self.scores.unweighted()
        return dict(zip(rewards, self._credits(list(rewards.values())), strict=True))

    @torch.no_grad()
    def assign(self) -> tuple[Ingredients, dict[str, float]]:
        """The ingredients with ``advantage``, the ``mask`` of steps to train on and, with a value, ``return_``; metrics.

        Steps whose advantage is NaN, since a unit that isn't ok would enter it, leave the mask."""
        some = self.ingredients()
        if self.stage.credit is None or self.scores is None:
            return some, {}
        given, scores = self.given, self.scores
        if self.stage.combine is None:
            advantage = self._credit(scores.reward())
            parts = attributed(self._credits, scores.rewards(), advantage, given["mask"], given["group"])
        else:
            weights = {k: 1.0 if c.weight is None else c.weight for k, c in scores.components.items()}
            apart = self.apart()
            advantage = given.call(self.stage.combine, self.step, advantages=apart, weights=weights)
            parts = {k: weights[k] * x for k, x in apart.items()}
        usable = given["mask"] & ~advantage.isnan()
        metrics = {f"share/{k}": v for k, v in variance_shares(parts, usable).items()}
        metrics["no_signal"] = silent_groups(advantage, usable, given["group"])
        if "value" in given:
            some["return_"] = advantage + given["value"]
        for transform in self.stage.transforms:
            advantage = given.call(transform, self.step, advantage=advantage)
        usable = usable & ~advantage.isnan()
        metrics["dropped"] = 1 - usable.sum().item() / max(given["mask"].sum().item(), 1)
        some.update(advantage=torch.where(usable, advantage, 0), mask=usable)
        return some, metrics

    def _credit(self, reward: Tensor) -> Tensor:
        return self.given.call(self.stage.credit, self.step, reward=reward)  # type: ignore[arg-type]  # the callers saw there is one

    def _credits(self, rewards: Sequence[Tensor]) -> list[Tensor]:
        """The credit of each: in one call, rows under one another, where the credit says that a row's is of that row alone."""
        credit, mask = self.stage.credit, self.given["mask"]
        if credit is None or not _by_row(credit) or len({x.dtype for x in rewards}) > 1:
            return [self._credit(x) for x in rewards]
        below = self.given.at(torch.arange(len(mask), device=mask.device).repeat(len(rewards)), None, needs_of(credit))
        return list(below.call(credit, self.step, reward=torch.cat(list(rewards))).split(len(mask)))


def _needed_before(stage: Stage, there: Ingredients) -> frozenset[str]:
    """What is wanted of the policy as it is before the update."""
    parts = [p for p in (stage.credit, stage.combine, *stage.transforms) if p is not None]
    old = {n for n in needs_of_all(t.objective for t in stage.terms) if n.startswith(BEFORE)}
    return (needs_of_all(parts) - there.keys()) | {n.removeprefix(BEFORE) for n in old - there.keys()}


def _by_row(credit: Any) -> bool:
    """Whether the function inside says ``by_row``, and no setting bound to it is of the batch's rows."""
    while isinstance(credit, functools.partial):
        if any(isinstance(x, Tensor) and x.dim() for x in credit.keywords.values()):
            return False
        credit = credit.func
    return getattr(credit, "by_row", False)


def attributed(
    credit: Callable[[Sequence[Tensor]], list[Tensor]],
    rewards: Mapping[str, Tensor],
    advantage: Tensor,
    mask: Tensor,
    group: Tensor,
) -> dict[str, Tensor]:
    """name -> [N, T] what each component brings to ``advantage``, the credit of their sum; ``credit`` is of several rewards.

    Its own credit, without a baseline that is there for no reward at all. Where these don't add up to the advantage (credit
    divides by a deviation, which makes a whisper alone as loud as a shout), what it brings to the rows' totals relative to their
    groups'.
    """
    if len(rewards) == 1:
        return dict.fromkeys(rewards, advantage)
    none = sum(rewards.values(), torch.zeros(())) * 0  # NaN where a reward is
    *found, nothing = credit([*rewards.values(), none])
    own = {k: x - nothing for k, x in zip(rewards, found, strict=True)}
    whole = sum(own.values(), nothing)
    if torch.allclose(whole, advantage, rtol=1e-4, atol=1e-5 * float(advantage.nan_to_num(0.0).abs().max()), equal_nan=True):
        return own
    return {k: group_relative(x, mask, group) for k, x in rewards.items()}


def silent_groups(advantage: Tensor, usable: Tensor, group: Tensor) -> float:
    """Share of the groups in which every advantage is zero or can't be used."""
    moved = (torch.where(usable, advantage, 0) != 0).any(1)
    groups, index = group.unique(return_inverse=True)
    any_moved = torch.zeros(len(groups), dtype=torch.long, device=group.device).index_add_(0, index, moved.long())
    return (any_moved == 0).float().mean().item()
