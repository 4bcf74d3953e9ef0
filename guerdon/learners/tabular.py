# SPDX-License-Identifier: Apache-2.0
"""REINFORCE with a table of logits: the gradient in closed form, and rounds of walking and stepping."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from guerdon.credit import return_to_go
from guerdon.errors import check_shape
from guerdon.rollouts import Rollouts
from guerdon.worlds.tables import Table


def softmax_gradient(
    logits: Tensor,
    state: Tensor,
    action: Tensor,
    reward: Tensor,
    mask: Tensor,
    episode: Tensor,
    gamma: float | Tensor = 1.0,
    *,
    decay: float = 0.0,
) -> Tensor:
    """1/N Σ_{n, t} ∇log π(a|s) G - decay logits, [S, A], with G the return-to-go and ∇log π(a|s) = onehot(a) - π(·|s) in row s.

    ``logits`` [S, A]; ``state``, ``action`` [N, T] int64; ``reward`` [N, T]; ``mask`` [N, T] bool; ``episode`` [N, T] int64.
    Differentiable in the logits, the reward and ``gamma``; that the episodes depend on the logits too is left out.

    >>> one = torch.zeros(1, 1, dtype=torch.long)
    >>> softmax_gradient(torch.zeros(1, 2), one, one, torch.tensor([[3.]]), one == 0, one).tolist()
    [[1.5, -1.5]]
    """
    check_shape("softmax_gradient", "logits", logits, (None, None))
    for name, x in {"state": state, "action": action, "mask": mask}.items():
        check_shape("softmax_gradient", name, x, tuple(reward.shape))
    returns = torch.where(mask, return_to_go(reward, mask, episode, gamma=gamma), 0)
    state, action = torch.where(mask, state, 0), torch.where(mask, action, 0)
    score = one_hot(action, logits.shape[1]).to(logits.dtype) - logits.softmax(-1)[state]
    pushed = (returns[..., None] * score).flatten(0, 1)
    return torch.zeros_like(logits).index_add(0, state.flatten(), pushed) / len(mask) - decay * logits


def rounds_of_walks(
    table: Table,
    update: Callable[[Tensor, Rollouts], Tensor],
    *,
    lr: float,
    seed: int,
    rounds: int,
    episodes: int,
    limit: int,
) -> Iterator[Tensor]:
    """After each round the logits [S, A]: ``episodes`` walks with their softmax, then logits + lr ``update(logits, walks)``.

    They begin at 0. ``update`` may learn from what it is shown, e.g. what to reward next.
    """
    from guerdon.worlds.walking import walks

    logits = torch.zeros(table.states, table.actions, dtype=torch.float64)
    for k in range(rounds):
        rows = walks(table, logits.softmax(-1), episodes=episodes, limit=limit, seed=seed * rounds + k)
        logits = logits + lr * update(logits, rows).detach()
        yield logits
