# SPDX-License-Identifier: Apache-2.0
"""Offline learning and imitation in a table: where advantage-weighted policies have a closed form, and two baselines.

``expert`` and ``others`` are steps [M, 3] int64 of (state, action, next state).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def counts(steps: Tensor, states: int, actions: int) -> Tensor:
    """[S, A] the share of ``steps`` [M, 3] in each pair of state and action."""
    number = torch.zeros(states, actions, dtype=torch.float64)
    return number.index_put((steps[:, 0], steps[:, 1]), torch.ones(len(steps), dtype=torch.float64), accumulate=True) / len(steps)


def weighted_policy(q: Tensor, value: Tensor, share: Tensor, beta: float) -> Tensor:
    """pi(a|s) = share min(exp(beta (Q - V)), 100) / their sum over a, [S, A]; uniform in states without a share.

    What advantage-weighted likelihood converges to in a table. ``share`` [S, A]: how often the data have each pair.

    >>> weighted_policy(torch.zeros(1, 2), torch.zeros(1), torch.tensor([[3., 1.]]), 1.0).tolist()
    [[0.75, 0.25]]
    """
    weight = share * (beta * (q - value[:, None])).exp().clamp(max=100)
    total = weight.sum(-1, keepdim=True)
    return torch.where(total > 0, weight / total, 1 / q.shape[1])


def cloned(expert: Tensor, others: Tensor, states: int, actions: int) -> Iterator[Tensor]:
    """Behaviour cloning of the expert: its counts."""
    yield from [weighted_policy(torch.zeros(states, actions), torch.zeros(states), counts(expert, states, actions), 0.0)] * 1000


def discriminated(
    dual: Callable[[Tensor], Tensor],
    expert: Tensor,
    others: Tensor,
    states: int,
    actions: int,
    *,
    gamma: float = 0.95,
    lr: float = 0.05,
) -> Iterator[Tensor]:
    """r = log(d_E / d_S) of a discriminator fitted to both, then Q, V (by the loss ``dual`` of Q - V) and policy of all
    steps with that reward."""
    e, s = (counts(x, states, actions) + 1e-3 for x in (expert, others))
    reward, steps = (e / s).log().clamp(-5, 5), torch.cat([expert, others])
    share = counts(steps, states, actions)
    q, value = (torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in ((states, actions), (states,)))
    optimiser = torch.optim.Adam([q, value], lr=lr)
    for _ in range(1000):
        of, a, after = steps.unbind(1)
        error = ((reward[of, a] + gamma * value.detach()[after] - q[of, a]) ** 2).mean()
        up = dual(q.detach() - value[:, None])
        optimiser.zero_grad()
        (error + (share * up).sum()).backward()
        optimiser.step()
        yield weighted_policy(q.detach(), value.detach(), share, 3.0)
