# SPDX-License-Identifier: Apache-2.0
"""Levels: named partitions of the decision steps, and the one place where values move between them.

A level is an integer tensor ``[N, T]``: the unit each step belongs to, counted from 0 within its row, -1 for none.
``step``, ``turn`` and ``episode`` are always there; a splitter or a reward adds others (``line``, ``segment``, ``action``).
They need not nest: a ``sentence`` may straddle two ``line``s.

Values per unit are ``[N, K]``, K = the largest number of units in a row; rows with fewer are padded on the right.

    spread  units -> steps     names the pool that inverts it
    ------  -----------------  ------------------------------
    last    on the last step   sum
    first   on the first step  sum
    uniform shared equally     sum
    weights by given weights   sum
    copy    on every step      mean
"""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.errors import ExpressionError, ShapeError

INVERSE = {"last": "sum", "first": "sum", "uniform": "sum", "weights": "sum", "copy": "mean"}
"""spread -> the pool that gives the unit's value back."""

POOLS = ("sum", "mean", "last", "first", "min", "max")

_RANK = {"step": 0, "turn": 2, "episode": 3}  # every other level lies between a step and a turn


def is_finer(a: str, b: str) -> bool:
    """True if units of level ``a`` are parts of units of level ``b`` by name alone.

    >>> is_finer("step", "turn"), is_finer("line", "episode"), is_finer("line", "sentence"), is_finer("turn", "turn")
    (True, True, False, False)
    """
    return _RANK.get(a, 1) < _RANK.get(b, 1)


def finest(names: list[str], whose: str) -> str:
    """The finest of several levels; an error naming both where neither is finer than the other.

    >>> finest(["episode", "line", "turn"], "sum")
    'line'
    """
    best = min(names, key=lambda name: _RANK.get(name, 1))
    for name in names:
        if name != best and not is_finer(best, name):
            raise ExpressionError(
                f"{whose}: levels `{best}` and `{name}` are both between a step and a turn and neither is part of the other. "
                f"Bring one to the other's with .at({best!r}) or to a common coarser level with .pool(how, level)."
            )
    return best


def _check(level: Tensor, shape: torch.Size, whose: str) -> None:
    if level.dtype != torch.long or level.shape != shape:
        raise ShapeError(
            f"{whose}: the level should be int64 of shape {list(shape)}, got {level.dtype} {list(level.shape)}. "
            "Usual cause: a level's name was passed where its tensor `rollouts.level(name)` belongs."
        )


def unit_count(level: Tensor) -> int:
    """K: the largest number of units in a row of ``level`` [N, T]."""
    return int(level.max()) + 1 if level.numel() else 0


def unit_mask(level: Tensor, mask: Tensor | None = None) -> Tensor:
    """[N, K] True where row n has a unit k (with at least one step that counts, if ``mask`` is given)."""
    counted = level >= 0 if mask is None else (level >= 0) & mask
    return _sum(counted.to(torch.float32), level) > 0


def pool(x: Tensor, level: Tensor, how: str = "sum", mask: Tensor | None = None) -> Tensor:
    """Steps to units: ``x`` [N, T] to [N, K], over the steps of each unit that count.

    ``how``: sum, mean, last, first, min, max. ``mask`` [N, T]: True counts (default: every step of the unit). A unit without
    a step that counts is 0 for sum and NaN otherwise. NaN in a step that counts makes its unit NaN.

    >>> x = torch.tensor([[1., 2., 4., 8.]]); line = torch.tensor([[0, 0, 1, -1]])
    >>> pool(x, line).tolist(), pool(x, line, "mean").tolist(), pool(x, line, "last").tolist()
    ([[3.0, 4.0]], [[1.5, 4.0]], [[2.0, 4.0]])
    """
    if how not in POOLS:
        raise ExpressionError(f"pool: `how` should be one of {', '.join(POOLS)}, got {how!r}.")
    _check(level, x.shape[:2], "pool")
    counted = level >= 0 if mask is None else (level >= 0) & mask
    if how == "sum":
        return _sum(torch.where(counted, x, 0), level)
    number = _sum(counted.long(), level)  # whole numbers: not every device counts beyond 256 in bfloat16
    if how == "mean":
        return _sum(torch.where(counted, x, 0), level) / number  # 0 / 0 is the NaN promised above
    if how in ("min", "max"):
        worst = torch.inf if how == "min" else -torch.inf
        out = torch.full((x.shape[0], max(number.shape[1], 1)), worst, dtype=x.dtype, device=x.device)
        out = out.scatter_reduce(1, _slot(level), torch.where(counted, x, worst), "amin" if how == "min" else "amax")
        return torch.where(number > 0, out[:, : number.shape[1]], torch.nan)
    return torch.where(number > 0, _sum(torch.where(_edge(level, counted, how), x, 0), level), torch.nan)


