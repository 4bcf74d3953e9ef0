# SPDX-License-Identifier: Apache-2.0
"""Policy gradients: make what turned out better than expected more probable."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guerdon.errors import ExpressionError
from guerdon.levels import pool, spread
from guerdon.objectives.loss import Loss, counted_only, means_parts, writes_slope


@writes_slope("log_prob")
def reinforce(log_prob: Tensor, advantage: Tensor, mask: Tensor) -> Loss:
    """-advantage log_prob per step.

    All [N, T]. Its gradient is an unbiased policy gradient while the actions come from the policy that ``log_prob`` belongs to.

    Williams 1992, Simple statistical gradient-following algorithms for connectionist reinforcement learning.

    >>> reinforce(torch.tensor([[-1., -2.]]), torch.tensor([[3., 5.]]), torch.tensor([[True, False]])).value.tolist()
    [[3.0, 0.0]]
    """
    log_prob, advantage = counted_only("reinforce", mask, log_prob=log_prob, advantage=advantage)
    value = 0 - advantage * log_prob
    return Loss(value, "step", mask, slope=None if value.requires_grad else {"log_prob": -advantage})


@writes_slope("log_prob")
def clipped_surrogate(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    clip_low: float | Tensor = 0.2,
    clip_high: float | Tensor = 0.2,
    level: Tensor | None = None,
    ratio: str = "mean",
) -> Loss:
    """-min(rho advantage, clip(rho, 1 - clip_low, 1 + clip_high) advantage) per step, rho = exp(log_prob - old_log_prob).

    All tensors [N, T]; ``old_log_prob`` belongs to the distribution the actions were sampled from. With ``level`` [N, T] rho is
    one per unit, the exponential of the ``ratio`` ("mean" or "sum") over the unit's counted steps of the log-ratio, copied to
    them: level = episode with "mean" is GSPO, with "sum" the importance ratio of the whole episode. Counted steps of no unit
    leave the mask.

    The gradient is 0 where rho is above 1 + clip_high and the advantage positive, or below 1 - clip_low and the advantage
    negative. Where the two policies agree it is that of `reinforce`. Infinite clips don't clip.

    Metrics: ``clip_low``, ``clip_high`` share of steps clipped at either end; ``ratio`` mean of rho; ``approx_kl`` the mean per
    step of exp(d) - 1 - d, d = log_prob - old_log_prob, an estimate of KL(old || new) in nats, whatever the level.

    Schulman et al. 2017, arXiv:1707.06347, equation 7; two clips: Yu et al. 2025 (DAPO), arXiv:2503.14476; ratio per sequence:
    Zheng et al. 2025 (GSPO), arXiv:2507.18071.

    >>> log_prob, yes = torch.tensor([[1.5, 0.5, 1.5]]).log(), torch.tensor([[True, True, True]])
    >>> loss = clipped_surrogate(log_prob, torch.zeros(1, 3), torch.tensor([[1., -1., -1.]]), yes)
    >>> [round(x, 4) for x in loss.value[0].tolist()]
    [-1.2, 0.8, 1.5]
    """
    if ratio not in ("mean", "sum"):
        raise ExpressionError(f"clipped_surrogate: `ratio` should be 'mean' or 'sum', got {ratio!r}.")
    log_prob, old_log_prob, advantage = counted_only(
        "clipped_surrogate", mask, log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage
    )
    step_log_ratio = log_ratio = log_prob - old_log_prob
    if level is not None:
        mask = mask & (level >= 0)
        size = pool(mask.to(log_ratio.dtype), level, "sum", mask).clamp(min=1) if ratio == "mean" else 1
        log_ratio = spread(pool(log_ratio, level, "sum", mask) / size, level, "copy", mask)
        advantage = torch.where(mask, advantage, 0)
    # Clipped before exp: a ratio that overflows where it would be clipped must not make its gradient 0 * inf.
    up = advantage >= 0
    least, most = _log(1 - clip_low, log_ratio), _log(1 + clip_high, log_ratio)
    bounded = torch.where(up, log_ratio.clamp(max=most), log_ratio.clamp(min=least))
    value = -advantage * bounded.exp()
    with torch.no_grad():
        outside = log_ratio != bounded
        metrics = means_parts(
            mask,
            clip_low=outside & ~up,
            clip_high=outside & (advantage > 0),
            ratio=log_ratio.exp(),
            approx_kl=step_log_ratio.expm1() - step_log_ratio,
        )
    if value.requires_grad:
        return Loss(value, "step", mask, metrics)
    slope = torch.where(outside, 0, value)
    if level is not None:
        slope = spread(pool(slope, level, "sum", mask) / size, level, "copy", mask)
    return Loss(value, "step", mask, metrics, {"log_prob": slope})


def _log(ratio: float | Tensor, like: Tensor) -> float | Tensor:
    """log of a bound on a ratio; -inf, no bound, where it is 0 or less."""
    if isinstance(ratio, Tensor):
        return ratio.clamp(min=0).log().to(like)
    return math.log(ratio) if ratio > 0 else -math.inf
