# SPDX-License-Identifier: Apache-2.0
"""Components together: the weighted sum and each one's share of the variance."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.credit import variance_shares, weighted_sum
from guerdon.errors import ExpressionError

NAN = torch.nan


def test_weighted_sum():
    a, b = torch.tensor([[1.0, NAN, 3.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    got = weighted_sum({"a": a, "b": b}, {"b": torch.tensor([[0.5, 0.5, 2.0]], dtype=torch.float64), "a": 2})
    assert str(got.tolist()) == "[[7.0, nan, 66.0]]"
    assert got.dtype == torch.float32
    assert str(weighted_sum({"a": a, "b": b}, {"a": 0, "b": 1}).tolist()) == "[[10.0, nan, 30.0]]"


def test_weights_carry_gradients():
    a, w = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    weighted_sum({"a": a}, {"a": w}).sum().backward()
    assert a.grad.tolist() == [[3, 3]]
    assert w.grad.item() == 3


def test_names_must_agree():
    one = torch.ones(1, 1)
    for weights in ({"b": 1}, {"a": 1, "b": 1}, {}):
        with pytest.raises(ExpressionError, match=r"named as the advantages \['a'\], got"):
            weighted_sum({"a": one}, weights)
    with pytest.raises(ExpressionError):
        weighted_sum({}, {})


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_shares_are_covariances_and_sum_to_one(seed):
    g = torch.Generator().manual_seed(seed)
    parts = {k: torch.randn(4, 5, generator=g) * 10 ** (3 * i) for i, k in enumerate("abc")}
    mask = torch.rand(4, 5, generator=g) < 0.8
    mask[0, :3] = True
    total = sum(parts.values())[mask].double().numpy()
    want = {k: np.cov(x[mask].double().numpy(), total)[0, 1] / np.var(total, ddof=1) for k, x in parts.items()}
    got = variance_shares(parts, mask)
    assert got == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert sum(got.values()) == pytest.approx(1)
    # what is masked or failed does not enter
    spoilt = {k: torch.where(mask, x, torch.inf) for k, x in parts.items()}
    assert variance_shares(spoilt, mask) == got
    wider = torch.cat([mask, torch.ones(4, 1, dtype=torch.bool)], 1)
    failed = {k: torch.cat([x, torch.full((4, 1), NAN if k == "a" else 1e6)], 1) for k, x in parts.items()}
    assert variance_shares(failed, wider) == pytest.approx(got)


def test_a_component_against_the_sum_has_a_negative_share():
    a, yes = torch.tensor([[3.0, -3.0]]), torch.ones(1, 2, dtype=torch.bool)
    assert variance_shares({"a": a, "b": -a / 3}, yes) == pytest.approx({"a": 1.5, "b": -0.5})


def test_no_variance_no_shares():
    yes = torch.ones(1, 3, dtype=torch.bool)
    x = torch.tensor([[0.1, -0.7, 0.3]])
    for parts in ({"a": torch.full((1, 3), 0.1)}, {"a": x, "b": -x}, {"a": torch.full((1, 3), NAN)}):
        assert all(math.isnan(s) for s in variance_shares(parts, yes).values())
    assert math.isnan(variance_shares({"a": x}, ~yes)["a"])
