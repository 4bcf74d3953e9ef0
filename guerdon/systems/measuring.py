# SPDX-License-Identifier: Apache-2.0
"""From the lines of a run's metrics.jsonl to the one figure that a claim compares."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guerdon.errors import InputError
from guerdon.systems.system import Metric

Lines = Sequence[Mapping[str, Any]]


def lines_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a finished run."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def higher_is_better(metric: Metric) -> bool:
    """Of the figure: what is reached sooner is better, whichever way the curve goes."""
    return metric.higher and metric.how != "reached"


def figure_of(metric: Metric, lines: Lines, whose: str) -> float:
    """The metric's figure of one run.

    >>> lines = [{"samples": 10 * i, "eval/success": x} for i, x in enumerate([0.0, 0.75, 0.5])]
    >>> [figure_of(Metric("eval/success", how), lines, "run") for how in ("last", "mean", "best")]
    [0.5, 0.4166..., 0.75]
    >>> [figure_of(Metric("eval/success", "reached", at=level), lines, "run") for level in (0.5, 0.9)]
    [10.0, 40.0]
    """
    curve = curve_of(metric, lines, whose)
    values = [y for _, y in curve]
    if metric.how == "reached":
        assert metric.at is not None  # Metric checks it
        first = next((x for x, y in curve if (y >= metric.at if metric.higher else y <= metric.at)), 2 * curve[-1][0])
        return float(first)
    if metric.how == "best":
        return max(values) if metric.higher else min(values)
    return statistics.fmean(values) if metric.how == "mean" else values[-1]


def curve_of(metric: Metric, lines: Lines, whose: str) -> list[tuple[float, float]]:
    """(``along``, value) of every line that has the metric; ``along`` is the step where a line has no such key."""
    told = [line for line in lines if metric.name in line]
    if not told:
        names = sorted({k for line in lines for k, v in line.items() if isinstance(v, int | float)})
        raise InputError(
            f"{whose}: no line has the claim's metric `{metric.name}`; there are {', '.join(names) or 'none'}. "
            "Usual cause: a metric of another arm, or a misspelt name."
        )
    bad = next((line for line in told if not _is_finite(line[metric.name])), None)
    if bad is not None:
        raise InputError(
            f"{whose}: expected a finite `{metric.name}`, got {bad[metric.name]} at step {bad.get('step')}. Usual cause: a "
            "training that diverged; a failure is no score, so the arm needs settings that it survives."
        )
    return [(float(line.get(metric.along, line.get("step", i))), float(line[metric.name])) for i, line in enumerate(told)]


def _is_finite(x: Any) -> bool:
    return isinstance(x, int | float) and math.isfinite(x)
