# SPDX-License-Identifier: Apache-2.0
"""Objectives of policies that generate along a flow."""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.errors import check_shape
from guerdon.objectives.loss import Loss, counted_only, mean_parts


def flow_matching(velocity: Tensor, target_velocity: Tensor, mask: Tensor) -> Loss:
    """|velocity - target_velocity|^2 / D per step: regression on the velocity of the straight path from data to noise.

    ``velocity``, ``target_velocity`` [N, T, D], the target being noise - data; ``mask`` [N, T]. The minimum is the mean velocity
    at a point, whose flow carries noise to the data's distribution. Divided by D, so that a learning rate suits every size.

    Lipman et al. 2022, arXiv:2210.02747, equation 23; Liu et al. 2022, arXiv:2209.03003, equation 1.

    >>> velocity, target = torch.tensor([[[1., 2.]]]), torch.tensor([[[0., 4.]]])
    >>> flow_matching(velocity, target, torch.tensor([[True]])).value.tolist()
    [[2.5]]
    """
    check_shape("flow_matching", "velocity", velocity, (*mask.shape, None), "a velocity per row instead of per step")
    check_shape("flow_matching", "target_velocity", target_velocity, tuple(velocity.shape), "targets of other data")
    error = (torch.where(mask[..., None], velocity - target_velocity, 0) ** 2).mean(-1)
    return Loss(error, "step", mask, {"flow_error": mean_parts(error, mask)})


def exact_kl(kl: Tensor, mask: Tensor) -> Loss:
    """kl per step, where the policy knows KL(policy || reference) in closed form, in nats; both [N, T]. Metric ``kl``: its mean.

    >>> exact_kl(torch.tensor([[0.5, 9.]]), torch.tensor([[True, False]])).value.tolist()
    [[0.5, 0.0]]
    """
    (kl,) = counted_only("exact_kl", mask, kl=kl)
    return Loss(kl, "step", mask, {"kl": mean_parts(kl, mask)})
