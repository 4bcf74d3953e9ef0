# SPDX-License-Identifier: Apache-2.0
"""Linear layers with tanh between them, as one node of the graph: in small batches a node costs more than its sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Layers = Sequence[tuple[Tensor, Tensor]]
"""(weight [out, in], bias [out]) of each layer."""


def perceptron(layers: Layers, x: Tensor) -> Tensor:
    """[..., out] of ``x`` [..., in]: h_0 = x, h_i+1 = tanh(h_i W_i^T + b_i), and without tanh in the last layer.

    Its gradient can't be differentiated again.

    >>> one = torch.ones(1, 1)
    >>> round(perceptron([(one, one[0]), (2 * one, one[0])], one).item(), 4)  # 2 tanh(2) + 1
    2.9281
    """
    flat = x.reshape(-1, x.shape[-1])
    return _Perceptron.apply(flat, *(p for layer in layers for p in layer)).reshape(*x.shape[:-1], -1)


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        seen, weights, biases = [x], parameters[::2], parameters[1::2]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            seen.append(torch.addmm(bias, seen[-1], weight.t()).tanh_())
        ctx.save_for_backward(*seen, *weights)
        return torch.addmm(biases[-1], seen[-1], weights[-1].t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        n = len(ctx.saved_tensors) // 2
        seen, weights = ctx.saved_tensors[:n], ctx.saved_tensors[n:]
        found: list[Tensor] = []
        for i in reversed(range(n)):
            found += [gradient.sum(0), gradient.t() @ seen[i]]
            if i or ctx.needs_input_grad[0]:
                gradient = gradient @ weights[i]
            if i:
                gradient = gradient * (1 - seen[i] * seen[i])
        return (gradient if ctx.needs_input_grad[0] else None, *reversed(found))
