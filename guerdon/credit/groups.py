# SPDX-License-Identifier: Apache-2.0
"""Credit by comparison: how much better than the others of its group, or of the batch.

What papers and libraries call GRPO differs by baseline, degrees of freedom and what is divided by. On one group with rewards 1,
0, 0, 0 the first advantage is

    +1.5     scale="std"                             Shao et al. 2024 with the sample standard deviation
    +1.7321  scale="std", ddof=0
    +1       scale="std", baseline="leave_one_out"   mean and deviation of the other members, undivided where theirs is 0
    +1       baseline="leave_one_out"                RLOO
    +0.75                                            Dr. GRPO
"""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.credit.returns import return_to_go
from guerdon.errors import ExpressionError, InputError, ShapeError, check_shape
from guerdon.levels import pool, spread, unit_mask

_CHOICES = {
    "baseline": ("mean", "leave_one_out", "none"),
    "scale": ("none", "std"),
    "ddof": (0, 1),
    "scale_by": ("group", "batch"),
    "singleton": ("drop", "zero", "raise"),
}


def group_relative(
    reward: Tensor,
    mask: Tensor,
    group: Tensor,
    *,
    baseline: str = "mean",
    scale: str = "none",
    ddof: int = 1,
    eps: float | Tensor = 0.0,
    scale_by: str = "group",
    singleton: str = "drop",
    level: Tensor | None = None,
) -> Tensor:
    """A row's total reward relative to its group's, on each of its counted steps, [N, T].

    ``reward`` [N, T]; ``mask`` [N, T] bool; ``group`` [N] int64, of any size and in any order; a row is one episode. A row with a
    reward that is not finite is NaN and its group does without it; a row without a counted step takes no part. The other
    arguments are those of `center_by_group`.

    With ``level`` [N, T] (turns, say) the reward is summed in each unit, and the return-to-go from each unit on is compared with
    that of the members of the group at the same unit index; members that ended earlier don't enter. When this is biased:

    - ``scale="none"``: not in direction. The other members' returns don't depend on what this one does, so their mean is a
      baseline. Two factors remain, both positive and free of the row's own actions: (n - 1) / n where the mean includes the row
      (``baseline="leave_one_out"`` has none), and the chance not to be alone at this unit, so late units weigh less.
    - ``scale="std"``: yes, as for whole rows. The deviation depends on the row's own actions and differs from unit to unit.
    - Centring each unit's *reward* and summing afterwards (which this function does not do): yes where the policy decides when to
      stop, since then an extra unit is worth minus the mean intermediate reward. Rollouts (0), (0), (0, 1), (0, 1) would get 0
      everywhere, although going on pays 1. Centred returns say so:

    >>> reward = torch.tensor([[0., 0.], [0., 0.], [0., 1.], [0., 1.]]); group = torch.zeros(4, dtype=torch.long)
    >>> turn = torch.tensor([[0, -1], [0, -1], [0, 1], [0, 1]])
    >>> group_relative(reward, turn >= 0, group, level=turn).tolist()
    [[-0.5, 0.0], [-0.5, 0.0], [0.5, 0.0], [0.5, 0.0]]
    >>> group_relative(reward, turn >= 0, group, scale="std", ddof=0).tolist()
    [[-1.0, 0.0], [-1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
    """
    check_shape("group_relative", "reward", reward, (None, None), "a reward per row instead of per step")
    check_shape("group_relative", "mask", mask, tuple(reward.shape), "a mask per row instead of per step")
    check_shape("group_relative", "group", group, (reward.shape[0],), "a group per step instead of per row")
    _check_mask("group_relative", mask)
    if level is None:
        total, counted = torch.where(mask, reward, 0).sum(1, keepdim=True), mask.any(1, keepdim=True)
    else:
        one = torch.where(mask, 0, -1)
        returns = return_to_go(reward, mask, one, level=level)
        total, counted = pool(returns, level, "first", mask), unit_mask(level, mask)
    members = torch.unique(group, return_inverse=True)[1]
    index = members[:, None] * total.shape[1] + torch.arange(total.shape[1], device=group.device)
    centred = center_by_group(
        total[counted],
        index[counted],
        baseline=baseline,
        scale=scale,
        ddof=ddof,
        eps=eps,
        scale_by=scale_by,
        singleton=singleton,
    )
    advantage = torch.zeros_like(total).masked_scatter(counted, centred)
    return torch.where(mask, advantage, 0) if level is None else spread(advantage, level, "copy", mask)


