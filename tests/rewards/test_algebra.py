# SPDX-License-Identifier: Apache-2.0
"""What each node does, by hand-computed numbers, and what can't be built."""

from __future__ import annotations

import math

import pytest
import torch

from guerdon.errors import ExpressionError, InputError, ShapeError
from guerdon.rewards import constant, linear, max_of, mean_of, min_of
from guerdon.rewards.relating import standardised
from guerdon.scores import Bounds, Component, Status
from tests.rewards.leaves import LINE, LINE2, STEP, TURN, A, B, Told, rollouts, told

OK, ABSTAIN, TIMEOUT, ERROR = Status.OK, Status.ABSTAIN, Status.TIMEOUT, Status.ERROR
R = rollouts(
    a=[[1.0], [-0.5], [0.25], [1.0]],
    b=[[0.5], [1.0], [0.0], [1.0]],
    line_a=[[1.0, -1.0, 0.5], [0.25, 0.75], [], [0.0, 1.0, 0.0, 1.0]],
)


def units(reward, r=R, step=0):
    """Values of the units there are, row by row."""
    c = reward.score(r, step=step).total
    return [
        [v for v, s in zip(values, status, strict=True) if s != -1]
        for values, status in zip(c.values.tolist(), c.status.tolist(), strict=True)
    ]


def column(reward, r=R, step=0):
    return [row[0] for row in units(reward, r, step)]


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (A + B, [1.5, 0.5, 0.25, 2.0]),
        (A - B, [0.5, -1.5, 0.25, 0.0]),
        (-A, [-1.0, 0.5, -0.25, -1.0]),
        (2 * A / 4, [0.5, -0.25, 0.125, 0.5]),
        (A * B, [0.5, -0.5, 0.0, 1.0]),
        (min_of(A, B), [0.5, -0.5, 0.0, 1.0]),
        (max_of(A, B), [1.0, 1.0, 0.25, 1.0]),
        (mean_of(A, B), [0.75, 0.25, 0.125, 1.0]),
        (A.clip(0, 0.5), [0.5, 0.0, 0.25, 0.5]),
        (A.clip(low=0), [1.0, 0.0, 0.25, 1.0]),
        (A.gate(on=B, above=0.5), [0.0, -0.5, 0.0, 1.0]),  # above, not at: 0.5 stays closed
        (A.gate(on=B, above=0.5, softness=0.5), [0.5, -0.5 / (1 + math.exp(-1)), 0.25 / (1 + math.e), 1 / (1 + math.exp(-1))]),
        (A.normalise(scale=False), [0.75, -0.75, 0.0, math.nan]),
        (A.normalise(), [1.0, -1.0, 0.0, math.nan]),  # std of 1, -0.5, 0.25 with n - 1 is 0.75
        (A.normalise(over="batch", scale=False), [0.5625, -0.9375, -0.1875, 0.5625]),
        (LINE.pool("sum"), [0.5, 1.0, 0.0, 2.0]),
        (LINE.pool("mean"), [1 / 6, 0.5, math.nan, 0.5]),
    ],
    ids=str,
)
def test_values(reward, expected) -> None:
    assert column(reward) == pytest.approx(expected, nan_ok=True)


def test_a_schedule_weighs_by_the_step() -> None:
    reward = linear(0, 1, 4) * A
    assert [column(reward, step=s)[0] for s in (0, 1, 4, 9)] == [0, 0.25, 1, 1]
    assert [reward.score(R, step=s).components["a"].weight for s in (0, 2)] == [0, 0.5]
    assert constant(0.5) * A == 0.5 * A
    assert linear(0, 1, 4) * A * 0.5 == linear(0, 0.5, 4) * A


def test_plus_puts_the_coarser_part_on_the_last_step_of_its_unit() -> None:
    """The last token of row 0 is in no line, so at line level the value goes to the last line, and on steps to that token."""
    whole = LINE + A
    assert whole.level == "line"
    assert units(whole.clip(-9, 9)) == [[1.0, -1.0, 1.5], [0.25, 0.25], [], [0.0, 1.0, 0.0, 2.0]]
    assert whole.score(R).reward()[0].tolist() == [0, 1, 0, 0, -1, 0.5, 1]
    assert whole.score(R).reward()[2].tolist() == [0, 0.25, 0, 0, 0, 0, 0]  # no line, but not lost


def test_product_and_gate_copy_the_coarser_part() -> None:
    assert units(LINE * A) == [[1.0, -1.0, 0.5], [-0.125, -0.375], [], [0.0, 1.0, 0.0, 1.0]]
    assert units(LINE.gate(on=B)) == [[0.0, 0.0, 0.0], [0.25, 0.75], [], [0.0, 1.0, 0.0, 1.0]]


