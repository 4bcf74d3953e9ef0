# SPDX-License-Identifier: Apache-2.0
"""The search behind the quickstart's learning rate: the same grid for every arm, at a length where all of them can succeed."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from guerdon.recipes.quickstart_lengths import samples_to_half, until_half
from guerdon.training.recipe import Recipe
from guerdon.training.study import Study


def recipe(
    seeds: Sequence[int] = (100, 101, 102),
    rates: Sequence[float] = (3e-4, 1e-3, 3e-3),
    arms: Sequence[str] = ("dense", "outcome"),
    length: int = 8,
    samples: int = 40_960,
) -> Study:
    """Samples to 50 % success of each arm at each learning rate, on seeds that the quickstart does not use."""
    runs = {f"{a}@{r:g}": partial(_arm, a, length, samples, r) for r in rates for a in arms}
    return Study("quickstart-grid", runs, tuple(seeds), summarise=partial(summarise, samples), about={"title": "Learning rates"})


def _arm(arm: str, length: int, samples: int, lr: float, seed: int, start: Path | None) -> Recipe:
    return dataclasses.replace(until_half(arm, length, samples, lr, seed, start), name=f"{arm}@{lr:g}")


def summarise(samples: int, result: dict[str, Any], out: Path) -> dict[str, Any]:
    """Per arm and rate the samples to 50 % on each seed; chosen is the smallest median (not reached counts as the budget)."""
    found: dict[str, dict[str, list[int | None]]] = {}
    for name in result["arms"]:
        arm, _, rate = name.partition("@")
        found.setdefault(arm, {})[rate] = [samples_to_half(out / f"{name}-s{s}" / "metrics.jsonl") for s in result["seeds"]]
    chosen = {
        arm: float(min(rates, key=lambda r: statistics.median(samples if x is None else x for x in rates[r])))
        for arm, rates in found.items()
    }
    return {"grid": {"command": "guerdon run quickstart-grid", "budget": samples, "samples_to_half": found, "chosen": chosen}}
