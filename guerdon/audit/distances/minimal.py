# SPDX-License-Identifier: Apache-2.0
"""The smallest reward among all that differ from one by potential shaping and S'-redistribution.

Such a reward R' is free but for its expectations, and those are free but for the potential φ:

    Σ_s' τ(s'|s, a) R'(s, a, s') = q(s, a),   q = r + D φ,   D φ (s, a) = γ Σ_s' τ(s'|s, a) φ(s') - φ(s)

The cheapest R'(s, a, ·) with that expectation is q(s, a) times a ``direction`` and costs |q(s, a)| times a ``price``:

    norm                       price           direction
    -------------------------  --------------  --------------------------
    L2                         1 / ‖τ(s, a)‖   τ(s, a) / ‖τ(s, a)‖²
    L1                         1 / max τ       the likeliest s', / max τ
    L∞, and L1, L2 of weight τ  1               1
    max τ |R|                  1 / #{τ > 0}    1 / (#{τ > 0} τ)

What remains is to choose φ: least squares for L2, in closed form; a linear programme for L1 and L∞.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guerdon.audit.distances.canonical import val
from guerdon.audit.distances.equivalence import check, expected
from guerdon.errors import InputError


def minimal(reward: Tensor, transition: Tensor, gamma: float, *, order: float = 2, weighted: bool = False) -> Tensor:
    """The equivalent reward of smallest norm, [..., S, A, S]; ``order`` 1, 2 or inf, ``weighted`` by τ.

    With order 2 there is exactly one, and it is linear in R: a canonicalisation as Skalse et al. 2023 define it. With 1 and inf
    there may be several, and they are not linear: the paper's bounds on regret are not promised. Which one is taken depends on
    R's class and scale alone, so equivalent rewards still become the same. These two need scipy, and no gradient passes.

    A state whose two actions stay there, paid 1 and 3; a potential adds the same to both, which leaves -1 and 1:

    >>> minimal(torch.tensor([[[1.0], [3.0]]]), torch.ones(1, 2, 1), 0.5).flatten().round(decimals=4).tolist()
    [-1.0, 1.0]
    """
    check("minimal", reward, transition, gamma)
    if order not in (1, 2, math.inf):
        raise InputError(f"minimal: `order` should be 1, 2 or inf, got {order}.")
    price, direction = _cheapest(transition, order, weighted)
    shaping = _shaping(transition, gamma)
    if order == 2:
        basis = torch.linalg.qr(price.flatten()[:, None] * shaping).Q
        cost = (price * expected(reward, transition)).flatten(-2)
        left = cost - (cost @ basis) @ basis.T
    else:
        left = _programmed(val(reward, transition, gamma)[..., 0].detach(), price, shaping, order)
    return (left.view(*reward.shape[:-3], *price.shape) / price)[..., None] * direction


def _shaping(transition: Tensor, gamma: float) -> Tensor:
    """D [S A, S]."""
    states, actions, _ = transition.shape
    here = torch.eye(states).to(transition)[:, None]
    return (gamma * transition - here).reshape(states * actions, states)


def _cheapest(transition: Tensor, order: float, weighted: bool) -> tuple[Tensor, Tensor]:
    """(price [S, A], direction [S, A, S])."""
    if weighted and order == math.inf:
        reached = transition > 0
        count = reached.sum(-1, keepdim=True).to(transition)
        return 1 / count[..., 0], torch.where(reached, 1 / (count * transition), 0)
    if weighted or order == math.inf:
        return torch.ones_like(transition[..., 0]), torch.ones_like(transition)
    if order == 2:
        size = transition.norm(dim=-1)
        return 1 / size, transition / size[..., None] ** 2
    most, at = transition.max(-1)
    return 1 / most, torch.nn.functional.one_hot(at, transition.shape[-1]).to(transition) / most[..., None]


def _programmed(advantage: Tensor, price: Tensor, shaping: Tensor, order: float) -> Tensor:
    """price q [..., S A] of smallest sum (order 1) or largest absolute value (inf), from one member of the class, scaled to 1."""
    flat = advantage.reshape(-1, price.numel())
    size = flat.abs().amax(-1, keepdim=True)
    rows = [
        _one(price.flatten() * (row / s if s > 0 else row), price.flatten()[:, None] * shaping, order)
        for row, s in zip(flat, size, strict=True)
    ]
    return (torch.stack(rows) * size).view(*advantage.shape[:-2], -1)


def _one(start: Tensor, shaping: Tensor, order: float) -> Tensor:
    """start + shaping φ with the φ that makes it smallest: minimise Σ u, or u, where -u <= start + shaping φ <= u."""
    try:
        from scipy.optimize import linprog
    except ModuleNotFoundError as e:
        raise InputError("minimal: orders 1 and inf are linear programmes and need scipy: pip install scipy.") from e
    count, states = shaping.shape
    bounds = torch.eye(count).to(shaping) if order == 1 else torch.ones(count, 1).to(shaping)
    limits = torch.cat([torch.cat([shaping, -bounds], 1), torch.cat([-shaping, -bounds], 1)])
    paid = torch.cat([torch.zeros(states), torch.ones(bounds.shape[1])])
    found = linprog(paid.numpy(), A_ub=limits.numpy(), b_ub=torch.cat([-start, start]).numpy(), bounds=(None, None))
    return start + shaping @ torch.from_numpy(found.x[:states]).to(shaping)
