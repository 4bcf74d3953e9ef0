# SPDX-License-Identifier: Apache-2.0
"""Scores: NaN exactly where a unit is not ok, no status lost on the way to steps, bounds that hold."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from guerdon.errors import InputError, ShapeError
from guerdon.levels import INVERSE
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Scores, Status, component, scores_of

SPREADS = [how for how in INVERSE if how != "weights"]  # those that need nothing else
statuses = st.sampled_from(list(Status))
finite = st.integers(-8, 8).map(lambda k: k / 4)


def rollouts() -> Rollouts:
    """Two lines, one line and a comment that belongs to none, no steps; the second step of row 1 was not the policy's."""
    return Rollouts(
        action=torch.zeros(3, 4),
        mask=torch.tensor([[True] * 4, [True, False, True, False], [False] * 4]),
        task=["a", "b", "c"],
        length=torch.tensor([4, 3, 0]),
        levels={"line": torch.tensor([[0, 0, 1, 1], [0, 0, -1, -1], [-1] * 4])},
    )


def made(name: str, level: str, status: list[list[int]], values: list[list[float]], **extra) -> Component:
    s = torch.tensor(status, dtype=torch.int8)
    return Component(name, level, torch.tensor(values, dtype=torch.float64).where(s == Status.OK, math.nan), s, **extra)


@given(st.lists(st.tuples(statuses, st.booleans()), min_size=1, max_size=6))
def test_a_component_is_nan_exactly_where_it_is_not_ok(units: list[tuple[Status, bool]]) -> None:
    status = torch.tensor([[int(s) for s, _ in units]], dtype=torch.int8)
    values = torch.tensor([[math.nan if nan else 1.0 for _, nan in units]])
    if all(nan == (s != Status.OK) for s, nan in units):
        c = Component("c", "episode", values, status)
        assert c.ok.equal(~torch.isnan(values))
        return
    with pytest.raises(ShapeError, match="Component c: values should be NaN exactly where the status is not ok; at row 0, unit"):
        Component("c", "episode", values, status)


def test_the_error_says_where_and_what() -> None:
    with pytest.raises(ShapeError, match=r"at row 1, unit 0 the value is 2\.0 and the status timeout"):
        Component("c", "episode", torch.tensor([[1.0], [2.0]]), torch.tensor([[0], [2]]))
    with pytest.raises(ShapeError, match=r"`status` should have shape \[1, 1\], got \[1\]"):
        Component("c", "episode", torch.tensor([[1.0]]), torch.tensor([0]))


def test_shares_and_mean_by_hand() -> None:
    c = made("c", "line", [[0, 0, 3], [1, -1, -1], [2, 2, 0]], [[1.0, 2.0, 0.0], [0.0] * 3, [0.0, 0.0, 6.0]])
    assert c.shares() == {"abstain": 1 / 7, "timeout": 2 / 7, "error": 1 / 7}  # of the seven units there are
    assert c.mean() == 3.0
    empty = made("c", "line", [[-1]], [[0.0]])
    assert empty.shares() == {"abstain": 0.0, "timeout": 0.0, "error": 0.0}
    assert math.isnan(empty.mean())


@given(st.lists(statuses.filter(lambda s: s != Status.NONE), min_size=3, max_size=3), st.sampled_from(SPREADS))
def test_on_steps_nan_shows_every_unit_that_is_not_ok(status: list[Status], how: str) -> None:
    r = rollouts()
    c = made(
        "c",
        "line",
        [[int(status[0]), int(status[1])], [int(status[2]), -1], [-1, -1]],
        [[1.0, 2.0], [3.0, 0.0], [0.0] * 2],
        spread=how,
    )
    x = c.steps(r.level("line"), r.mask)
    for (row, unit), s in zip([(0, 0), (0, 1), (1, 0)], status, strict=True):
        on = (r.level("line")[row] == unit) & r.mask[row]
        assert torch.isnan(x[row][on]).any() == (s != Status.OK)
    assert (x[(r.level("line") < 0) | ~r.mask] == 0).all()


@given(st.lists(statuses, min_size=4, max_size=4), st.sampled_from(SPREADS), st.sampled_from(SPREADS))
def test_the_total_of_hand_made_scores_keeps_the_worst_status(status: list[Status], how: str, other: str) -> None:
    r = rollouts()
    a = made("a", "line", [[int(status[0]), int(status[1])], [0, -1], [-1, -1]], [[1.0, 2.0], [3.0, 0.0], [0.0] * 2], spread=how)
    b = made("b", "episode", [[int(status[2])], [int(status[3])], [-1]], [[4.0], [5.0], [0.0]], spread=other)
    total = scores_of(r, [a, b]).total
    there = r.level("step") >= 0
    assert (total.status == Status.NONE).equal(~there)
    expected = [max([Status.OK, *(max(s, Status.ABSTAIN) for s in row if s != Status.OK)]) for row in (status[:3], status[3:])]
    assert [int(total.status[n][there[n]].max()) for n in (0, 1)] == [int(s) for s in expected]


