# SPDX-License-Identifier: Apache-2.0
"""Group-relative credit: the four numbers called GRPO, a slow reference, the bias of turn credit by enumeration, and the laws."""

import itertools
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.credit import center_by_group, group_relative, return_to_go, whiten
from guerdon.errors import ExpressionError, InputError, ShapeError

NAN = torch.nan


def wide(x):
    return torch.tensor(x, dtype=torch.float64)


def zeros(n):
    return torch.zeros(n, dtype=torch.long)


@pytest.mark.parametrize(
    ("how", "want"),
    [
        ({"scale": "std"}, [1.5, -0.5, -0.5, -0.5]),
        ({"scale": "std", "ddof": 0}, [1.7320508, -0.5773503, -0.5773503, -0.5773503]),
        ({"scale": "std", "baseline": "leave_one_out"}, [1.0, -0.5773503, -0.5773503, -0.5773503]),
        ({"baseline": "leave_one_out"}, [1.0, -0.3333333, -0.3333333, -0.3333333]),
        ({}, [0.75, -0.25, -0.25, -0.25]),
        ({"baseline": "none"}, [1, 0, 0, 0]),
        ({"scale": "std", "eps": 1e-4}, [1.4997001, -0.4999000, -0.4999000, -0.4999000]),
        ({"scale": "std", "baseline": "none"}, [2, 0, 0, 0]),
    ],
    ids=["sample-std", "population-std", "leave-one-out-std", "rloo", "no-std", "no-baseline", "eps", "only-scaled"],
)
def test_the_numbers_called_grpo(how, want):
    # the total of a row, however it is placed; the second step does not count
    reward = wide([[0.25, NAN, 0.75], [0, 5, 0], [0, 5, 0], [0, 5, 0]])
    mask = torch.tensor([[True, False, True]] * 4)
    got = group_relative(reward, mask, zeros(4), **how)
    torch.testing.assert_close(got[:, 0], wide(want), rtol=0, atol=5e-8)
    assert torch.equal(got[:, 2], got[:, 0])
    assert torch.equal(got[:, 1], torch.zeros(4, dtype=torch.float64))


