# SPDX-License-Identifier: Apache-2.0
"""The matrix products of a model's linear layers on a processor, by oneDNN where PyTorch's own choice leaves much of it idle.

PyTorch hands float32 products to MKL, which on processors of another maker than its own uses half of the vector width. oneDNN
uses all of it and sums in float32 as well: the results differ in rounding alone.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PART = 1024
COPIED = 2**27
"""Weights up to which a model's matrices are copied. The copy of a larger one costs memory that is scarcer than its time."""


@functools.cache
def mkl_holds_back() -> bool:
    """Whether this is a processor with 512-bit vectors on which MKL does not use them."""
    info = Path("/proc/cpuinfo")
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkl.is_available()
    return wide and torch.backends.mkldnn.is_available() and info.is_file() and "GenuineIntel" not in info.read_text()


@functools.cache
def takes_two_turns() -> bool:
    """Whether it computes 512 bits in two turns (family 25, Zen 3 and 4): MKL then loses little, and on long sums nothing."""
    family = re.search(r"^cpu family\s*: (\d+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE) if mkl_holds_back() else None
    return family is not None and int(family[1]) <= 25


def product(a: Tensor, b: Tensor) -> Tensor:
    """[m, n] float32: a bᵀ of ``a`` [m, k] and ``b`` [n, k], both float32 or both bfloat16, which rounds the result too; without
    gradient ``b`` may be ``laid_out``.

    >>> product(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])).tolist()
    [[11.0, 17.0]]
    """
    if a.dtype == torch.bfloat16:
        return (a @ b.t()).float()
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "") if mkl_holds_back() else a @ b.t()


class _Product(torch.autograd.Function):
    """``product``, its two gradients being products of the same kind; ``rounded``: of factors in bfloat16; ``known``: its value,
    where that need not be computed."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, rounded: bool, known: Tensor | None) -> Tensor:
        if rounded:
            a, b = a.bfloat16(), b.bfloat16()
        ctx.save_for_backward(a, b)
        return product(a, b) if known is None else known.detach()  # which a model may write into

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (a, b), (of_a, of_b, *_) = ctx.saved_tensors, ctx.needs_input_grad
        gradient, for_b = gradient.to(a.dtype), None
        if of_b and (takes_two_turns() or not mkl_holds_back()):
            for_b = (gradient.t() @ a).float()
        elif of_b:
            # Transposed, a long batch does not fit the caches; a part of it does.
            parts = zip(gradient.split(PART), a.split(PART), strict=True)
            for_b = functools.reduce(Tensor.add_, (product(g.t(), x.t()) for g, x in parts))
        return product(gradient, b.t()) if of_a else None, for_b, None, None


def laid_out(b: Tensor) -> Tensor:
    """``b`` [n, k] as ``product`` reads it fastest, for a matrix that many meet: oneDNN otherwise lays it out for each."""
    wide = b.dtype == torch.float32 and mkl_holds_back()
    return torch.ops.mkldnn._reorder_linear_weight(b, None) if wide else b


Hear = Callable[["Linear", Tensor], None]
Answer = Callable[["Linear", int], Tensor | None]
_hear: ContextVar[Hear | None] = ContextVar("hear", default=None)
_answer: ContextVar[Answer | None] = ContextVar("answer", default=None)
_factors: ContextVar[Mapping[Linear, Tensor]] = ContextVar("factors", default=MappingProxyType({}))


class Linear(torch.nn.Linear):
    """A linear layer that calls ``product`` for float32 on a processor, and is PyTorch's own elsewhere."""

    rounded = False

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if not x.is_cpu or x.dtype != torch.float32 or weight.dtype != torch.float32:
            return super().forward(x)
        rows, hear, answer = x.reshape(-1, self.in_features), _hear.get(), _answer.get()
        known = None if answer is None else answer(self, len(rows))
        if known is None and not torch.is_grad_enabled():
            factor = _factors.get().get(self)
            y = product(rows.bfloat16() if self.rounded else rows, self.factor() if factor is None else factor)
        else:
            y = _Product.apply(rows, weight, self.rounded, known)
        if hear is not None:
            hear(self, y)
        y = y if bias is None else y + bias
        return y.view(*x.shape[:-1], self.out_features)

    def factor(self) -> Tensor:
        """[out_features, in_features]: what is multiplied by."""
        return self.weight.detach().bfloat16() if self.rounded else self.weight.detach()


class RoundedLinear(Linear):
    """The same with products in bfloat16; weights, gradients and everything between the products stay float32."""

    rounded = True


def choose_products(model: torch.nn.Module, rounded: bool) -> None:
    """Have ``model``'s linear layers use ``product``, ``rounded`` or not."""
    for m in model.modules():
        if type(m) in (torch.nn.Linear, Linear, RoundedLinear):
            m.__class__ = RoundedLinear if rounded else Linear


def factors_of(model: torch.nn.Module) -> dict[Linear, Tensor]:
    """The matrices of ``model``'s ``Linear`` layers as they are now, ``laid_out``; none where copies would take much memory."""
    layers = [m for m in model.modules() if isinstance(m, Linear) and m.weight.is_cpu and m.weight.dtype == torch.float32]
    few = sum(m.weight.numel() for m in layers) <= COPIED
    return {m: laid_out(m.factor()) for m in layers} if few else {}


def multiplying_by(factors: Mapping[Linear, Tensor]) -> contextlib.AbstractContextManager[None]:
    """Within it, without gradient, ``Linear`` layers multiply by ``factors`` rather than by their weights."""
    return _within(_factors, factors)


def heard_by(hear: Hear) -> contextlib.AbstractContextManager[None]:
    """Within it ``hear`` is told the product [rows, out_features] of every ``Linear`` layer."""
    return _within(_hear, hear)


def answered_by(answer: Answer) -> contextlib.AbstractContextManager[None]:
    """Within it ``answer`` is asked for a ``Linear`` layer's product [rows, out_features] before it is computed."""
    return _within(_answer, answer)


@contextlib.contextmanager
def _within(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
