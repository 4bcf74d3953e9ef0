# SPDX-License-Identifier: Apache-2.0
"""Value losses against their closed forms: what minimises them, and hand-computed values."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from guerdon.objectives.loss import Loss
from guerdon.objectives.value_regression import expectile_loss, gumbel_loss, huber_loss, rescaled_gumbel_loss
from guerdon.objectives.weighted_likelihood import advantage_weighted_likelihood

TARGETS = torch.tensor([-1.0, 0.0, 0.5, 3.0, 7.0], dtype=torch.float64)


def minimiser(loss: object, targets: Tensor = TARGETS) -> float:
    """The value at which the mean loss over ``targets`` is least, by the root of its derivative."""

    def slope(v: float) -> float:
        value = torch.full_like(targets[None], v, requires_grad=True)
        loss(value, targets[None], torch.ones_like(value, dtype=torch.bool)).value.mean().backward()  # type: ignore[operator]
        return float(value.grad.sum())  # type: ignore[union-attr]

    return float(brentq(slope, float(targets.min()), float(targets.max()), xtol=1e-12))


def test_the_half_expectile_is_the_mean() -> None:
    assert minimiser(partial(expectile_loss, tau=0.5)) == pytest.approx(TARGETS.mean().item(), abs=1e-9)


@pytest.mark.parametrize("tau", [0.1, 0.7, 0.9, 0.999])
def test_expectile_of_known_samples(tau: float) -> None:
    """e solves (1 - tau) mean (e - x)+ = tau mean (x - e)+."""
    x = TARGETS.numpy()
    known = brentq(lambda e: (1 - tau) * np.maximum(e - x, 0).mean() - tau * np.maximum(x - e, 0).mean(), -1, 7, xtol=1e-12)
    assert minimiser(partial(expectile_loss, tau=tau)) == pytest.approx(known, abs=1e-9)


def test_two_samples_by_hand() -> None:
    """0 and 1: (1 - tau) e = tau (1 - e), so e = tau."""
    assert minimiser(partial(expectile_loss, tau=0.8), TARGETS.new_tensor([0.0, 1.0])) == pytest.approx(0.8, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
@pytest.mark.parametrize("loss", [gumbel_loss, rescaled_gumbel_loss])
def test_gumbel_regression_finds_the_log_mean_exp(loss: object, temperature: float) -> None:
    known = temperature * (torch.logsumexp(TARGETS / temperature, 0).item() - math.log(len(TARGETS)))
    assert minimiser(partial(loss, temperature=temperature)) == pytest.approx(known, abs=1e-9)  # type: ignore[arg-type]


def test_gumbel_between_mean_and_maximum() -> None:
    found = [minimiser(partial(rescaled_gumbel_loss, temperature=t)) for t in (1e-3, 1.0, 1e4)]
    assert found[0] == pytest.approx(7, abs=0.01) and found[2] == pytest.approx(TARGETS.mean().item(), abs=0.01)
    assert found[2] < found[1] < found[0]


def test_rescaling_divides_by_the_largest_exponential() -> None:
    value, yes = torch.zeros(1, 5, dtype=torch.float64), torch.ones(1, 5, dtype=torch.bool)
    plain, rescaled = gumbel_loss(value, TARGETS[None], yes), rescaled_gumbel_loss(value, TARGETS[None], yes)
    torch.testing.assert_close(rescaled.value * math.exp(7), plain.value)


def test_rescaled_gumbel_of_far_targets_is_finite_where_the_plain_one_is_not() -> None:
    value, target, yes = torch.zeros(1, 2, requires_grad=True), torch.tensor([[1e4, 0.0]]), torch.ones(1, 2, dtype=torch.bool)
    assert gumbel_loss(value, target, yes).value.isinf().any()
    loss = rescaled_gumbel_loss(value, target, yes, temperature=0.1, clip=7)
    loss.value.sum().backward()
    assert loss.value.isfinite().all()
    assert value.grad is not None and value.grad[0, 0] == 0  # beyond the clip nothing pulls


def test_rescaling_ignores_masked_steps() -> None:
    value, yes = torch.zeros(1, 2), torch.tensor([[True, False]])
    alone = rescaled_gumbel_loss(value[:, :1], torch.ones(1, 1), yes[:, :1])
    beside = rescaled_gumbel_loss(value, torch.tensor([[1.0, 50.0]]), yes)
    assert beside.value[0, 0] == alone.value[0, 0] and beside.value[0, 1] == 0
    low = torch.tensor([[-3.0, 50.0]])  # the masked place counts as no error, which would be the largest
    assert rescaled_gumbel_loss(value, low, yes).value[0, 0] == rescaled_gumbel_loss(value[:, :1], low[:, :1], yes[:, :1]).value


@pytest.mark.parametrize("loss", [huber_loss, expectile_loss, gumbel_loss, rescaled_gumbel_loss])
def test_masked_steps_have_no_effect(loss: object) -> None:
    value = torch.tensor([[1.0, math.nan]], requires_grad=True)
    out: Loss = loss(value, torch.tensor([[2.0, math.nan]]), torch.tensor([[True, False]]))  # type: ignore[operator]
    out.value.sum().backward()
    assert out.value[0, 1] == 0 and value.grad is not None and value.grad[0, 1] == 0 and value.grad[0, 0] != 0


def test_huber_is_square_near_and_linear_far() -> None:
    value, yes = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True), torch.ones(1, 3, dtype=torch.bool)
    huber_loss(value, torch.tensor([[1.0, -20.0, 500.0]], dtype=torch.float64), yes).value.sum().backward()
    assert value.grad is not None and value.grad.tolist() == [[-1.0, 20.0, -20.0]]


def test_advantage_weights() -> None:
    log_prob = torch.full((1, 3), -2.0, dtype=torch.float64, requires_grad=True)
    advantage, yes = torch.tensor([[0.0, math.log(5) / 3, 10.0]], dtype=torch.float64), torch.ones(1, 3, dtype=torch.bool)
    loss = advantage_weighted_likelihood(log_prob, advantage, yes, beta=3.0, max_weight=100.0)
    loss.value.sum().backward()
    torch.testing.assert_close(log_prob.grad, torch.tensor([[-1.0, -5.0, -100.0]], dtype=torch.float64))
    assert [float(s / c) for s, c in (loss.metrics["weight"], loss.metrics["clip_weight"])] == pytest.approx([106 / 3, 1 / 3])