def slow(x, group, baseline, scale, ddof, eps, scale_by, singleton):
    """The docstring of center_by_group, one number at a time, with Python's statistics."""

    def deviation(numbers):
        if len(set(numbers)) < 2:
            return None
        return statistics.stdev(numbers) if ddof else statistics.pstdev(numbers)

    finite = [v for v in x if v == v]
    out = []
    for i, v in enumerate(x):
        members = [w for j, w in enumerate(x) if group[j] == group[i] and w == w]
        others = [w for j, w in enumerate(x) if group[j] == group[i] and w == w and j != i]
        needs_group = baseline != "none" or (scale == "std" and scale_by == "group")
        if v != v or (needs_group and not others and singleton == "drop"):
            out.append(NAN)
            continue
        if needs_group and not others:
            out.append(0.0)
            continue
        compared = others if baseline == "leave_one_out" else members
        d = None if scale == "none" else deviation(finite if scale_by == "batch" else compared)
        centred = v - (0 if baseline == "none" else statistics.fmean(compared))
        out.append(centred if d is None else centred / (d + eps))
    return wide(out)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.0, 1.0, -2.5, 1e3, NAN]), st.integers(-3, 3)), max_size=12),
    st.fixed_dictionaries(
        {
            "baseline": st.sampled_from(["mean", "leave_one_out", "none"]),
            "scale": st.sampled_from(["none", "std"]),
            "ddof": st.sampled_from([0, 1]),
            "eps": st.sampled_from([0.0, 1e-4]),
            "scale_by": st.sampled_from(["group", "batch"]),
            "singleton": st.sampled_from(["drop", "zero"]),
        }
    ),
)
def test_center_by_group_is_its_docstring(rows, how):
    x, group = [r[0] for r in rows], [r[1] for r in rows]
    got = center_by_group(wide(x), torch.tensor(group, dtype=torch.long), **how)
    torch.testing.assert_close(got, slow(x, group, **how), rtol=1e-7, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_give_exactly_zero(dtype):
    # the mean of seven 0.1 is not 0.1: a naive std would turn the rounding into advantages of about 1
    x = torch.full((7,), 0.1, dtype=dtype)
    assert (x - x.sum() / 7).abs().max() > 0
    for how in ({"scale": "std"}, {"scale": "std", "baseline": "leave_one_out"}, {"scale": "std", "scale_by": "batch"}, {}):
        assert torch.equal(center_by_group(x, zeros(7), **how), torch.zeros(7, dtype=dtype)), how
    # and one that differs among equal others is not divided by their rounding
    for odd in (0.7, -0.5):
        for others in (0.1, 0.3, 1 / 3):
            x = torch.tensor([odd, *[others] * 6], dtype=dtype)
            got = center_by_group(x, zeros(7), baseline="leave_one_out", scale="std")
            assert got[0].item() == pytest.approx(odd - others, rel=1e-5)


def test_the_others_deviation_survives_an_outlier_in_float32():
    got = center_by_group(torch.tensor([1000.0, 0.1, 0.0, 0.2]), zeros(4), baseline="leave_one_out", scale="std")
    assert got[0].item() == pytest.approx(999.9 / 0.1, rel=1e-5)


def test_singletons():
    x, group = wide([1, 1, 0, 5, NAN]), torch.tensor([4, 9, 9, 2, 2])
    assert str(center_by_group(x, group).tolist()) == "[nan, 0.5, -0.5, nan, nan]"
    assert str(center_by_group(x, group, singleton="zero").tolist()) == "[0.0, 0.5, -0.5, 0.0, nan]"
    with pytest.raises(InputError, match=r"at least 2 members with a finite number, 2 have 1 \(the first: group 4\)"):
        center_by_group(x, group, singleton="raise")
    assert center_by_group(x, group, baseline="none", singleton="raise")[:4].tolist() == [1, 1, 0, 5]
    pair = center_by_group(x, group, baseline="leave_one_out", scale="std")
    assert pair[1:3].tolist() == [1, -1]


def test_scale_by_batch_uses_all_rewards_before_centring():
    # std of 0, 2, 10, 14 is sqrt((42.25 + 20.25 + 12.25 + 56.25) / 3)
    got = center_by_group(wide([0, 2, 10, 14]), torch.tensor([0, 0, 1, 1]), scale="std", scale_by="batch")
    torch.testing.assert_close(got, wide([-1, 1, -2, 2]) / (131 / 3) ** 0.5)


def test_a_failed_reward_leaves_its_group_and_one_infinity_does_not_silence_it():
    for failure in (NAN, torch.inf):
        reward = wide([[0, 1], [0, 0], [failure, 1], [3, 3]])
        got = group_relative(reward, torch.ones(4, 2, dtype=torch.bool), torch.tensor([0, 0, 0, 1]), scale="std", ddof=0)
        assert str(got.tolist()) == "[[1.0, 1.0], [-1.0, -1.0], [nan, nan], [nan, nan]]"


def test_rows_without_a_counted_step_take_no_part():
    reward, mask = wide([[1.0], [0.0], [100.0]]), torch.tensor([[True], [True], [False]])
    assert group_relative(reward, mask, zeros(3)).tolist() == [[0.5], [-0.5], [0]]
    turn = torch.zeros(3, 1, dtype=torch.long)
    assert group_relative(reward, mask, zeros(3), level=turn).tolist() == [[0.5], [-0.5], [0]]


def random_rows(seed, n=9, t=7):
    g = torch.Generator().manual_seed(seed)
    reward = torch.randn(n, t, generator=g, dtype=torch.float64)
    turn = (torch.rand(n, t, generator=g) < 0.4).long().cumsum(1)
    turn = turn - turn[:, :1]
    turn = torch.where(torch.arange(t) < torch.randint(1, t + 1, (n, 1), generator=g), turn, -1)
    mask = (torch.rand(n, t, generator=g) < 0.8) & (turn >= 0)
    reward = torch.where(mask, torch.where(torch.rand(n, t, generator=g) < 0.05, NAN, reward), torch.inf)
    return reward, mask, torch.randint(3, (n,), generator=g), turn


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(["mean", "leave_one_out"]), st.sampled_from(["none", "std"]))
def test_row_order_group_names_and_padding_change_nothing(seed, by_turn, baseline, scale):
    reward, mask, group, turn = random_rows(seed)
    how = {"baseline": baseline, "scale": scale}

    def f(reward, mask, group, turn):
        return group_relative(reward, mask, group, level=turn if by_turn else None, **how)

    base = f(reward, mask, group, turn)
    order = torch.randperm(len(group), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(f(reward[order], mask[order], group[order], turn[order]), base[order], equal_nan=True)
    torch.testing.assert_close(f(reward, mask, 10**15 - 7 * group, turn), base, equal_nan=True)
    n, t = reward.shape
    more = ((reward, NAN), (mask, False), (turn, -1))
    padded = [torch.cat([x, torch.full((n, 3), fill, dtype=x.dtype)], 1) for x, fill in more]
    longer = f(padded[0], padded[1], group, padded[2])
    torch.testing.assert_close(longer[:, :t], base, equal_nan=True)
    assert (longer[:, t:] == 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_turn_credit_is_centred_at_each_turn_over_its_members(seed):
    reward, mask, group, turn = random_rows(seed)
    returns = return_to_go(reward, mask, torch.where(mask, 0, -1), level=turn)
    got = group_relative(reward, mask, group, level=turn)
    for k in range(int(turn.max()) + 1):
        steps = mask & (turn == k)
        for i in range(len(group)):
            if not steps[i].any():
                continue
            mine = returns[i][steps[i]][0].item()
            same = [returns[j][steps[j]][0].item() for j in range(len(group)) if group[j] == group[i] and steps[j].any()]
            same = [v for v in same if v == v]
            want = NAN if mine != mine or len(same) < 2 else mine - statistics.fmean(same)
            torch.testing.assert_close(got[i][steps[i]], torch.full_like(got[i][steps[i]], want), equal_nan=True)


def test_going_on_that_pays_is_credited():
    # rollouts (0), (0), (0, 1), (0, 1): two steps a turn
    turn = torch.tensor([[0, 0, -1, -1]] * 2 + [[0, 0, 1, 1]] * 2)
    reward = torch.zeros(4, 4, dtype=torch.float64)
    reward[2:, 3] = 1
    got = group_relative(reward, turn >= 0, zeros(4), level=turn)
    assert got.tolist() == [[-0.5, -0.5, 0, 0]] * 2 + [[0.5, 0.5, 0, 0]] * 2


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
def test_expected_gradient_is_zero_where_stopping_is_irrelevant(baseline):
    """One decision: stop (reward 1), or go on (0 now, then 0 or 2, evenly). Both pay 1 on average, so nothing is to be learned.
    Enumerates every group of three and weighs it by its probability; p is the probability to go on."""
    p = 0.3
    outcomes = {"stop": (1 - p, [1.0], -1 / (1 - p)), "poor": (p / 2, [0.0, 0.0], 1 / p), "rich": (p / 2, [0.0, 2.0], 1 / p)}
    groups = list(itertools.product(outcomes.values(), repeat=3))
    rows = [row for group in groups for row in group]
    reward = wide([r[1] + [NAN] * (2 - len(r[1])) for r in rows])
    turn = torch.tensor([[0, 1 if len(r[1]) == 2 else -1] for r in rows])
    probability = wide([a[0] * b[0] * c[0] for a, b, c in groups]).repeat_interleave(3)
    score = wide([r[2] for r in rows])  # d log probability of the decision / dp
    group = torch.arange(len(groups)).repeat_interleave(3)
    advantage = group_relative(reward, turn >= 0, group, level=turn, baseline=baseline)[:, 0]
    assert (probability * score * advantage).sum().abs() < 1e-12

    # centring each turn's reward and summing afterwards pays for stopping early or late by itself
    first = center_by_group(reward[:, 0], group, baseline=baseline)
    second = center_by_group(torch.where(turn[:, 1] >= 0, reward[:, 1], NAN), group, baseline=baseline, singleton="zero")
    naive = first + second.nan_to_num(0.0)
    assert (probability * score * naive).sum() < -0.5


def test_whiten():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    x = wide([[1, 2, torch.inf], [3, NAN, 6]])
    got = whiten(x, mask, eps=0.0)
    torch.testing.assert_close(got, wide([[-2, -1, 0], [0, NAN, 3]]) / (14 / 3) ** 0.5, equal_nan=True)
    torch.testing.assert_close(whiten(x, mask, ddof=0, eps=1.0)[1, 2].item(), 3 / ((14 / 4) ** 0.5 + 1))
    assert torch.equal(whiten(torch.full((2, 3), 0.1), mask), torch.zeros(2, 3))
    alone = torch.tensor([[True, False, False], [False] * 3])
    assert str(whiten(x, alone).tolist()) == "[[nan, 0.0, 0.0], [0.0, 0.0, 0.0]]"


def test_dtype_is_kept_and_bfloat16_counts_beyond_256():
    x = torch.cat([torch.ones(300), torch.zeros(300)]).bfloat16()
    got = center_by_group(x, zeros(600))
    assert got.dtype == torch.bfloat16
    assert got.tolist() == [0.5] * 300 + [-0.5] * 300
    reward, mask, group, turn = random_rows(1)
    for dtype in (torch.float32, torch.float64):
        assert group_relative(reward.to(dtype), mask, group, scale="std", level=turn).dtype == dtype
        assert whiten(reward.to(dtype), mask).dtype == dtype


def test_inputs_are_not_written_to():
    inputs = random_rows(2)
    before = [x.clone() for x in inputs]
    group_relative(*inputs[:3], scale="std", level=inputs[3])
    whiten(*inputs[:2])
    for x, old in zip(inputs, before, strict=True):
        torch.testing.assert_close(x, old, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out", "none"])
@pytest.mark.parametrize("scale_by", ["group", "batch"])
def test_gradients_by_finite_differences(baseline, scale_by):
    x = wide([1.0, 0.2, -3.0, 4.0, 0.7, 0.1, 2.2]).requires_grad_()
    eps = wide(0.1).requires_grad_()
    group = torch.tensor([0, 1, 0, 0, 1, 1, 1])

    def f(x, eps):
        return center_by_group(x, group, baseline=baseline, scale="std", eps=eps, scale_by=scale_by)

    assert torch.autograd.gradcheck(f, (x, eps))


def test_gradients_are_finite_with_failures_and_equal_rewards():
    reward = wide([[NAN, 1], [1, 0], [0, 1], [torch.inf, 1]]).requires_grad_()
    mask = torch.tensor([[False, True], [True, True], [True, True], [True, True]])
    for how in ({}, {"baseline": "leave_one_out"}, {"scale_by": "batch"}):
        got = group_relative(reward, mask, zeros(4), scale="std", **how)
        (grad,) = torch.autograd.grad(got[:3].sum(), reward)
        assert grad.isfinite().all(), how
        assert got[3].isnan().all()


def test_mistakes_are_named():
    x, yes = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"`group` should have shape \[2\], got \[2, 3\]. Usual cause: a group per step"):
        group_relative(x, yes, zeros(6).view(2, 3))
    with pytest.raises(ShapeError, match="`mask` should be bool"):
        group_relative(x, x, zeros(2))
    with pytest.raises(ExpressionError, match=r"`baseline` should be one of \('mean', 'leave_one_out', 'none'\), got 'median'"):
        group_relative(x, yes, zeros(2), baseline="median")
    with pytest.raises(ExpressionError, match="`ddof` should be one of"):
        center_by_group(x[0], zeros(3), ddof=2)
