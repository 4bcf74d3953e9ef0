# SPDX-License-Identifier: Apache-2.0
"""The pure figures against numbers made by hand, other libraries, and RewardBench 2's own code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.audit.reward_bench import calibration as cal
from guerdon.audit.reward_bench.choosing import best_credit, pair_credit, pairs_equal, ties_score
from guerdon.audit.reward_bench.intervals import bootstrap, difference, wilson
from guerdon.audit.reward_bench.leaning import FEATURES, leaning, slope_of


def scores(*x: float) -> np.ndarray:
    return np.array(x, dtype=float)


@pytest.mark.parametrize(
    ("said", "good", "best", "pairs", "equal"),
    [
        (scores(3, 1, 2, 0), 1, 1.0, 1.0, 0.0),
        (scores(3, 3, 2, 0), 1, 1 / 2, 2.5 / 3, 1 / 3),
        (scores(3, 3, 3, 3), 1, 1 / 4, 1 / 2, 1.0),
        (scores(2, 3, 1, 0), 1, 0.0, 2 / 3, 0.0),
        (scores(3, 1, 3, 0), 2, 1 / 2, (0.5 + 1 + 0 + 1) / 4, 1 / 4),
        (scores(-math.inf, 0), 1, 0.0, 0.0, 0.0),
    ],
)
def test_credits_by_hand(said: np.ndarray, good: int, best: float, pairs: float, equal: float) -> None:
    assert best_credit(said, good) == pytest.approx(best) and pair_credit(said, good) == pytest.approx(pairs)
    assert pairs_equal(said, good) == pytest.approx(equal)


def test_ties_of_two_questions_by_hand() -> None:
    tied = {"a": (scores(4, 3, 1), 2), "b": (scores(2, 0, 1), 2)}  # gaps 2, -1; spreads 1, 2
    ref = {"a": (scores(1, 0.5), 1), "b": (scores(5, 1), 1)}  # gaps 1/2, 4
    t = ties_score(ref, tied)
    assert (t.tied, t.ref, t.preferred, t.preferred_hard) == (0.5, 1.0, 0.5, 0.0)
    margin = (math.tanh(0.5 / 1 - 1) + math.tanh(-1 / 2 - 1)) / 2
    assert t.margin == pytest.approx(margin) and t.score == pytest.approx(0.15 + 0.30 + 0.10 + 0.0 + 0.01 * margin)


def test_ties_are_those_of_the_released_code() -> None:
    """The number is `process_single_model`'s (allenai/reward-bench, 05a9005) for these lines."""
    tied = {
        "0": (scores(1, 1, 0, 1, -1, 0, 1), 4),
        "1": (scores(1.0, 1.4, 0.2, 0.7, -1.5, -1.0), 4),
        "2": (scores(0.9, -0.5, 0.7, 0.0), 3),
        "3": (scores(0.5, 1.6, -0.6), 2),
        "4": (scores(1.1, 1.0, 0.3, 0.1, 1.1), 3),
    }
    ref = {
        "0": (scores(0.63, 0.39, 0.29, 0.08), 1),
        "1": (scores(1, -1, 0), 1),
        "2": (scores(0.1, -0.4), 1),
        "3": (scores(2, 0), 1),
        "4": (scores(2, 0, -1), 1),
    }
    assert ties_score(ref, tied).score == pytest.approx(0.4140621513861932, abs=1e-15)


def test_a_spread_of_nothing_counts_one_whole_margin() -> None:
    t = ties_score({"a": (scores(1, 0), 1)}, {"a": (scores(1, 1, 0), 2)})
    assert t.margin == 1.0 and t.preferred_hard == 1.0
    assert ties_score({"a": (scores(0, 0), 1)}, {"a": (scores(0, 0, 0), 2)}).margin == 0.0


# ---- intervals


@given(st.integers(1, 60), st.integers(0, 60))
def test_wilson_is_where_the_score_test_turns(n: int, k: int) -> None:
    k = min(k, n)
    e = wilson(k, n)
    for end in (e.low, e.high):
        if 0 < end < 1:
            assert (e.value - end) ** 2 == pytest.approx(1.959963984540054**2 * end * (1 - end) / n, abs=1e-9)
    assert 0 <= e.low <= e.value <= e.high <= 1


def test_intervals_of_nothing_and_of_a_difference_of_equals() -> None:
    assert math.isnan(wilson(0, 0).value) and math.isnan(difference(wilson(1, 2), wilson(0, 0)).value)
    e = difference(wilson(5, 10), wilson(5, 10))
    assert e.value == 0 and e.low == pytest.approx(-e.high)


def test_a_bootstrap_interval_is_as_wide_as_the_standard_error_says() -> None:
    x = np.random.default_rng(0).normal(size=400)
    e = bootstrap(lambda i: float(x[i].mean()), len(x))
    assert (e.high - e.low) / 2 == pytest.approx(1.96 * x.std() / 20, rel=0.08)


# ---- calibration


