# SPDX-License-Identifier: Apache-2.0
"""The loop: runs a Recipe. It knows roles and names no method, objective, credit rule or reward.

    rollouts = source()                    what happened
    scores = reward(rollouts)              how good it was, per component
    advantage = credit(reward, ...)        which steps earned it
    loss = sum of terms(outputs, ...)      differentiated with respect to the policy's outputs
    updater.accumulate(gradient)           the policy turns that into a better policy
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon.credit import variance_shares
from guerdon.errors import RewardFailure
from guerdon.protocols import Observer, Policy, Updater
from guerdon.rollouts import Rollouts
from guerdon.scores import Component, Scores, Status
from guerdon.training import checkpoint
from guerdon.training.binding import Ingredients, needs_of
from guerdon.training.evaluation import evaluate
from guerdon.training.recipe import Batch, Recipe, Stage
from guerdon.training.update import Update


@dataclass
class Progress:
    """Where a run stands; saved with each checkpoint."""

    stage: int = 0
    stage_step: int = 0
    step: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    last: dict[str, float] = field(default_factory=dict)


def train(recipe: Recipe, directory: Path, observers: Sequence[Observer] = (), config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run ``recipe`` in ``directory``, going on from its newest checkpoint if there is one. Returns the result, as in result.json.

    The trained policy is saved in ``directory/policy`` and, with an evaluation, the best one in ``directory/best``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    policy = recipe.policy()
    saved = checkpoint.latest(directory)
    progress = Progress(**saved["progress"]) if saved else Progress()
    if saved:
        policy.load_state_dict(saved["policy"])
    for o in observers:
        o.start({**(config or {}), "about": dict(recipe.about)}, directory, progress.step)
    run = _Run(recipe, directory, policy, progress, observers)
    if not saved:
        run.evaluate("start")
    for i in range(progress.stage, len(recipe.stages)):
        stage = recipe.stages[i]
        updater = policy.updater(**stage.updater)
        if saved and progress.stage == i and progress.stage_step:
            updater.load_state_dict(saved["updater"])
        while progress.stage_step < stage.steps and not run.stopped():
            run.step(stage, updater)
        if i + 1 < len(recipe.stages):
            progress.stage, progress.stage_step = i + 1, 0
    policy.save(directory / "policy")
    result = {"samples": progress.samples, "tokens": progress.tokens, "seconds": progress.seconds, "steps": progress.step, **progress.last}
    for o in observers:
        o.finish(result)
    return result


class _Run:
    """One run's moving parts: what a step changes."""

    def __init__(self, recipe: Recipe, directory: Path, policy: Policy, progress: Progress, observers: Sequence[Observer]) -> None:
        self.recipe, self.directory, self.policy = recipe, directory, policy
        self.progress, self.observers = progress, observers

    def step(self, stage: Stage, updater: Updater) -> None:
        progress, recipe = self.progress, self.recipe
        clock = _Clock()
        batch = stage.source.batch(progress.stage_step, self.policy, recipe.seed)
        clock.lap("sample")
        batch, scores = score(stage, batch, self.policy, progress.stage_step)
        clock.lap("reward")
        batch, ingredients, metrics = assign_credit(stage, batch, scores, self.policy, progress.stage_step)
        metrics |= Update(stage, batch, scores, ingredients, self.policy, updater, progress.stage_step).run()
        clock.lap("update")
        progress.stage_step += 1
        progress.step += 1
        progress.samples += sum(s == "policy" for s in batch.rollouts.source)
        tokens = int(batch.rollouts.mask.sum())
        progress.tokens += tokens
        progress.seconds += clock.total
        metrics |= {"length": tokens / max(len(batch.rollouts), 1), "tokens_per_second": tokens / clock.total, **clock.laps}
        self.tell(stage.name, metrics | _score_metrics(scores))
        last = progress.stage_step == stage.steps
        if scores is not None and (progress.step % recipe.save_rollouts_every == 0 or last or progress.stage_step == 1):
            self.keep(batch.rollouts, scores)
        if recipe.evaluation and (progress.step % recipe.evaluation.every == 0 or last):
            self.evaluate(stage.name)
        if progress.step % recipe.checkpoint_every == 0 or last:
            self.checkpoint(updater)

    def stopped(self) -> bool:
        return self.recipe.stop is not None and self.recipe.stop(self.progress.last)

    def tell(self, stage: str, metrics: Mapping[str, Any]) -> None:
        p = self.progress
        line = {"stage": stage, "step": p.step, "samples": p.samples, "tokens": p.tokens, "seconds": p.seconds, **metrics}
        for o in self.observers:
            o.metrics(p.step, line)

    def evaluate(self, stage: str) -> None:
        """Evaluation takes no part in ``seconds``: the clock of a run counts training."""
        if self.recipe.evaluation is None:
            return
        found = self.progress.last = evaluate(self.policy, self.recipe.evaluation, self.progress.step)
        if found.get(self.recipe.best, -math.inf) > self.progress.best:
            self.progress.best = found[self.recipe.best]
            self.policy.save(self.directory / "best")
        self.tell("eval", {**found, "during": stage})

    def keep(self, rollouts: Rollouts, scores: Scores) -> None:
        for kind, what in (("rollouts", rollouts), ("scores", scores)):
            path = self.directory / kind / f"step-{self.progress.step:06d}.parquet"
            path.parent.mkdir(exist_ok=True)
            what.save(path)

    def checkpoint(self, updater: Updater) -> None:
        state = {
            "progress": asdict(self.progress),
            "policy": self.policy.state_dict(),
            "updater": updater.state_dict(),
        }
        checkpoint.save(self.directory, self.progress.step, state)


