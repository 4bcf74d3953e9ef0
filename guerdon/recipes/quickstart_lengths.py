# SPDX-License-Identifier: Apache-2.0
"""Samples to 50 % success against chain length: the longer run behind the quickstart's explanation.

A dense reward needs about as many samples for a long chain as for a short one; an outcome has to be stumbled upon first, and the
odds of that halve with every step. A third arm gives one number for the whole completion, the share of right steps.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from guerdon.recipes import quickstart
from guerdon.training.recipe import Recipe
from guerdon.training.study import Study

BATCH = quickstart.PROMPTS * quickstart.SAMPLES


def recipe(
    seeds: Sequence[int] = (0, 1, 2),
    lengths: Sequence[int] = (6, 8, 10, 12, 14),
    arms: Sequence[str] = ("dense", "outcome", "fraction"),
    samples: int = 102_400,
    lr: float = quickstart.LEARNING_RATE,
) -> Study:
    """Every arm at every chain length, until half of the held-out chains are right or the samples are used up.

    lengths: steps in a chain; samples: completions each run may draw; lr: the same for all arms.
    """
    runs = {f"{a}-{n}": partial(until_half, a, n, samples, lr) for n in lengths for a in arms}
    return Study(
        "quickstart-lengths",
        runs,
        tuple(seeds),
        summarise=partial(summarise, samples),
        about={"title": "Samples to 50 % success"},
    )


def until_half(arm: str, length: int, samples: int, lr: float, seed: int, start: Path | None) -> Recipe:
    """Teach, then improve with ``arm``'s reward until an evaluation finds half of the held-out chains right."""
    taught = quickstart.warm_start(length, seed)
    return Recipe(
        f"{arm}-{length}",
        taught.policy,
        [*taught.stages, quickstart.improve(arm, length, samples, lr, seed)],
        dataclasses.replace(quickstart.evaluation(length, 4), greedy=False),
        seed=seed,
        stop=half_right,
        save_rollouts_every=10**9,
        checkpoint_every=100,
    )


def half_right(metrics: Mapping[str, float]) -> bool:
    return metrics.get("eval/success", 0.0) >= 0.5


def samples_to_half(metrics: Path) -> int | None:
    """Samples drawn when an evaluation first found half of the held-out chains right; None: it never did."""
    for line in metrics.read_text().splitlines():
        told = json.loads(line)
        if told["stage"] == "eval" and told["eval/success"] is not None and half_right(told):
            return int(told["samples"])
    return None


def summarise(samples: int, result: dict[str, Any], out: Path) -> dict[str, Any]:
    points = [
        {
            "arm": arm,
            "length": int(length),
            "seed": seed,
            "samples_to_half": samples_to_half(out / f"{arm}-{length}-s{seed}" / "metrics.jsonl"),
        }
        for name in result["arms"]
        for arm, _, length in [name.rpartition("-")]
        for seed in result["seeds"]
    ]
    return {"lengths": {"command": "guerdon run quickstart-lengths", "budget": samples, "points": points}}
