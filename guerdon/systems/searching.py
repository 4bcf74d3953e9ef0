# SPDX-License-Identifier: Apache-2.0
"""The same search for method and baseline: every point of a comparison's grid, for both deciding arms, on development seeds."""

from __future__ import annotations

import json
import statistics
from datetime import date
from typing import Any

from guerdon import systems
from guerdon.errors import InputError
from guerdon.systems.arms import comparison_of, label_of, points_of, runs_of, text_of, train_all
from guerdon.systems.measuring import figure_of, higher_is_better, lines_of
from guerdon.systems.progress import Progress
from guerdon.systems.results import code_of, store, stored
from guerdon.systems.system import Comparison

SEEDS = 3
"""Development seeds 0, 1, 2 of every point; the verdict's seeds are others."""


def search(slug_or_file: str, number: int = 0, seeds: int = SEEDS) -> dict[str, Any]:
    """Train every point, store the table, and return it with the best point per arm."""
    claim = comparison_of(slug_or_file, number)
    if not claim.grid:
        raise InputError(f"{slug_or_file}: expected a `grid` in claim {number + 1} to search over, got none.")
    if seeds > claim.first_seed:
        raise InputError(
            f"{slug_or_file}: expected development seeds below {claim.first_seed}, where the verdict's begin, got {seeds}."
        )
    points, arms = points_of(claim.grid), (claim.better, claim.than)
    out = runs_of(slug_or_file, f"search-{number + 1}")
    watch = Progress(f"{systems.slug_of(slug_or_file)}, search", claim.metric.name)
    try:
        train_all(slug_or_file, number, [label_of(arm, p) for arm in arms for p in points], range(seeds), out, [watch])
    finally:
        watch.end()
    table = {arm: [{"choice": p, "scores": _scores(claim, out, label_of(arm, p), seeds)} for p in points] for arm in arms}
    found = {
        "grid": _as_json(claim.grid),
        "seeds": list(range(seeds)),
        "table": table,
        "best": {arm: best_of(claim, rows) for arm, rows in table.items()},
        "code": code_of(slug_or_file),
        "date": date.today().isoformat(),
    }
    store(slug_or_file, {"search": {**stored(slug_or_file).get("search", {}), str(number): found}})
    return found


def best_of(claim: Comparison, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The point with the best mean; the first of those that are equal."""
    sign = 1 if higher_is_better(claim.metric) else -1
    return max(rows, key=lambda row: sign * statistics.fmean(row["scores"]))["choice"]


def refuse_unsearched(slug_or_file: str, number: int) -> None:
    """Raise unless ``chosen`` is what the stored search over this very grid found best, for both arms that decide.

    Of points with equal means any may be chosen.
    """
    claim = comparison_of(slug_or_file, number)
    if not claim.grid:
        return
    slug = systems.slug_of(slug_or_file)
    found = stored(slug_or_file).get("search", {}).get(str(number))
    again = f"Run `guerdon systems search {slug_or_file}`."
    if found is None or found["grid"] != _as_json(claim.grid):
        got = "none" if found is None else "one over another grid"
        raise InputError(f"{slug}: expected a stored search over the grid of claim {number + 1}, got {got}. {again}")
    for arm in (claim.better, claim.than):
        means = {text_of(row["choice"]): statistics.fmean(row["scores"]) for row in found["table"].get(arm, [])}
        chosen, best = text_of({k: claim.chosen.get(arm, {}).get(k) for k in claim.grid}), text_of(found["best"].get(arm, {}))
        if chosen not in means or means[chosen] != means[best]:
            raise InputError(
                f"{slug}: expected `chosen` of arm {arm} to be the best of the stored search, {best}, got {chosen}. "
                f"Usual cause: `chosen` was not changed after a search. {again}"
            )


def _as_json(x: Any) -> Any:
    """As it comes back from a file."""
    return json.loads(json.dumps(x))


def _scores(claim: Comparison, out: Any, label: str, seeds: int) -> list[float]:
    return [figure_of(claim.metric, lines_of(out / f"{label}-s{s}"), f"{label}, seed {s}") for s in range(seeds)]
