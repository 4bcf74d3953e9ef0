# SPDX-License-Identifier: Apache-2.0
"""The verdict: what the final numbers say, in sentences computed from them and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from guerdon.report.plot import number, percent
from guerdon.report.reading import Arm, is_number
from guerdon.training.headline import SUCCESS, called, headline_of, is_share


@dataclass(frozen=True)
class Verdict:
    headline: str
    details: list[str]


def final(arm: Arm, key: str) -> list[float]:
    """The final value of each seed of an evaluation metric (``success``, ``greedy``): of result.json or else the last line.

    The result may call it ``key``, ``eval/key`` or ``success_key``.
    """
    for name in (key, f"eval/{key}", f"success_{key}"):
        stored = arm.result.get(name)
        values = [float(x) for x in (stored if isinstance(stored, list) else [stored]) if x is not None and is_number(x)]
        if values:
            return values
    return [x for x in (seed.last("eval", f"eval/{key}") for seed in arm.seeds) if x is not None]


def headline(arms: Iterable[Arm]) -> str:
    """The evaluation's figure that the verdict is about."""
    return headline_of(key for arm in arms for key in arm.keys("eval")) or SUCCESS


def text_of(key: str) -> Callable[[float], str]:
    """How a figure reads: per cent for shares."""
    return percent if is_share(key) else number


def compare(found: Mapping[str, Sequence[float]], key: str = SUCCESS) -> Verdict:
    """Which arm came out ahead in the figure ``key``, per seed; higher is better.

    An arm is ahead of another if its worst seed lies above the other's best; anything less is reported as not told apart.

    >>> v = compare({"outcome": [0.0, 0.01], "dense": [0.96, 0.98]})
    >>> v.headline
    'dense reached 97 % held-out success; outcome 0.5 %.'
    >>> print(*v.details)  # doctest: +NORMALIZE_WHITESPACE
    dense is ahead of outcome by 96 points on average, and on every one of 2 seeds: its worst seed (96 %) lies above the best
    of outcome (1 %).
    >>> compare({"a": [0.5, 0.6], "b": [0.4, 0.55]}).headline
    'No arm came out ahead: held-out success is a 55 %, b 48 %.'
    """
    what, text = called(key), text_of(key)
    means = {name: fmean(values) for name, values in found.items() if values}
    if not means:
        return Verdict("This run has no evaluation on held-out tasks, so there is no verdict.", [])
    best = max(means, key=lambda name: means[name])
    others = [name for name in means if name != best]
    behind = [name for name in others if min(found[best]) > max(found[name])]
    details = [_gap(best, name, found, name in behind, key) for name in others]
    if others and not behind:
        listed = ", ".join(f"{name} {text(mean)}" for name, mean in means.items())
        return Verdict(f"No arm came out ahead: {what} is {listed}.", details)
    rest = "; " + ", ".join(f"{name} {text(means[name])}" for name in others) if others else ""
    return Verdict(f"{best} reached {_of(text(means[best]), key)}{rest}.", details)


def _of(figure: str, key: str) -> str:
    """
    >>> _of("97 %", "eval/success"), _of("487", "eval/return")
    ('97 % held-out success', 'a return of 487')
    """
    return f"{figure} {called(key)}" if is_share(key) else f"a {called(key)} of {figure}"


def side_by_side(
    first: str, second: str, found: Mapping[str, tuple[Sequence[float], Sequence[float]]], key: str = SUCCESS
) -> Verdict:
    """Two runs of the same arms: in which of them one is ahead of the other, by the rule of ``compare``.

    >>> v = side_by_side("old", "new", {"dense": ([0.5, 0.6], [0.8, 0.9]), "outcome": ([0.0, 0.1], [0.1, 0.0])})
    >>> v.headline
    'new is ahead of old in dense; not told apart: outcome.'
    >>> v.details[1]
    'outcome: old 5 % (0 % to 10 %), new 5 % (0 % to 10 %).'
    """
    ahead: dict[str, list[str]] = {first: [], second: []}
    details, alike = [], []
    for arm, (a, b) in found.items():
        winners = [name for name, mine, other in ((first, a, b), (second, b, a)) if min(mine) > max(other)]
        for name in winners:
            ahead[name].append(arm)
        alike += [] if winners else [arm]
        details.append(f"{arm}: {_with_spread(first, a, key)}, {_with_spread(second, b, key)}.")
    pairs = ((first, second), (second, first))
    parts = [f"{name} is ahead of {other} in {', '.join(ahead[name])}" for name, other in pairs if ahead[name]]
    parts += [f"not told apart: {', '.join(alike)}"] if parts and alike else []
    return Verdict("; ".join(parts or [f"{first} and {second} are not told apart in any arm"]) + ".", details)


def _with_spread(name: str, x: Sequence[float], key: str) -> str:
    text = text_of(key)
    return f"{name} {text(fmean(x))} ({text(min(x))} to {text(max(x))})"


def _gap(best: str, other: str, found: Mapping[str, Sequence[float]], ahead: bool, key: str) -> str:
    mean, text = fmean(found[best]) - fmean(found[other]), text_of(key)
    points = f"{100 * mean:.0f} points" if mean >= 0.01 else f"{100 * mean:.1f} points"
    size = points if is_share(key) else number(mean)
    low, high = text(min(found[best])), text(max(found[other]))
    if not ahead:
        return (
            f"{best} and {other} are not told apart: on average {size} lie between them, but the worst seed of {best} ({low}) "
            f"does not lie above the best of {other} ({high})."
        )
    seeds = min(len(found[best]), len(found[other]))
    if seeds == 1:
        return f"{best} is ahead of {other} by {size} on the one seed there is; another seed may say otherwise."
    return (
        f"{best} is ahead of {other} by {size} on average, and on every one of {seeds} seeds: "
        f"its worst seed ({low}) lies above the best of {other} ({high})."
    )


def progress(arm: Arm) -> Verdict:
    """What a single run did: from its first evaluation to its last."""
    key = headline([arm])
    finals, text = final(arm, key.removeprefix("eval/")), text_of(key)
    what = called(key)[:1].upper() + called(key)[1:]
    starts = [y[0] for _, y in (seed.points("eval", "samples", key) for seed in arm.seeds) if y]
    if finals and starts:
        return Verdict(f"{what} went from {text(fmean(starts))} to {text(fmean(finals))}.", [])
    if finals:
        return Verdict(f"{what} is {text(fmean(finals))}.", [])
    rewards = [y for _, y in (seed.points("train", "step", "reward/total") for seed in arm.seeds) if y]
    if not rewards:
        return Verdict("This run has neither an evaluation nor a training step with a reward.", [])
    start, end = fmean(y[0] for y in rewards), fmean(y[-1] for y in rewards)
    return Verdict(f"The mean reward went from {start:.3g} to {end:.3g}.", ["This run has no evaluation on held-out tasks."])
