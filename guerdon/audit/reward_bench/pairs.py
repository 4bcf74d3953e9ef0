# SPDX-License-Identifier: Apache-2.0
"""The pairs of good and worse answers of an evaluation, and how well calibrated the scorer is on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from guerdon.audit.reward_bench import calibration as cal
from guerdon.audit.reward_bench.intervals import Estimate
from guerdon.audit.reward_bench.leaning import FEATURES
from guerdon.audit.reward_bench.lines import Line
from guerdon.audit.reward_bench.scoring import Group
from guerdon.rollouts import completion_text

Boot = Callable[[Callable[[np.ndarray], float], int], Estimate]
"""The interval of a statistic of n lines, given by their index (``bootstrap`` with its settings bound)."""


@dataclass(frozen=True)
class Pairs:
    """Every pair of a good and a worse answer of the judged lines. d, weight, line [P]: the difference of their scores, 1 / the
    pairs of the line, and the line; features: name -> [P] how much more of it the good one has."""

    d: np.ndarray
    weight: np.ndarray
    line: np.ndarray
    features: dict[str, np.ndarray]

    @staticmethod
    def of(groups: Sequence[Group], lines: Sequence[Line]) -> Pairs:
        d, weight, line = [np.zeros(0)], [np.zeros(0)], [np.zeros(0, dtype=int)]
        features: dict[str, list[np.ndarray]] = {name: [np.zeros(0)] for name in FEATURES}
        for g in groups:
            pairs = g.good * (len(g.scores) - g.good)
            d.append(_differences(g.scores, g.good))
            weight.append(np.full(pairs, 1 / pairs))
            line.append(np.full(pairs, g.line))
            texts = [completion_text(x) for x in lines[g.line].answers]
            for name, amount in FEATURES.items():
                features[name].append(_differences(np.array([amount(t) for t in texts]), g.good))
        joined = {k: np.concatenate(v) for k, v in features.items()}
        return Pairs(np.concatenate(d), np.concatenate(weight), np.concatenate(line), joined)


def _differences(x: np.ndarray, good: int) -> np.ndarray:
    return (x[:good, None] - x[None, good:]).flatten()


@dataclass(frozen=True)
class Calibration:
    """``raw`` takes a difference of scores for log-odds, ``rescaled`` after one factor was fitted on other lines."""

    name: str
    ece_mass: Estimate
    ece_width: Estimate
    expected: float
    brier: Estimate
    bins: list[cal.Bin]


def calibrations(pairs: Pairs, boot: Boot) -> list[Calibration]:
    """As they are, and rescaled; the second only where a factor can be fitted."""
    if not len(pairs.d):
        return []
    found = [calibration_of("raw", pairs.d, pairs, boot)]
    scaled = cal.rescaled(pairs.d, pairs.weight, pairs.line)
    if np.isfinite(scaled).all():
        found.append(calibration_of("rescaled", scaled, pairs, boot))
    return found


def calibration_of(name: str, d: np.ndarray, pairs: Pairs, boot: Boot) -> Calibration:
    confidence, right, weight = cal.sigmoid(np.abs(d)), cal.right_of(pairs.d), pairs.weight  # a factor of 0 makes nobody right
    places = [np.flatnonzero(pairs.line == line) for line in np.unique(pairs.line)]
    mass, width = cal.equal_mass(confidence, weight), cal.equal_width(confidence)

    def over(statistic: Callable[[np.ndarray], float]) -> Estimate:
        return boot(lambda index: statistic(np.concatenate([places[i] for i in index])), len(places))

    return Calibration(
        name,
        over(lambda i: cal.ece(confidence[i], right[i], weight[i], cal.equal_mass(confidence[i], weight[i]))),
        over(lambda i: cal.ece(confidence[i], right[i], weight[i], width[i])),
        cal.expected_ece(confidence, weight, mass),
        over(lambda i: cal.brier(d[i], weight[i])),
        cal.bins_of(confidence, right, weight, mass),
    )
