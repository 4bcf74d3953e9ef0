# SPDX-License-Identifier: Apache-2.0
"""Perceptrons, linear layers with tanh between them, the parameters of several in one flat tensor.

Twice: by PyTorch's layers, with a graph, and by NumPy with the gradient written out. In small batches the calls cost more than
the sums, and NumPy's cost less.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

Layers = list[tuple[Any, Any]]
"""(weight [out, in], bias [out]) of each layer, tensors or arrays."""


@dataclass(frozen=True)
class Layout:
    """Where the layers of networks lie in a flat tensor: network after network, then ``extra`` numbers that belong to none.

    ``widths`` of each network's layers, the input's first.

    >>> [[(weight, bias)]], extra = Layout(((2, 1),), extra=1).parts(np.arange(4))
    >>> weight.tolist(), bias.tolist(), extra.tolist()
    ([[0, 1]], [2], [3])
    """

    widths: tuple[tuple[int, ...], ...]
    extra: int = 0

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of each weight and bias in turn, and of the extra numbers."""
        shapes: list[tuple[int, ...]] = []
        for net in self.widths:
            for inputs, out in pairwise(net):
                shapes += [(out, inputs), (out,)]
        return [*shapes, (self.extra,)]

    @cached_property
    def spans(self) -> list[slice]:
        """Where each lies."""
        sizes = [prod(shape) for shape in self.shapes]
        return [slice(end - size, end) for end, size in zip(accumulate(sizes), sizes, strict=True)]

    @property
    def size(self) -> int:
        return self.spans[-1].stop

    def parts(self, flat: Any) -> tuple[list[Layers], Any]:
        """(the layers of each network, the extra numbers): views of ``flat`` [size], a tensor or an array."""
        views = [flat[span].reshape(shape) for span, shape in zip(self.spans, self.shapes, strict=True)]
        layers = iter(zip(views[:-1:2], views[1:-1:2], strict=True))
        return [[next(layers) for _ in net[1:]] for net in self.widths], views[-1]


def through(layers: Layers, x: Tensor) -> Tensor:
    """[..., out] of ``x`` [..., in]: h_0 = x, h_i+1 = tanh(h_i W_i^T + b_i), and without tanh in the last layer."""
    for weight, bias in layers[:-1]:
        x = torch.tanh(torch.nn.functional.linear(x, weight, bias))
    return torch.nn.functional.linear(x, *layers[-1])


def forward(layers: Layers, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """([B, out] of ``x`` [B, in], what each layer read), the same in NumPy."""
    seen = [x]
    for weight, bias in layers:
        h = np.dot(seen[-1], weight.T)
        h += bias
        seen.append(np.tanh(h, out=h) if len(seen) < len(layers) else h)
    return seen.pop(), seen


def backward(layers: Layers, seen: list[np.ndarray], gradient: np.ndarray, into: Layers) -> None:
    """Write d loss / d parameters ``into`` arrays of their shapes, given d loss / d output ``gradient`` [B, out].

    With g_i the gradient of h_i W_i^T + b_i: dW_i = g_i^T h_i, db_i = sum over B of g_i, g_i-1 = (g_i W_i) (1 - h_i^2).
    """
    ones = np.ones(len(gradient), gradient.dtype)
    for i in reversed(range(len(layers))):
        h = seen[i]
        np.dot(gradient.T, h, out=into[i][0])
        np.dot(ones, gradient, out=into[i][1])
        if i:
            gradient = np.dot(gradient, layers[i][0])
            slope = h * h
            gradient *= np.subtract(1, slope, out=slope)
