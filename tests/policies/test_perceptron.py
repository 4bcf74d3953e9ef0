# SPDX-License-Identifier: Apache-2.0
"""A perceptron as one node of the graph is the one made of PyTorch's layers."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from guerdon.policies.perceptron import perceptron


def made(widths: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    pairs = pairwise(widths)
    return [(torch.randn(b, a, generator=g, dtype=dtype), torch.randn(b, generator=g, dtype=dtype)) for a, b in pairs]


def plain(layers: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    for weight, bias in layers[:-1]:
        x = torch.tanh(torch.nn.functional.linear(x, weight, bias))
    return torch.nn.functional.linear(x, *layers[-1])


@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 2), (3, 5, 4, 1)])
def test_values_and_gradients_are_those_of_the_layers(widths: tuple[int, ...]) -> None:
    layers = made(widths)
    parameters = [p.requires_grad_() for layer in layers for p in layer]
    x = torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    out, expected = perceptron(layers, x), plain(layers, x)
    assert out.shape == expected.shape and torch.allclose(out, expected, rtol=1e-12)
    weight = torch.randn_like(out)
    found = torch.autograd.grad((out * weight).sum(), [x, *parameters])
    assert all(
        torch.allclose(a, b, rtol=1e-10)
        for a, b in zip(found, torch.autograd.grad((expected * weight).sum(), [x, *parameters]), strict=True)
    )


def test_the_gradient_is_that_of_finite_differences() -> None:
    layers = [(w.requires_grad_(), b.requires_grad_()) for w, b in made((2, 3, 2))]
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *p: perceptron(list(zip(p[::2], p[1::2], strict=True)), x), (x, *sum(layers, ())))


def test_the_dtype_is_kept_and_inputs_are_not_written_to() -> None:
    layers, x = made((3, 4, 1), torch.float32), torch.ones(5, 3)
    before = [p.clone() for layer in layers for p in layer]
    assert perceptron(layers, x).dtype == torch.float32
    assert torch.equal(x, torch.ones(5, 3))
    assert all(torch.equal(a, b) for a, b in zip(before, (p for layer in layers for p in layer), strict=True))
