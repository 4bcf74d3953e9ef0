# SPDX-License-Identifier: Apache-2.0
"""One training of one arm: for looking at it, not for a verdict."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guerdon import systems
from guerdon.errors import InputError
from guerdon.systems.arms import comparison_of, runs_of, text_of
from guerdon.training.observers import Terminal
from guerdon.training.run import run_recipe


def train_one(
    slug_or_file: str, number: int, arm: str | None, seed: int, choice: Mapping[str, Any], out: Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """Train ``arm`` with its chosen hyper-parameters and ``choice`` over them. Returns the run's directory and its result."""
    claim = comparison_of(slug_or_file, number)
    arm = arm or claim.better
    if arm not in claim.arms:
        raise InputError(
            f"{systems.slug_of(slug_or_file)}: no arm {arm!r} in claim {number + 1}; there are {', '.join(claim.arms)}."
        )
    have = [n for n in inspect.signature(claim.arms[arm]).parameters if n not in ("seed", "start")]
    if unknown := [n for n in choice if n not in have]:
        raise InputError(
            f"{systems.slug_of(slug_or_file)}: arm {arm} of claim {number + 1} has no hyper-parameter {', '.join(unknown)}; "
            f"it has {', '.join(have) or 'none'}."
        )
    given = {**claim.chosen.get(arm, {}), **choice}
    out = out or runs_of(slug_or_file, "run") / "-".join(filter(None, [arm, text_of(choice), f"s{seed}"]))
    config = {"recipe": slug_or_file, "arguments": {"claim": number, **given}, "arm": arm, "seed": seed}
    start = None
    if claim.prepare:
        start = out.with_name(f"start-s{seed}")
        run_recipe(claim.prepare(seed), start, [Terminal()], {**config, "arm": "start", "arguments": {"claim": number}})
    return out, run_recipe(claim.arms[arm](seed, start, **given), out, [Terminal()], config)
