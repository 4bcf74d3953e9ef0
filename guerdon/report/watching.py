# SPDX-License-Identifier: Apache-2.0
"""What a run's watches saw: alarms, proxy against gold, and the quantities that the reward does not read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from guerdon.report import plot
from guerdon.report.curves import over_seeds, thinned
from guerdon.report.figures import PALETTE, Series, curve_chart
from guerdon.report.plot import Chart, Line, line_chart, number
from guerdon.report.reading import Points, Seed, is_number

MARK = "watch/"


@dataclass(frozen=True)
class Event:
    """An alarm or a note: whose, at which step, what."""

    label: str
    colour: int
    step: int
    text: str


@dataclass(frozen=True)
class Watching:
    alarms: list[Event]
    notes: list[Event]
    stopped: list[Event]
    charts: list[Chart]


def watching(series: Sequence[Series]) -> Watching | None:
    """None where no run was watched."""
    names = quantities(series)
    found = [c for s in series for c in [gold(s)] if c] + [c for name in names for c in [quantity(series, name)] if c]
    if not found and not any(MARK + "alarms" in s.arm.keys("train") for s in series):
        return None
    ends = [
        Event(_label(s, seed, series), s.colour, seed.lines["train"][-1].get("step", 0), str(s.arm.result["stopped"]))
        for s in series
        for seed in s.arm.seeds[:1]
        if isinstance(s.arm.result.get("stopped"), str) and seed.lines.get("train")
    ]
    return Watching(events(series, "alarm"), events(series, "note"), ends, found)


def quantities(series: Sequence[Series]) -> list[str]:
    """Names of what was watched beside the golds."""
    keys = dict.fromkeys(k.removeprefix(MARK) for s in series for k in s.arm.keys("train") if k.startswith(MARK))
    own = ("alarms", "kl", "proxy")
    return [k for k in keys if "/" not in k and k not in own]


def events(series: Sequence[Series], key: str) -> list[Event]:
    """The lines that have a text under ``key``, one event for each of its sentences."""
    return [
        Event(_label(s, seed, series), s.colour, line.get("step", 0), text)
        for s in series
        for seed in s.arm.seeds
        for line in seed.lines.get("train", ())
        if isinstance(line.get(key), str)
        for text in line[key].split(" | ")
    ]


def _label(s: Series, seed: Seed, series: Sequence[Series]) -> str:
    several = len(s.arm.seeds) > 1
    return " ".join([*([s.label] if len(series) > 1 else []), *([f"seed {seed.seed}"] if several else [])])


def quantity(series: Sequence[Series], name: str) -> Chart | None:
    read, called = "Mean over the rows of each training step.", name.replace("_", " ").capitalize()
    chart = curve_chart(series, "train", ("samples", MARK + name), called, read, lambda ys: plot.linear_axis([*ys, 0.0]))
    return chart and replace(chart, y_label=name)


def gold(s: Series) -> Chart | None:
    """Proxy and golds over the square root of the KL from the start, or over samples where that is not known."""
    keys = [k for k in s.arm.keys("train") if k.startswith(MARK) and k.endswith("/gain")]
    if len(keys) < 2:
        return None
    far = any(seed.points("train", MARK + "kl", keys[0])[0] for seed in s.arm.seeds)
    lines = []
    for i, key in enumerate(keys):
        points = [thinned(_over_kl(seed, key) if far else seed.points("train", "samples", key))[0] for seed in s.arm.seeds]
        name = key.removeprefix(MARK).removesuffix("/gain").replace("gold/", "gold: ")
        lines.append(Line(name, (s.colour + 3 * i) % PALETTE, over_seeds(points), i > 0))
    lines = [line for line in lines if line.curve.x]
    if not lines:
        return None
    xs = [a for line in lines for seed in line.curve.seeds for a in seed[0]]
    ys = [b for line in lines for seed in line.curve.seeds for b in seed[1]]
    read = "Gain over the first batch, in standard deviations of its rows. A proxy that rises while a gold falls is hacked."
    x = plot.linear_axis(xs, number, number, tight=True)
    chart = line_chart(
        "Proxy against gold", read, lines, x, plot.linear_axis([*ys, 0.0]), ("√KL from the start" if far else "samples", "gain")
    )
    return replace(chart, title=f"Proxy against gold, {s.label}") if s.label else chart


def _over_kl(seed: Seed, key: str) -> Points:
    """(sqrt(KL), gain) in order of the first; an estimate below 0 is noise about 0."""
    found = sorted(
        (math.sqrt(max(line[MARK + "kl"], 0.0)), float(line[key]))
        for line in seed.lines.get("train", ())
        if is_number(line.get(MARK + "kl")) and is_number(line.get(key))
    )
    return [a for a, _ in found], [b for _, b in found]