def test_at_moves_or_sets_the_rule() -> None:
    assert A.at("line", "copy").score(R).total.values[0].tolist()[:3] == [1, 1, 1]
    assert A.at("line", "uniform").score(R).total.values[0].tolist()[:3] == [0.4, 0.4, 0.2]  # lines of 2, 2 and 1 taken steps
    assert A.at("episode", "first").score(R).reward()[1].tolist() == [-0.5, 0, 0, 0, 0, 0, 0]
    assert TURN.at("line").spread == "uniform"


def test_group_statistics_leave_out_what_is_not_ok() -> None:
    r = rollouts(a=[[1.0], [(0, TIMEOUT)], [0.0], [1.0]])
    c = A.normalise(scale=False).score(r).total
    assert c.values[:, 0].tolist() == pytest.approx([0.5, math.nan, -0.5, math.nan], nan_ok=True)
    assert c.status[:, 0].tolist() == [OK, TIMEOUT, OK, ABSTAIN]
    assert c.reasons == {
        (1, 0): "a: told timeout",
        (3, 0): "no other episode of its group is ok, so there is nothing to compare it with",
    }


def test_standardised_equals_torch_and_is_zero_for_equal_values() -> None:
    x = torch.tensor([[0.3, 1.7], [2.2, -4.0], [0.1, 0.1], [0.1, 0.1]], dtype=torch.float64)
    group = torch.tensor([[0, 0], [0, 0], [5, 5], [5, 5]])
    found = standardised(x, group, torch.ones_like(group, dtype=torch.bool))
    torch.testing.assert_close(found[:2], (x[:2] - x[:2].mean()) / x[:2].std())
    assert found[2:].tolist() == [[0, 0], [0, 0]]
    same = torch.full((3, 1), 0.1, dtype=torch.float32)
    assert standardised(same, torch.zeros(3, 1, dtype=torch.long), same > 0).tolist() == [[0], [0], [0]]


# ---- failures


FAILED = rollouts(
    a=[[(0, ERROR)], [1.0], [(0, TIMEOUT)], [0.5]],
    b=[[(0, TIMEOUT)], [(0, ABSTAIN)], [0.25], [0.0]],
    line_a=[[1.0, (0, ERROR), 0.5], [0.25, 0.75], [], [0.0, 1.0, 0.0, 1.0]],
)


@pytest.mark.parametrize("reward", [A + B, A * B, min_of(A, B), mean_of(A, B), A.gate(on=B), B.gate(on=A)], ids=str)
def test_the_worst_status_and_every_reason(reward) -> None:
    c = reward.score(FAILED).total
    assert c.status[:, 0].tolist() == [ERROR, ABSTAIN, TIMEOUT, OK]
    assert set(c.reasons[0, 0].split("; ")) == {"a: told error", "b: told timeout"}
    assert c.reasons[1, 0] == "b: told abstain"


def test_a_closed_gate_is_zero_and_a_failed_condition_is_not() -> None:
    r = rollouts(a=[[1.0], [1.0], [1.0], [1.0]], b=[[0.0], [(0, ERROR)], [1.0], [0.0]])
    assert column(A.gate(on=B), r) == pytest.approx([0, math.nan, 1, 0], nan_ok=True)


def test_otherwise_takes_the_other_where_it_failed() -> None:
    c = A.otherwise(B).score(FAILED).total
    assert c.status[:, 0].tolist() == [ERROR, OK, OK, OK]
    assert c.values[1:, 0].tolist() == [1.0, 0.25, 0.5]
    assert c.reasons == {(0, 0): "a: told error; b: told timeout"}


def test_a_spread_failure_reaches_only_the_unit_it_lands_on() -> None:
    r = rollouts(a=[[(0, ERROR)], [1.0], [1.0], [1.0]])
    assert (LINE + A).clip(-9, 9).score(r).total.status[0].tolist() == [OK, OK, ERROR, -1]
    assert (LINE + A.at("episode", "first")).clip(-9, 9).score(r).total.status[0].tolist() == [ERROR, OK, OK, -1]
    assert (LINE * A).score(r).total.status[0].tolist() == [ERROR, ERROR, ERROR, -1]
    on_steps = (LINE + A).score(r).reward()[0]
    assert torch.isnan(on_steps).tolist() == [False] * 6 + [True]


def test_a_pool_reads_all_units_or_only_the_last() -> None:
    assert LINE.pool("sum").score(FAILED).total.reasons == {(0, 0): "line 1: line_a: told error"}
    assert LINE.pool("last").score(FAILED).total.values[0, 0] == 0.5


