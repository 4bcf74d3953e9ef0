# SPDX-License-Identifier: Apache-2.0
"""Recipes of a table that writes letters, for tests of runs in processes: one of two stages, or a study with a shared start."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from guerdon.credit import group_relative
from guerdon.errors import InputError
from guerdon.objectives import clipped_surrogate, negative_log_likelihood, token_mean
from guerdon.protocols import Context, Sampling
from guerdon.rewards import reward
from guerdon.rollouts import Rollouts
from guerdon.training.evaluation import Evaluation
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Demonstrations, Prompts
from guerdon.training.study import Study
from tests.training.dying import register
from tests.training.table import Table

CONTEXTS = [Context(p, p, {"letter": x}) for p, x in zip("pqr", "abc", strict=True)]
SAMPLING = Sampling(4)


@reward(bounds=(0, 1))
def mostly(completion: str, letter: str) -> float | None:
    return completion.count(letter) / len(completion) if completion else None


@reward(bounds=(0, 1))
def begins_right(completion: str, letter: str) -> bool:
    return completion[:1] == letter


def recipe(
    kind: str = "run", steps: int = 40, seeds: Sequence[int] = (0, 1), nap: float = 0.0, breaks: str = "", pids: str = ""
) -> Recipe | Study:
    """``nap``: seconds each step takes longer; ``breaks``: the arm that raises, and how; ``pids``: see ``register``."""
    register(pids)
    if kind == "run":
        return _recipe(0, None, [_imitate(steps // 4), _improve(steps, nap, "")])
    arms = {arm: partial(_arm, arm, steps, nap, breaks) for arm in ("mostly", "begins")}
    return Study("letters", arms, tuple(seeds), partial(_start, steps // 4), _summarise, {"title": "letters"})


def _start(steps: int, seed: int) -> Recipe:
    return _recipe(seed, None, [_imitate(steps)])


def _arm(arm: str, steps: int, nap: float, breaks: str, seed: int, start: Path | None) -> Recipe:
    wanted = mostly if arm == "mostly" else begins_right
    return _recipe(seed, start, [_improve(steps, nap, breaks if breaks.startswith(arm) else "", wanted)])


def _recipe(seed: int, start: Path | None, stages: list[Stage]) -> Recipe:
    def policy() -> Table:
        table = Table("pqr", seed=seed)
        return table.load(start / "policy") if start else table

    judged = Evaluation(CONTEXTS, begins_right, every=7, samples=4, sampling=SAMPLING)
    return Recipe("letters", policy, stages, judged, seed=seed, checkpoint_every=6, save_rollouts_every=0)


def _imitate(steps: int) -> Stage:
    shown = Demonstrations([("p", "ca"), ("q", "bbb"), ("r", "cab"), ("p", "")], 3)
    return Stage("warm", steps, shown, [Term(1.0, negative_log_likelihood, token_mean)], lr=lambda step: 0.5 / (1 + step))


def _improve(steps: int, nap: float, breaks: str, wanted: Any = mostly) -> Stage:
    def sample(policy: Any, contexts: Sequence[Context], sampling: Sampling, seed: int) -> Rollouts:
        time.sleep(nap)
        if breaks.endswith(":input"):
            raise InputError("letters: expected a letter, got none.")
        if breaks.endswith(":bug"):
            raise KeyError("a bug of the recipe")
        return policy.sample(contexts, sampling, seed)

    source = Prompts(CONTEXTS, 2, 6, SAMPLING, sample)
    terms = [Term(1.0, clipped_surrogate, token_mean)]
    return Stage("train", steps, source, terms, wanted, group_relative, updates=2, rounds=2, lr=2.0)


def _summarise(result: dict[str, Any], directory: Path) -> Mapping[str, Any]:
    return {"verdict": {arm: sum(found["success"]) for arm, found in result["arms"].items()}}
