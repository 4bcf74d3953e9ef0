# SPDX-License-Identifier: Apache-2.0
"""Is a difference of scores worth what it says? Pure functions of differences ``d`` [P] (good minus worse) with weights [P].

A reward model trained on preferences says P(good is preferred) = σ(d). Of a pair its *confidence* is σ(|d|), from 1/2 to 1, and
it is *right* where d > 0; d = 0 is half right. Calibrated is who is right as often as confident. A scorer whose scores are no
log-odds is judged on σ(β d) as well, with the one β that fits best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BINS = 10


@dataclass(frozen=True)
class Bin:
    """A group of pairs: their mean confidence, the share that is right, and their share of the whole weight."""

    confidence: float
    right: float
    weight: float


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -x))


def right_of(d: np.ndarray) -> np.ndarray:
    """[P] 1, 1/2 or 0."""
    return (d > 0) + 0.5 * (d == 0)


def equal_width(confidence: np.ndarray) -> np.ndarray:
    """[P] bin of each, by ``BINS`` bins of the same width from 1/2 to 1."""
    return np.clip(((confidence - 0.5) * 2 * BINS).astype(int), 0, BINS - 1)


def equal_mass(confidence: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[P] bin of each, by bins of the same weight; equal confidences share the bin of the first of them."""
    order = np.argsort(confidence, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(weight[order])[:-1]]) / weight.sum()
    ranked = confidence[order]
    first = np.searchsorted(ranked, ranked)  # place of the first equal one
    out = np.empty(len(confidence), dtype=int)
    out[order] = np.minimum((before[first] * BINS + 1e-9).astype(int), BINS - 1)
    return out


def bins_of(confidence: np.ndarray, right: np.ndarray, weight: np.ndarray, place: np.ndarray) -> list[Bin]:
    """The bins that hold anything, by confidence."""
    mass = np.bincount(place, weight, BINS)
    said, held = (np.bincount(place, weight * x, BINS) for x in (confidence, right))
    return [Bin(said[b] / mass[b], held[b] / mass[b], mass[b] / weight.sum()) for b in range(BINS) if mass[b] > 0]


def ece(confidence: np.ndarray, right: np.ndarray, weight: np.ndarray, place: np.ndarray) -> float:
    """Expected calibration error, Σ_b w_b |right_b - confidence_b| (Naeini et al. 2015).

    >>> one = np.ones(4)
    >>> c, r = np.array([0.6, 0.6, 0.9, 0.9]), np.array([1.0, 0.0, 1.0, 1.0])
    >>> round(ece(c, r, one, equal_width(c)), 6), round(ece(c, r, one, equal_mass(c, one)), 6)
    (0.1, 0.1)
    """
    gap = np.bincount(place, weight * (right - confidence), BINS)
    return float(np.abs(gap).sum() / weight.sum())


def expected_ece(confidence: np.ndarray, weight: np.ndarray, place: np.ndarray, draws: int = 200, seed: int = 0) -> float:
    """The ECE that a calibrated scorer would show on so few pairs: the mean over outcomes drawn from its confidences."""
    rng = np.random.default_rng(seed)
    return float(np.mean([ece(confidence, rng.random(len(confidence)) < confidence, weight, place) for _ in range(draws)]))


def brier(d: np.ndarray, weight: np.ndarray) -> float:
    """Mean of (1 - σ(d))², the squared error of P(good is preferred); 1/4 for who never knows.

    >>> brier(np.zeros(3), np.ones(3))
    0.25
    """
    return float(np.average((1 - sigmoid(d)) ** 2, weights=weight))


def fitted_slope(d: np.ndarray, weight: np.ndarray) -> float:
    """The β >= 0 of the highest Σ w log σ(β d); infinite where no d is below 0, 0 where their mean is not above 0.

    The derivative Σ w d σ(-β d) falls with β; bisection finds where it is 0.

    >>> round(fitted_slope(np.array([1.0, 1.0, 1.0, -1.0]), np.ones(4)), 6) == round(math.log(3), 6)
    True
    """
    if not (d > 0).any() or np.sum(weight * d) <= 0:
        return 0.0
    if not (d < 0).any():
        return math.inf
    unit = float(np.abs(d).mean())

    def derivative(b: float) -> float:
        return float(np.sum(weight * d / unit * sigmoid(-b * d / unit)))

    low, high = 0.0, 1.0
    while derivative(high) > 0 and high < 1e6:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if derivative(middle) > 0 else (low, middle)
    return (low + high) / 2 / unit


def rescaled(d: np.ndarray, weight: np.ndarray, line: np.ndarray, folds: int = 5, seed: int = 0) -> np.ndarray:
    """[P] β d, with the β of each fold fitted on the lines of the others, so that no pair is judged by what it was fitted on.

    ``line`` [P]: the line of each pair; a line's pairs are in one fold. NaN where the others give no finite β.
    """
    names = np.unique(line)
    shuffled = np.random.default_rng(seed).permutation(names).tolist()
    fold = {name: i % folds for i, name in enumerate(shuffled)}
    of = np.array([fold[x] for x in line.tolist()], dtype=int)
    out = np.full(len(d), math.nan)
    for f in range(folds):
        slope = fitted_slope(d[of != f], weight[of != f]) if (of != f).any() else math.inf
        if math.isfinite(slope):
            out[of == f] = slope * d[of == f]
    return out
