# SPDX-License-Identifier: Apache-2.0
"""The report's charts: from runs to lines on axes. A chart without data is None, and the page says what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from guerdon.report import plot
from guerdon.report.curves import Reach, over_seeds, reaches, thinned
from guerdon.report.plot import Axis, Chart, Line, count, line_chart, number, percent, short_count
from guerdon.report.reading import Arm, Points, Seed
from guerdon.training.headline import SUCCESS, called, is_share

PALETTE = 8
"""Colours in style.css; later series start over."""


@dataclass(frozen=True)
class Series:
    """An arm of one of the runs with the name, colour and stroke it has in every chart of the page."""

    label: str
    colour: int
    dashed: bool
    arm: Arm


@dataclass(frozen=True)
class Panel:
    """One of several charts of which the reader switches one on; ``y`` and ``x`` are the switches' positions."""

    y: int
    x: int
    chart: Chart


@dataclass(frozen=True)
class Switched:
    y_names: list[str]
    x_names: list[str]
    panels: list[Panel]


def x_axis(key: str, values: Sequence[float]) -> Axis:
    return plot.seconds_axis(values) if key == "seconds" else plot.linear_axis(values, short_count, count, tight=True)


def lines_of(series: Sequence[Series], stage: str, x: str, y: str) -> tuple[list[Line], int]:
    """A line for each series that has the key, thinned; and how many steps each point is the mean of."""
    made, width = [], 1
    for s in series:
        thin = [thinned(seed.points(stage, x, y)) for seed in s.arm.seeds]
        width = max([width, *(w for _, w in thin)])
        curve = over_seeds([points for points, _ in thin])
        if curve.x:
            made.append(Line(s.label, s.colour, curve, s.dashed))
    return made, width


def curve_chart(
    series: Sequence[Series], stage: str, keys: tuple[str, str], title: str, read: str, scale: Callable[..., Axis]
) -> Chart | None:
    """One metric of every series over ``keys[0]``; None if no series has it."""
    lines, width = lines_of(series, stage, *keys)
    if not lines:
        return None
    if width > 1:
        read += f" Each point is the mean of {width} steps."
    xs, ys = _drawn(lines)
    return line_chart(title, read, lines, x_axis(keys[0], xs), scale(ys), ("time" if keys[0] == "seconds" else keys[0], keys[1]))


# ---- what was evaluated


def measured(arm: Arm) -> list[str]:
    """The evaluation's figures that are no shares: all of them where there is no success to be judged by."""
    keys = [k for k in arm.keys("eval") if k.startswith("eval/")]
    return [] if SUCCESS in keys else [k for k in keys if not is_share(k)]


def learning(series: Sequence[Series]) -> Switched | None:
    """Held-out success as sampled, greedy and pass@K, or else every figure evaluated, each against samples and against time."""
    keys = list(dict.fromkeys(key for s in series for key in s.arm.keys("eval")))
    named = {SUCCESS: "sampled", "eval/greedy": "greedy"}
    named |= {k: k.removeprefix("eval/") for k in keys if k.startswith("eval/pass@")}
    named |= {k: called(k) for s in series for k in measured(s.arm)}
    read = {
        "eval/success": "the share of held-out completions, sampled as in training, that are right",
        "eval/greedy": "the share of held-out tasks whose single most likely completion is right",
    }
    at_least_one = "the share of held-out tasks with at least one right completion among several"
    panels, ys = [], [key for key in named if key in keys]
    every = [seed for s in series for seed in s.arm.seeds]
    xs = [x for x in ("samples", "seconds") if any(seed.points("eval", x, y)[0] for seed in every for y in ys)]
    several = any(len(s.arm.seeds) > 1 for s in series)
    spread = " Thick: mean over seeds; thin: each seed; shade: from the worst seed to the best." if several else ""
    for j, y in enumerate(ys):
        for i, x in enumerate(xs):
            share = is_share(y)
            text = f"Height is {read.get(y, at_least_one) if share else named[y]}.{spread}"
            title = f"Held-out success, {named[y]}" if share else named[y].capitalize()
            chart = curve_chart(series, "eval", (x, y), title, text, plot.share_axis if share else plot.linear_axis)
            if chart:
                below = ("completions sampled" if share else "rows sampled") if x == "samples" else chart.x_label
                panels.append(Panel(j, i, replace(chart, y_label="held-out success" if share else named[y], x_label=below)))
    if not panels:
        return None
    return Switched([named[y] for y in ys], ["by samples" if x == "samples" else "by time" for x in xs], panels)


def sampled(arm: Arm) -> str:
    """What a row is called: text is judged by shares."""
    return "rows" if measured(arm) else "completions"


# ---- the reward's parts


