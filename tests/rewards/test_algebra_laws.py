# SPDX-License-Identifier: Apache-2.0
"""The laws of the algebra, over random expressions, values and failures."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon import levels
from guerdon.rewards import max_of, min_of, parse
from guerdon.rewards.evaluating import distinct, evaluate
from guerdon.scores import Status
from tests.rewards.leaves import LEAVES, LENGTH, LINE, LINES, MASK, TABLE, A, expressions, numbers, rollouts, told_rollouts

few = settings(max_examples=60)


def on_steps(reward, r, step=3):
    return reward.score(r, step=step).reward()


def same(x: torch.Tensor, y: torch.Tensor) -> None:
    torch.testing.assert_close(x, y, equal_nan=True, rtol=1e-9, atol=1e-9)


@few
@given(expressions())
def test_text_is_read_back(reward) -> None:
    assert parse(str(reward), TABLE) == reward
    assert str(parse(str(reward), TABLE)) == str(reward)


@few
@given(expressions(), told_rollouts())
def test_components_sum_to_the_total(reward, r) -> None:
    scores = reward.score(r, step=3)
    parts = scores.rewards()
    same(scores.reward(), torch.stack(list(parts.values())).sum(0))
    bad = torch.stack([torch.isnan(c.steps(scores.levels[c.level], r.mask)) for c in scores.components.values()]).any(0)
    assert torch.equal(torch.isnan(scores.reward()), bad)


@few
@given(st.lists(st.sampled_from(LEAVES), min_size=2, max_size=4), told_rollouts(), st.randoms(use_true_random=False))
def test_plus_commutes_and_associates(leaves, r, random) -> None:
    other = list(leaves)
    random.shuffle(other)
    same(on_steps(sum(leaves), r), on_steps(sum(other), r))
    same(on_steps(leaves[0] + (leaves[1] + leaves[-1]), r), on_steps((leaves[0] + leaves[1]) + leaves[-1], r))


@few
@given(expressions(grouped=False, leaves=3), expressions(grouped=False, leaves=3), numbers, told_rollouts())
def test_numbers_distribute_over_plus(x, y, k, r) -> None:
    same(on_steps(k * x.named("x") + k * y.named("y"), r), on_steps(k * (x.named("x") + y.named("y")), r))


@few
@given(st.sampled_from(LEAVES), st.sampled_from(LEAVES), told_rollouts())
def test_min_max_and_product_commute(x, y, r) -> None:
    for make in (min_of, max_of, lambda a, b: a * b):
        same(make(x, y).score(r).total.values, make(y, x).score(r).total.values)
    # x + y = min + max, unit by unit, if both are moved to one level first
    same(min_of(x, y).score(r).total.values + max_of(x, y).score(r).total.values, _sum_of_copies(x, y, r))


def _sum_of_copies(x, y, r):
    level = levels.finest([x.level, y.level], "test")
    return sum(leaf.at(level, "copy").score(r).total.values for leaf in (x, y))


@few
@given(expressions(), told_rollouts())
def test_a_value_is_a_number_exactly_where_all_that_is_read_is_ok(reward, r) -> None:
    """No failure becomes a number: where a leaf fails, whatever reads that unit fails; `otherwise` is the exception."""
    e = evaluate(reward, r, 3)
    for node in distinct(reward):
        c = e.values[node]
        assert torch.equal(torch.isnan(c.values), c.status != Status.OK)
        failed = (c.status > Status.OK).nonzero().tolist()
        assert {(n, k) for n, k in failed} == {at for at in c.reasons if c.status[at] > Status.OK}
        assert all(c.reasons[n, k] for n, k in failed)


@few
@given(expressions(), told_rollouts())
def test_values_lie_in_the_bounds_that_the_tree_shows(reward, r) -> None:
    e = evaluate(reward, r, 3)
    for node in distinct(reward):
        ok = e.values[node].values[e.values[node].ok]
        assert ((ok >= node.bounds.low - 1e-9) & (ok <= node.bounds.high + 1e-9)).all(), str(node)
    total = reward.score(r, step=3).reward().sum(1)
    total = total[~torch.isnan(total)]
    bounds = reward.total_bounds()
    assert ((total >= bounds.low - 1e-9) & (total <= bounds.high + 1e-9)).all()


@few
@given(expressions(grouped=False), told_rollouts(), st.permutations(range(4)))
def test_permuting_rows_permutes_scores(reward, r, order) -> None:
    same(on_steps(reward, r)[list(order)], on_steps(reward, r.rows(list(order))))


@few
@given(expressions(), told_rollouts())
def test_inputs_and_expression_stay_as_they_were(reward, r) -> None:
    text, action, level = str(reward), r.action.clone(), r.levels["line"].clone()
    first = on_steps(reward, r)
    same(first, on_steps(reward, r))
    assert str(reward) == text
    assert torch.equal(r.action, action)
    assert torch.equal(r.levels["line"], level)


@few
@given(st.sampled_from(["last", "first", "uniform"]), st.sampled_from(["step", "line"]), told_rollouts(failing=False))
def test_spreading_then_summing_gives_the_value_back(how, level, r) -> None:
    moved = A.at(level, how).pool("sum", "episode").score(r).total.values
    has_unit = ((r.level(level) >= 0) & r.mask).any(1, keepdim=True)
    same(moved, torch.where(has_unit, A.score(r).total.values, 0.0))


@few
@given(st.sampled_from(["sum", "mean", "min", "max", "last", "first"]), told_rollouts())
def test_pool_is_that_of_the_values_it_reads(how, r) -> None:
    found = LINE.pool(how, "episode").score(r).total
    of = {"sum": sum, "mean": lambda x: sum(x) / len(x), "min": min, "max": max, "last": lambda x: x[-1], "first": lambda x: x[0]}
    for n, units in enumerate(r.field("line_a").values):
        read = {"last": units[-1:], "first": units[:1]}.get(how, units)
        if not read and how != "sum":
            assert found.status[n, 0] == Status.ABSTAIN
        elif any(s != Status.OK for _, s in read):
            assert found.status[n, 0] == max(s for _, s in read)
        else:
            assert found.values[n, 0].item() == pytest.approx(of[how]([v for v, _ in read]))


@few
@given(told_rollouts(), st.sampled_from(LEAVES), st.sampled_from(LEAVES))
def test_a_unit_has_the_worst_status_of_what_it_reads(r, x, y) -> None:
    both = (x * y).score(r).total
    level = levels.finest([x.level, y.level], "test")
    parts = [leaf.at(level, "copy").score(r).total.status for leaf in (x, y)]
    assert torch.equal(both.status, torch.maximum(*parts))


@few
@given(told_rollouts(), st.integers(0, 9), st.sampled_from(LEAVES))
def test_shuffled_keeps_the_multiset_and_the_statuses(r, seed, leaf) -> None:
    dealt_among = {"row": [[n] for n in range(4)], "group": [[0, 1, 2], [3]], "batch": [[0, 1, 2, 3]]}
    for over, rows in dealt_among.items():
        if over == "row" and leaf.level == "episode":
            continue
        before, after = leaf.score(r).total, leaf.shuffled(seed, over).score(r).total
        assert torch.equal(before.status, after.status)
        for some in rows:
            x, y = (c.values[some][c.ok[some]] for c in (before, after))
            assert torch.equal(x.sort().values, y.sort().values)
    assert torch.equal(on_steps(leaf.shuffled(seed), r).nan_to_num(7.0), on_steps(leaf.shuffled(seed), r).nan_to_num(7.0))


@few
@given(told_rollouts())
def test_shuffling_within_rows_does_not_depend_on_the_batch(r) -> None:
    whole = on_steps(LINE.shuffled(1, over="row"), r)
    same(whole[[3, 1]], on_steps(LINE.shuffled(1, over="row"), r.rows([3, 1])))
    group = on_steps(A.shuffled(1), r)
    same(group[:3], on_steps(A.shuffled(1), r.rows([0, 1, 2])))


def test_the_rows_used_here_have_the_shapes_that_hurt() -> None:
    """A tool's step, a last token in no line, a row without lines, a padded row."""
    assert not MASK[0, 2]
    assert LINES[0, -1] == -1
    assert (LINES[2] == -1).all()
    assert LENGTH.tolist() == [7, 4, 2, 7]
    assert rollouts().unit_counts("line") == [3, 2, 0, 4]
    assert math.isnan(A.score(rollouts(a=[[(0, Status.ERROR)], [0], [0], [0]])).total.values[0, 0])
