# SPDX-License-Identifier: Apache-2.0
"""Objectives: golden values, exact gradients on small policies, finite differences, reductions to parents, masks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.errors import ExpressionError, ShapeError
from guerdon.objectives import (
    Loss,
    bradley_terry,
    clipped_surrogate,
    clipped_value_loss,
    dpo,
    entropy_bonus,
    kl_penalty,
    negative_log_likelihood,
    reinforce,
    value_loss,
)

NAN = torch.nan
N, T = 4, 6


def wide(x):
    return torch.tensor(x, dtype=torch.float64)


def data(seed=0):
    g = torch.Generator().manual_seed(seed)
    names = ("log_prob", "old_log_prob", "ref_log_prob", "advantage", "entropy", "value", "old_value", "return_")
    rows = {name: torch.randn(N, T, generator=g, dtype=torch.float64) for name in names}
    rows["mask"] = torch.rand(N, T, generator=g) < 0.6
    rows["line"] = torch.rand(N, T, generator=g).lt(0.5).long().cumsum(1) - 1
    return rows


FIRST, SECOND, TARGET = torch.tensor([0, 2, 1]), torch.tensor([1, 3, 3]), wide([1.0, 0.3, 0.5])
UNITS = {"first": torch.tensor([[0, 0], [1, 1]]), "second": torch.tensor([[2, 1], [3, 0]]), "target": wide([0.0, 0.9])}


def by_name(function, names, **how):
    return lambda rows: function(
        **{k: rows[k] for k in names.split()}, **{k: f(rows) if callable(f) else f for k, f in how.items()}
    )


def level(rows):
    return rows["line"]


PAIRS = {"first": FIRST, "second": SECOND, "target": TARGET}
OBJECTIVES = {
    "reinforce": by_name(reinforce, "log_prob advantage mask"),
    "clipped_surrogate": by_name(clipped_surrogate, "log_prob old_log_prob advantage mask"),
    "clipped_surrogate-line": by_name(clipped_surrogate, "log_prob old_log_prob advantage mask", level=level),
    "clipped_surrogate-sum": by_name(clipped_surrogate, "log_prob old_log_prob advantage mask", level=level, ratio="sum"),
    "kl-k1": by_name(kl_penalty, "log_prob ref_log_prob mask", estimator="k1"),
    "kl-k2": by_name(kl_penalty, "log_prob ref_log_prob mask", estimator="k2"),
    "kl-k3": by_name(kl_penalty, "log_prob ref_log_prob mask", estimator="k3"),
    "entropy_bonus": by_name(entropy_bonus, "entropy mask"),
    "value_loss": by_name(value_loss, "value return_ mask"),
    "clipped_value_loss": by_name(clipped_value_loss, "value old_value return_ mask"),
    "negative_log_likelihood": by_name(negative_log_likelihood, "log_prob mask"),
    "dpo": by_name(dpo, "log_prob ref_log_prob mask", **PAIRS),
    "dpo-average": by_name(dpo, "log_prob ref_log_prob mask", **PAIRS, average=True),
    "dpo-line": by_name(dpo, "log_prob ref_log_prob mask", **UNITS, level=level),
}
every_objective = pytest.mark.parametrize("name", OBJECTIVES)


def total(loss):
    return torch.where(loss.mask, loss.value, 0).sum()


@every_objective
@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_by_finite_differences(name, seed):
    rows = data(seed)
    floats = [k for k, x in rows.items() if x.is_floating_point()]

    def f(*tensors):
        return OBJECTIVES[name]({**rows, **dict(zip(floats, tensors, strict=True))}).value

    assert torch.autograd.gradcheck(f, [rows[k].clone().requires_grad_() for k in floats])


@every_objective
@pytest.mark.parametrize("garbage", [NAN, torch.inf, -torch.inf, 1e30])
def test_what_is_masked_is_not_read(name, garbage):
    rows = data(2)
    rows["mask"][1] = False  # a row without any counted step
    clean = OBJECTIVES[name](rows)
    dirty = {k: torch.where(rows["mask"], x, garbage).requires_grad_() if x.is_floating_point() else x for k, x in rows.items()}
    loss = OBJECTIVES[name](dirty)
    assert torch.equal(loss.value, clean.value)
    assert torch.equal(loss.mask, clean.mask)
    assert loss.value[~loss.mask].eq(0).all()
    assert {k: (a.item(), b.item()) for k, (a, b) in loss.metrics.items()} == {
        k: (a.item(), b.item()) for k, (a, b) in clean.metrics.items()
    }
    total(loss).backward()
    for k, x in dirty.items():
        if x.is_floating_point() and x.grad is not None:
            assert x.grad.isfinite().all(), k
            assert (x.grad[~rows["mask"]] == 0).all(), k


WRITTEN = {name for name in OBJECTIVES if name.startswith(("reinforce", "clipped_surrogate", "kl", "entropy", "value"))}


@every_objective
@pytest.mark.parametrize("seed", range(3))
def test_a_written_slope_is_that_of_autograd(name, seed):
    rows = data(seed)
    rows = {k: torch.where(rows["mask"], x, NAN) if x.is_floating_point() else x for k, x in rows.items()}
    loss = OBJECTIVES[name](rows)
    assert (loss.slope is not None) == (name in WRITTEN)
    for k, slope in (loss.slope or {}).items():
        x = rows[k].clone().requires_grad_()
        graph = OBJECTIVES[name]({**rows, k: x})
        (expected,) = torch.autograd.grad(total(graph), x)
        assert graph.slope is None and torch.equal(graph.value, loss.value)
        torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-12)
        assert name != "clipped_surrogate" or 0 < (slope[rows["mask"]] == 0).sum() < rows["mask"].sum()


@every_objective
def test_dtype_inputs_and_metrics(name):
    for dtype in (torch.float32, torch.float64):
        rows = {k: x.to(dtype).requires_grad_() if x.is_floating_point() else x for k, x in data(3).items()}
        before = {k: x.detach().clone() for k, x in rows.items()}
        loss = OBJECTIVES[name](rows)
        assert loss.value.dtype == dtype
        assert loss.value.requires_grad
        assert not any(x.requires_grad for pair in loss.metrics.values() for x in pair)
        assert all(torch.equal(x, before[k]) for k, x in rows.items())


@every_objective
def test_padding_and_row_order(name):
    rows = data(4)
    base = OBJECTIVES[name](rows)
    fill = {"mask": False, "line": -1}
    padded = {k: torch.cat([x, torch.full((N, 2), fill.get(k, NAN), dtype=x.dtype)], 1) for k, x in rows.items()}
    longer = OBJECTIVES[name](padded)
    cut = longer.value if base.unit == "pair" else longer.value[:, :T]
    torch.testing.assert_close(cut, base.value, rtol=1e-14, atol=1e-14)
    if base.unit == "step":
        order = torch.tensor([2, 0, 3, 1])
        assert torch.equal(OBJECTIVES[name]({k: x[order] for k, x in rows.items()}).value, base.value[order])


def test_a_failed_advantage_in_a_counted_place_is_not_hidden():
    rows = data(0)
    rows["mask"][0, 0] = True
    rows["advantage"][0, 0] = NAN
    for name in ("reinforce", "clipped_surrogate"):
        assert OBJECTIVES[name](rows).value.isnan().nonzero().tolist() == [[0, 0]]


# ---- policy gradients


def test_reinforce_by_hand():
    loss = reinforce(wide([[-0.5, -2.0]]), wide([[2.0, -3.0]]), torch.tensor([[True, True]]))
    assert (loss.value.tolist(), loss.unit) == ([[1.0, -6.0]], "step")


def test_reinforce_expects_the_policy_gradient():
    logits, payoff = wide([0.3, -1.0, 0.8]).requires_grad_(), wide([1.0, 5.0, -2.0])
    probability = logits.softmax(0)
    (exact,) = torch.autograd.grad((probability * payoff).sum(), logits, retain_graph=True)
    # every action once, weighed by its probability
    loss = reinforce(logits.log_softmax(0)[None], payoff[None], torch.ones(1, 3, dtype=torch.bool))
    (got,) = torch.autograd.grad((probability.detach() * loss.value).sum(), logits)
    torch.testing.assert_close(got, -exact)


def test_clipped_surrogate_by_hand():
    # ratio, advantage -> loss with clips 0.1 below and 0.3 above
    cases = [
        (1.2, 2.0, -2.4, 1),  # inside
        (1.5, 2.0, -2.6, 0),  # above, good: clipped to 1.3
        (1.5, -2.0, 3.0, 1),  # above, bad: not clipped
        (0.5, 2.0, -1.0, 1),  # below, good: not clipped
        (0.5, -2.0, 1.8, 0),  # below, bad: clipped to 0.9
        (1.0, 0.0, 0.0, 0),
    ]
    ratio, advantage, want, moves = (wide(x)[None] for x in zip(*cases, strict=True))
    log_prob = ratio.log().requires_grad_()
    loss = clipped_surrogate(
        log_prob, torch.zeros(1, 6), advantage, torch.ones(1, 6, dtype=torch.bool), clip_low=0.1, clip_high=0.3
    )
    torch.testing.assert_close(loss.value, want)
    loss.value.sum().backward()
    torch.testing.assert_close(log_prob.grad, -moves * ratio * advantage)
    got = {k: (round(a.item(), 9), b.item()) for k, (a, b) in loss.metrics.items()}
    kl = sum(r - 1 - math.log(r) for r, *_ in cases)
    assert got == {"clip_low": (1, 6), "clip_high": (1, 6), "ratio": (6.2, 6), "approx_kl": (round(kl, 9), 6)}


def test_on_policy_the_surrogate_has_reinforces_gradient():
    rows = data(5)
    for how in ({}, {"level": rows["line"], "ratio": "sum"}):
        log_prob = rows["log_prob"].clone().requires_grad_()
        advantage = rows["advantage"]
        if how:  # one advantage per unit: the gradient of a unit's ratio then reaches each step once per step of the unit
            advantage = torch.ones_like(advantage)
        loss = clipped_surrogate(log_prob, rows["log_prob"], advantage, rows["mask"], **how)
        (got,) = torch.autograd.grad(total(loss), log_prob)
        (want,) = torch.autograd.grad(total(reinforce(log_prob, advantage, rows["mask"])), log_prob)
        if how:
            counted = rows["mask"] & (rows["line"] >= 0)
            same = (rows["line"][:, :, None] == rows["line"][:, None, :]) & counted[:, None, :]
            want = torch.where(counted, want * same.sum(2), 0)
        torch.testing.assert_close(got, want)


def test_infinite_clips_do_not_clip():
    rows = data(6)
    loss = clipped_surrogate(
        *(rows[k] for k in ("log_prob", "old_log_prob", "advantage", "mask")), clip_low=math.inf, clip_high=math.inf
    )
    ratio = (rows["log_prob"] - rows["old_log_prob"]).exp()
    torch.testing.assert_close(loss.value, torch.where(rows["mask"], -ratio * rows["advantage"], 0))
    assert [loss.metrics[k][0].item() for k in ("clip_low", "clip_high")] == [0, 0]


def test_clips_may_be_tensors_and_carry_gradients():
    log_prob, yes = wide([[1.0, -1.0]]), torch.ones(1, 2, dtype=torch.bool)
    low, high = wide(0.1).requires_grad_(), wide(0.3).requires_grad_()
    clipped_surrogate(log_prob, wide([[0, 0]]), wide([[2, -5]]), yes, clip_low=low, clip_high=high).value.sum().backward()
    assert (low.grad.item(), high.grad.item()) == pytest.approx((-5, -2))


def test_a_ratio_that_overflows_where_it_is_clipped_has_gradient_zero():
    log_prob = torch.tensor([[200.0, 0.1]], requires_grad=True)
    loss = clipped_surrogate(log_prob, torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool))
    loss.value.sum().backward()
    assert loss.value[0, 0].item() == pytest.approx(-1.2)
    assert log_prob.grad[0].tolist() == pytest.approx([0, -math.exp(0.1)])


def test_ratio_per_unit():
    # line 0: log-ratios 0.2 and 0.4 (0.9 is masked); line 1: -0.3; the last step belongs to no line
    log_prob, mask = wide([[0.2, 0.9, 0.4, -0.3, 5.0]]), torch.tensor([[True, False, True, True, True]])
    line, one = torch.tensor([[0, 0, 0, 1, -1]]), torch.ones(1, 5, dtype=torch.float64)
    how = {"clip_low": math.inf, "clip_high": math.inf, "level": line}
    for ratio, exponents in (("mean", [0.3, 0.3, -0.3]), ("sum", [0.6, 0.6, -0.3])):
        loss = clipped_surrogate(log_prob, 0 * one, one, mask, ratio=ratio, **how)
        torch.testing.assert_close(loss.value[0, [0, 2, 3]], -wide(exponents).exp())
        assert loss.mask.tolist() == [[True, False, True, True, False]]
        assert loss.metrics["ratio"][1] == 3


def test_a_level_of_single_steps_is_no_level():
    rows = data(7)
    step = torch.arange(T).expand(N, T)
    some = [rows[k] for k in ("log_prob", "old_log_prob", "advantage", "mask")]
    for ratio in ("mean", "sum"):
        torch.testing.assert_close(clipped_surrogate(*some, level=step, ratio=ratio).value, clipped_surrogate(*some).value)


# ---- regularisers


def test_kl_estimates_and_gradients_are_what_the_table_says():
    """Enumerate the actions of a categorical policy, each weighed by its probability."""
    logits, ref = wide([0.3, -1.0, 0.8, 0.1]).requires_grad_(), wide([0.0, 0.5, -0.2, 1.0]).log_softmax(0)
    log_p = logits.log_softmax(0)
    p = log_p.exp()
    reverse, forward = (p * (log_p - ref)).sum(), (ref.exp() * (ref - log_p)).sum()
    gradient = {"k1": torch.zeros(4, dtype=torch.float64)}
    (gradient["k2"],) = torch.autograd.grad(reverse, logits, retain_graph=True)
    (gradient["k3"],) = torch.autograd.grad(forward, logits, retain_graph=True)
    for k, want in gradient.items():
        loss = kl_penalty(log_p[None], ref[None], torch.ones(1, 4, dtype=torch.bool), estimator=k)
        expected = (p.detach() * loss.value).sum()
        if k == "k2":
            assert abs(expected.item() - reverse.item()) > 0.01  # biased
        else:
            assert expected.item() == pytest.approx(reverse.item())
        (got,) = torch.autograd.grad(expected, logits, retain_graph=True)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
        assert loss.metrics["kl"][0].item() == pytest.approx(loss.value.sum().item())


def test_entropy_and_likelihood_by_hand():
    yes = torch.tensor([[True, True, False]])
    loss = entropy_bonus(wide([[0.5, 1.5, 9]]), yes)
    assert (loss.value.tolist(), loss.metrics["entropy"][0].item(), loss.metrics["entropy"][1].item()) == (
        [[-0.5, -1.5, 0]],
        2,
        2,
    )
    assert negative_log_likelihood(wide([[-0.5, -1.5, 9]]), yes).value.tolist() == [[0.5, 1.5, 0]]


# ---- values


def test_value_losses_by_hand():
    value, old, returns, yes = (
        wide([[1, 2, 2, 0]]),
        wide([[1, 1, 1, 1]]),
        wide([[3, 3, 0, 0.9]]),
        torch.ones(1, 4, dtype=torch.bool),
    )
    plain = value_loss(value, returns, yes)
    torch.testing.assert_close(plain.value, wide([[2, 0.5, 2, 0.405]]))
    assert plain.metrics["value_error"][0].item() == pytest.approx(9.81)
    # clipped to 1, 1.2, 1.2, 0.8: the worse of the two errors
    clipped = clipped_value_loss(value, old, returns, yes, clip=0.2)
    torch.testing.assert_close(clipped.value, wide([[2, 1.62, 2, 0.405]]))
    assert clipped.metrics["clip_value"][0] == 3
    torch.testing.assert_close(clipped_value_loss(value, old, returns, yes, clip=math.inf).value, plain.value)


# ---- preferences


def test_dpo_by_hand():
    log_prob, ref = wide([[-1, -1, -9], [-2, -4, -4], [0, 0, 0]]), wide([[-1.5, -1, 0], [-1, -4, -4], [-1, -2, -3]])
    mask = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    # log-ratios of the rows: 0.5, -1, 0; h = beta times 1.5, 1, -1.5
    first, second = torch.tensor([0, 2, 1]), torch.tensor([1, 1, 0])
    loss = dpo(log_prob, ref, mask, first, second, wide([1, NAN, 0.25]), beta=2.0)
    want = [math.log1p(math.exp(-3)), 0, 0.25 * math.log1p(math.exp(3)) + 0.75 * math.log1p(math.exp(-3))]
    torch.testing.assert_close(loss.value, wide(want))
    assert (loss.unit, loss.mask.tolist()) == ("pair", [True, False, True])
    got = {k: (a.item(), b.item()) for k, (a, b) in loss.metrics.items()}
    assert got == {"margin": (4.5, 2), "accuracy": (2, 2)}
    # per token: 0.25 and -1/3
    average = dpo(log_prob, ref, mask, first[:1], second[:1], wide([1]), beta=12.0, average=True)
    assert average.value.item() == pytest.approx(math.log1p(math.exp(-7)))


def test_dpo_of_units_by_hand():
    log_prob, line = wide([[1, 2, 4], [8, 16, 32]]), torch.tensor([[0, 1, 1], [0, 0, -1]])
    first, second = torch.tensor([[0, 0], [0, 1]]), torch.tensor([[0, 1], [1, 0]])
    loss = dpo(log_prob, 0 * log_prob, line > -2, first, second, wide([1, 1]), beta=0.1, level=line)
    assert loss.metrics["margin"][0].item() == pytest.approx(0.1 * (1 - 6 + 6 - 24))
    torch.testing.assert_close(loss.value, wide([math.log1p(math.exp(0.5)), math.log1p(math.exp(1.8))]))


def test_a_level_of_whole_rows_is_no_level():
    rows = data(8)
    some = [rows[k] for k in ("log_prob", "ref_log_prob", "mask")]
    one = torch.zeros(N, T, dtype=torch.long)
    for average in (False, True):
        units = [torch.stack([rows, torch.zeros_like(rows)], 1) for rows in (FIRST, SECOND)]
        got = dpo(*some, *units, TARGET, level=one, average=average)
        torch.testing.assert_close(got.value, dpo(*some, FIRST, SECOND, TARGET, average=average).value)


def test_a_tie_pulls_towards_equality_and_starts_at_log_two():
    rows = data(9)
    log_prob = rows["ref_log_prob"].clone().requires_grad_()
    tie = dpo(log_prob, rows["ref_log_prob"], rows["mask"], FIRST, SECOND, torch.full((3,), 0.5))
    torch.testing.assert_close(tie.value, torch.full((3,), math.log(2), dtype=torch.float64))
    (gradient,) = torch.autograd.grad(tie.value.sum(), log_prob)
    assert gradient.abs().max() == 0
    assert tie.metrics["accuracy"][1] == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 3))
def test_swapping_a_pair_and_its_target_changes_nothing(seed, target, margin):
    rows, t = data(seed), torch.full((3,), target, dtype=torch.float64)
    some = [rows[k] for k in ("log_prob", "ref_log_prob", "mask")]
    for a, b in (
        (dpo(*some, FIRST, SECOND, t), dpo(*some, SECOND, FIRST, 1 - t)),
        (
            bradley_terry(rows["value"][:, 0], FIRST, SECOND, t, margin=margin),
            bradley_terry(rows["value"][:, 0], SECOND, FIRST, 1 - t, margin=margin),
        ),
    ):
        torch.testing.assert_close(a.value, b.value)
        for k in a.metrics:
            torch.testing.assert_close(a.metrics[k], b.metrics[k])


def test_dpo_is_bradley_terry_on_beta_times_the_log_ratio():
    rows = data(10)
    some = [rows[k] for k in ("log_prob", "ref_log_prob", "mask")]
    score = 0.3 * torch.where(rows["mask"], rows["log_prob"] - rows["ref_log_prob"], 0).sum(1)
    torch.testing.assert_close(
        dpo(*some, FIRST, SECOND, TARGET, beta=0.3).value, bradley_terry(score, FIRST, SECOND, TARGET).value
    )


def test_bradley_terry_by_hand_and_by_finite_differences():
    score, first, second = wide([2.0, 0.5, 0.0]), torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    loss = bradley_terry(score, first, second, wide([1, 0, NAN]), margin=wide([1.0, 0.5, 7.0]))
    torch.testing.assert_close(loss.value, wide([math.log1p(math.exp(-0.5)), math.log1p(math.exp(1.0)), 0]))
    assert loss.mask.tolist() == [True, True, False]
    got = {k: (a.item(), b.item()) for k, (a, b) in loss.metrics.items()}
    assert got == {"margin": (1.0, 2), "accuracy": (1, 2)}
    target = wide([1, 0.3, NAN])
    assert torch.autograd.gradcheck(
        lambda s, m: bradley_terry(s, first, second, target, margin=m).value, (score.requires_grad_(), wide(0.5).requires_grad_())
    )


def test_large_differences_stay_finite():
    score = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = bradley_terry(score, torch.tensor([1]), torch.tensor([0]), torch.tensor([1.0]))
    loss.value.sum().backward()
    assert loss.value.item() == pytest.approx(2e4)
    assert score.grad.tolist() == [1, -1]


# ---- mistakes


def test_mistakes_are_named():
    x, yes = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)
    zero, one = torch.tensor([0]), torch.tensor([1])
    with pytest.raises(ShapeError, match=r"reinforce: `advantage` should have shape \[2, 3\], got \[2\]"):
        reinforce(x, x[:, 0], yes)
    with pytest.raises(ShapeError, match="reinforce: `mask` should be bool"):
        reinforce(x, x, x)
    with pytest.raises(ExpressionError, match="`estimator` should be 'k1', 'k2' or 'k3', got 'k4'"):
        kl_penalty(x, x, yes, estimator="k4")
    with pytest.raises(ExpressionError, match="`ratio` should be 'mean' or 'sum', got 'max'"):
        clipped_surrogate(x, x, x, yes, ratio="max")
    with pytest.raises(ShapeError, match=r"`second` should be indices into \[2\], got 2 to 2"):
        dpo(x, x, yes, zero, one + 1, torch.tensor([1.0]))
    with pytest.raises(ShapeError, match=r"`first` should be indices into \[2\], got -1 to -1"):
        bradley_terry(x[:, 0], zero - 1, one, torch.tensor([1.0]))
    with pytest.raises(ShapeError, match=r"`first` should have shape \[\*, 2\], got \[1\]"):
        dpo(x, x, yes, zero, one, torch.tensor([1.0]), level=torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"should be a probability, got -1\.0 to -1\.0"):
        bradley_terry(x[:, 0], zero, one, torch.tensor([-1.0]))
    with pytest.raises(ShapeError, match="`unit` should be one of step, row, pair, got 'token'"):
        Loss(x, "token", yes)
    with pytest.raises(ShapeError, match="a value per row should have 1 dimensions, got shape"):
        Loss(x, "row", yes)
    with pytest.raises(ShapeError, match=r"`mask` should have shape \[2, 3\], got \[2\]"):
        Loss(x, "step", yes[:, 0])