class _Clock:
    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[f"time/{name}"] = now - self.last
        self.last = now

    @property
    def total(self) -> float:
        return self.last - self.start


# ---- the step, part by part


def score(stage: Stage, batch: Batch, policy: Policy, step: int) -> tuple[Batch, Scores | None]:
    """Score the batch with the stage's reward; then weigh the rows by ``select``.

    What the reward needs of the policy, and what any part needs of the frozen reference, is fetched first and kept as step fields.
    """
    needs = frozenset() if stage.reward is None else stage.reward.needs
    frozen = {n for part in _parts(stage) for n in needs_of(part) if n.startswith("ref_")}
    rollouts = batch.rollouts
    for name, value in policy_outputs(policy, rollouts, (needs | frozen) - rollouts.fields.keys()).items():
        rollouts = rollouts.with_field(name, "step", value)
    if stage.reward is None:
        return replace(batch, rollouts=rollouts), None
    scores = stage.reward.score(rollouts, step=step)
    refuse_failures(scores, stage.max_failed)
    if stage.select is not None:
        chosen = stage.select(rollouts, scores)
        rollouts = rollouts.replace(weight=rollouts.weight * chosen)
    return replace(batch, rollouts=rollouts), scores


def _parts(stage: Stage) -> list[Any]:
    return [p for p in (stage.credit, stage.combine, *stage.transforms, *(t.objective for t in stage.terms)) if p is not None]


def refuse_failures(scores: Scores, limit: float) -> None:
    """Raise RewardFailure if more than ``limit`` of a term's units timed out or raised."""
    for c in scores.trace.values():
        share = c.shares()
        failed = share["timeout"] + share["error"]
        if failed > limit:
            reasons = Counter(r for (n, k), r in c.reasons.items() if c.status[n, k] >= Status.TIMEOUT)
            usual = "; ".join(f"{count} x {text}" for text, count in reasons.most_common(3))
            raise RewardFailure(f"reward term `{c.name}`: {failed:.1%} of its units failed, more than the {limit:.1%} allowed. Reasons: {usual}")


def policy_outputs(policy: Policy, rollouts: Rollouts, names: frozenset[str]) -> dict[str, Tensor]:
    """Those of ``names`` that the policy can compute for the rollouts, without gradient."""
    want = names & policy.outputs
    if not want:
        return {}
    with torch.no_grad():
        return policy.evaluate(rollouts, frozenset(want))


def assign_credit(
    stage: Stage, batch: Batch, scores: Scores | None, policy: Policy, step: int
) -> tuple[Batch, Ingredients, dict[str, float]]:
    """Advantages of every component, combined; steps whose return a failed unit would enter leave the mask and are counted."""
    rollouts = batch.rollouts
    ingredients = Ingredients(rollouts, batch.comparisons)
    if stage.credit is None or scores is None:
        return batch, ingredients, {}
    ingredients.levels = scores.levels
    before = policy_outputs(policy, rollouts, needs_of(stage.credit) - ingredients.keys())
    ingredients.update(before)
    rewards = scores.rewards()
    parts = {name: ingredients.call(stage.credit, step, reward=r) for name, r in rewards.items()}
    if stage.combine is None:
        advantage = ingredients.call(stage.credit, step, reward=scores.reward())
    else:
        advantage = ingredients.call(stage.combine, step, advantages=parts, weights=dict.fromkeys(parts, 1.0))
    if "value" in before:
        ingredients["return_"] = advantage + before["value"]
    for transform in stage.transforms:
        advantage = ingredients.call(transform, step, advantage=advantage)
    usable = rollouts.mask & ~torch.isnan(advantage)
    metrics = {f"share/{k}": v for k, v in variance_shares(parts, usable).items()}
    metrics["dropped"] = 1 - usable.sum().item() / max(rollouts.mask.sum().item(), 1)
    metrics["no_signal"] = _no_signal(advantage, usable, rollouts.group)
    for name in before:  # the update asks for these afresh, with gradient
        ingredients[f"old_{name}"] = ingredients.pop(name)
    ingredients.update(advantage=torch.where(usable, advantage, 0), mask=usable)
    return batch, ingredients, metrics


def _no_signal(advantage: Tensor, usable: Tensor, group: Tensor) -> float:
    """Share of the groups in which every advantage is zero."""
    moved = torch.where(usable, advantage, 0).abs().amax(1) > 0
    groups, index = group.unique(return_inverse=True)
    any_moved = torch.zeros(len(groups), dtype=torch.long, device=group.device).index_add_(0, index, moved.long())
    return (any_moved == 0).float().mean().item()


def _score_metrics(scores: Scores | None) -> dict[str, float]:
    if scores is None:
        return {}
    out = {"reward/total": episode_mean(scores.total)}
    for name, c in scores.trace.items():
        out[f"reward/{name}"] = c.mean()
        out |= {f"status/{name}/{k}": v for k, v in c.shares().items()}
    return out


def episode_mean(c: Component) -> float:
    """Mean over rows of the row's sum; rows with a unit that isn't ok are left out."""
    there = c.status != Status.NONE
    whole = (c.ok | ~there).all(1) & there.any(1)
    sums = torch.where(c.ok, c.values, 0).sum(1)[whole]
    return sums.mean().item() if len(sums) else math.nan
