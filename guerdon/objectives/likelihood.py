# SPDX-License-Identifier: Apache-2.0
"""Imitation: make given actions probable."""

from __future__ import annotations

from torch import Tensor

from guerdon.objectives.loss import Loss, counted_only


def negative_log_likelihood(log_prob: Tensor, mask: Tensor) -> Loss:
    """-log_prob per step, in nats; both [N, T]. Supervised fine-tuning and behaviour cloning.

    >>> import torch
    >>> negative_log_likelihood(torch.tensor([[-1., -2.]]), torch.tensor([[True, False]])).value.tolist()
    [[1.0, 0.0]]
    """
    (log_prob,) = counted_only("negative_log_likelihood", mask, log_prob=log_prob)
    return Loss(0 - log_prob, "step", mask)
