# SPDX-License-Identifier: Apache-2.0
"""The tests behind the alarms: numbers by hand, and how often they are wrong on series in which nothing happens."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guerdon.audit.watches.statistics import (
    Sample,
    autocorrelation,
    drift,
    increasing,
    inflation,
    is_look,
    level_of,
    rank_correlation,
    trend,
)


def wandering(rng: np.random.Generator, n: int, phi: float) -> np.ndarray:
    """AR(1) that has run for a while."""
    e = rng.standard_normal(n + 100)
    x = np.zeros(n + 100)
    for t in range(1, n + 100):
        x[t] = phi * x[t - 1] + e[t]
    return x[100:]


def rejected(n: int, phi: float, runs: int, level: float = 0.05) -> float:
    rng = np.random.default_rng([n, int(10 * phi)])
    return float(np.mean([trend(wandering(rng, n, phi)).p < level for _ in range(runs)]))


# ---- trend


def test_mann_kendall_by_hand() -> None:
    """1 3 2 4 5: nine pairs of ten rise, one falls. S = 8, Var = 5 4 15 / 18 = 50/3, z = 7 / 4.08 before any correction."""
    x = np.array([1.0, 3.0, 2.0, 4.0, 5.0])
    rest = x - increasing(x)
    assert rest.tolist() == [0, 0.5, -0.5, 0, 0]
    left = 0.5 / 10
    assert autocorrelation(rest) == pytest.approx(-0.5)
    factor = 1 + (inflation(5, -0.5) - 1) * 10 * left
    assert inflation(5, -0.5) == 1.0
    found = trend(x)
    assert found.z == pytest.approx(7 / math.sqrt(50 / 3 * factor))
    assert found.p == pytest.approx(math.erfc(found.z / math.sqrt(2)))
    assert found.slope == 1.0  # of the ten slopes: 2, 1/2, 1, 1, -1, 1/2, 2/3, 2, 3/2, 1
    assert trend(-x).z == -found.z


def test_the_sum_for_a_known_autocorrelation() -> None:
    allowed = 0.2 + 1.5 * (1 + 0.8) / math.sqrt(400)
    assert inflation(400, 0.2) == pytest.approx((1 + allowed) / (1 - allowed), rel=0.01)


@pytest.mark.parametrize(
    ("n", "phi", "most"), [(20, 0.0, 0.06), (40, 0.0, 0.06), (40, 0.5, 0.06), (40, 0.8, 0.08), (80, 0.8, 0.05)]
)
def test_false_alarms_at_the_level_of_five_in_a_hundred(n: int, phi: float, most: float) -> None:
    """Measured over 400 series without a trend. Without the correction it is 0.20 at phi 0.5 and 0.45 at 0.8."""
    assert rejected(n, phi, 400) <= most


def test_what_the_first_look_is_worth_on_a_series_that_wanders() -> None:
    """The honest limit: with 20 points and phi 0.8 the level is not kept."""
    assert 0.05 < rejected(20, 0.8, 400) < 0.2


@pytest.mark.parametrize("shape", ["line", "levels off", "late"])
def test_a_trend_is_seen_whatever_its_shape(shape: str) -> None:
    t = np.arange(40.0)
    curve = {"line": t / 40, "levels off": 1 / (1 + np.exp(-(t - 10) / 3)), "late": (t / 40) ** 3}[shape]
    noisy = curve + 0.1 * np.random.default_rng(0).standard_normal(40)
    assert trend(noisy).p < 1e-4 and trend(noisy).z > 0


def test_missing_constant_and_short_series() -> None:
    assert trend(np.array([np.nan, 1.0, np.nan, 2.0, 3.0, 4.0, 5.0])).z == trend(np.arange(5.0)).z
    assert trend(np.zeros(50)).p == 1.0 and trend(np.array([1.0, 2.0])).p == 1.0
    assert math.isnan(trend(np.zeros(0)).slope)


# ---- drift


def test_drift_by_hand() -> None:
    then = Sample(np.array([0.0, 2.0, 4.0, 6.0]), np.arange(4.0))  # deviation sqrt(20/3)
    now = Sample(np.array([10.0, 12.0]), np.arange(2.0))
    found = drift(now, then, 0.05)
    deviation = math.sqrt(20 / 3)
    assert found.size == pytest.approx(8 / deviation)
    variance = 4 / 3 / 16 * (9 + 1 + 1 + 9) + 2 / 1 / 4 * (1 + 1)
    assert found.high - found.size == pytest.approx(1.959964 * math.sqrt(variance) / deviation)


def test_rows_of_one_prompt_are_not_many_prompts() -> None:
    """Eight copies of four numbers are four clusters: the interval is that of four, not of 32."""
    x, c = np.array([0.0, 1.0, 2.0, 3.0]), np.arange(4.0)
    once, copied = Sample(x, c), Sample(np.repeat(x, 8), np.repeat(c, 8))
    a, b = drift(once, once, 0.05), drift(copied, copied, 0.05)
    ratio = np.repeat(x, 8).std(ddof=1) / x.std(ddof=1)
    assert (b.high - b.low) * ratio == pytest.approx(a.high - a.low)


def test_intervals_cover_the_truth() -> None:
    """Of 400 pairs of samples of 40 clusters of 4 that share half their variance, at level 0.1."""
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(40.0), 4)

    def sample(mean: float) -> Sample:
        return Sample(mean + np.repeat(rng.standard_normal(40), 4) + rng.standard_normal(160), cluster)

    found = [drift(sample(1.0), sample(0.0), 0.1) for _ in range(400)]
    truth = 1 / math.sqrt(2)
    assert 0.85 < np.mean([f.low <= truth <= f.high for f in found]) < 0.95


def test_a_reference_that_does_not_vary() -> None:
    same, apart = Sample(np.full(8, 3.0), np.arange(8.0)), Sample(np.full(8, 5.0), np.arange(8.0))
    assert drift(same, same, 0.01).beyond(1.0) == 0
    assert drift(apart, same, 0.01).beyond(1.0) == 1 and drift(same, apart, 0.01).beyond(1.0) == -1
    assert drift(Sample(np.array([9.0]), np.zeros(1)), same, 0.01).beyond(1.0) == 0  # one cluster says nothing


# ---- looks


def test_all_looks_together_spend_no_more_than_alpha() -> None:
    assert sum(5 * level_of(k, 0.01, 5) for k in range(1, 10_000)) == pytest.approx(0.01, rel=1e-3)
    assert not any(is_look(n) for n in range(20))


def test_spearman_with_ties() -> None:
    a = np.array([1.0, 1.0, 2.0, 3.0, np.nan])
    assert rank_correlation(a, np.array([0.0, 1.0, 2.0, 2.0, 9.0])) == pytest.approx(
        np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3.5, 3.5])[0, 1]
    )
    assert rank_correlation(a, np.ones(5)) == 0.0
