# SPDX-License-Identifier: Apache-2.0
"""Proxy against gold against KL: what is trained on, what is meant, and how far the policy has gone from its start.

Over x = sqrt(KL(policy || start)) a proxy that is being hacked goes on rising while the gold turns and falls (Gao, Schulman and
Hilton 2022, arXiv 2210.10760). The golds are the watched oracles of a reward: ``reward + oracle(true).watch()``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.audit.watches.statistics import Trend, trend
from guerdon.rewards.evaluating import additive, unique_names, visible
from guerdon.rewards.node import Reward
from guerdon.rewards.oracle import Oracle
from guerdon.rollouts import Rollouts
from guerdon.scores import Component, Status

Array = np.ndarray


def gold_names(reward: Any) -> list[str]:
    """The names that a reward's oracles have in its trace."""
    if not isinstance(reward, Reward):
        return []
    names = unique_names(visible(reward, additive(reward, 0)))
    return [name for node, name in names.items() if isinstance(node, Oracle)]


def row_totals(c: Component) -> Tensor:
    """[N] the sum over each row's units, float64; NaN where a unit is not ok or there is none."""
    there = c.status != Status.NONE
    whole = (c.ok | ~there).all(1) & there.any(1)
    return torch.where(c.ok, c.values, 0).double().sum(1).where(whole, torch.nan)


def kl_from_start(rollouts: Rollouts, start_log_prob: Tensor) -> float:
    """KL(policy || start), nats a row: the mean over rows of sum_t (log_prob_t - start_log_prob_t), steps that the policy took.

    An unbiased estimate on the policy's own rows; below 0 only by noise.
    """
    assert rollouts.log_prob is not None  # the caller saw there is one
    apart = torch.where(rollouts.mask, rollouts.log_prob.double() - start_log_prob.double(), 0)
    return apart.sum(1).mean().item()


def divergence(proxy: Array, gold: Array, level: float) -> tuple[Trend, Trend] | None:
    """(trend of the proxy, of the gold) where the one rises and the other falls, each at ``level`` / 2; else None.

    Looked for in the whole series and in its second half, so that a gold that first rises is seen to fall. Where either test
    alone is right, a false alarm has probability ``level`` at most.
    """
    for part in (slice(None), slice(len(gold) // 2, None)):
        up, down = trend(proxy[part]), trend(gold[part])
        if up.z > 0 > down.z and max(up.p, down.p) / 2 < level / 2:
            return up, down
    return None
