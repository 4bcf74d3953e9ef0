# SPDX-License-Identifier: Apache-2.0
"""Canonical forms of a reward: what is left of it when what no policy is judged by has been taken out.

    name           takes out          R(s, a, s') becomes
    -------------  -----------------  -------------------------------------------------------------------------------
    val            both               E_S'[R(s, a, S') + γ V(S') - V(s)], V the value of a fixed policy; S' ~ τ(s, a)
    minimal        both               the smallest of all that differ by both; see ``minimal``
    val_potential  shaping            R(s, a, s') + γ V(s') - V(s)
    epic           shaping            R(s, a, s') + E[γ R(s', A, S') - R(s, A, S') - γ R(S, A, S')], S, S' ~ D_S, A ~ D_A
    dard           shaping            R(s, a, s') + E[γ R(s', A, S'') - R(s, A, S') - γ R(S', A, S'')],
                                      S' ~ τ(s, A), S'' ~ τ(s', A), one A for all three

Shaping: γ φ(s') - φ(s). Both: S'-redistribution too, after which E_S' R(s, a, S') is what it was. All are linear in R and
differentiable; shapes as in ``equivalence``.

    Skalse et al. 2023, arXiv:2309.15257; Gleave et al. 2020, arXiv:2006.13900; Wulfe et al. 2022, arXiv:2201.10081.

The papers and their released code have the same equations. The code finds V by sweeps until they change by less than 1e-8 and the
minimal form by gradient descent; here both are linear solves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.audit.distances.equivalence import check, check_gamma, expected
from guerdon.errors import check_shape


def values(reward: Tensor, transition: Tensor, gamma: float, policy: Tensor | None = None) -> Tensor:
    """V = (I - γ P_π)⁻¹ r_π, [..., S]. ``policy`` [S, A]: probabilities; None: uniform."""
    check("values", reward, transition, gamma)
    states, actions, _ = transition.shape
    policy = transition.new_full((states, actions), 1 / actions) if policy is None else policy
    check_shape("values", "policy", policy, (states, actions))
    moves = torch.einsum("sa,sat->st", policy, transition)
    once = (policy * expected(reward, transition)).sum(-1)
    return torch.linalg.solve(torch.eye(states).to(moves) - gamma * moves, once[..., None])[..., 0]


def val(reward: Tensor, transition: Tensor, gamma: float, policy: Tensor | None = None) -> Tensor:
    """E_S'[R(s, a, S') + γ V(S') - V(s)], [..., S, A, S], the same for every s': the policy's advantages.

    A state whose two actions stay there, paid 1 and 3; the uniform policy earns 2 a step, so they are worth 1 less and 1 more.

    >>> val(torch.tensor([[[1.0], [3.0]]]), torch.ones(1, 2, 1), 0.5).flatten().tolist()
    [-1.0, 1.0]
    """
    value = values(reward, transition, gamma, policy)
    advantage = expected(reward, transition) + gamma * (transition @ value[..., None, :, None])[..., 0] - value[..., None]
    return advantage[..., None].expand(reward.shape)


def val_potential(reward: Tensor, transition: Tensor, gamma: float, policy: Tensor | None = None) -> Tensor:
    """R(s, a, s') + γ V(s') - V(s), [..., S, A, S]: takes out shaping, and keeps how R is spread over s'.

    >>> flip = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    >>> val_potential(torch.tensor([[[0.0, 3.0]], [[0.0, 0.0]]]), flip, 0.5)[:, 0].tolist()  # V = 4, 2; nothing to choose
    [[-2.0, 0.0], [0.0, -1.0]]
    """
    value = values(reward, transition, gamma, policy)
    return reward + gamma * value[..., None, None, :] - value[..., :, None, None]


def epic(
    reward: Tensor,
    gamma: float,
    state_weight: Tensor | None = None,
    action_weight: Tensor | None = None,
) -> Tensor:
    """R(s, a, s') + E[γ R(s', A, S') - R(s, A, S') - γ R(S, A, S')], [..., S, A, S].

    ``state_weight`` [S]: D_S, ``action_weight`` [A]: D_A; None: uniform. It asks for the reward of every s, a and s', whether or
    not a leads from s to s'.

    >>> epic(torch.tensor([[[0.0, 2.0]], [[0.0, 4.0]]]), 0.5)[:, 0].tolist()
    [[-1.25, 1.25], [-2.25, 2.25]]
    """
    check_gamma("epic", gamma)
    states, actions, _ = reward.shape[-3:]
    of_state = _weight(state_weight, states, reward)
    mean = ((reward @ of_state) * _weight(action_weight, actions, reward)).sum(-1)
    return reward + gamma * mean[..., None, None, :] - mean[..., :, None, None] - gamma * (mean @ of_state)[..., None, None, None]


def dard(reward: Tensor, transition: Tensor, gamma: float, action_weight: Tensor | None = None) -> Tensor:
    """R(s, a, s') + E[γ R(s', A, S'') - R(s, A, S') - γ R(S', A, S'')], S' ~ τ(s, A), S'' ~ τ(s', A), [..., S, A, S].

    ``action_weight`` [A]: D_A; None: uniform. In the last term S'' comes from s' and not from S', so it may ask for transitions
    that cannot happen, if only between states that are near.

    >>> flip = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    >>> dard(torch.tensor([[[0.0, 2.0]], [[4.0, 0.0]]]), flip, 0.5)[:, 0].tolist()
    [[-1.0, 0.0], [0.0, -2.0]]
    """
    check("dard", reward, transition, gamma)
    weight = _weight(action_weight, transition.shape[1], reward)
    mean = (expected(reward, transition) * weight).sum(-1)
    between = torch.einsum("a,sap,...pad,tad->...st", weight, transition, reward, transition)
    return reward + gamma * mean[..., None, None, :] - mean[..., :, None, None] - gamma * between[..., :, None, :]


def _weight(weight: Tensor | None, count: int, like: Tensor) -> Tensor:
    """[count] probabilities; None: uniform."""
    if weight is None:
        return like.new_full((count,), 1 / count)
    check_shape("weight", "weight", weight, (count,))
    return weight
