# SPDX-License-Identifier: Apache-2.0
"""Credit for rewards in units of their own."""

from __future__ import annotations

from torch import Tensor

from guerdon.credit.returns import by_row, gae


@by_row
def scaled_gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    mask: Tensor,
    episode: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    scale: float | Tensor,
    gamma: float | Tensor = 1.0,
    lam: float | Tensor = 1.0,
) -> Tensor:
    """`gae` of ``scale`` x ``reward``, [N, T]; the values are of scaled rewards.

    >>> import torch
    >>> one, yes = torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
    >>> scaled_gae(6 * one, one, 2 * one, yes, torch.zeros(1, 1, dtype=torch.long), ~yes, yes, scale=0.5, gamma=0.5).tolist()
    [[3.0]]
    """
    return gae(scale * reward, value, mask, episode, terminated, truncated, gamma=gamma, lam=lam, next_value=next_value)