def parts(series: Series) -> list[Chart]:
    """Each named part of the reward over training, the total last, and each term's share of the advantage's variance."""
    keys = [k for k in series.arm.keys("train") if k.startswith("reward/") and k != "reward/total"]
    if len(keys) != 1 or not _same(series.arm.seeds, keys[0], "reward/total"):
        keys += [k for k in series.arm.keys("train") if k == "reward/total"]
    charts = []
    for key in keys:
        name = key.removeprefix("reward/")
        what = "the reward that is trained on" if name == "total" else name
        read = f"Mean of {what} over the {sampled(series.arm)} of each training step."
        chart = curve_chart([series], "train", ("samples", key), name, read, lambda ys: plot.linear_axis([*ys, 0.0]))
        charts += [replace(chart, y_label="mean reward")] if chart else []
    return charts + [chart for chart in [shares(series)] if chart]


def shares(series: Series) -> Chart | None:
    """Each additive term's share of the advantage's variance, all in one chart; None with fewer than two terms."""
    keys = [k for k in series.arm.keys("train") if k.startswith("share/")]
    if len(keys) < 2:
        return None
    terms = [replace(series, label=k.removeprefix("share/"), colour=(i + 3) % PALETTE) for i, k in enumerate(keys)]
    return _together(
        [(term, k) for term, k in zip(terms, keys, strict=True)],
        "Who drives the advantage",
        "Each term's share of the advantage's variance: a term near 0 % teaches nothing, however large its weight.",
        "share of variance",
    )


def trouble(series: Sequence[Series]) -> list[Chart]:
    """Shares of abstentions, timeouts and errors for each part that has any, and of steps dropped because of them."""
    names = {"abstain": "abstained", "timeout": "ran out of time", "error": "failed"}
    keys = list(dict.fromkeys(k for s in series for k in s.arm.keys("train") if k.startswith("status/") or k == "dropped"))
    charts = []
    for key in keys:
        if not any(any(seed.points("train", "step", key)[1]) for s in series for seed in s.arm.seeds):
            continue
        part, _, kind = key.removeprefix("status/").rpartition("/")
        title = (
            "Steps without gradient: a reward was not ok, or there was nothing to compare with"
            if key == "dropped"
            else f"{part}: {names.get(kind, kind)}"
        )
        read = "Share of the units of a training step."
        chart = curve_chart(series, "train", ("samples", key), title, read, lambda ys: plot.linear_axis([*ys, 0.0], percent))
        if chart:
            charts.append(replace(chart, y_label="share of units"))
    return charts


def training(series: Sequence[Series]) -> list[Chart]:
    """What else moved while training: groups without signal, length of completions, entropy."""
    wanted = {
        "no_signal": (
            "Groups without signal",
            "Share of groups whose rewards are all alike: nothing is learned from them.",
            "share of groups",
        ),
        "length": (
            "Length of completions",
            "Mean number of tokens written; a reward that is being gamed often shows here first.",
            "tokens",
        ),
        "entropy": ("Entropy", "How undecided the policy is at a token; near zero it tries nothing new.", "nats per token"),
    }
    charts = []
    for key, (title, read, unit) in wanted.items():
        scale: Callable[..., Axis] = plot.share_axis if key == "no_signal" else lambda ys: plot.linear_axis([*ys, 0.0])
        chart = curve_chart(series, "train", ("samples", key), title, read, scale)
        if chart:
            charts.append(replace(chart, y_label=unit))
    return charts


def _together(pairs: Sequence[tuple[Series, str]], title: str, read: str, unit: str) -> Chart | None:
    lines = [line for s, key in pairs for line in lines_of([s], "train", "samples", key)[0]]
    if not lines:
        return None
    xs, ys = _drawn(lines)
    return line_chart(title, read, lines, x_axis("samples", xs), plot.share_axis(ys), ("samples", unit))


def _drawn(lines: Sequence[Line]) -> Points:
    """Every x and y that the lines are drawn at: a seed that is ahead of the others reaches beyond their mean."""
    points = [points for line in lines for points in line.curve.seeds]
    return [a for x, _ in points for a in x], [b for _, y in points for b in y]


def _same(seeds: Sequence[Seed], a: str, b: str) -> bool:
    return all(seed.points("train", "step", a) == seed.points("train", "step", b) for seed in seeds)


# ---- how long a chain


@dataclass(frozen=True)
class Lengths:
    chart: Chart
    sentences: list[str]
    arms: list[str]
    rows: list[tuple[str, list[str]]]


