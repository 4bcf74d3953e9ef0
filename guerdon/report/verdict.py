# SPDX-License-Identifier: Apache-2.0
"""The verdict: what the final numbers say, in sentences computed from them and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from guerdon.report.plot import percent
from guerdon.report.reading import Arm, is_number


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


def compare(success: Mapping[str, Sequence[float]]) -> Verdict:
    """Which arm came out ahead on held-out success, per seed in [0, 1].

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
    means = {name: fmean(values) for name, values in success.items() if values}
    if not means:
        return Verdict("This run has no evaluation on held-out tasks, so there is no verdict.", [])
    best = max(means, key=lambda name: means[name])
    others = [name for name in means if name != best]
    behind = [name for name in others if min(success[best]) > max(success[name])]
    details = [_gap(best, name, success, name in behind) for name in others]
    if others and not behind:
        listed = ", ".join(f"{name} {percent(mean)}" for name, mean in means.items())
        return Verdict(f"No arm came out ahead: held-out success is {listed}.", details)
    rest = "; " + ", ".join(f"{name} {percent(means[name])}" for name in others) if others else ""
    return Verdict(f"{best} reached {percent(means[best])} held-out success{rest}.", details)


def side_by_side(first: str, second: str, success: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Verdict:
    """Two runs of the same arms: in which of them one is ahead of the other, by the rule of ``compare``.

    >>> v = side_by_side("old", "new", {"dense": ([0.5, 0.6], [0.8, 0.9]), "outcome": ([0.0, 0.1], [0.1, 0.0])})
    >>> v.headline
    'new is ahead of old in dense; not told apart: outcome.'
    >>> v.details[1]
    'outcome: old 5 % (0 % to 10 %), new 5 % (0 % to 10 %).'
    """
    ahead: dict[str, list[str]] = {first: [], second: []}
    details, alike = [], []
    for arm, (a, b) in success.items():
        found = [name for name, mine, other in ((first, a, b), (second, b, a)) if min(mine) > max(other)]
        for name in found:
            ahead[name].append(arm)
        alike += [] if found else [arm]
        details.append(f"{arm}: {_with_spread(first, a)}, {_with_spread(second, b)}.")
    pairs = ((first, second), (second, first))
    parts = [f"{name} is ahead of {other} in {', '.join(ahead[name])}" for name, other in pairs if ahead[name]]
    parts += [f"not told apart: {', '.join(alike)}"] if parts and alike else []
    return Verdict("; ".join(parts or [f"{first} and {second} are not told apart in any arm"]) + ".", details)


def _with_spread(name: str, x: Sequence[float]) -> str:
    return f"{name} {percent(fmean(x))} ({percent(min(x))} to {percent(max(x))})"


def _gap(best: str, other: str, success: Mapping[str, Sequence[float]], ahead: bool) -> str:
    mean = 100 * (fmean(success[best]) - fmean(success[other]))
    size = f"{mean:.0f} points" if mean >= 1 else f"{mean:.1f} points"
    low, high = percent(min(success[best])), percent(max(success[other]))
    if not ahead:
        return (
            f"{best} and {other} are not told apart: on average {size} lie between them, but the worst seed of {best} ({low}) "
            f"does not lie above the best of {other} ({high})."
        )
    seeds = min(len(success[best]), len(success[other]))
    if seeds == 1:
        return f"{best} is ahead of {other} by {size} on the one seed there is; another seed may say otherwise."
    return (
        f"{best} is ahead of {other} by {size} on average, and on every one of {seeds} seeds: "
        f"its worst seed ({low}) lies above the best of {other} ({high})."
    )


def progress(arm: Arm) -> Verdict:
    """What a single run did: from its first evaluation to its last."""
    finals = final(arm, "success")
    starts = [y[0] for _, y in (seed.points("eval", "samples", "eval/success") for seed in arm.seeds) if y]
    if finals and starts:
        return Verdict(f"Held-out success went from {percent(fmean(starts))} to {percent(fmean(finals))}.", [])
    if finals:
        return Verdict(f"Held-out success is {percent(fmean(finals))}.", [])
    rewards = [y for _, y in (seed.points("train", "step", "reward/total") for seed in arm.seeds) if y]
    if not rewards:
        return Verdict("This run has neither an evaluation nor a training step with a reward.", [])
    start, end = fmean(y[0] for y in rewards), fmean(y[-1] for y in rewards)
    return Verdict(f"The mean reward went from {start:.3g} to {end:.3g}.", ["This run has no evaluation on held-out tasks."])
