# SPDX-License-Identifier: Apache-2.0
"""Regression of differences of log-ratios on differences in preference or reward, pair by pair."""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.errors import check_shape
from guerdon.objectives.loss import Loss, counted_only, mean_parts


def squared_log_ratio(
    log_prob: Tensor,
    ref_log_prob: Tensor,
    mask: Tensor,
    first: Tensor,
    second: Tensor,
    target: Tensor,
    *,
    beta: float | Tensor = 0.1,
) -> Loss:
    """(target - 1/2 - beta (s_first - s_second))^2 per pair, s a row's sum of log_prob - ref_log_prob over its counted steps.

    ``log_prob``, ``ref_log_prob``, ``mask`` [N, T]; ``first``, ``second`` [P] int64, rows; ``target`` [P] the probability that
    the first is better (NaN: not judged, does not count); ``beta`` in probability per nat. Metric ``accuracy``: the share of
    pairs, ties left out, in which the better one leads.

    It is beta^2 times the loss of IPO: Azar et al. 2023, arXiv:2310.12036, equation 17, with its tau = beta.

    >>> log_prob, yes = torch.tensor([[-1.0], [-3.0]]), torch.ones(2, 1, dtype=torch.bool)
    >>> loss = squared_log_ratio(log_prob, torch.zeros(2, 1), yes, torch.tensor([0]), torch.tensor([1]), torch.tensor([1.0]))
    >>> round(loss.value.item(), 4)  # (0.5 - 0.1 * 2)^2
    0.09
    """
    log_prob, ref_log_prob = counted_only("squared_log_ratio", mask, log_prob=log_prob, ref_log_prob=ref_log_prob)
    check_shape("squared_log_ratio", "target", target, tuple(first.shape), "targets of other pairs")
    score = (log_prob - ref_log_prob).sum(1)
    lead, judged = score[first] - score[second], ~target.isnan()
    wanted = torch.where(judged, target, 0.5).to(lead.dtype) - 0.5
    value = torch.where(judged, (wanted - beta * lead) ** 2, 0)
    right = (wanted * lead > 0).to(lead.dtype)
    return Loss(value, "pair", judged, {"accuracy": mean_parts(right, judged & (wanted != 0))})
