# SPDX-License-Identifier: Apache-2.0
"""From rollouts to scores: the part of a step that asks the reward, refuses what failed too often, and weighs the rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from guerdon.errors import InputError, RewardFailure, check_shape
from guerdon.protocols import Policy
from guerdon.rollouts import Rollouts
from guerdon.scores import Scores, Status
from guerdon.training.binding import REFERENCE, needs_of_all
from guerdon.training.recipe import Batch, Stage


def score(stage: Stage, batch: Batch, policy: Policy, step: int) -> tuple[Batch, Scores | None]:
    """Score the batch with the stage's reward; then weigh the rows by ``select``.

    What the reward needs of the policy, and any part of the frozen reference, is fetched first and kept as step fields.
    """
    rollouts = batch.rollouts
    parts = [p for p in (stage.credit, stage.combine, *stage.transforms, *(t.objective for t in stage.terms)) if p is not None]
    wanted = {n for n in needs_of_all(parts) if n.startswith(REFERENCE)} | (stage.reward.needs if stage.reward else set())
    missing = frozenset(n for n in wanted if n not in rollouts.fields and getattr(rollouts, n, None) is None)
    for name, value in policy_outputs(policy, rollouts, missing, stage.micro_rows).items():
        rollouts = rollouts.with_field(name, "step", value)
    scores = None
    if stage.reward is not None:
        scores = stage.reward.score(rollouts, step=step)
        refuse_failures(scores, stage.max_failed)
        if stage.select is not None:
            rollouts = rollouts.replace(weight=rollouts.weight * weights_of(stage.select(rollouts, scores), rollouts))
    return replace(batch, rollouts=rollouts), scores


def weights_of(chosen: Tensor, rollouts: Rollouts) -> Tensor:
    """What ``select`` returned, as weights: 0 where it is False or NaN."""
    check_shape("select", "the result", chosen, (len(rollouts),), "a choice per step instead of per row")
    if (chosen < 0).any():
        least = chosen.min().item()
        raise InputError(f"select: expected weights of 0 or more, got {least}. Usual cause: rewards used as weights.")
    weight = chosen.to(torch.promote_types(chosen.dtype, rollouts.weight.dtype))
    return torch.where(weight.isnan(), 0, weight)


def refuse_failures(scores: Scores, limit: float) -> None:
    """Raise RewardFailure if more than ``limit`` of the units of a term timed out or raised. Abstaining is not failing.

    Terms are those of the total: what is only watched, or replaced by ``otherwise``, stops nothing.
    """
    statuses = {id(c.status): c.status.flatten() for c in scores.components.values()}  # many share one
    if not statuses or not (torch.cat(list(statuses.values())) >= Status.TIMEOUT).any():
        return
    for name, c in scores.components.items():
        bad = (c.status >= Status.TIMEOUT).nonzero().tolist()
        there, failed = int((c.status != Status.NONE).sum()), len(bad)
        if failed > limit * there:
            reasons = Counter(c.reasons.get((n, k), "no reason given") for n, k in bad)
            usual = "; ".join(f"{count} x {text}" for text, count in reasons.most_common(3))
            raise RewardFailure(
                f"reward term `{name}`: at most {limit:.1%} of its units may time out or raise, {failed} of {there} did. "
                f"Most often: {usual}."
            )


def policy_outputs(policy: Policy, rollouts: Rollouts, names: frozenset[str], micro_rows: int) -> dict[str, Tensor]:
    """Those of ``names`` that the policy can compute for the rollouts, without gradient, ``micro_rows`` rows at a time."""
    want = names & policy.outputs
    if not want:
        return {}
    with torch.no_grad():
        starts = range(0, len(rollouts), micro_rows)
        parts = [policy.evaluate(rollouts.rows(slice(i, i + micro_rows)), want) for i in starts]
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
