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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guerdon.errors import InputError
from guerdon.protocols import Observer, Policy, Updater
from guerdon.rollouts import Rollouts
from guerdon.scores import Component, Scores, Status
from guerdon.training import checkpoint
from guerdon.training.binding import Ingredients
from guerdon.training.crediting import Crediting
from guerdon.training.evolving import Told, evolve, load_state, state_of, why_stop
from guerdon.training.process import keep_freed_memory
from guerdon.training.recipe import Recipe, Stage
from guerdon.training.scoring import score
from guerdon.training.update import Update


@dataclass
class Progress:
    """Where a run stands; saved with each checkpoint. ``first`` and ``last`` are evaluations; ``reason``: why a part ended it."""

    stage: int = 0
    stage_step: int = 0
    stopped: bool = False
    step: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    best: float = -math.inf
    step_best: int | None = None
    reason: str = ""


def train(
    recipe: Recipe, directory: Path, observers: Sequence[Observer] = (), config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Run ``recipe`` in ``directory``, from its newest checkpoint on if there is one. Returns the result, as in result.json.

    The trained policy is saved in ``directory/policy`` and, with an evaluation, the best one in ``directory/best``.
    """
    keep_freed_memory()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # a policy may draw its first weights, a new adapter say, from the global generator
        policy = recipe.policy()
    saved = checkpoint.latest(directory)
    progress = Progress(**saved["progress"]) if saved else Progress()
    if saved:
        policy.load_state_dict(saved["policy"])
    directory.mkdir(parents=True, exist_ok=True)  # not before there is a policy to train
    told = {**(config or {}), "about": dict(recipe.about), "total_steps": recipe.total_steps, "runs": 1}
    for o in observers:
        o.start(told, directory, progress.step)
    run = Run(recipe, directory, policy, progress, observers)
    if not saved:
        run.evaluate("start")
    for i in range(progress.stage, len(recipe.stages)):
        if progress.reason:
            break
        updater = policy.updater(**recipe.stages[i].updater)
        if progress.stage == i and progress.stage_step and saved:
            updater.load_state_dict(saved["updater"])
            load_state(recipe.stages[i], saved.get("parts", {}))
        if progress.stage < i:
            progress.stage, progress.stage_step, progress.stopped = i, 0, False
        while progress.stage_step < recipe.stages[i].steps and not progress.stopped:
            run.step(recipe.stages[i], updater)
    policy.save(directory / "policy")
    result = run.result()
    for o in observers:
        o.finish(result)
    return result


@dataclass
class Run:
    """One run's parts, and what a step does with them."""

    recipe: Recipe
    directory: Path
    policy: Policy
    progress: Progress
    observers: Sequence[Observer]

    def step(self, stage: Stage, updater: Updater) -> None:
        progress, clock = self.progress, Clock()
        at = progress.stage_step
        seed = seed_of(self.recipe.seed, progress.stage)
        batch = stage.source.batch(at, self.policy, seed)
        clock.lap("sample")
        batch, scores = score(stage, batch, self.policy, at)
        clock.lap("reward")
        crediting = Crediting(stage, batch, scores, self.policy, at)

        def told(ingredients: Ingredients, metrics: Mapping[str, Any]) -> Told:
            probe = Update(stage, batch, scores, ingredients.copy(), self.policy, updater, at)
            return Told(at, batch, scores, ingredients, self.policy, progress.last, crediting.apart, probe.gradient, metrics)

        metrics = evolve(stage, True, told(crediting.ingredients(), {}))
        ingredients, found = crediting.assign()
        clock.lap("credit")
        metrics |= found | Update(stage, batch, scores, ingredients, self.policy, updater, at, seed).run()
        clock.lap("update")
        metrics |= evolve(stage, False, told(ingredients, dict(metrics)))
        progress.reason = why_stop(stage)
        clock.lap("evolve")
        self.count(batch.rollouts, clock.total)
        self.tell(stage.name, {**metrics, **clock.laps, **batch_metrics(batch.rollouts, clock.total), **score_metrics(scores)})
        self.keep(batch.rollouts, scores, stage, updater)

    def count(self, rollouts: Rollouts, seconds: float) -> None:
        progress = self.progress
        progress.stage_step += 1
        progress.step += 1
        progress.samples += sum(s == "policy" for s in rollouts.source)
        progress.tokens += int(rollouts.mask.sum())
        progress.seconds += seconds

    def tell(self, stage: str, metrics: Mapping[str, Any]) -> None:
        p = self.progress
        line = {"stage": stage, "step": p.step, "samples": p.samples, "tokens": p.tokens, "seconds": p.seconds, **metrics}
        for o in self.observers:
            o.metrics(p.step, line)

    def keep(self, rollouts: Rollouts, scores: Scores | None, stage: Stage, updater: Updater) -> None:
        """Rollouts, an evaluation, a checkpoint, in this order, where it is time for them."""
        recipe, progress = self.recipe, self.progress
        last, every = progress.stage_step == stage.steps or bool(progress.reason), recipe.save_rollouts_every
        if scores is not None and every and (progress.step % every == 0 or last or progress.stage_step == 1):
            self.save_rollouts(rollouts, scores)
        if recipe.evaluation and (progress.step % recipe.evaluation.every == 0 or last):
            self.evaluate(stage.name)
            progress.stopped = recipe.stop is not None and recipe.stop(progress.last)
        progress.stopped = progress.stopped or bool(progress.reason)
        if progress.step % recipe.checkpoint_every == 0 or last or progress.stopped:
            state = {
                "progress": asdict(progress),
                "policy": self.policy.state_dict(),
                "updater": updater.state_dict(),
                "parts": state_of(stage),
            }
            checkpoint.save(self.directory, progress.step, state)

    def evaluate(self, during: str) -> None:
        """Takes no part in ``seconds``: the clock of a run counts training."""
        if self.recipe.evaluation is None:
            return
        progress, best = self.progress, self.recipe.best
        found = progress.last = self.recipe.evaluation.measure(self.policy, progress.step)
        progress.first = progress.first or found
        if best not in found:
            raise InputError(f"recipe `{self.recipe.name}`: `best` should be one of {', '.join(found)}, got {best!r}.")
        if found[best] > progress.best:
            progress.best, progress.step_best = found[best], progress.step
            self.policy.save(self.directory / "best")
        self.tell("eval", {**found, "during": during})

    def save_rollouts(self, rollouts: Rollouts, scores: Scores) -> None:
        for kind, what in (("rollouts", rollouts), ("scores", scores)):
            path = self.directory / kind / f"step-{self.progress.step:06d}.parquet"
            path.parent.mkdir(exist_ok=True)
            what.save(path)

    def result(self) -> dict[str, Any]:
        """Totals, the last evaluation, the first (``_start`` after the names), the best ``recipe.best`` and its step.

        ``stopped``: why a part of a stage ended the run before its last step, where one did.
        """
        p, best = self.progress, self.recipe.best
        found: dict[str, Any] = {"samples": p.samples, "tokens": p.tokens, "seconds": p.seconds, "steps": p.step, **p.last}
        if p.first:
            found |= {f"{k}_start": x for k, x in p.first.items()}
            found |= {f"{best}_best": p.best, "step_best": p.step_best}
        return found | ({"stopped": p.reason} if p.reason else {})


class Clock:
    """Wall time of the parts of a step."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[f"time/{name}"], self.last = now - self.last, now

    @property
    def total(self) -> float:
        return self.last - self.start


def seed_of(seed: int, stage: int) -> int:
    """Each stage's own seed, so that its batches don't repeat those of the stages before; the first has the run's."""
    return seed if stage == 0 else int(np.random.SeedSequence([seed, stage]).generate_state(1)[0])


# ---- metrics of a step


def batch_metrics(rollouts: Rollouts, seconds: float) -> dict[str, float]:
    tokens, kept = int(rollouts.mask.sum()), (rollouts.weight > 0).float()
    return {"length": tokens / max(len(rollouts), 1), "tokens_per_second": tokens / seconds, "kept": kept.mean().item()}


def score_metrics(scores: Scores | None) -> dict[str, float]:
    if scores is None:
        return {}
    out, shares = {"reward/total": episode_mean(scores.total)}, dict[int, dict[str, float]]()
    for name, c in scores.trace.items():
        out[f"reward/{name}"] = c.mean()
        if id(c.status) not in shares:  # terms of which every unit is ok share one tensor
            shares[id(c.status)] = c.shares()
        out |= {f"status/{name}/{k}": v for k, v in shares[id(c.status)].items()}
    return out


def episode_mean(c: Component) -> float:
    """Mean over rows of the row's sum; rows with a unit that isn't ok are left out."""
    there = c.status != Status.NONE
    whole = (c.ok | ~there).all(1) & there.any(1)
    sums = torch.where(c.ok, c.values, 0).sum(1)[whole]
    return sums.mean().item() if len(sums) else math.nan
