# SPDX-License-Identifier: Apache-2.0
"""What it costs to optimise one reward where another counts: exact, in a table.

    J(π) = Σ start(s) V_π(s)        regret = (J₁(π₁) - J₁(π₂)) / (max J₁ - min J₁)

with π₂ best for R₂ (``regret``), or with any two policies of which R₂ doesn't prefer π₁ (``worst_case_regret``). Shapes as in
``equivalence``; ``start`` [S].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guerdon.audit.distances.equivalence import check, expected
from guerdon.errors import InputError, check_shape


def optimal(once: Tensor, transition: Tensor, gamma: float) -> Tensor:
    """[..., S] int64: a best action of every state by each of the expected rewards ``once`` [..., S, A]; policy iteration."""
    actions = once.argmax(-1)
    for _ in range(1000):
        value = _values(once, actions, transition, gamma)
        q = once + gamma * (transition @ value[..., None, :, None])[..., 0]
        now = q.gather(-1, actions[..., None])[..., 0]
        better = q.amax(-1) > now + 1e-10 * (1 + now.abs())
        if not better.any():
            return actions
        actions = torch.where(better, q.argmax(-1), actions)
    raise InputError("regret: policy iteration should settle within 1000 rounds. Usual cause: rewards that are not finite.")


def _values(once: Tensor, actions: Tensor, transition: Tensor, gamma: float) -> Tensor:
    """[..., S] of deterministic policies ``actions`` [..., S]."""
    states = torch.arange(transition.shape[0])
    taken = once.gather(-1, actions[..., None])[..., 0]
    return torch.linalg.solve(torch.eye(len(states)).to(once) - gamma * transition[states, actions], taken[..., None])[..., 0]


def regret(first: Tensor, second: Tensor, transition: Tensor, gamma: float, start: Tensor) -> Tensor:
    """(J₁(π₁) - J₁(π₂)) / (max J₁ - min J₁), [...], in [0, 1]; 0 where R₁ judges all policies alike.

    ``first``, ``second`` [..., S, A, S], batches that broadcast.

    >>> stay = torch.ones(1, 3, 1, dtype=torch.float64)
    >>> first, second = torch.tensor([[[[0.0], [1.0], [4.0]]], [[[0.0], [2.0], [1.0]]]], dtype=torch.float64)
    >>> regret(first, second, stay, 0.5, torch.ones(1, dtype=torch.float64)).item()
    0.75
    """
    for reward in (first, second):
        check("regret", reward, transition, gamma)
    check_shape("regret", "start", start, (transition.shape[0],))
    one, other = (expected(x, transition) for x in (first, second))
    best, worst, chosen = (optimal(x, transition, gamma) for x in (one, -one, other))
    high, low = (_values(one, actions, transition, gamma) @ start for actions in (best, worst))
    batch = torch.broadcast_shapes(one.shape[:-2], other.shape[:-2])
    got = _values(one.expand(*batch, *one.shape[-2:]), chosen.expand(*batch, -1), transition, gamma) @ start
    reach = high - low
    nothing = reach <= 1e-9 * (high.abs() + low.abs())
    return torch.where(nothing, 0, (high - got) / torch.where(nothing, 1, reach)).clamp(min=0)


def worst_case_regret(first: Tensor, second: Tensor, transition: Tensor, gamma: float, start: Tensor) -> float:
    """max (J₁(π₁) - J₁(π₂)) / (max J₁ - min J₁) over all π₁, π₂ with J₂(π₂) >= J₂(π₁): what going by R₂ may cost at most.

    A linear programme over the discounted visits of both policies; needs scipy. ``first``, ``second`` [S, A, S].

    >>> stay = torch.ones(1, 3, 1, dtype=torch.float64)
    >>> first, second = torch.tensor([[[[0.0], [1.0], [4.0]]], [[[0.0], [2.0], [1.0]]]], dtype=torch.float64)
    >>> round(worst_case_regret(first, second, stay, 0.5, torch.ones(1, dtype=torch.float64)), 6)  # 4 rather than ½ 0 + ½ 2
    0.875
    """
    from scipy.optimize import linprog

    for reward in (first, second):
        check("worst_case_regret", reward, transition, gamma)
    states, actions, _ = transition.shape
    one, other = (_sized(expected(x, transition)).flatten() for x in (first, second))
    here = torch.eye(states).to(transition)
    flow = (here[:, None] - gamma * transition).reshape(-1, states).T  # Σ_a d(s, a) - γ Σ P d = start
    none = torch.zeros_like(flow)
    both = torch.cat([torch.cat([flow, none], 1), torch.cat([none, flow], 1)])
    found = linprog(
        torch.cat([-one, one]).numpy(),
        A_ub=torch.cat([other, -other])[None].numpy(),
        b_ub=[0.0],
        A_eq=both.numpy(),
        b_eq=torch.cat([start, start]).numpy(),
    )
    once = one.view(1, states, actions)
    high, low = (float(_values(once, optimal(x, transition, gamma), transition, gamma) @ start) for x in (once, -once))
    return max(-found.fun / (high - low), 0.0) if high - low > 1e-9 * (abs(high) + abs(low)) else 0.0


def _sized(once: Tensor) -> Tensor:
    return once / once.abs().max().clamp(min=1e-300)


def soundness(gamma: float, start: Tensor, actions: int) -> float:
    """U = √(2 A) / ((1 - γ) min start): worst-case regret <= U d, for d = ``starc`` with val, uniform policy and L2.

    Let s₁, s₂ be the standardised advantages and e the difference of the two policies' visits. Since ⟨e, s₂⟩ <= 0, the loss
    ⟨e, s₁⟩ is at most ⟨e, s₁ - s₂⟩ <= √2 / (1 - γ) · 2 d / √S. And the best and worst policies are at least 2 min start / √(A S)
    apart by s₁, as they are if only the first step counts. Not in the paper, which shows that there is such a number.

    >>> round(soundness(0.5, torch.tensor([0.5, 0.5]), 2), 6)
    8.0
    """
    return math.sqrt(2 * actions) / ((1 - gamma) * float(start.min()))
