# SPDX-License-Identifier: Apache-2.0
"""Laws of moving between levels: pool inverts spread, what doesn't count doesn't matter, NaN stays where it was."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from guerdon.errors import ExpressionError, ShapeError
from guerdon.levels import INVERSE, POOLS, finest, is_finer, pool, spread, unit_count, unit_mask

numbers = st.sampled_from([-3.0, -0.5, 0.0, 1.0, 2.5, 1e6])


@st.composite
def cases(draw) -> tuple[Tensor, Tensor | None]:
    """A level with gaps, absent units, steps of no unit, rows of none and tensors of no size; and a mask or none."""
    n, t = draw(st.integers(0, 3)), draw(st.integers(0, 6))
    level = torch.tensor(draw(st.lists(st.integers(-1, 3), min_size=n * t, max_size=n * t)), dtype=torch.long).reshape(n, t)
    mask = draw(st.none() | st.lists(st.booleans(), min_size=n * t, max_size=n * t))
    return level, None if mask is None else torch.tensor(mask, dtype=torch.bool).reshape(n, t)


def filled(draw, *shape: int, values=numbers, dtype=torch.float64) -> Tensor:
    n = math.prod(shape)
    return torch.tensor(draw(st.lists(values, min_size=n, max_size=n)), dtype=dtype).reshape(shape)


def by_hand(x: Tensor, level: Tensor, how: str, mask: Tensor | None) -> list[list[float]]:
    """``pool`` unit by unit on Python numbers."""
    one = {
        "sum": sum,
        "mean": lambda v: sum(v) / len(v),
        "last": lambda v: v[-1],
        "first": lambda v: v[0],
        "min": min,
        "max": max,
    }[how]
    out = []
    for row in range(level.shape[0]):
        found: list[list[float]] = [[] for _ in range(unit_count(level))]
        for step, unit in enumerate(level[row].tolist()):
            if unit >= 0 and (mask is None or mask[row, step]):
                found[unit].append(x[row, step].item())
        out.append([one(v) if v else (0.0 if how == "sum" else math.nan) for v in found])
    return out


@pytest.mark.parametrize("how", POOLS)
@given(data=st.data(), case=cases())
def test_pool_is_what_a_loop_over_units_gives(how: str, data: st.DataObject, case) -> None:
    level, mask = case
    x = filled(data.draw, *level.shape)
    expected = torch.tensor(by_hand(x, level, how, mask), dtype=torch.float64).reshape(len(level), unit_count(level))
    torch.testing.assert_close(pool(x, level, how, mask), expected, equal_nan=True, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", INVERSE)
@given(data=st.data(), case=cases())
def test_pool_inverts_spread(how: str, data: st.DataObject, case) -> None:
    level, mask = case
    y = filled(data.draw, len(level), unit_count(level), values=numbers | st.just(math.nan))
    weight = filled(data.draw, *level.shape, values=st.sampled_from([0.25, 1.0, 3.0])) if how == "weights" else None
    there = unit_mask(level, mask)
    back = pool(spread(y, level, how, mask, weight), level, INVERSE[how], mask)
    torch.testing.assert_close(back[there], y[there], equal_nan=True, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", INVERSE)
@given(data=st.data(), case=cases())
def test_spread_gives_nothing_to_steps_that_do_not_count(how: str, data: st.DataObject, case) -> None:
    level, mask = case
    y = filled(data.draw, len(level), unit_count(level), values=st.just(math.nan))
    counted = (level >= 0) if mask is None else (level >= 0) & mask
    x = spread(y, level, how, mask, torch.ones(level.shape))
    assert (x[~counted] == 0).all()
    if how in ("copy", "uniform", "weights"):
        assert torch.isnan(x[counted]).all()
    else:  # on one step of each unit, and nowhere else
        assert pool(torch.isnan(x).double(), level, "sum").equal(unit_mask(level, mask).double())


@pytest.mark.parametrize("how", POOLS)
@given(data=st.data(), case=cases())
def test_nan_stays_in_its_unit(how: str, data: st.DataObject, case) -> None:
    level, mask = case
    x = filled(data.draw, *level.shape)
    bad = filled(data.draw, *level.shape, values=st.booleans(), dtype=torch.bool)
    counted = (level >= 0) if mask is None else (level >= 0) & mask
    clean, dirty = pool(x, level, how, mask), pool(torch.where(bad, math.nan, x), level, how, mask)
    if how in ("last", "first"):  # they read one step
        where = torch.tensor(by_hand(bad.double(), level, how, mask)).reshape(clean.shape) == 1
    else:
        where = pool((bad & counted).double(), level, "sum") > 0
    assert torch.isnan(dirty[where]).all()
    torch.testing.assert_close(dirty[~where], clean[~where], equal_nan=True, rtol=0, atol=0)


@given(data=st.data(), case=cases())
def test_rows_are_independent(data: st.DataObject, case) -> None:
    level, mask = case
    order = torch.tensor(data.draw(st.permutations(range(len(level)))), dtype=torch.long)
    x, y = filled(data.draw, *level.shape), filled(data.draw, len(level), unit_count(level))
    moved = None if mask is None else mask[order]
    for how in POOLS:
        torch.testing.assert_close(pool(x[order], level[order], how, moved), pool(x, level, how, mask)[order], equal_nan=True)
    for how in INVERSE:
        w = x.abs() + 1
        whole = spread(y, level, how, mask, w)
        torch.testing.assert_close(spread(y[order], level[order], how, moved, w[order]), whole[order])


@given(case=cases())
def test_unit_mask_says_which_units_have_a_step_that_counts(case) -> None:
    level, mask = case
    counted = level if mask is None else torch.where(mask, level, -1)
    expected = [[k in row for k in range(unit_count(level))] for row in counted.tolist()]
    assert unit_mask(level, mask).tolist() == expected


LINE = torch.tensor([[0, 0, 0, 1, -1], [-1, 2, 2, 0, 0]])
MASK = torch.tensor([[True, True, False, True, True], [True, False, True, True, True]])
X = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0], [32.0, 64.0, 128.0, 256.0, 512.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("sum", [[3.0, 8.0, 0.0], [768.0, 0.0, 128.0]]),
        ("mean", [[1.5, 8.0, math.nan], [384.0, math.nan, 128.0]]),
        ("last", [[2.0, 8.0, math.nan], [512.0, math.nan, 128.0]]),
        ("first", [[1.0, 8.0, math.nan], [256.0, math.nan, 128.0]]),
        ("min", [[1.0, 8.0, math.nan], [256.0, math.nan, 128.0]]),
        ("max", [[2.0, 8.0, math.nan], [512.0, math.nan, 128.0]]),
    ],
)
def test_pool_golden(how: str, expected: list[list[float]]) -> None:
    torch.testing.assert_close(
        pool(X, LINE, how, MASK), torch.tensor(expected, dtype=torch.float64), equal_nan=True, rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("copy", [[6.0, 6.0, 0.0, 5.0, 0.0], [0.0, 0.0, 7.0, 3.0, 3.0]]),
        ("last", [[0.0, 6.0, 0.0, 5.0, 0.0], [0.0, 0.0, 7.0, 0.0, 3.0]]),
        ("first", [[6.0, 0.0, 0.0, 5.0, 0.0], [0.0, 0.0, 7.0, 3.0, 0.0]]),
        ("uniform", [[3.0, 3.0, 0.0, 5.0, 0.0], [0.0, 0.0, 7.0, 1.5, 1.5]]),
        ("weights", [[2.0, 4.0, 0.0, 5.0, 0.0], [0.0, 0.0, 7.0, 1.0, 2.0]]),
    ],
)
def test_spread_golden(how: str, expected: list[list[float]]) -> None:
    y = torch.tensor([[6.0, 5.0, 9.0], [3.0, 9.0, 7.0]], dtype=torch.float64)
    torch.testing.assert_close(spread(y, LINE, how, MASK, X), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    x = torch.ones(1, 4, dtype=dtype)
    level = torch.tensor([[0, 0, 1, -1]])
    for how in POOLS:
        assert pool(x, level, how).dtype == dtype, how
    for how in INVERSE:
        assert spread(x[:, :2], level, how, weight=torch.ones(1, 4)).dtype == dtype, how


@pytest.mark.parametrize("how", INVERSE)
def test_gradients_are_finite_where_a_unit_has_no_step_that_counts(how: str) -> None:
    level = torch.tensor([[-1, 0, 1], [-1, -1, -1]])
    mask = torch.tensor([[True, False, True], [True, True, True]])
    y = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    spread(y, level, how, mask, torch.ones(2, 3)).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_a_level_without_units() -> None:
    level = torch.full((2, 3), -1)
    for how in POOLS:
        assert pool(torch.ones(2, 3), level, how).shape == (2, 0), how
    for how in INVERSE:
        for units in (0, 2):
            assert spread(torch.ones(2, units), level, how, weight=torch.ones(2, 3)).tolist() == [[0.0] * 3] * 2, how


def test_inputs_are_not_written_to() -> None:
    x, level, mask = X.clone(), LINE.clone(), MASK.clone()
    for how in POOLS:
        pool(x, level, how, mask)
    for how in INVERSE:
        spread(x[:, :3], level, how, mask, x)
    assert x.equal(X)
    assert level.equal(LINE)
    assert mask.equal(MASK)


def test_zero_weights_of_a_unit_leave_its_steps_unknown() -> None:
    x = spread(torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 0, 1]]), "weights", weight=torch.tensor([[0.0, 0.0, 1.0]]))
    assert torch.isnan(x[0, :2]).all()  # nothing to share by: not ok rather than lost
    assert x[0, 2] == 2


@given(st.permutations(["episode", "turn", "line", "step", "line"]), st.integers(1, 5))
def test_finest_does_not_depend_on_the_order(names: list[str], count: int) -> None:
    best = finest(names[:count], "sum")
    assert all(best == name or is_finer(best, name) for name in names[:count])
    assert not any(is_finer(name, best) for name in names[:count])


def test_finest_of_levels_that_do_not_nest() -> None:
    with pytest.raises(ExpressionError, match=r"sum: levels `line` and `sentence` .*\.at\('line'\)") as e:
        finest(["episode", "line", "sentence"], "sum")
    assert ".pool(how, level)" in str(e.value)
    assert finest(["line", "sentence", "step"], "sum") == finest(["step", "line", "sentence"], "sum") == "step"


def test_errors_name_what_came() -> None:
    x, level = torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(ExpressionError, match="pool: `how` should be one of sum, mean, last, first, min, max, got 'median'"):
        pool(x, level, "median")
    with pytest.raises(ExpressionError, match="spread: `how` should be one of last, first, uniform, weights, copy, got 'sum'"):
        spread(x, level, "sum")
    with pytest.raises(ExpressionError, match="how='weights' needs `weight`"):
        spread(x, level, "weights")
    with pytest.raises(ShapeError, match=r"int64 of shape \[1, 2\], got torch.int32 \[1, 2\]"):
        pool(x, level.int())
    with pytest.raises(ShapeError, match=r"int64 of shape \[1, 2\], got torch.int64 \[1, 3\]"):
        pool(x, torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ShapeError, match="`y` has 1 units a row, the level has 2"):
        spread(torch.zeros(1, 1), torch.tensor([[0, 1]]))
