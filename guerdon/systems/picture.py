# SPDX-License-Identifier: Apache-2.0
"""A claim's result as an SVG that stands alone: the arms' curves (median and quartiles over seeds) and every seed's figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from guerdon.report.curves import Curve
from guerdon.report.plot import Axis, Line, count, line_chart, linear_axis, short_count
from guerdon.systems.telling import metric_text, number

COLOURS = ("#2f7ed8", "#e07b39", "#3a9d5d", "#a05cc0", "#c0504d", "#7f7f7f")
"""Readable on white and on black."""

HEIGHT, TOP, BOTTOM = 300, 44, 48
LETTER = 7
"""At most the mean width of a letter."""
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#808080}.name{font-weight:600}.grid{stroke:#808080;stroke-opacity:.25}"
    "path{fill:none;vector-effect:non-scaling-stroke;stroke-linejoin:round}.line{stroke-width:2.2}.band{stroke:none;fill-opacity:.18}"
)


def picture(claim: Mapping[str, Any]) -> str:
    """Of one claim in a stored result; empty for an identity, which has no seeds."""
    if claim["kind"] == "exact":
        return ""
    arms = claim["arms"] if claim["kind"] == "comparison" else {"": claim}
    curves = {name: arm["curve"] for name, arm in arms.items() if len(arm.get("curve", {}).get("x", ())) > 1}
    name = metric_text(claim["metric"]) if claim["kind"] == "comparison" else "value"
    left = _curves(curves, list(arms), claim["metric"]) if curves else []
    strip, width = _seeds({a: arm["scores"] for a, arm in arms.items()}, name, claim.get("limit"), 420 if curves else 0)
    legend = [
        f'<text class="name" x="{56 + 150 * i}" y="18" style="fill:{COLOURS[i % len(COLOURS)]}">{escape(a)}</text>'
        for i, a in enumerate(arms)
        if a
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *legend, *left, *strip, "</svg>", ""])


def _curves(curves: Mapping[str, Any], arms: Sequence[str], metric: Mapping[str, Any]) -> list[str]:
    lines = [Line(a, arms.index(a), Curve(c["x"], c["median"], c["low"], c["high"], [([], [])] * 2)) for a, c in curves.items()]
    x = linear_axis([v for c in curves.values() for v in c["x"]], short_count, count, tight=True)
    y = linear_axis([v for c in curves.values() for k in ("low", "high") for v in c[k]], number)
    chart = line_chart("", "", lines, x, y, (metric["along"], metric["name"]))
    drawn = [_path(p["d"], p["kind"], COLOURS[p["colour"] % len(COLOURS)]) for p in chart.paths]
    low = HEIGHT - BOTTOM + 18
    ticks = [f'<text x="{56 + 3.2 * at:.1f}" y="{low}" text-anchor="middle">{t}</text>' for at, t in chart.x_ticks]
    names = f'<text x="56" y="{HEIGHT - 10}">{escape(metric["name"])}, median and quartiles</text>'
    names += f'<text x="376" y="{HEIGHT - 10}" text-anchor="end">{escape(metric["along"])}</text>'
    place = f'<g transform="translate(56 {TOP}) scale(3.2 {(HEIGHT - TOP - BOTTOM) / 100})">'
    return [*_rules(y, 56, 376), *ticks, names, place, *drawn, "</g>"]


def _seeds(scores: Mapping[str, Sequence[float]], name: str, limit: float | None, left: int) -> tuple[list[str], int]:
    """A column of dots for each arm, its mean as a bar; and how wide the picture is with it."""
    y = linear_axis([*(v for values in scores.values() for v in values), *([limit] if limit is not None else [])], number)
    start, step = left + 56, 64
    end = start + max(step * len(scores), 160)
    drawn = _rules(y, start, end)
    for i, values in enumerate(scores.values()):
        colour, x = COLOURS[i % len(COLOURS)], start + step * (i + 0.5)
        drawn += [
            f'<circle cx="{x + 5 * (k % 5 - 2):.0f}" cy="{_at(y, v):.1f}" r="3" fill="{colour}"/>' for k, v in enumerate(values)
        ]
        mean = _at(y, sum(values) / len(values))
        drawn += [f'<path class="line" stroke="{colour}" d="M{x - 22:.0f} {mean:.1f}h44"/>']
    if limit is not None:
        drawn += [f'<path class="line" stroke="#808080" stroke-dasharray="4 4" d="M{start} {_at(y, limit):.1f}H{end}"/>']
    told = f"{name}, each seed"
    written = f'<text x="{start}" y="{HEIGHT - 10}">{escape(told)}</text>'
    return [*drawn, written], max(end, start + LETTER * len(told)) + 20


def _rules(y: Axis, start: float, end: float) -> list[str]:
    """Horizontal lines with their numbers."""
    return [
        f'<path class="grid" d="M{start} {_at(y, t):.1f}H{end}"/>'
        f'<text x="{start - 6}" y="{_at(y, t) + 4:.1f}" text-anchor="end">{y.short(t)}</text>'
        for t in y.ticks
    ]


def _at(y: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y.at(value) / 100


def _path(d: str, kind: str, colour: str) -> str:
    paint = f'fill="{colour}" style="fill:{colour}"' if kind == "band" else f'stroke="{colour}"'
    return f'<path class="{kind}" {paint} d="{d}"/>'
