# SPDX-License-Identifier: Apache-2.0
"""Line charts as data for the page's template: positions in percent of the plot, so that lines stretch and text does not.

The template draws lines into an SVG that fills its box at any width and writes every word as ordinary text beside it; the text
stays the size of the page's text on a phone, and the page shows its charts with scripts switched off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from guerdon.report.curves import Curve
from guerdon.report.reading import Points

Text = Callable[[float], str]


@dataclass(frozen=True)
class Line:
    """One series: its name, the number of its colour, and whether it is drawn broken (the second of two runs)."""

    label: str
    colour: int
    curve: Curve
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    title: str
    read: str
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    paths: list[dict[str, Any]]
    legend: list[dict[str, Any]]
    tips: list[dict[str, Any]]
    marks: list[dict[str, Any]] = field(default_factory=list)
    rule: tuple[float, str] | None = None


@dataclass(frozen=True)
class Axis:
    """From a value to a position in [0, 100] and to its text; ``ticks`` are values."""

    low: float
    high: float
    ticks: list[float]
    short: Text
    full: Text
    log: bool = False

    def at(self, value: float) -> float:
        a, b, v = (math.log(t) if self.log else t for t in (self.low, self.high, value))
        return round(100 * (v - a) / (b - a), 2)


# ---- numbers as text


def percent(x: float) -> str:
    """
    >>> percent(0.9714), percent(0.004), percent(0.0), percent(1.0), percent(0.999)
    ('97 %', '0.4 %', '0 %', '100 %', '99.9 %')
    """
    size = 100 * x
    near = 0 < abs(size) < 1 or 99 < size < 100
    return f"{size:.1f} %" if near else f"{size:.0f} %"


def count(x: float) -> str:
    """
    >>> count(12288), count(3.5)
    ('12,288', '3.5')
    """
    return f"{x:,.0f}" if x == round(x) or abs(x) >= 100 else f"{x:.3g}"


def short_count(x: float) -> str:
    """
    >>> [short_count(x) for x in (0, 500, 12000, 12500, 2e6)]
    ['0', '500', '12k', '12.5k', '2M']
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:.4g}{unit}"
    return f"{x:.4g}"


def number(x: float) -> str:
    """
    >>> number(0.12345), number(1234.5), number(0.0)
    ('0.123', '1,234', '0')
    """
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"


def seconds(x: float) -> str:
    """
    >>> seconds(4.21), seconds(75), seconds(600), seconds(5400)
    ('4.2 s', '1 min 15 s', '10 min', '1 h 30 min')
    """
    if x < 60:
        return f"{x:.1f} s" if x < 10 else f"{x:.0f} s"
    small, unit, big, name = (x, 60, "min", "s") if x < 3600 else (x / 60, 60, "h", "min")
    whole, rest = divmod(round(small), unit)
    return f"{whole} {big} {rest} {name}" if rest else f"{whole} {big}"


