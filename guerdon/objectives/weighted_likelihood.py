# SPDX-License-Identifier: Apache-2.0
"""Imitation of what was better than expected."""

from __future__ import annotations

from torch import Tensor

from guerdon.objectives.loss import Loss, counted_only, mean_parts


def advantage_weighted_likelihood(
    log_prob: Tensor, advantage: Tensor, mask: Tensor, *, beta: float | Tensor = 3.0, max_weight: float = 100.0
) -> Loss:
    """-min(exp(beta advantage), max_weight) log_prob per step; all [N, T].

    ``beta`` 0 is `negative_log_likelihood`. Metrics: ``weight`` its mean, ``clip_weight`` the share of steps at ``max_weight``.
    Source: Peng et al. 2019 (AWR), arXiv:1910.00177; the cap as in Kostrikov et al. 2021 (IQL), arXiv:2110.06169.

    >>> import torch
    >>> log_prob, advantage = torch.tensor([[-1., -1.]]), torch.tensor([[0.5, 9.]])
    >>> advantage_weighted_likelihood(log_prob, advantage, torch.ones(1, 2, dtype=torch.bool)).value
    tensor([[  4.4817, 100.0000]])
    """
    log_prob, advantage = counted_only("advantage_weighted_likelihood", mask, log_prob=log_prob, advantage=advantage)
    weight = (beta * advantage).exp().clamp(max=max_weight)
    metrics = {"weight": mean_parts(weight, mask), "clip_weight": mean_parts((weight >= max_weight).to(weight.dtype), mask)}
    return Loss(0 - weight * log_prob, "step", mask, metrics)
