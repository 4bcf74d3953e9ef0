# SPDX-License-Identifier: Apache-2.0
"""The trainings behind a comparison, as a Study whose runs lie below runs/systems/SLUG/ and are taken up where they stopped.

A run's directory is named by the code it was trained with: the system's file and the library's rooms below it. Code that changed
trains anew, beside what was there.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from guerdon import systems
from guerdon.errors import InputError
from guerdon.protocols import Observer
from guerdon.systems.results import code_of
from guerdon.systems.system import Arm, Comparison
from guerdon.training.recipe import Learning, Recipe
from guerdon.training.study import Study, run_study


def make(slug_or_file: str, arguments: Mapping[str, Any]) -> Study:
    """The arms of one claim at their chosen hyper-parameters, and at every point of its grid as ARM.KEY=VALUE.

    Made again, by this function, in each process that runs a part of it.
    """
    claim = comparison_of(slug_or_file, arguments["claim"])
    variants = {arm: (arm, dict(claim.chosen.get(arm, {}))) for arm in claim.arms}
    if claim.grid:
        variants |= {label_of(arm, p): (arm, p) for arm in claim.arms for p in points_of(claim.grid)}
    arms = {label: partial(_arm, claim.arms[arm], choice) for label, (arm, choice) in variants.items()}
    return Study(slug_or_file, arms, (), claim.prepare)


def comparison_of(slug_or_file: str, number: int) -> Comparison:
    claims = systems.system_of(slug_or_file).claims
    claim = claims[number] if 0 <= number < len(claims) else None
    if not isinstance(claim, Comparison):
        kinds = ", ".join(type(c).__name__ for c in claims)
        raise InputError(f"{slug_or_file}: expected claim {number + 1} to be a Comparison, which has arms; its claims: {kinds}.")
    return claim


def train_all(
    slug_or_file: str, number: int, labels: Sequence[str], seeds: Sequence[int], out: Path, observers: Sequence[Observer] = ()
) -> None:
    """Train those of ``make``'s arms that ``labels`` names, with each seed, in ``out``/LABEL-sSEED, but for what is finished."""
    arguments = {"claim": number}
    study = make(slug_or_file, arguments)
    part = replace(study, arms={label: study.arms[label] for label in labels}, seeds=list(seeds))
    run_study(part, make, slug_or_file, arguments, out, observers)


def points_of(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the grid's values.

    >>> points_of({"lr": [1, 2], "beta": [0]})
    [{'lr': 1, 'beta': 0}, {'lr': 2, 'beta': 0}]
    """
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def label_of(arm: str, point: Mapping[str, Any]) -> str:
    """A point of the grid as a name, also of a directory.

    >>> label_of("grpo", {"lr": 0.001, "sizes": (64, 64)})
    'grpo.lr=0.001,sizes=[64,64]'
    """
    return f"{arm}.{text_of(point)}"


def text_of(point: Mapping[str, Any]) -> str:
    """
    >>> text_of({"lr": 0.001, "sizes": (64, 64)})
    'lr=0.001,sizes=[64,64]'
    """
    return ",".join(f"{k}={list(v) if isinstance(v, tuple) else v}" for k, v in point.items()).replace(" ", "")


def runs_of(slug_or_file: str, what: str, *depends: Any) -> Path:
    """Where trainings lie that are done for ``what``, with the code as it is; ``depends``: what else they depend on."""
    told = json.dumps([code_of(slug_or_file), _library_code(), depends])
    code = hashlib.sha256(told.encode()).hexdigest()[:8]
    return Path("runs") / "systems" / systems.slug_of(slug_or_file) / f"{what}-{code}"


def _arm(arm: Arm, choice: Mapping[str, Any], seed: int, start: Path | None) -> Recipe | Learning:
    return arm(seed, start, **choice)


ABOVE = ("systems", "cli", "report", "recipes")
"""Rooms that no training runs through."""


@lru_cache(maxsize=1)
def _library_code() -> str:
    root = Path(systems.__file__).parents[1]
    files = sorted(f for f in root.rglob("*.py") if f.relative_to(root).parts[0] not in ABOVE)
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