def center_by_group(
    x: Tensor,
    group: Tensor,
    *,
    baseline: str = "mean",
    scale: str = "none",
    ddof: int = 1,
    eps: float | Tensor = 0.0,
    scale_by: str = "group",
    singleton: str = "drop",
) -> Tensor:
    """Each number relative to those of its group, [U].

    (x_u - baseline_u) / (deviation_u + eps)

    ``x`` [U]; ``group`` [U] int64, any ids, sizes and order. Numbers that are not finite stay out of the statistics and come back
    NaN.

    ``baseline``   the ``mean`` of the group; ``leave_one_out``, of its other members; ``none``, 0.
    ``scale``      ``none``: no division; ``std``: the standard deviation, with ``ddof`` 0 or 1, of those the baseline is taken
                   over (``leave_one_out``: the other members; otherwise the whole group).
    ``scale_by``   ``batch``: the deviation is that of all x, before the baseline is subtracted.
    ``singleton``  a number alone in its group has nothing to be compared with: ``drop`` makes it NaN, ``zero`` 0, ``raise`` an
                   error. It does not matter where neither baseline nor deviation is the group's.

    A deviation of 0 is not divided by, whatever ``eps``, and equal numbers have exactly that: rounding in their mean can't become
    an advantage of 1. Numbers that differ by rounding themselves (the same total, added up in another order) do differ, and
    ``scale="std"`` alone makes advantages of about 1 of that; give an ``eps`` where rewards are sums of many parts.

    >>> x, one = torch.tensor([1., 0., 0., 0.]), torch.zeros(4, dtype=torch.long)
    >>> [round(center_by_group(x, one, **how)[0].item(), 4) for how in ({}, {"scale": "std"}, {"scale": "std", "ddof": 0})]
    [0.75, 1.5, 1.7321]
    >>> center_by_group(torch.tensor([1., 3., 5., torch.nan]), torch.tensor([7, 2, 7, 7])).tolist()
    [-2.0, nan, 2.0, nan]
    """
    check_shape("center_by_group", "x", x, (None,), "steps or rows where numbers in one line belong")
    check_shape("center_by_group", "group", group, tuple(x.shape), "groups of another batch")
    chosen = {"baseline": baseline, "scale": scale, "ddof": ddof, "scale_by": scale_by, "singleton": singleton}
    for name, given in chosen.items():
        if given not in _CHOICES[name]:
            raise ExpressionError(f"center_by_group: `{name}` should be one of {_CHOICES[name]}, got {given!r}.")

    ok = x.isfinite()
    # The others' deviation is a difference of sums, and bfloat16 can't count beyond 256; Apple's GPUs have no float64.
    wide = torch.where(ok, x, 0).to(torch.float32 if x.device.type == "mps" else torch.float64)
    ids, index = torch.unique(group, return_inverse=True)
    n, centred = _centred(wide, ok, index, len(ids))
    eps = torch.as_tensor(eps, dtype=wide.dtype, device=wide.device)
    result = {"mean": centred, "leave_one_out": centred * n / (n - 1).clamp(min=1), "none": wide}[baseline]
    if scale == "std" and scale_by == "group":
        result = result / _divisor(wide, centred, ok, index, n, baseline == "leave_one_out", ddof, eps)
    elif scale == "std":
        all_n, all_centred = _centred(wide, ok, torch.zeros_like(index), 1)
        result = result / _divisor(wide, all_centred, ok, torch.zeros_like(index), all_n, False, ddof, eps)

    if baseline != "none" or (scale == "std" and scale_by == "group"):
        alone = ok & (n == 1)
        if singleton == "raise" and alone.any():
            raise InputError(
                f"center_by_group: every group should have at least 2 members with a finite number, {int(alone.sum())} have 1 "
                f"(the first: group {int(group[alone][0])}). Usual cause: one rollout per task, or all others failed."
            )
        result = torch.where(alone, 0 if singleton == "zero" else torch.nan, result)
    return torch.where(ok, result, torch.nan).to(x.dtype)


