# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch
from torch import nn

from guerdon.errors import InputError
from guerdon.policies import products
from guerdon.policies.products import Linear, RoundedLinear, choose_products, product
from guerdon.protocols import Sampling
from tests.policies.models import contexts, policy

torch.set_num_threads(1)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("layout", ["plain", "transposed"])
def test_a_product_is_the_exact_one_up_to_rounding(rounded, layout):
    a, b = torch.randn(70, 33), torch.randn(9, 33)
    if layout == "transposed":
        a, b = a.t().contiguous().t(), b.t().contiguous().t()
    exact = a.double() @ b.double().t()
    kind = torch.bfloat16 if rounded else torch.float32
    error = float((product(a.to(kind), b.to(kind)) - exact).abs().max() / exact.abs().max())
    assert 1e-4 < error < 1e-2 if rounded else error < 2e-6


@pytest.mark.parametrize("held_back", [False, True])
@pytest.mark.parametrize("two_turns", [False, True])
@pytest.mark.parametrize("kind", [Linear, RoundedLinear])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 7, products.PART + 3])
def test_a_layers_values_and_gradients_are_those_of_pytorchs_own(kind, bias, rows, two_turns, held_back, monkeypatch):
    monkeypatch.setattr(products, "takes_two_turns", lambda: two_turns)
    monkeypatch.setattr(products, "mkl_holds_back", lambda: held_back)
    torch.manual_seed(0)
    plain = nn.Linear(12, 5, bias=bias)
    ours = copy.deepcopy(plain)
    ours.__class__ = kind
    x = torch.randn(rows, 2, 12)
    found = []
    for layer in (plain, ours):
        y = x.clone().requires_grad_()
        out = layer(y)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found.append([out, y.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        if kind is RoundedLinear:
            assert a.dtype == b.dtype and ((a - b).abs().max() / a.abs().max()).item() < 0.02
        else:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def test_only_float32_goes_another_way():
    layer = nn.Linear(4, 3).double()
    x = torch.randn(2, 4, dtype=torch.float64)
    expected = layer(x)
    layer.__class__ = RoundedLinear
    assert torch.equal(layer(x), expected)


def test_linear_layers_are_replaced_and_nothing_else():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Bilinear(2, 2, 2))
    for rounded, kind in ((False, Linear), (True, RoundedLinear), (False, Linear)):
        choose_products(model, rounded)
        assert [type(m) for m in model] == [kind, nn.LayerNorm, nn.Bilinear]


def test_bfloat16_products_keep_float32_weights_and_one_distribution():
    p = policy(products="bfloat16")
    assert {x.dtype for x in p.inner.parameters()} == {torch.float32}
    rollouts = p.sample(contexts(16), Sampling(max_new_tokens=12), seed=0)
    with torch.no_grad():
        found, exact = (x.evaluate(rollouts, frozenset({"log_prob"}))["log_prob"] for x in (p, policy()))
    assert float((found - exact).abs().max()) > 1e-4
    torch.testing.assert_close(found, rollouts.log_prob, rtol=0, atol=0.1)
    with pytest.raises(InputError, match="float32, bfloat16"):
        policy(products="float16")


@pytest.mark.parametrize("held_back", [False, True])
@pytest.mark.parametrize("kind", [Linear, RoundedLinear])
@pytest.mark.parametrize("rows", [1, 7, 130])
@torch.no_grad()
def test_matrices_that_are_laid_out_once_say_the_same(kind, rows, held_back, monkeypatch):
    monkeypatch.setattr(products, "mkl_holds_back", lambda: held_back)
    layer, x = kind(48, 20, bias=False), torch.randn(rows, 1, 48)
    factors = products.factors_of(layer)
    with products.multiplying_by(factors):
        near = 2e-2 if layer.rounded else 1e-5
        torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight), rtol=near, atol=near)
    with products.multiplying_by({layer: products.laid_out(2 * layer.factor())}):
        twice = layer(x)  # so it is they that are multiplied by
    torch.testing.assert_close(twice, 2 * layer(x))


def test_matrices_that_would_take_much_memory_are_not_copied(monkeypatch):
    layer = nn.Sequential(Linear(8, 4), Linear(4, 2))
    monkeypatch.setattr(products, "COPIED", 40)
    assert len(products.factors_of(layer)) == 2
    monkeypatch.setattr(products, "COPIED", 39)
    assert products.factors_of(layer) == {}


def test_a_batch_is_drawn_with_the_weights_as_they_are_then():
    p = policy()
    before = p.sample(contexts(4), Sampling(6), seed=3)
    with torch.no_grad():
        for weight in p.trained().values():
            weight.mul_(-2)
    after = p.sample(contexts(4), Sampling(6), seed=3)
    assert not torch.equal(before.action, after.action)
    again = p.evaluate(after, frozenset({"log_prob"}))["log_prob"]
    torch.testing.assert_close(again.detach(), after.log_prob, rtol=1e-4, atol=1e-4)