def test_a_pool_leaves_out_steps_that_the_policy_did_not_take() -> None:
    """Row 0 has a step of a tool, whose failure is nobody's reward."""
    r = rollouts(step_a=[[0.5, 0.5, (0, ERROR), 0.5, 0.5, 0.5, 0.5], [0.5] * 4, [0.25, 0.25], [1.0] * 7])
    assert column(STEP.pool("sum"), r) == [3.0, 2.0, 0.5, 7.0]


def test_watched_failures_stay_their_own() -> None:
    scores = (B.clip(0, 1).otherwise(LINE2.pool("sum")) + A.watch()).score(FAILED)
    assert scores.total.ok.all()
    assert scores.trace["a"].weight is None
    assert scores.trace["a"].status[:, 0].tolist() == [ERROR, OK, TIMEOUT, OK]
    assert "a" not in scores.components


@pytest.mark.parametrize(
    ("value", "reason"), [(1.5, "value 1.5 is outside its bounds [-1, 1]"), (math.inf, "value inf is not finite")]
)
def test_a_value_outside_the_bounds_is_an_error_of_its_unit(value, reason) -> None:
    c = A.score(rollouts(a=[[value], [1.0], [1.0], [-1.0]])).total
    assert c.status[:, 0].tolist() == [ERROR, OK, OK, OK]
    assert c.reasons == {(0, 0): reason}


def test_an_overflow_inside_the_expression_is_an_error() -> None:
    wide = told("a", low=-1e308, high=1e308)
    c = (1e308 * wide).score(rollouts(a=[[1e10], [1.0], [0.0], [-1.0]])).total
    assert c.status[:, 0].tolist() == [ERROR, OK, OK, OK]


# ---- scores


def test_components_names_weights_and_trace() -> None:
    reward = A + 0.5 * (B - 2 * LINE.clip(0, 1)) + A.named("again").watch()
    scores = reward.score(R)
    assert {name: c.weight for name, c in scores.components.items()} == {"a": 1.0, "b": 0.5, "line_a_clipped": -1.0}
    assert {name: c.weight for name, c in scores.trace.items()} == {
        "a": 1.0,
        "b": 0.5,
        "line_a_clipped": -1.0,
        "line_a": 1.0,
        "again": None,
    }
    assert scores.components["b"].values[:, 0].tolist() == [0.5, 1.0, 0.0, 1.0]  # unweighted


def test_a_watched_term_is_shown_once_and_unweighted() -> None:
    trace = (B - 0.25 * A.watch() - (A * B).watch()).score(R).trace
    assert {name: c.weight for name, c in trace.items()} == {"b": 1.0, "a": None, "a_times_b": None}
    assert trace["a"].values[:, 0].tolist() == [1.0, -0.5, 0.25, 1.0]


def test_equal_names_are_numbered_and_equal_terms_are_one() -> None:
    fine, coarse = told("a", low=-1), told("a", low=-1).at("episode", "uniform")
    scores = (fine + 2 * fine + coarse).score(R)
    assert {n: c.weight for n, c in scores.components.items()} == {"a": 3.0, "a_2": 1.0}


def test_every_distinct_node_is_evaluated_once() -> None:
    calls = []

    class Counted(Told):
        def compute(self, rollouts, parts, step) -> Component:
            calls.append(self.name)
            return super().compute(rollouts, parts, step)

    leaf, equal = (Counted(name="a", bounds=Bounds(-1, 1)) for _ in range(2))
    (leaf + leaf.clip(0, 1) + equal.gate(on=B) + leaf.watch()).score(R)
    assert calls == ["a"]


def test_equality_is_by_text_and_by_the_functions_of_users() -> None:
    assert A + B == A + B
    assert hash(A + B) == hash(A + B)
    assert A + B != B + A
    mine, yours = told("f", identity=len), told("f", identity=max)
    assert mine != yours
    assert 2 * mine != 2 * yours
    assert 2 * mine == 2 * told("f", identity=len)


def test_strings_and_messages_are_scored_without_a_trainer() -> None:
    class Length(Told):
        def compute(self, rollouts, parts, step) -> Component:
            texts = rollouts.values_at("completion", "episode")
            values = torch.tensor([[float(len(t))] for t in texts])
            return Component(self.name, "episode", values, torch.zeros_like(values, dtype=torch.int8))

    reward = Length(name="long", bounds=Bounds(0))
    assert reward(completions=["ab", [{"role": "assistant", "content": "abc"}]]).total.values.tolist() == [[2.0], [3.0]]


