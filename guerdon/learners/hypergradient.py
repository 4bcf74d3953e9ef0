# SPDX-License-Identifier: Apache-2.0
"""Through a learner to what it learns from: the gradient of an outer goal by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from guerdon.errors import InputError, check_shape


def neumann_solve(product: Callable[[Tensor], Tensor], right: Tensor, *, terms: int, scale: float) -> Tensor:
    """x ≈ M⁻¹ right by the truncated series x = scale Σ_{i = 0..terms} (I - scale M)^i right.

    ``product(v)`` = M v. The series converges to M⁻¹ right where all eigenvalues of I - scale M lie within (-1, 1); cut short, it
    follows the directions in which M is largest and leaves the others at scale (terms + 1) right. One product a term.

    >>> x = neumann_solve(lambda v: 2 * v, torch.tensor([1.0]), terms=2, scale=0.25)  # 0.25 (1 + 0.5 + 0.25)
    >>> x.tolist()
    [0.4375]
    """
    if terms < 0 or scale <= 0:
        raise InputError(f"neumann_solve: expected `terms` of 0 or more and a positive `scale`, got {terms} and {scale}.")
    term, total = right, right
    for _ in range(terms):
        term = term - scale * product(term)
        total = total + term
    return scale * total


def implicit_gradient(
    update: Tensor,
    parameters: Tensor,
    hyper: Sequence[Tensor],
    outer: Tensor,
    solve: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
) -> list[Tensor]:
    """dJ/dφ = -(∇_θ J)ᵀ H⁻¹ A,   H = ∂Δ/∂θ,   A = ∂Δ/∂φ: how J changes with φ when θ follows so that Δ(θ, φ) stays 0.

    ``update``      Δ(θ, φ), of the shape of θ, with its graph (``create_graph=True`` if it is a gradient)
    ``parameters``  θ           ``hyper``  the φ, any number of tensors
    ``outer``       ∇_θ J, of the shape of θ. A part of J that depends on φ directly is the caller's to add
    ``solve``       (product, right) -> x with M x = right, given product(v) = M v for M = -Hᵀ, e.g. `neumann_solve` bound

    M is positive definite where Δ is the gradient of something that has a strict maximum. Only vector products with H and A are
    formed, each a backward pass through ``update``.

    Bengio 2000, equation 8; Lorraine, Vicol and Duvenaud 2020, arXiv:1911.02590.

    >>> theta, phi = torch.tensor([3.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    >>> one = neumann_solve  # the update phi - theta is 0 at theta = phi, so theta moves as phi does
    >>> implicit_gradient(phi - theta, theta, [phi], torch.tensor([5.0]), lambda m, v: one(m, v, terms=0, scale=1.0))[0].tolist()
    [5.0]
    """
    check_shape("implicit_gradient", "update", update, tuple(parameters.shape))
    check_shape("implicit_gradient", "outer", outer, tuple(parameters.shape))

    def product(v: Tensor) -> Tensor:
        return -torch.autograd.grad(update, parameters, v, retain_graph=True)[0]

    x = solve(product, outer)
    found = torch.autograd.grad(update, list(hyper), x.detach(), allow_unused=True)
    return [torch.zeros_like(h) if g is None else g for g, h in zip(found, hyper, strict=True)]
