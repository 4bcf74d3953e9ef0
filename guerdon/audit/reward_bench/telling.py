# SPDX-License-Identifier: Apache-2.0
"""An evaluation in words and figures: JSON values, and the rows that the terminal and the page show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from guerdon.audit.reward_bench.intervals import Estimate, wilson

if TYPE_CHECKING:
    from guerdon.audit.reward_bench.evaluating import Both, Evaluation

SCHEMA = 1


class Row(NamedTuple):
    """One figure: what it is, its estimate, its interval, over how many lines, and what to know about it."""

    name: str
    value: str
    interval: str
    n: str
    note: str = ""


def figure(x: float, share: bool = True) -> str:
    """
    >>> figure(0.8125), figure(-0.05), figure(math.nan), figure(0.0312, share=False)
    ('81.2 %', '-5.0 %', '-', '0.031')
    """
    if not math.isfinite(x):
        return "-"
    return f"{100 * x:.1f} %" if share else f"{x:.3f}"


def interval(e: Estimate, share: bool = True) -> str:
    """
    >>> interval(Estimate(0.5, 0.25, 0.75, 10)), interval(Estimate(0.5, math.nan, math.nan, 0))
    ('25.0 to 75.0 %', '-')
    """
    if not math.isfinite(e.low) or not math.isfinite(e.high):
        return "-"
    return f"{100 * e.low:.1f} to {100 * e.high:.1f} %" if share else f"{e.low:.3f} to {e.high:.3f}"


def row(name: str, e: Estimate, note: str = "", share: bool = True) -> Row:
    return Row(name, figure(e.value, share), interval(e, share), f"{e.n:,}", note)


def rows_of(name: str, both: Both, note: str = "") -> list[Row]:
    """One row, and a second where lines that were not judged make a difference."""
    found = [row(name, both.judged, note)]
    if both.wrong.n > both.judged.n:
        found.append(row("  unjudged as wrong", both.wrong))
    return found


def main_rows(e: Evaluation) -> list[Row]:
    """Choosing, ties, calibration, consistency, position."""
    ties = "equal scores count half" if e.equal.value > 0 else ""
    found = rows_of("accuracy, pairs", e.accuracy, ties)
    if e.equal.value > 0:
        found += [row("  equal scores as wrong", e.strict.judged), row("  pairs with equal scores", e.equal)]
    found += rows_of("best of k", e.best, f"guessing: {figure(e.chance)}; m equal at the top: 1/m")
    if len(e.subsets) > 1:
        found.append(Row("average of subsets", figure(e.average), "-", f"{len(e.subsets)} subsets"))
    found.append(row("lines not judged", e.unjudged))
    for c in e.calibration:
        say = "differences of scores as log-odds" if c.name == "raw" else "one factor fitted on other lines"
        floor = f"calibrated would be {figure(c.expected, share=False)}"
        found.append(row(f"calibration error, {c.name}", c.ece_mass, f"{say}; {floor}", share=False))
        found.append(row("  bins of equal width", c.ece_width, share=False))
        found.append(row("  Brier score", c.brier, "never knowing: 0.250", share=False))
    if (s := e.consistency) is not None:
        unjudged = f"{s.unjudged:,} not judged" if s.unjudged else ""
        if s.same.n:
            found += [row("verdict stays, paraphrased", s.same, unjudged), row("  accuracy, paraphrased", s.reworded)]
        if s.turned.n:
            found.append(row("turns with the instruction", s.turned, "" if s.same.n else unjudged))
            found.append(row("  of those right before", s.follows))
    if (o := e.position) is not None:
        found.append(row("shown first is preferred", wilson(o.first, o.first + o.second), "of decided judgements; fair: 50 %"))
        found.append(row("  both orders agree", wilson(o.agree, o.pairs)))
    return found


def subset_rows(e: Evaluation) -> list[list[str]]:
    """subset, lines, accuracy, its interval, best of k (or the Ties score), its interval, guessing, not judged."""
    found = []
    for s in e.subsets:
        head, what = s.headline.judged, " (Ties score)" if s.ties else ""
        missing = s.best.wrong.n - s.best.judged.n
        cells = [figure(s.accuracy.judged.value), interval(s.accuracy.judged), figure(head.value) + what, interval(head)]
        found.append([s.name or "(none)", f"{s.best.wrong.n:,}", *cells, figure(s.chance), f"{missing:,}"])
    return found


SUBSET_COLUMNS = ["subset", "lines", "accuracy", "95 %", "best of k", "95 %", "guessing", "not judged"]


def leaning_rows(e: Evaluation) -> list[list[str]]:
    """feature, accuracy where the good answer has more, where the worse has more, the gap with its interval, the slope."""
    found = []
    for name, x in e.leanings.items():
        if x.more.n or x.less.n:
            sides = [f"{figure(s.value)} of {s.n:,}" if s.n else "no lines" for s in (x.more, x.less)]
            found.append(
                [name, *sides, figure(x.gap.value), interval(x.gap), figure(x.slope.value, False), interval(x.slope, False)]
            )
    return found


LEANING_COLUMNS = ["feature", "good has more", "worse has more", "gap", "95 %", "slope", "95 %"]


def status_line(e: Evaluation) -> str:
    """How many answers were scored, how fast, and what became of the rest."""
    s = e.scoring
    bad = ", ".join(f"{count:,} {name}" for name, count in s.statuses.items() if count and name != "ok")
    pace = s.answers / s.seconds if s.seconds > 0 else math.inf
    return f"{e.lines:,} lines, {s.answers:,} answers in {s.seconds:.2f} s ({pace:,.0f}/s); {bad or 'every one was scored'}"


# ---- JSON


def as_json(e: Evaluation) -> dict[str, Any]:
    s = e.scoring
    return {
        "schema": SCHEMA,
        "scorer": e.scorer,
        "version": e.version,
        "lines": e.lines,
        "answers": s.answers,
        "statuses": s.statuses,
        "reasons": [{"status": status, "reason": text, "count": count} for status, text, count in s.reasons],
        "throughput": {"seconds": s.seconds, "answers_per_second": s.answers / s.seconds if s.seconds > 0 else None},
        "accuracy": e.accuracy.as_dict() | {"equal_as_wrong": e.strict.as_dict(), "pairs_equal": e.equal.as_dict()},
        "best_of_k": e.best.as_dict() | {"chance": e.chance},
        "average_of_subsets": _number(e.average),
        "unjudged": e.unjudged.as_dict(),
        "subsets": [
            {
                "name": x.name,
                "accuracy": x.accuracy.as_dict(),
                "best_of_k": x.best.as_dict(),
                "chance": x.chance,
                "ties": None if x.ties is None else x.ties.as_dict(),
            }
            for x in e.subsets
        ],
        "calibration": {
            c.name: {
                "ece_equal_mass": c.ece_mass.as_dict(),
                "ece_equal_width": c.ece_width.as_dict(),
                "ece_if_calibrated": c.expected,
                "brier": c.brier.as_dict(),
                "bins": [vars(b) for b in c.bins],
            }
            for c in e.calibration
        },
        "leanings": {name: _estimates(vars(x)) for name, x in e.leanings.items()},
        "consistency": None if e.consistency is None else _estimates(vars(e.consistency)),
        "position": None if e.position is None else e.position.as_dict(),
        "judges": e.judges,
    }


def _estimates(found: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.as_dict() if isinstance(v, Estimate) else v for k, v in found.items()}


def _number(x: float) -> float | None:
    return x if math.isfinite(x) else None
