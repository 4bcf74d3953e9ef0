# SPDX-License-Identifier: Apache-2.0
"""Multipliers: gradients against autograd, and the side on which each kind of constraint pushes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from guerdon.credit import whiten
from guerdon.credit.lagrangian import SQUASH, Multipliers, constrained_mix, multiplier_gradient
from guerdon.errors import ExpressionError, InputError
from guerdon.scores import component


@pytest.mark.parametrize("kind", SQUASH)
def test_the_gradient_is_that_of_the_lagrangian(kind: str) -> None:
    parameter = torch.tensor([0.3, -1.2], dtype=torch.float64, requires_grad=True)
    return_, target = torch.tensor([2.0, 5.0], dtype=torch.float64), torch.tensor([3.0, 4.0], dtype=torch.float64)
    (SQUASH[kind](parameter) * (return_ - target)).sum().backward()
    assert torch.allclose(multiplier_gradient(parameter.detach(), return_, target, kind), parameter.grad)


def told(**returns: float) -> SimpleNamespace:
    values = {k: component(k, "episode", torch.tensor([[x - 1.0], [x + 1.0]])) for k, x in returns.items()}
    return SimpleNamespace(scores=SimpleNamespace(components=values))


def test_multipliers_rise_below_the_target_and_only_equalities_push_back() -> None:
    for kind, low in (("equal", -1.0), ("at_least", 0.0)):
        multipliers = Multipliers({"a": 2.0, "b": 2.0}, kind)
        start = multipliers(0)
        for _ in range(200):
            found = multipliers.update(told(a=1.0, b=4.0))
        assert multipliers(0)["a"] > start["a"] and low < multipliers(0)["b"] < start["b"]
        assert (multipliers(0)["b"] < 0) == (kind == "equal")
        assert found["return/a"] == 1.0 and found["gap/b"] == 1.0


def test_momentum_is_that_of_torch() -> None:
    multipliers = Multipliers({"a": 2.0}, "equal", lr=0.3, momentum=0.6)
    mine = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    sgd = torch.optim.SGD([mine], lr=0.3, momentum=0.6)
    for x in (1.0, 3.5, 0.5):
        multipliers.update(told(a=x))
        sgd.zero_grad()
        (mine.tanh() * (x - 2.0)).sum().backward()
        sgd.step()
    assert torch.allclose(multipliers.parameter, mine.detach())


def test_state_is_kept_and_a_failed_component_changes_nothing() -> None:
    one, other = Multipliers({"a": 2.0}, "equal"), Multipliers({"a": 7.0}, "equal")
    one.update(told(a=1.0))
    other.load_state_dict(one.state_dict())
    assert one(0) == other(0)
    failed = told(a=1.0)
    failed.scores.components["a"] = component("a", "episode", torch.full((2, 1), torch.nan))
    other.update(failed)
    assert one(0) == other(0)


def test_the_mix_is_a_sum_of_whitened_parts() -> None:
    g = torch.Generator().manual_seed(0)
    kl, a, b = torch.randn(3, 4, 2, generator=g, dtype=torch.float64)
    mask = torch.rand(4, 2, generator=g) > 0.2
    given = {"advantages": {"kl": kl, "a": a, "b": b}, "weights": {"kl": -1.0, "a": 1.0, "b": 0.5}, "objective": "kl"}
    mixed = constrained_mix(**given, mask=mask, multipliers={"a": 0.5, "b": -0.25})
    expected = -1.75 * whiten(kl, mask) + 0.5 * whiten(a, mask) - 0.25 * whiten(b, mask)
    assert torch.allclose(mixed, expected)
    with pytest.raises(ExpressionError, match="kl and a, got kl, a, b"):
        constrained_mix(**given, mask=mask, multipliers={"a": 0.5})
    with pytest.raises(InputError, match="at_least, equal"):
        Multipliers({"a": 1.0}, "at_most")
