# SPDX-License-Identifier: Apache-2.0
"""What a scorer leans to besides quality: length and style. Pure functions of texts and outcomes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from guerdon.audit.reward_bench.calibration import sigmoid
from guerdon.audit.reward_bench.intervals import Estimate, Z, difference, mean_share

_HEADER = re.compile(r"^ {0,3}#{1,6}\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+\S", re.MULTILINE)
_CODE = re.compile(r"^\s*(?:```|~~~)", re.MULTILINE)
_EXCLAIMED = re.compile(r"!")


def _count(pattern: re.Pattern[str]) -> Callable[[str], float]:
    return lambda text: math.log1p(len(pattern.findall(text)))


FEATURES: Mapping[str, Callable[[str], float]] = {
    "length": lambda text: math.log1p(len(text)),
    "headers": _count(_HEADER),
    "bold": _count(_BOLD),
    "lists": _count(_ITEM),
    "code blocks": _count(_CODE),
    "exclamation marks": _count(_EXCLAIMED),
}
"""name -> log(1 + how much of it a text has): characters for length, counts for the rest."""


@dataclass(frozen=True)
class Leaning:
    """Of one feature, over pairs in which the answers differ in it.

    more    accuracy where the good answer has more of it
    less    accuracy where the worse answer has more of it
    gap     more - less: above 0, the feature is liked
    slope   of P(the good one is preferred) = σ(a + b x) on x, the difference of log amounts: above 0, the feature is liked
            whatever the quality; no value where outcomes allow none
    """

    more: Estimate
    less: Estimate
    gap: Estimate
    slope: Estimate


def leaning(x: np.ndarray, right: np.ndarray, line: np.ndarray) -> Leaning:
    """``x`` [P]: the feature of the good answer minus that of the worse; ``right`` [P]: 1, 1/2 or 0; ``line`` [P] of each pair.

    A line counts once on each side, with the mean over its pairs there.
    """
    more, less = (mean_share(_by_line(right[side], line[side])) for side in (x > 0, x < 0))
    return Leaning(more, less, difference(more, less), slope_of(x, right, line))


def _by_line(values: np.ndarray, line: np.ndarray) -> np.ndarray:
    names, at = np.unique(line, return_inverse=True)
    return np.bincount(at, values, len(names)) / np.bincount(at, minlength=len(names)) if len(names) else np.zeros(0)


def slope_of(x: np.ndarray, right: np.ndarray, line: np.ndarray) -> Estimate:
    """b of P(right) = σ(a + b x) by maximum likelihood, each line weighing 1, with a Wald interval.

    The variance is the sandwich H⁻¹ (Σ_lines g gᵀ) H⁻¹ with g the gradient of one line, so that pairs of one line are not taken
    for independent. Where some x separates right from wrong there is no maximum, and no value.
    """
    names, at = np.unique(line, return_inverse=True)
    nothing = Estimate(math.nan, math.nan, math.nan, len(names))
    if len(names) < 3 or np.ptp(x) == 0 or np.ptp(right) == 0:
        return nothing
    weight = 1 / np.bincount(at)[at]
    design = np.stack([np.ones_like(x), x], 1)
    b = np.zeros(2)
    for _ in range(50):
        p = sigmoid(design @ b)
        gradient = design.T @ (weight * (right - p))
        hessian = design.T @ (design * (weight * p * (1 - p))[:, None])
        if np.linalg.cond(hessian) > 1e12:
            return nothing
        step = np.linalg.solve(hessian, gradient)
        b = b + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    else:
        return nothing
    p = sigmoid(design @ b)
    of_line = np.stack([np.bincount(at, weight * (right - p) * design[:, j], len(names)) for j in (0, 1)], 1)
    inverse = np.linalg.inv(hessian)
    error = math.sqrt(float((inverse @ (of_line.T @ of_line) @ inverse)[1, 1]))
    return Estimate(float(b[1]), float(b[1] - Z * error), float(b[1] + Z * error), len(names))
