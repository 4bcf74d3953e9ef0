# SPDX-License-Identifier: Apache-2.0
"""Fast climb: ascent on a parabola by a part of the way.

A stand-in for a published method, with trainings of milliseconds. Each step goes a part of the way to the top, so that the
height that is missing shrinks by the same factor; a larger part arrives sooner.

    x' = x − gain x        `pulled`; x [N, T], gain in [0, 1]

Nobody 2024.
Departures: none known
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.systems.system import Bound, Comparison, Exact, Example, Metric, Reduction, System
from guerdon.training.recipe import Learning


def pulled(x: Tensor, mask: Tensor, gain: float) -> Tensor:
    """x − gain x [N, T], and 0 where the mask is False.

    >>> pulled(torch.tensor([[1.0, 2.0]]), torch.tensor([[True, False]]), gain=0.25)
    tensor([[0.7500, 0.0000]])
    """
    return torch.where(mask, x - gain * x, 0)


def climb(seed: int, start: Path | None, lr: float = 0.1, gain: float = 0.5, steps: int = 20) -> Learning:
    """Go up, from a place that depends on the seed."""

    def lines() -> Iterator[dict[str, float]]:
        x = torch.tensor([[1.0 + 0.1 * np.random.default_rng(seed).standard_normal()]])
        for step in range(1, steps + 1):
            x = pulled(x, x == x, lr * gain)
            yield {"samples": step, "eval/height": -(x.item() ** 2)}

    return Learning("climb", lines, seed, steps)


def slow(seed: int, start: Path | None, lr: float = 0.1) -> Learning:
    """A fifth of the pull."""
    return climb(seed, start, lr, gain=0.1)


def example(dtype: torch.dtype) -> dict[str, Any]:
    """Three rows, one of them shorter."""
    x = torch.tensor([[1.0, -2.0], [3.0, 0.5], [-1.0, 4.0]], dtype=dtype)
    return {"x": x, "mask": torch.tensor([[True, True], [True, False], [True, True]]), "gain": 0.25}


def still() -> tuple[Tensor, Tensor]:
    """(pulled by nothing, where it was)."""
    x = torch.tensor([[1.0, -2.0]])
    return pulled(x, x == x, 0.0), x


SYSTEM = System(
    title="Fast climb",
    paper="Nobody 2024",
    arxiv="",
    roles=("objective",),
    built_from=("nothing",),
    examples=[Example(pulled, example, rows=("x", "mask"), padded=("x",))],
    reductions=[Reduction("a gain of 0 leaves x where it is", still)],
    claims=[
        Comparison(
            "A pull of a half climbs higher than one of a tenth.",
            arms={"fast": climb, "slow": slow, "middle": lambda seed, start, lr=0.1: climb(seed, start, lr, 0.2)},
            better="fast",
            than="slow",
            metric=Metric("eval/height"),
            budget="20 samples",
            grid={"lr": [0.1, 0.3]},
            chosen={"fast": {"lr": 0.3}, "slow": {"lr": 0.3}},
            tried="nothing else",
        ),
        Bound("Noise has a mean below 1.", lambda seed: np.random.default_rng(seed).standard_normal(), limit=1.0, above=False),
        Exact("One and one is two exactly.", lambda: {"sum": (1.0 + 1.0, 2.0)}, 0.0),
    ],
)