def lengths(stored: Mapping[str, Any], colours: Mapping[str, int]) -> Lengths | None:
    """Samples to 50 % held-out success against the length of the chain."""
    found, budget = reaches(stored.get("points", ())), stored.get("budget")
    numbers = [n for r in found for n in r.reached] + ([budget] if budget else [])
    if not numbers:
        return None
    steps = sorted({float(r.length) for r in found})
    x = Axis(steps[0] - 0.4, steps[-1] + 0.4, steps, short_count, count)
    y = plot.log_axis(numbers)
    arms = list(dict.fromkeys(r.arm for r in found))
    lines, dots, marks = [], [], []
    for i, arm in enumerate(arms):
        mine, colour = [r for r in found if r.arm == arm], colours.get(arm, (len(colours) + i) % PALETTE)
        middle = [(float(r.length), r.middle) for r in mine if r.middle is not None]
        points: Points = [float(r.length) for r in mine for _ in r.reached], [n for r in mine for n in r.reached]
        lines.append(Line(arm, colour, over_seeds([([a for a, _ in middle], [b for _, b in middle])])))
        dots.append((colour, points))
        if budget:
            where = {"y": budget, "colour": colour, "shift": i}
            marks += [{"x": r.length, "text": _missed(r, budget), **where} for r in mine if r.missed]
    drawn = [line for line in lines if line.curve.x]
    chart = line_chart(
        "Samples to 50 % held-out success, by length of the chain",
        "Lower is faster, and equal heights are equal factors. Dots: seeds; line: the middle seed; arrows: seeds that had not "
        "arrived when the budget was spent.",
        drawn, x, y, ("steps in the chain", "samples to 50 %"),
    )  # fmt: skip
    entries = [{"label": line.label, "colour": line.colour, "dashed": False, "value": ""} for line in lines]
    rule = (budget, f"budget {count(budget)}") if budget else (y.high, "")
    drawn_with_points = plot.point_chart(replace(chart, legend=entries), dots, marks, rule, x, y)
    return Lengths(drawn_with_points, length_sentences(found, budget), *length_table(found, budget))


def _missed(r: Reach, budget: float) -> str:
    return f"{r.arm}: {r.missed} of {r.missed + len(r.reached)} seeds not reached by {count(budget)} samples"


def length_sentences(found: Sequence[Reach], budget: float | None) -> list[str]:
    """For each arm but the quickest: up to which length it keeps up, how far behind it falls, and where it stops arriving.

    The quickest is the arm that arrives at most lengths, then the one with fewer samples at them. An arm keeps up at a length if
    its middle seed needs no more samples than the quickest arm's.

    >>> needed = {"dense": [900, 1000, 1100], "outcome": [800, 8000, None]}
    >>> rows = [(arm, k, n) for arm, samples in needed.items() for k, n in enumerate(samples, 2)]
    >>> points = [{"arm": arm, "length": k, "seed": 0, "samples_to_half": n} for arm, k, n in rows]
    >>> print(*length_sentences(reaches(points), 9000))  # doctest: +NORMALIZE_WHITESPACE
    outcome keeps up with dense at 2 steps; at 3 steps it needs 8 times as many samples; at 4 steps it does not arrive within
    9,000.
    """
    middles: dict[str, dict[int, float | None]] = {}
    for r in found:
        middles.setdefault(r.arm, {})[r.length] = r.middle
    arrived = {arm: [m for m in by_length.values() if m is not None] for arm, by_length in middles.items()}
    quickest = min(arrived, key=lambda arm: (-len(arrived[arm]), sum(arrived[arm])))
    within = f" within {count(budget)}" if budget else ""
    sentences = []
    for arm, by_length in middles.items():
        both = {k: m / q for k, m in by_length.items() if m is not None and (q := middles[quickest].get(k))}
        level, behind = [k for k, ratio in both.items() if ratio <= 1], [k for k, ratio in both.items() if ratio > 1]
        missed = [k for k, m in by_length.items() if m is None]
        clauses = [f"keeps up with {quickest} at {_listed(level)} steps"] if level else []
        clauses += [f"at {behind[-1]} steps it needs {number(both[behind[-1]])} times as many samples"] if behind else []
        clauses += [f"at {_listed(missed)} steps it does not arrive{within}"] if missed else []
        if arm != quickest and clauses:
            sentences.append(f"{arm} {'' if level else 'against ' + quickest + ': '}{'; '.join(clauses)}.")
    return sentences


def _listed(lengths: Sequence[int]) -> str:
    """
    >>> _listed([2]), _listed([2, 3]), _listed([4, 6])
    ('2', '2 and 3', '4 and 6')
    """
    return " and ".join([", ".join(map(str, lengths[:-1])), str(lengths[-1])] if len(lengths) > 1 else map(str, lengths))


def length_table(found: Sequence[Reach], budget: float | None) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The middle seed's samples by length (rows) and arm (columns)."""
    arms = list(dict.fromkeys(r.arm for r in found))
    at = {(r.arm, r.length): r for r in found}

    def cell(arm: str, length: int) -> str:
        r = at.get((arm, length))
        if r is None:
            return "–"
        return count(r.middle) if r.middle is not None else f"not by {count(budget)}" if budget else "not reached"

    return arms, [(f"{k} steps", [cell(arm, k) for arm in arms]) for k in sorted({r.length for r in found})]
