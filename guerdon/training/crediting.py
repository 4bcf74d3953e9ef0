# SPDX-License-Identifier: Apache-2.0
"""From scores to advantages: the part of a step that decides which steps earned the reward, and what was measured on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from guerdon.credit import group_relative, variance_shares
from guerdon.protocols import Policy
from guerdon.scores import Scores
from guerdon.training.binding import BEFORE, Ingredients, needs_of_all
from guerdon.training.recipe import Batch, Stage
from guerdon.training.scoring import policy_outputs


@torch.no_grad()
def assign_credit(
    stage: Stage, batch: Batch, scores: Scores | None, policy: Policy, step: int
) -> tuple[Ingredients, dict[str, float]]:
    """What the losses may ask for, with advantages where the stage has credit; and metrics.

    Steps whose advantage is NaN, since a unit that isn't ok would enter it, leave the mask.
    """
    ingredients = Ingredients(batch.rollouts, batch.comparisons)
    before = policy_outputs(policy, batch.rollouts, _needed_before(stage, ingredients), stage.micro_rows)
    ingredients.update(before)
    metrics = {}
    if stage.credit is not None and scores is not None:
        ingredients.levels = scores.levels
        metrics = _advantages(stage, ingredients, scores, step)
    for name in before:  # the losses get it afresh, with gradient
        ingredients.setdefault(BEFORE + name, ingredients.pop(name))
    return ingredients, metrics


def _needed_before(stage: Stage, there: Ingredients) -> frozenset[str]:
    """What is wanted of the policy as it is before the update."""
    parts = [p for p in (stage.credit, stage.combine, *stage.transforms) if p is not None]
    old = {n for n in needs_of_all(t.objective for t in stage.terms) if n.startswith(BEFORE)}
    return (needs_of_all(parts) - there.keys()) | {n.removeprefix(BEFORE) for n in old - there.keys()}


def _advantages(stage: Stage, ingredients: Ingredients, scores: Scores, step: int) -> dict[str, float]:
    """Adds ``advantage``, ``return_`` where there is a value, and the ``mask`` of steps that can be trained on."""

    def credit(reward: Tensor) -> Tensor:
        return ingredients.call(stage.credit, step, reward=reward)  # type: ignore[arg-type]  # the caller saw that there is one

    if stage.combine is None:
        advantage = credit(scores.reward())
        parts = attributed(credit, scores.rewards(), advantage, ingredients["mask"], ingredients["group"])
    else:
        weights = {k: 1.0 if c.weight is None else c.weight for k, c in scores.components.items()}
        apart = {k: credit(x) for k, x in _unweighted(scores).items()}
        advantage = ingredients.call(stage.combine, step, advantages=apart, weights=weights)
        parts = {k: weights[k] * x for k, x in apart.items()}
    mask = ingredients["mask"]
    usable = mask & ~advantage.isnan()
    metrics = {f"share/{k}": v for k, v in variance_shares(parts, usable).items()}
    metrics["no_signal"] = silent_groups(advantage, usable, ingredients["group"])
    if "value" in ingredients:
        ingredients["return_"] = advantage + ingredients["value"]
    for transform in stage.transforms:
        advantage = ingredients.call(transform, step, advantage=advantage)
    usable = usable & ~advantage.isnan()
    metrics["dropped"] = 1 - usable.sum().item() / max(mask.sum().item(), 1)
    ingredients.update(advantage=torch.where(usable, advantage, 0), mask=usable)
    return metrics


def _unweighted(scores: Scores) -> dict[str, Tensor]:
    """name -> [N, T] each component on steps, NaN where the total isn't ok."""
    bad = scores.reward().isnan()
    steps = {k: c.steps(scores.levels[c.level], scores.mask) for k, c in scores.components.items()}
    return {k: torch.where(bad, torch.nan, x) for k, x in steps.items()}


def attributed(
    credit: Callable[[Tensor], Tensor], rewards: Mapping[str, Tensor], advantage: Tensor, mask: Tensor, group: Tensor
) -> dict[str, Tensor]:
    """name -> [N, T] what each component brings to ``advantage``, the credit of their sum.

    Its own credit, without a baseline that is there for no reward at all. Where these don't add up to the advantage (credit
    divides by a deviation, which makes a whisper alone as loud as a shout), what it brings to the rows' totals relative to their
    groups'.
    """
    nothing = credit(sum(rewards.values(), torch.zeros(())) * 0)  # NaN where a reward is
    own = {k: credit(x) - nothing for k, x in rewards.items()}
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
