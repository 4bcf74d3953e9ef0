# SPDX-License-Identifier: Apache-2.0
"""An evaluation as one HTML file with its pictures, that asks nothing of the network."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from guerdon.audit.reward_bench.calibration import Bin
from guerdon.audit.reward_bench.evaluating import Evaluation
from guerdon.audit.reward_bench.intervals import Estimate, wilson
from guerdon.audit.reward_bench.pairs import Calibration
from guerdon.audit.reward_bench.telling import (
    LEANING_COLUMNS,
    SUBSET_COLUMNS,
    figure,
    interval,
    leaning_rows,
    main_rows,
    status_line,
    subset_rows,
)
from guerdon.errors import InputError
from guerdon.report.curves import Curve
from guerdon.report.plot import Chart, Line, line_chart, linear_axis, percent, share_axis


def write_page(evaluation: Evaluation, path: Path, data: str = "") -> None:
    """Write the page; ``data`` names the file that was evaluated on. Needs ``guerdon[report]``."""
    try:
        import jinja2
    except ImportError as error:
        raise InputError(
            "evaluate: a page needs the package `jinja2`, which is not installed. Install it with: pip install 'guerdon[report]'."
        ) from error
    own = resources.files("guerdon.audit.reward_bench").joinpath("page.html.j2").read_text(encoding="utf-8")
    style = resources.files("guerdon.report").joinpath("style.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    path.write_text(environment.from_string(own).render(**contents(evaluation), data=data, style=style), encoding="utf-8")


def contents(e: Evaluation) -> dict[str, Any]:
    """Everything the template shows."""
    return {
        "scorer": e.scorer,
        "status": status_line(e),
        "tiles": [
            ("Accuracy on pairs", figure(e.accuracy.judged.value), interval(e.accuracy.judged)),
            ("Best of k", figure(e.best.judged.value), f"{interval(e.best.judged)}, guessing {figure(e.chance)}"),
            ("Lines not judged", figure(e.unjudged.value), f"{round(e.unjudged.value * e.unjudged.n):,} of {e.unjudged.n:,}"),
        ],
        "rows": main_rows(e),
        "subsets": (SUBSET_COLUMNS, subset_rows(e)) if len(e.subsets) > 1 or e.subsets[0].name else None,
        "leaning_table": (LEANING_COLUMNS, leaning_rows(e)),
        "reliability": reliability(e.calibration, e.accuracy.judged.n) if e.calibration else None,
        "leanings": leaning_picture(e),
        "reasons": e.scoring.reasons[:12],
        "judges": {name: tally["said"] for name, tally in e.judges.items()},
    }


def reliability(found: list[Calibration], lines: int) -> Chart:
    """Confidence against how often it is right, in bins of equal mass, with 95 % bands."""
    drawn = [Line("calibrated", 2, Curve([0.5, 1.0], [0.5, 1.0], [0.5, 1.0], [0.5, 1.0], []), dashed=True)]
    drawn += [Line(f"{c.name} scores", i, _curve(c.bins, lines)) for i, c in enumerate(found)]
    seen = [x for line in drawn for x in (*line.curve.low, *line.curve.mean)]
    say = "Pairs in groups of equal size by confidence σ(|d|). Below the broken line the scorer is surer than it is right."
    axis = linear_axis([0.5, 1.0], percent)
    y = linear_axis([min(seen), 1.0], percent) if min(seen) > 0.25 else share_axis(seen)
    return line_chart("Reliability", say, drawn, axis, y, ("confidence", "pairs that are right"))


def _curve(bins: list[Bin], lines: int) -> Curve:
    x, mean = [b.confidence for b in bins], [b.right for b in bins]
    ends = [wilson(b.right * max(round(b.weight * lines), 1), max(round(b.weight * lines), 1)) for b in bins]
    low, high = [e.low for e in ends], [e.high for e in ends]
    return Curve(x, mean, low, high, [(x, low), (x, high)])


def leaning_picture(e: Evaluation) -> list[dict[str, Any]]:
    """For each feature two dots with their intervals: accuracy where the good answer has more of it, and where the worse has."""
    found = []
    for name, x in e.leanings.items():
        sides = ((0, "the good answer has more", x.more), (1, "the worse answer has more", x.less))
        dots = [_dot(colour, words, side) for colour, words, side in sides if side.n]
        if dots:
            found.append({"name": name, "dots": dots, "gap": figure(x.gap.value), "interval": interval(x.gap)})
    return found


def _dot(colour: int, words: str, e: Estimate) -> dict[str, Any]:
    where = {"at": 100 * e.value, "low": 100 * e.low, "high": 100 * e.high}
    return {"colour": colour, **where, "text": f"{words}: {figure(e.value)} of {e.n:,}"}