# ---- axes


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values from at or below ``low`` to at or above ``high``, 1, 2, 2.5 or 5 times a power of ten apart.

    One value alone is seen from 0.

    >>> nice_ticks(0, 1.2), nice_ticks(30, 47), nice_ticks(3, 3)
    ([0.0, 0.25, 0.5, 0.75, 1.0, 1.25], [30.0, 35.0, 40.0, 45.0, 50.0], [0.0, 1.0, 2.0, 3.0])
    """
    if low == high:
        low, high = min(low, 0.0), max(high, 0.0) or 1.0
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(k * power for k in (1, 2, 2.5, 5, 10) if span / (k * power) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]


def linear_axis(values: Sequence[float], short: Text = number, full: Text | None = None, tight: bool = False) -> Axis:
    """An axis for the values; ``tight`` ends it at the last value instead of at the next tick."""
    ticks = nice_ticks(min(values), max(values))
    low, high = (min(values), max(values)) if tight and max(values) > min(values) else (ticks[0], ticks[-1])
    margin = 1e-9 * (high - low)
    return Axis(low, high, [t for t in ticks if low - margin <= t <= high + margin], short, full or short)


def share_axis(values: Sequence[float]) -> Axis:
    """0 to 100 %, wider only if a value lies outside."""
    return linear_axis([*values, 0.0, 1.0], percent)


def seconds_axis(values: Sequence[float]) -> Axis:
    """Ticks at round seconds, minutes or hours, whichever the range asks for."""
    unit = next((u for u in (3600, 60) if max(values) >= 3 * u), 1)
    axis = linear_axis([v / unit for v in values], tight=True)
    return Axis(axis.low * unit, axis.high * unit, [t * unit for t in axis.ticks], seconds, seconds)


def log_axis(values: Sequence[float]) -> Axis:
    """Powers of ten, with 2 and 5 times them where there are few.

    >>> log_axis([600, 45_000]).ticks
    [500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0]
    """
    low, high = min(values), max(values) * 1.15
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [k * 10.0**p for p in powers for k in ((1, 2, 5) if len(powers) <= 4 else (1,))]
    inside = [t for t in every if low < t < high]
    bottom = max((t for t in every if t <= low), default=low)
    return Axis(bottom, high, [bottom, *inside], short_count, count, log=True)


# ---- charts


def line_chart(title: str, read: str, lines: Sequence[Line], x: Axis, y: Axis, labels: tuple[str, str]) -> Chart:
    """Mean lines, bands from the smallest to the largest seed, and each seed's own thin line."""
    paths: list[dict[str, Any]] = []
    for line in lines:
        c, of = line.curve, {"colour": line.colour, "dashed": line.dashed}
        if len(c.seeds) > 1 and len(c.x) > 1:
            there, back = _path(c.x, c.high, x, y), _path(c.x[::-1], c.low[::-1], x, y)
            paths.append({"kind": "band", "d": f"{there}L{back[1:]}Z", **of})
            paths += [{"kind": "thin", "d": _path(*seed, x, y), **of} for seed in c.seeds if len(seed[0]) > 1]
    for line in lines:
        of = {"colour": line.colour, "dashed": line.dashed}
        kind = "line" if len(line.curve.x) > 1 else "dot"
        paths.append({"kind": kind, "d": _path(line.curve.x, line.curve.mean, x, y), **of})
    legend = [_entry(line, y.full(line.curve.mean[-1])) for line in lines]
    return Chart(title, read, *labels, _ticks(x), _ticks(y), paths, legend, [_tip(line, x, y, labels[0]) for line in lines])


def point_chart(
    chart: Chart, dots: Sequence[tuple[int, Points]], marks: list[dict[str, Any]], rule: tuple[float, str], x: Axis, y: Axis
) -> Chart:
    """A line chart with the measured points on it, marks for points that lie beyond, and the line they lie beyond."""
    paths = [{"kind": "dot", "d": _dots(points, x, y), "colour": colour, "dashed": False} for colour, points in dots]
    placed = [{**m, "x": x.at(m["x"]), "y": y.at(m["y"])} for m in marks]
    return replace(chart, paths=[*chart.paths, *paths], marks=placed, rule=(y.at(rule[0]), rule[1]))


def _path(xs: Sequence[float], ys: Sequence[float], x: Axis, y: Axis) -> str:
    """
    >>> _path([0, 1], [0, 1], linear_axis([0, 1]), linear_axis([0, 1]))
    'M0.0 100.0L100.0 0.0'
    """
    where = [f"{x.at(a)} {round(100 - y.at(b), 2)}" for a, b in zip(xs, ys, strict=True)]
    return "M" + ("L".join(where) if len(where) > 1 else "".join(where) + "h0")


def _dots(points: Points, x: Axis, y: Axis) -> str:
    """Lines of no length: their round ends are dots, whatever the stretch of the picture."""
    return "".join(f"M{x.at(a)} {round(100 - y.at(b), 2)}h0" for a, b in zip(*points, strict=True))


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    return [(axis.at(t), axis.short(t)) for t in axis.ticks]


def _entry(line: Line, value: str) -> dict[str, Any]:
    return {"label": line.label, "colour": line.colour, "dashed": line.dashed, "value": value}


def _tip(line: Line, x: Axis, y: Axis, x_label: str) -> dict[str, Any]:
    """What hovering shows: [x %, y %, text of x, text of y] for every point of the mean."""
    c, several = line.curve, len(line.curve.seeds) > 1
    points = []
    for at, mean, low, high in zip(c.x, c.mean, c.low, c.high, strict=True):
        spread = f" ({y.full(low)} to {y.full(high)})" if several and y.full(low) != y.full(high) else ""
        head = x.full(at) if x_label in ("seconds", "time") else f"{x.full(at)} {x_label}"
        points.append([x.at(at), y.at(mean), head, f"{y.full(mean)}{spread}"])
    return {"label": line.label, "colour": line.colour, "points": points}
