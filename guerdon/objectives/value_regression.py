# SPDX-License-Identifier: Apache-2.0
"""Regression of a value on targets by losses other than the square: robust ones, and asymmetric ones that stop near the maximum.

All are functions of the error of ``target`` over ``value``; ``value``, ``target`` and ``mask`` are [N, T].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guerdon.objectives.loss import Loss, counted_only


def huber_loss(value: Tensor, target: Tensor, mask: Tensor, *, delta: float = 20.0) -> Loss:
    """error^2 / 2 while |error| <= delta, then delta (|error| - delta / 2), error = target - value.

    Huber 1964, Robust estimation of a location parameter.

    >>> yes = torch.ones(1, 2, dtype=torch.bool)
    >>> huber_loss(torch.zeros(1, 2), torch.tensor([[3., -30.]]), yes, delta=20).value.tolist()
    [[4.5, 400.0]]
    """
    value, target = counted_only("huber_loss", mask, value=value, target=target)
    return Loss(torch.nn.functional.huber_loss(value, target, reduction="none", delta=delta), "step", mask)


def expectile_loss(value: Tensor, target: Tensor, mask: Tensor, *, tau: float | Tensor = 0.7) -> Loss:
    """|tau - 1[error < 0]| error^2, error = target - value; ``tau`` in (0, 1).

    Its minimiser is the tau-expectile of the targets: the mean at 1/2, the maximum as tau goes to 1.

    Kostrikov et al. 2021 (IQL), arXiv:2110.06169, equation 3.

    >>> yes = torch.ones(1, 2, dtype=torch.bool)
    >>> expectile_loss(torch.zeros(1, 2), torch.tensor([[2., -2.]]), yes, tau=0.9).value
    tensor([[3.6000, 0.4000]])
    """
    value, target = counted_only("expectile_loss", mask, value=value, target=target)
    error = target - value
    return Loss((tau - (error < 0).to(error.dtype)).abs() * error**2, "step", mask)


def gumbel_loss(value: Tensor, target: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Loss:
    """exp(z) - z - 1, z = (target - value) / temperature; ``temperature`` > 0 in the units of the value.

    Its minimiser is temperature log mean exp(target / temperature): the mean for large temperatures, the maximum as it goes to 0.
    The exponential overflows where a target lies far above the value. Source: Garg et al. 2023 (XQL), arXiv:2301.02328.

    >>> gumbel_loss(torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)).value
    tensor([[0.7183]])
    """
    value, target = counted_only("gumbel_loss", mask, value=value, target=target)
    z = (target - value) / temperature
    return Loss(z.exp() - z - 1, "step", mask)


def rescaled_gumbel_loss(
    value: Tensor, target: Tensor, mask: Tensor, *, temperature: float = 1.0, clip: float = math.inf
) -> Loss:
    """exp(-m) `gumbel_loss` with z no larger than ``clip``, m = max(-1, the largest z of the batch) without gradient.

    What XQL's code descends on so as not to overflow: the rate of learning falls by exp(-m), and a target more than ``clip``
    temperatures above the value pulls no more. Steps that don't count are not looked at for m.

    >>> yes = torch.ones(1, 2, dtype=torch.bool)
    >>> rescaled_gumbel_loss(torch.zeros(1, 2), torch.tensor([[1000., 0.]]), yes, clip=7).value
    tensor([[0.9927, 0.0000]])
    """
    value, target = counted_only("rescaled_gumbel_loss", mask, value=value, target=target)
    z = ((target - value) / temperature).clamp(max=clip)
    largest = torch.where(mask, z, -1.0).detach().amax().clamp(min=-1.0)
    loss = (z - largest).exp() - (z + 1) * (-largest).exp()
    return Loss(torch.where(mask, loss, 0), "step", mask)
