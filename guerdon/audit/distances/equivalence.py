# SPDX-License-Identifier: Apache-2.0
"""What may be done to a reward without changing which policies are better than which, and tables that go on for ever.

In all of this package, in float64 unless the caller has it otherwise:

    reward      [..., S, A, S]  R(s, a, s'); dimensions in front are a batch
    transition  [S, A, S]       τ(s'|s, a)
    gamma       in [0, 1)
"""

from __future__ import annotations

from torch import Tensor, eye, where

from guerdon.errors import InputError, check_shape
from guerdon.worlds.tables import Table


def expected(reward: Tensor, transition: Tensor) -> Tensor:
    """r(s, a) = Σ_s' τ(s'|s, a) R(s, a, s'), [..., S, A]."""
    return (transition * reward).sum(-1)


def shaped(reward: Tensor, potential: Tensor, gamma: float) -> Tensor:
    """R(s, a, s') + γ φ(s') - φ(s): every policy's return moves by -E φ(s₀). ``potential`` [..., S].

    Ng, Harada and Russell 1999.

    >>> import torch
    >>> shaped(torch.zeros(2, 1, 2), torch.tensor([1.0, 10.0]), 0.5)[:, 0].tolist()
    [[-0.5, 4.0], [-9.5, -5.0]]
    """
    return reward + gamma * potential[..., None, None, :] - potential[..., :, None, None]


def redistributed(reward: Tensor, transition: Tensor, noise: Tensor) -> Tensor:
    """R + noise - E_τ noise: another reward of each s', the same on average. ``noise`` as ``reward``.

    Where τ is 0 anything may be added: no policy ever sees it.

    >>> import torch
    >>> both = torch.full((2, 1, 2), 0.5)
    >>> redistributed(torch.zeros(2, 1, 2), both, torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]))[0].tolist()
    [[-1.0, 1.0]]
    """
    return reward + noise - expected(noise, transition)[..., None]


def unending(table: Table) -> tuple[Tensor, Tensor]:
    """(reward [S, A, S], transition) of a table whose terminal states lead to themselves and pay nothing.

    The distances are about decisions that never end. A potential has to be 0 in a terminal state, as it does where episodes end.
    """
    stay = table.terminal[:, None, None]
    transition = where(stay, eye(table.states, dtype=table.transition.dtype)[:, None], table.transition)
    reward = table.reward if table.reward.dim() == 3 else table.reward[..., None].expand_as(transition)
    return where(stay, 0.0, reward), transition


def check(whose: str, reward: Tensor, transition: Tensor, gamma: float) -> None:
    """ShapeError or InputError unless the three belong together."""
    check_shape(whose, "transition", transition, (None, None, transition.shape[0]))
    check_shape(whose, "reward", reward, (*[None] * (reward.dim() - 3), *transition.shape), "a reward of states alone; expand it")
    check_gamma(whose, gamma)


def check_gamma(whose: str, gamma: float) -> None:
    if not 0 <= gamma < 1:
        raise InputError(f"{whose}: `gamma` should be at least 0 and below 1, got {gamma}. Usual cause: an undiscounted task.")