def test_scores_of_golden() -> None:
    r = rollouts()
    a = component("a", "line", torch.tensor([[1.0, 2.0], [3.0, math.nan], [math.nan] * 2]), weight=0.5, spread="uniform")
    b = component("b", "episode", torch.tensor([[10.0], [20.0], [math.nan]]))
    s = scores_of(r, [a, b])
    assert s.reward().tolist() == [[0.25, 0.25, 0.5, 10.5], [1.5, 0.0, 20.0, 0.0], [0.0] * 4]
    named = s.rewards()
    assert named["a"].tolist() == [[0.25, 0.25, 0.5, 0.5], [1.5, 0.0, 0.0, 0.0], [0.0] * 4]
    assert named["b"].tolist() == [[0.0, 0.0, 0.0, 10.0], [0.0, 0.0, 20.0, 0.0], [0.0] * 4]
    assert s.at("line").tolist()[0] == [[1.0], [2.0]]
    assert s.at("episode").shape == (3, 1, 1)
    with pytest.raises(InputError, match="no component at level `turn`; there are a:line, b:episode"):
        s.at("turn")


@given(st.lists(st.one_of(finite, st.just(math.nan)), min_size=5, max_size=5), st.sampled_from(SPREADS), finite)
def test_rewards_sum_to_the_reward_and_are_unknown_together(values: list[float], how: str, weight: float) -> None:
    r = rollouts()
    a = component(
        "a",
        "line",
        torch.tensor([values[:2], [values[2], math.nan], [math.nan] * 2], dtype=torch.float64),
        weight=weight,
        spread=how,
    )
    b = component("b", "episode", torch.tensor([[values[3]], [values[4]], [math.nan]], dtype=torch.float64))
    s = scores_of(r, [a, b])
    named = s.rewards()
    torch.testing.assert_close(named["a"] + named["b"], s.reward(), equal_nan=True)
    assert torch.isnan(named["a"]).equal(torch.isnan(named["b"]))


@given(st.lists(statuses, min_size=6, max_size=6), st.sampled_from(SPREADS), st.sampled_from(SPREADS))
def test_components_are_spread_at_once_as_each_alone(status: list[Status], how: str, other: str) -> None:
    r = rollouts()
    parts = [
        made("a", "line", [[int(status[0]), int(status[1])], [0, -1], [-1, -1]], [[1.5, 2.0], [3.0, 0.0], [0.0] * 2], spread=how),
        made("b", "line", [[0, int(status[2])], [0, -1], [-1, -1]], [[0.1, 0.2], [0.3, 0.0], [0.0] * 2], spread=how),
        made("c", "line", [[0, 0], [int(status[3]), -1], [-1, -1]], [[4.0, 5.0], [6.0, 0.0], [0.0] * 2], spread=other),
        made("d", "episode", [[int(status[4])], [int(status[5])], [-1]], [[7.0], [8.0], [0.0]], weight=0.3),
    ]
    s = scores_of(r, parts)
    bad, found, weighted = torch.isnan(s.reward()), s.unweighted(), s.rewards()
    assert list(found) == list(weighted) == ["a", "b", "c", "d"]
    for c in parts:
        alone = torch.where(bad, torch.nan, c.steps(r.level(c.level), r.mask))
        assert torch.equal(found[c.name].nan_to_num(99.0), alone.nan_to_num(99.0))
        assert torch.equal(weighted[c.name].nan_to_num(99.0), (alone * c.weight).nan_to_num(99.0))


def test_a_component_is_checked_again_where_a_change_could_make_it_wrong() -> None:
    c = made("c", "episode", [[0], [3]], [[1.0], [0.0]])
    assert vars(c.replace(name="d", weight=2.0)) == {**vars(c), "name": "d", "weight": 2.0}
    with pytest.raises(ShapeError, match="row 1, unit 0 the value is"):
        c.replace(values=torch.ones(2, 1))
    with pytest.raises(TypeError, match="wait"):
        c.replace(wait=2.0)


def test_reward_is_the_total_on_the_steps_of_its_own_level() -> None:
    r = rollouts()
    total = made("total", "line", [[0, 3], [0, -1], [-1, -1]], [[1.0, 0.0], [2.0, 0.0], [0.0] * 2], spread="last")
    x = Scores(total, {}, {}, r.levels, r.mask).reward()
    assert x[0, :3].tolist() == [0.0, 1.0, 0.0]
    assert math.isnan(x[0, 3])
    assert x[1:].tolist() == [[2.0, 0.0, 0.0, 0.0], [0.0] * 4]  # on the last step that the policy took


bounds = st.tuples(st.integers(-4, 4), st.integers(-4, 4)).map(lambda p: Bounds(min(p), max(p)))


@given(st.data(), bounds, bounds, finite)
def test_bounds_hold_for_what_lies_within_them(data: st.DataObject, a: Bounds, b: Bounds, k: float) -> None:
    x, y = data.draw(st.floats(a.low, a.high)), data.draw(st.floats(b.low, b.high))
    assert (a + b).low <= x + y <= (a + b).high
    assert (a * k).low <= x * k <= (a * k).high
    total = a.of_total("line")
    assert total.low <= sum(data.draw(st.lists(st.floats(a.low, a.high), max_size=4))) <= total.high


def test_bounds_golden() -> None:
    assert Bounds() * 0 == Bounds(0, 0)  # not NaN
    assert Bounds(-1, 2) * -3 == Bounds(-6, 3)
    assert Bounds(0, 1).of_total("line") == Bounds(0, math.inf)
    assert Bounds(-1, 0).of_total("step") == Bounds(-math.inf, 0)
    assert Bounds(-1, 1).of_total("turn") == Bounds()
    assert Bounds(-1, 1).of_total("episode") == Bounds(-1, 1)


def test_a_worse_status_is_a_larger_number() -> None:
    assert sorted([Status.ERROR, Status.NONE, Status.TIMEOUT, Status.OK, Status.ABSTAIN]) == list(Status)
    assert [s.name for s in Status] == ["NONE", "OK", "ABSTAIN", "TIMEOUT", "ERROR"]
