# SPDX-License-Identifier: Apache-2.0
"""Regression of a value function on returns."""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.objectives.loss import Loss, counted_only, mean_parts, writes_slope


@writes_slope("value")
def value_loss(value: Tensor, return_: Tensor, mask: Tensor) -> Loss:
    """(value - return_)^2 / 2 per step; all [N, T]. Metric ``value_error``: the mean squared error.

    >>> value_loss(torch.tensor([[1., 4.]]), torch.tensor([[3., 0.]]), torch.tensor([[True, False]])).value.tolist()
    [[2.0, 0.0]]
    """
    value, return_ = counted_only("value_loss", mask, value=value, return_=return_)
    apart = value - return_
    error = apart**2
    slope = None if error.requires_grad else {"value": apart}
    return Loss(error / 2, "step", mask, {"value_error": mean_parts(error, mask)}, slope)


def clipped_value_loss(value: Tensor, old_value: Tensor, return_: Tensor, mask: Tensor, *, clip: float | Tensor = 0.2) -> Loss:
    """max((value - return_)^2, (clipped - return_)^2) / 2 per step, clipped = old_value + clip(value - old_value, -clip, clip).

    All [N, T]; ``clip`` in the units of the value, which is why it suits normalised returns only. An infinite ``clip`` gives
    `value_loss`. Metrics: ``value_error`` the mean of (value - return_)^2; ``clip_value`` the share of steps clipped.

    Schulman et al. 2017, in the reference implementation of arXiv:1707.06347 (OpenAI Baselines), not in the paper.

    >>> one = torch.ones(1, 1)
    >>> round(clipped_value_loss(2 * one, one, 3 * one, one.bool()).value.item(), 4)  # unclipped it is 0.5
    1.62
    """
    value, old_value, return_ = counted_only("clipped_value_loss", mask, value=value, old_value=old_value, return_=return_)
    limit = torch.as_tensor(clip, dtype=value.dtype, device=value.device)
    clipped = old_value + torch.minimum(torch.maximum(value - old_value, -limit), limit)
    error = (value - return_) ** 2
    metrics = {
        "value_error": mean_parts(error, mask),
        "clip_value": mean_parts(((value - old_value).abs() > limit).to(value.dtype), mask),
    }
    return Loss(torch.maximum(error, (clipped - return_) ** 2) / 2, "step", mask, metrics)