def test_calibrated_outcomes_have_the_expected_error_and_shifted_ones_more() -> None:
    rng = np.random.default_rng(0)
    d = rng.normal(0, 2, 4000)
    right = rng.random(4000) < cal.sigmoid(np.abs(d))
    true, weight = np.where(right, np.abs(d), -np.abs(d)), np.ones(4000)

    def error(x: np.ndarray) -> float:
        c = cal.sigmoid(np.abs(x))
        return cal.ece(c, cal.right_of(x), weight, cal.equal_mass(c, weight))

    c = cal.sigmoid(np.abs(true))
    floor = cal.expected_ece(c, weight, cal.equal_mass(c, weight))
    assert error(true) < 2 * floor and error(3 * true) > 5 * floor and error(true / 3) > 5 * floor
    assert cal.fitted_slope(3 * true, weight) == pytest.approx(1 / 3, rel=0.1)
    again = cal.rescaled(3 * true, weight, np.arange(4000))
    assert error(again) < 2 * floor and cal.brier(again, weight) == pytest.approx(cal.brier(true, weight), abs=2e-3)


def test_bins_and_brier_are_those_of_scikit_learn() -> None:
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    rng = np.random.default_rng(3)
    d, weight = rng.normal(0.7, 1.5, 500), np.ones(500)
    c, right = cal.sigmoid(np.abs(d)), cal.right_of(d)
    found = cal.bins_of(c, right, weight, cal.equal_width(c))
    share, confidence = calibration_curve(right, 2 * c - 1, n_bins=10)  # theirs are on [0, 1]
    assert [b.right for b in found] == pytest.approx(share.tolist())
    assert [b.confidence for b in found] == pytest.approx(((confidence + 1) / 2).tolist())
    quantiles = calibration_curve(right, c, n_bins=10, strategy="quantile")
    assert [b.right for b in cal.bins_of(c, right, weight, cal.equal_mass(c, weight))] == pytest.approx(quantiles[0].tolist())
    assert cal.brier(d, weight) == pytest.approx(brier_score_loss(np.ones(500), cal.sigmoid(d)))


def test_equal_confidences_share_a_bin_and_weights_count() -> None:
    c, weight = np.array([0.5, 0.5, 0.5, 0.9]), np.array([1.0, 1.0, 1.0, 3.0])
    assert cal.equal_mass(c, weight).tolist() == [0, 0, 0, 5]
    right = np.array([1.0, 0.0, 0.5, 1.0])
    assert cal.ece(c, right, weight, cal.equal_mass(c, weight)) == pytest.approx((3 * 0.0 + 3 * 0.1) / 6)


def test_no_factor_is_made_up() -> None:
    one = np.ones(3)
    assert cal.fitted_slope(np.array([1.0, 2.0, 3.0]), one) == math.inf
    assert cal.fitted_slope(np.array([-1.0, -2.0, 1.0]), one) == 0.0
    assert np.isnan(cal.rescaled(np.array([1.0, 2.0, 3.0]), one, np.arange(3))).all()


# ---- leanings


def test_the_slope_is_that_of_scikit_learn_and_finds_a_planted_liking() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, 3000)
    right = (rng.random(3000) < cal.sigmoid(0.5 + 0.8 * x)).astype(float)
    found = slope_of(x, right, np.arange(3000))
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(x[:, None], right).coef_[0, 0]
    assert found.value == pytest.approx(theirs, abs=1e-4) and found.low < 0.8 < found.high
    assert not slope_of(x, rng.permutation(right), np.arange(3000)).low > 0


def test_pairs_of_one_line_are_no_independent_evidence() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, 200)
    right = (rng.random(200) < 0.6).astype(float)
    once = slope_of(x, right, np.arange(200))
    times = rng.integers(1, 6, 200)
    copied = slope_of(np.repeat(x, times), np.repeat(right, times), np.repeat(np.arange(200), times))
    assert (copied.value, copied.low, copied.high) == pytest.approx((once.value, once.low, once.high))


def test_no_slope_where_outcomes_allow_none() -> None:
    x = np.array([-2.0, -1.0, 1.0, 2.0])
    for right in (np.ones(4), np.array([0.0, 0.0, 1.0, 1.0])):
        assert math.isnan(slope_of(x, right, np.arange(4)).value)


def test_a_gap_is_between_lines_with_the_feature_on_either_side() -> None:
    x = np.array([1.0, 1.0, -1.0, -1.0, 0.0])
    found = leaning(x, np.array([1.0, 1.0, 0.0, 1.0, 0.0]), np.array([0, 0, 1, 1, 2]))
    assert (found.more.value, found.more.n, found.less.value, found.less.n) == (1.0, 1, 0.5, 1) and found.gap.value == 0.5


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("headers", "# A\ntext # no\n### B", 2),
        ("bold", "**a** and __b__ but 2 ** 3", 2),
        ("lists", "- a\n* b\n 3. c\n4) d\nno - list", 4),
        ("code blocks", "```py\nx\n```", 2),
        ("exclamation marks", "Sure! Yes!", 2),
        ("length", "four", 4),
    ],
)
def test_features_count_what_they_say(name: str, text: str, count: int) -> None:
    assert FEATURES[name](text) == pytest.approx(math.log1p(count)) and FEATURES[name]("") == 0