def spread(y: Tensor, level: Tensor, how: str = "copy", mask: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    """Units to steps: ``y`` [..., N, K] to [..., N, T]; steps of no unit get 0. ``pool(spread(y, how), INVERSE[how]) == y``.

    ``how``: copy (every step), last, first, uniform, weights (``weight`` [N, T], normalised within each unit). ``mask`` [N, T]:
    True counts; steps that don't count get 0.

    >>> y = torch.tensor([[6., 1.]]); line = torch.tensor([[0, 0, 1, -1]])
    >>> spread(y, line).tolist(), spread(y, line, "last").tolist(), spread(y, line, "uniform").tolist()
    ([[6.0, 6.0, 1.0, 0.0]], [[0.0, 6.0, 1.0, 0.0]], [[3.0, 3.0, 1.0, 0.0]])
    """
    if how not in INVERSE:
        raise ExpressionError(f"spread: `how` should be one of {', '.join(INVERSE)}, got {how!r}.")
    _check(level, level.shape, "spread")
    if unit_count(level) > y.shape[-1]:
        raise ShapeError(
            f"spread: `y` has {y.shape[-1]} units a row, the level has {unit_count(level)}. Usual cause: another level's values."
        )
    counted = level >= 0 if mask is None else (level >= 0) & mask
    shape = (*y.shape[:-2], *level.shape)
    x = y.gather(-1, level.clamp(min=0).expand(shape)) if y.shape[-1] else y.new_zeros(shape)
    if how == "copy":
        return torch.where(counted, x, 0)
    if how in ("last", "first"):
        return torch.where(_edge(level, counted, how), x, 0)
    share = counted.long() if how == "uniform" else torch.where(counted, _given(weight), 0).to(y.dtype)
    if unit_count(level) == 0:
        return torch.zeros_like(x)
    total = _sum(share, level).gather(1, _slot(level))
    total = torch.where(counted, total, 1)  # 0 / 0 in the branch not taken would make gradients NaN
    return torch.where(counted, x * share / total, 0)


def _given(weight: Tensor | None) -> Tensor:
    if weight is None:
        raise ExpressionError("spread: how='weights' needs `weight` [N, T], got none.")
    return weight


def _slot(level: Tensor) -> Tensor:
    """Unit index with 'none' moved to unit 0, where callers add the neutral element."""
    return level.clamp(min=0)


def _sum(x: Tensor, level: Tensor) -> Tensor:
    out = torch.zeros(x.shape[0], unit_count(level), dtype=x.dtype, device=x.device)
    if out.shape[1] == 0:
        return out
    return out.scatter_add(1, _slot(level), torch.where(level >= 0, x, 0))


def _edge(level: Tensor, counted: Tensor, which: str) -> Tensor:
    """[N, T] True on the first or last counted step of each unit."""
    t = torch.arange(level.shape[1], device=level.device).expand_as(level)
    neutral, reduce = (-1, "amax") if which == "last" else (level.shape[1], "amin")
    k = max(unit_count(level), 1)
    best = torch.full((level.shape[0], k), neutral, device=level.device, dtype=torch.long)
    best = best.scatter_reduce(1, _slot(level), torch.where(counted, t, neutral), reduce)
    return counted & (best.gather(1, _slot(level)) == t)
