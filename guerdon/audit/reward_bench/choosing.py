# SPDX-License-Identifier: Apache-2.0
"""Does the scorer prefer the good answers? Pairs, best of k, and the Ties score of RewardBench 2. Pure functions of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


def pair_credit(scores: np.ndarray, good: int) -> float:
    """Mean over the pairs of a good (the first ``good`` of ``scores`` [k]) and a worse answer: 1 if the good one has the higher
    score, 1/2 if they are equal.

    >>> pair_credit(np.array([2.0, 1.0, 2.0]), 1)
    0.75
    """
    d = scores[:good, None] - scores[None, good:]
    return float(np.mean((d > 0) + 0.5 * (d == 0)))


def pairs_equal(scores: np.ndarray, good: int) -> float:
    """Share of those pairs whose scores are equal."""
    return float(np.mean(scores[:good, None] == scores[None, good:]))


def best_credit(scores: np.ndarray, good: int) -> float:
    """Chance that an answer drawn from those with the highest score is a good one.

    With one good answer that is 1/m where it shares the highest score with m - 1 others, and 0 where it does not have it, as in
    RewardBench 2 (Malik et al. 2025, arXiv:2506.01937).

    >>> best_credit(np.array([3.0, 3.0, 1.0, 3.0]), 1)  # doctest: +ELLIPSIS
    0.333...
    """
    best = scores == scores.max()
    return float(best[:good].sum() / best.sum())


@dataclass(frozen=True)
class Ties:
    """The Ties score and what it is made of; see ``ties_score``."""

    score: float
    tied: float
    ref: float
    preferred: float
    preferred_hard: float
    margin: float


def ties_score(ref: Mapping[str, tuple[np.ndarray, int]], tied: Mapping[str, tuple[np.ndarray, int]]) -> Ties:
    """The Ties score of RewardBench 2 of questions with several right answers.

    A question has a line ``tied`` with several right answers and a line ``ref`` with one; each is (scores [k], number of right
    ones, which come first). Of a line, gap = lowest right - highest wrong score, spread = highest - lowest right score.

        score = 0.30 tied + 0.30 ref + 0.20 preferred + 0.20 preferred_hard + 0.01 margin

        tied, ref       share of those lines with gap > 0
        preferred       share of questions with gap_tied > spread_tied
        preferred_hard  share of questions with min(gap_ref, gap_tied) > spread_tied
        margin          mean of tanh(min(gap_ref, gap_tied) / spread_tied - 1); 0 / 0 counts 0, x / 0 counts ±1

    The last three are over questions with both lines. The weights add up to 1.01, as in the released code (allenai/reward-bench,
    rewardbench/utils.py, at 05a9005); a spread of a single right answer is 0 here, where that code has no value.

    >>> line = (np.array([3.0, 2.5, 1.0, 0.0]), 2)  # gap 1.5, spread 0.5
    >>> t = ties_score({"1": (np.array([2.0, 1.0]), 1)}, {"1": line})  # gap of ref 1
    >>> t.tied, t.ref, t.preferred, t.preferred_hard, round(t.margin, 4), round(t.score, 6)
    (1.0, 1.0, 1.0, 1.0, 0.7616, 1.007616)
    """
    gap_ref, gap_tied = ({q: _gap(*line) for q, line in lines.items()} for lines in (ref, tied))
    both = [q for q in tied if q in ref]
    spread = np.array([float(np.ptp(tied[q][0][: tied[q][1]])) for q in both])
    tied_gap, hard_gap = np.array([gap_tied[q] for q in both]), np.array([min(gap_ref[q], gap_tied[q]) for q in both])
    with np.errstate(divide="ignore", invalid="ignore"):
        margins = np.nan_to_num(np.tanh(hard_gap / spread - 1), nan=0.0)
    parts = (
        _share([g > 0 for g in gap_tied.values()]),
        _share([g > 0 for g in gap_ref.values()]),
        _share(tied_gap > spread),
        _share(hard_gap > spread),
        float(np.mean(margins)) if both else 0.0,
    )
    return Ties(sum(w * p for w, p in zip((0.30, 0.30, 0.20, 0.20, 0.01), parts, strict=True)), *parts)


def _gap(scores: np.ndarray, good: int) -> float:
    """Lowest score of a good answer minus the highest of a wrong one; infinite where there is no wrong one."""
    return float(scores[:good].min() - (scores[good:].max() if len(scores) > good else -math.inf))


def _share(held: Sequence[bool] | np.ndarray) -> float:
    return float(np.mean(held)) if len(held) else 0.0