def test_what_scoring_needs() -> None:
    with pytest.raises(InputError, match="a: reads `a`"):
        A.score(R.replace(fields={}))
    with pytest.raises(InputError, match="sentence"):
        told("a", "sentence").score(R)
    with pytest.raises(ExpressionError, match="nothing but watched"):
        (A.watch() + B.watch()).score(R)

    class Wrong(Told):
        def compute(self, rollouts, parts, step) -> Component:
            return super().compute(rollouts, parts, step).replace(level="turn")

    with pytest.raises(ShapeError, match="level `episode`"):
        Wrong(name="a").score(R)


# ---- what can't be built


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: A.gate(on=LINE), r"`line_a` is finer \(line\) than `a` \(episode\).*on=line_a.pool\('mean', 'episode'\)"),
        (lambda: LINE + told("s", "sentence"), "`line` and `sentence`.*`line_a` .line., `s` .sentence."),
        (lambda: LINE.at("episode"), r"finer than `episode`.*\.pool"),
        (lambda: A.pool("sum", "line"), r"coarser than that of `a`"),
        (lambda: LINE.pool("middle"), "one of sum, mean"),
        (lambda: LINE.at("step", "weights"), "one of copy, last"),
        (lambda: A + 1, "number has no units"),
        (lambda: 1 - A, "number has no units"),
        (lambda: A + len, "@reward"),
        (lambda: A * math.inf, "finite number"),
        (lambda: A * "b", "finite number"),
        (lambda: A / 0, "other than 0"),
        (lambda: A.clip(), "neither"),
        (lambda: A.clip(2, 1), "at most"),
        (lambda: A.gate(on=B, softness=0), "greater than 0"),
        (lambda: min_of(A), "two rewards or more"),
        (lambda: max_of(A, 1), "clip"),
        (lambda: A.named("two words"), "letters, digits and _"),
        (lambda: A.watch() * B, "watched"),
        (lambda: A.gate(on=B.watch()), "watched"),
        (lambda: A.normalise("row"), "'group' or 'batch'"),
        (lambda: A.shuffled(0.5), "whole number"),
        (lambda: linear(0, 1, 0), "1 or more"),
        (lambda: told("a", spread="sideways"), "last, first, uniform, copy"),
        (lambda: told("a", low=2, high=1), "low <= high"),
        (lambda: told("a", relation="friends"), "self, reference"),
    ],
)
def test_a_mistake_is_an_error_when_it_is_built(build, says) -> None:
    with pytest.raises(ExpressionError, match=says):
        build()


def test_expressions_have_a_size() -> None:
    def repeated(x, make):
        for _ in range(200):
            x = make(x)

    with pytest.raises(ExpressionError, match="101 deep"):
        repeated(A, lambda x: x.clip(0, 1))
    with pytest.raises(ExpressionError, match="2000 nodes"):
        repeated(A, lambda x: x + x)


# ---- what it says of itself


def test_declarations_follow_from_the_parts() -> None:
    slow = told("slow", "turn", low=0, evolves=True, relation="reference", causal=True)
    whole = slow * STEP + A.normalise()
    assert whole.level == "step"
    assert whole.relation == "group"
    assert whole.needs == {"slow", "step_a", "a"}
    assert whole.evolves
    assert not whole.causal
    assert (slow.clip(0, 1)).causal


@pytest.mark.parametrize(
    ("reward", "unit", "total"),
    [
        (A + 0.5 * B, (-1, 1.5), (-1, 1.5)),
        (A - B, (-2, 1), (-2, 1)),
        (LINE2 + A, (-1, 2), (-1, math.inf)),
        (A * B, (-1, 1), (-1, 1)),
        (LINE2.gate(on=A), (0, 1), (0, math.inf)),
        (LINE2.pool("sum"), (0, math.inf), (0, math.inf)),
        (LINE2.pool("mean"), (0, 1), (0, 1)),
        (LINE2.pool("sum").clip(0, 3), (0, 3), (0, 3)),
        (linear(-1, 2, 9) * B, (-1, 2), (-1, 2)),
        (min_of(A, B), (-1, 1), (-1, 1)),
        (max_of(A, B), (0, 1), (0, 1)),
        (B.at("line", "copy"), (0, 1), (0, math.inf)),
        (told("c", low=0.5).at("line", "last"), (0, 1), (0.5, 1)),
        (A.normalise(scale=False), (-2, 2), (-2, 2)),
    ],
    ids=str,
)
def test_bounds(reward, unit, total) -> None:
    assert (reward.bounds.low, reward.bounds.high) == unit
    assert (reward.total_bounds().low, reward.total_bounds().high) == total