def whiten(advantage: Tensor, mask: Tensor, *, ddof: int = 1, eps: float | Tensor = 1e-8) -> Tensor:
    """Mean 0 and standard deviation 1 over all counted steps, [N, T]: (advantage - mean) / (deviation + eps).

    ``advantage`` [N, T]; ``mask`` [N, T] bool. NaN is left out of both statistics and stays NaN, masked steps are 0. Equal
    advantages become 0; a single one has no deviation and becomes NaN.

    >>> whiten(torch.tensor([[1., 2.], [3., 9.]]), torch.tensor([[True, True], [True, False]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    check_shape("whiten", "mask", mask, tuple(advantage.shape), "a mask per row instead of per step")
    _check_mask("whiten", mask)
    x = advantage[mask]
    one = torch.zeros(len(x), dtype=torch.long, device=x.device)
    return torch.zeros_like(advantage).masked_scatter(mask, center_by_group(x, one, scale="std", ddof=ddof, eps=eps))


def _check_mask(whose: str, mask: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise ShapeError(f"{whose}: `mask` should be bool, got {mask.dtype}. Usual cause: a 0/1 tensor, use `mask.bool()`.")


def _sum(x: Tensor, index: Tensor, groups: int) -> Tensor:
    """The sum over each group, given to each of its members."""
    return torch.zeros(groups, dtype=x.dtype, device=x.device).scatter_add(0, index, x)[index]


def _extreme(x: Tensor, ok: Tensor, index: Tensor, groups: int, how: str) -> Tensor:
    worst = torch.inf if how == "amin" else -torch.inf
    best = torch.full((groups,), worst, dtype=x.dtype, device=x.device)
    return best.scatter_reduce(0, index, torch.where(ok, x, worst), how)[index]


def _centred(x: Tensor, ok: Tensor, index: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Members of each number's group that are ok, and the number minus their mean (exactly 0 where all are equal)."""
    n = _sum(ok.long(), index, groups)
    above = torch.where(ok, x - _extreme(x, ok, index, groups, "amin"), 0)
    return n, torch.where(ok, above - _sum(above, index, groups) / n.clamp(min=1), 0)


def _divisor(
    x: Tensor, centred: Tensor, ok: Tensor, index: Tensor, n: Tensor, leave_one_out: bool, ddof: int, eps: Tensor
) -> Tensor:
    """deviation + eps, and 1 where the deviation is 0."""
    groups = int(index.max()) + 1 if len(index) else 0
    squares, same = _sum(centred**2, index, groups), torch.zeros_like(ok)
    if leave_one_out:
        squares = squares - centred**2 * n / (n - 1).clamp(min=1)  # since the others' mean is -centred / (n - 1)
        low, high = (_extreme(x, ok, index, groups, how) for how in ("amin", "amax"))
        at_low, at_high = (_sum((ok & (x == edge)).long(), index, groups) for edge in (low, high))
        same = ((x == high) & (at_low == n - 1)) | ((x == low) & (at_high == n - 1))
        n = n - 1
    variance = squares / (n - ddof).clamp(min=1)
    flat = same | ~(variance > 0)
    return torch.where(flat, 1, torch.where(flat, 1, variance).sqrt() + eps)
