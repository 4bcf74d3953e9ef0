# SPDX-License-Identifier: Apache-2.0
"""Reductions: golden numbers, micro-batches that add up, and the units they refuse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.errors import ExpressionError, InputError
from guerdon.objectives import Loss, constant, pair_mean, sequence_mean, token_mean

NAN = torch.nan


def wide(x):
    return torch.tensor(x, dtype=torch.float64)


def test_by_hand():
    value = wide([[1, 2, 3], [10, NAN, NAN], [NAN, NAN, NAN]])
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    loss = Loss(value, "step", mask)
    for reduce, count, want in ((token_mean, 4, 4.0), (sequence_mean, 2, 6.0), (constant(5), 10, 1.6)):
        assert reduce.count(mask) == count
        assert reduce(loss, count).item() == pytest.approx(want), reduce
    assert pair_mean(Loss(wide([1, 5, NAN]), "pair", torch.tensor([True, True, False])), 2).item() == 3
    row = Loss(wide([1, 5, NAN]), "row", torch.tensor([True, True, False]))
    assert sequence_mean(row, sequence_mean.count(row.mask)).item() == 3


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_micro_batches_of_unequal_lengths_add_up(seed, sizes):
    g = torch.Generator().manual_seed(seed)
    n, t = sum(sizes), 7
    mask = (torch.arange(t) < torch.randint(0, t + 1, (n, 1), generator=g)) & (torch.rand(n, t, generator=g) < 0.8)
    mask[0, 0] = True
    value = torch.randn(n, t, generator=g, dtype=torch.float64).requires_grad_()
    for reduce in (token_mean, sequence_mean, constant(11)):
        count = reduce.count(mask)
        whole = reduce(Loss(value, "step", mask), count)
        split = zip(value.split(sizes), mask.split(sizes), strict=True)
        parts = [reduce(Loss(v, "step", m), count) for v, m in split]
        torch.testing.assert_close(sum(parts), whole)
        torch.testing.assert_close(torch.autograd.grad(sum(parts), value)[0], torch.autograd.grad(whole, value)[0])
    assert sum(sequence_mean.count(m) for m in mask.split(sizes)) == sequence_mean.count(mask)


def test_parts_cut_to_their_own_length_add_up():
    value, mask = wide([[1, 2, 3, 4], [5, 6, NAN, NAN]]), torch.tensor([[True] * 4, [True, True, False, False]])
    for reduce in (token_mean, sequence_mean, constant(3)):
        count = reduce.count(mask)
        parts = (Loss(value[:1], "step", mask[:1]), Loss(value[1:, :2], "step", mask[1:, :2]))
        whole = reduce(Loss(value, "step", mask), count)
        torch.testing.assert_close(reduce(parts[0], count) + reduce(parts[1], count), whole)


def test_a_row_without_a_counted_step_changes_nothing():
    value, mask = wide([[1, 2], [3, 4]]), torch.tensor([[True, True], [True, False]])
    more = torch.cat([value, wide([[9, 9]])]), torch.cat([mask, torch.tensor([[False, False]])])
    for reduce in (token_mean, sequence_mean, constant(3)):
        a = reduce(Loss(value, "step", mask), reduce.count(mask))
        b = reduce(Loss(more[0], "step", more[1]), reduce.count(more[1]))
        assert a == b


def test_gradient_is_finite_and_zero_where_nothing_counts():
    value = wide([[1, NAN], [NAN, NAN]]).requires_grad_()
    mask = torch.tensor([[True, False], [False, False]])
    for reduce in (token_mean, sequence_mean, constant(2)):
        (gradient,) = torch.autograd.grad(reduce(Loss(value, "step", mask), reduce.count(mask)), value)
        assert gradient.tolist() == [[1 / reduce.count(mask), 0], [0, 0]]


def test_slopes_are_those_of_autograd():
    mask = torch.tensor([[True, True, True], [True, False, True], [False, False, False]])
    value = torch.randn(3, 3, dtype=torch.float64).requires_grad_()
    for reduce in (token_mean, sequence_mean, constant(5)):
        (gradient,) = torch.autograd.grad(reduce(Loss(value, "step", mask), 4.0), value)
        torch.testing.assert_close(reduce.slope(mask.double(), mask) / 4.0, gradient, rtol=1e-15, atol=0)
    assert pair_mean.slope is None


def test_wrong_units_and_empty_batches_are_refused():
    step = Loss(torch.ones(1, 2), "step", torch.ones(1, 2, dtype=torch.bool))
    pair = Loss(torch.ones(2), "pair", torch.ones(2, dtype=torch.bool))
    with pytest.raises(ExpressionError, match="pair_mean: the loss should be per pair, got one per step"):
        pair_mean(step, 1)
    for reduce, units in ((token_mean, "step"), (sequence_mean, "step or row"), (constant(2), "step")):
        with pytest.raises(ExpressionError, match=f"the loss should be per {units}, got one per pair"):
            reduce(pair, 1)
    for count in (0.0, NAN):
        with pytest.raises(InputError, match="token_mean: `count` should be positive, got"):
            token_mean(step, count)
    with pytest.raises(ExpressionError, match="`length` should be a positive number of steps, got 0"):
        constant(0)


def test_names():
    assert [repr(r) for r in (token_mean, sequence_mean, pair_mean, constant(512))] == [
        "token_mean",
        "sequence_mean",
        "pair_mean",
        "constant(512)",
    ]
