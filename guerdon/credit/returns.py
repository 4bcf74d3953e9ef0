# SPDX-License-Identifier: Apache-2.0
"""Credit along time: the return-to-go and generalised advantage estimation, over steps or over the units of a level.

Both are one linear recurrence run backwards over the counted steps of an episode. Those are first brought next to each other
(a stable sort by episode), so that masked steps and interleaved episodes need no cases of their own; the recurrence is then
solved by doubling, in log2(T) tensor operations instead of T.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from guerdon.errors import ExpressionError, ShapeError, check_shape
from guerdon.levels import pool, spread, unit_count, unit_mask

Credit = TypeVar("Credit", bound=Callable[..., Tensor])


def by_row(credit: Credit) -> Credit:
    """Says of a credit that a row's result is of that row alone, so that several rewards can be credited in one call."""
    credit.by_row = True  # type: ignore[attr-defined]
    return credit


@by_row
def return_to_go(
    reward: Tensor, mask: Tensor, episode: Tensor, *, gamma: float | Tensor = 1.0, level: Tensor | None = None
) -> Tensor:
    """The discounted reward from here to the end of the episode, [N, T].

    return_t = reward_t + gamma return_t',   t' the next counted step of the same episode

    ``reward`` [N, T]; ``mask`` [N, T] bool, True counts; ``episode`` [N, T] int64; ``gamma`` in [0, 1], a number or a tensor of
    shape [] or [N, 1]. With ``level`` [N, T] (int64 unit of each step, -1 none) rewards are summed within each unit, the
    recurrence runs over units (one ``gamma`` per unit), and the result is copied to the unit's counted steps; steps of no unit
    get 0.

    >>> reward = torch.tensor([[1., 9., 2., 4.]]); mask = torch.tensor([[True, False, True, True]])
    >>> return_to_go(reward, mask, torch.tensor([[0, 0, 0, 1]]), gamma=0.5).tolist()
    [[2.0, 0.0, 2.0, 4.0]]
    >>> turn = torch.tensor([[0, 0, 1, 1]]); every = torch.ones_like(mask); one = torch.zeros_like(turn)
    >>> return_to_go(reward, every, one, gamma=0.5, level=turn).tolist()
    [[13.0, 13.0, 6.0, 6.0]]
    """
    _check("return_to_go", reward, mask, episode)
    if level is not None:
        unit_reward, unit, unit_episode = _units("return_to_go", reward, mask, episode, level)
        return spread(return_to_go(unit_reward, unit, unit_episode, gamma=gamma), level, "copy", mask)
    order, counted, linked = _pack(mask, episode)
    x = reward.gather(1, order)
    result = _accumulate(torch.where(counted, x, 0), ~x.isfinite() & counted, linked, _like(gamma, reward))
    return _unpack(result, counted, order)


@by_row
def gae(
    reward: Tensor,
    value: Tensor,
    mask: Tensor,
    episode: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor = 1.0,
    lam: float | Tensor = 1.0,
    next_value: Tensor | None = None,
    level: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimation, [N, T].

    advantage_t = delta_t + gamma lam advantage_t',   delta_t = reward_t + gamma v_t - value_t

    with t' the next counted step of the same episode and v_t the value of the state that step t leads to:

        step t                                   v_t                         advantage_t' enters
        ---------------------------------------  --------------------------  -------------------
        ``terminated``                           0                           no
        ``truncated``                            next_value_t                no
        the row ends the episode without a flag  next_value_t                no (there is none)
        otherwise                                value_t'                    yes

    ``reward``, ``value`` [N, T]; ``mask``, ``terminated``, ``truncated`` [N, T] bool, the flags read at counted steps only;
    ``episode`` [N, T] int64; ``next_value`` [N, T], the value of the state after step t. Without ``next_value`` those v_t are 0:
    an episode cut short is treated as if nothing more was to come. ``gamma`` and ``lam`` are numbers or tensors of shape [] or
    [N, 1]. With ``level`` a unit acts as one step: its reward is summed, its value read at its first counted step, its flags at
    any, its next value at its last, and the result is copied. value = 0, gamma = lam = 1 gives `return_to_go`.

    Schulman et al. 2015, arXiv:1506.02438, equations 11 to 16.

    >>> reward = torch.tensor([[0., 1., 2.]]); value = torch.tensor([[0.5, 0.5, 1.]]); yes = torch.ones(1, 3, dtype=torch.bool)
    >>> episode = torch.tensor([[0, 0, 1]]); terminated = torch.tensor([[False, True, False]])
    >>> gae(reward, value, yes, episode, terminated, ~yes, gamma=0.5, lam=0.5).tolist()
    [[-0.125, 0.5, 1.0]]
    >>> gae(reward, value, yes, episode, terminated, ~yes, gamma=0.5, lam=0.5, next_value=torch.full((1, 3), 4.)).tolist()
    [[-0.125, 0.5, 3.0]]
    """
    _check("gae", reward, mask, episode, value=value, terminated=terminated, truncated=truncated)
    if next_value is not None:
        check_shape("gae", "next_value", next_value, tuple(reward.shape), "a value per row instead of per step")
    if level is not None:
        unit_reward, unit, unit_episode = _units("gae", reward, mask, episode, level)
        unit_advantage = gae(
            unit_reward,
            pool(value, level, "first", mask),
            unit,
            unit_episode,
            pool(terminated.to(reward.dtype), level, "sum", mask) > 0,
            pool(truncated.to(reward.dtype), level, "sum", mask) > 0,
            gamma=gamma,
            lam=lam,
            next_value=None if next_value is None else pool(next_value, level, "last", mask),
        )
        return spread(unit_advantage, level, "copy", mask)

    order, counted, linked = _pack(mask, episode)
    r, v, done, cut = (x.gather(1, order) for x in (reward, value, terminated, truncated))
    linked = linked & ~done & ~cut
    beyond = torch.zeros_like(v) if next_value is None else next_value.gather(1, order)
    after = torch.where(linked, _shift(v, 1), torch.where(counted & ~done, beyond, 0))
    bad = counted & ~(r.isfinite() & v.isfinite() & after.isfinite())
    r, v, after = (torch.where(bad | ~counted, 0, x) for x in (r, v, after))
    gamma, lam = _like(gamma, reward), _like(lam, reward)
    return _unpack(_accumulate(r + gamma * after - v, bad, linked, gamma * lam), counted, order)


def lambda_return(advantage: Tensor, value: Tensor) -> Tensor:
    """What the value should have been, [N, T]: advantage + value. With `gae`'s advantage it is the TD(lambda) return.

    >>> lambda_return(torch.tensor([[1., -1.]]), torch.tensor([[2., 2.]])).tolist()
    [[3.0, 1.0]]
    """
    return advantage + value


def _check(whose: str, reward: Tensor, mask: Tensor, episode: Tensor, **others: Tensor) -> None:
    check_shape(whose, "reward", reward, (None, None), "a reward per row instead of per step")
    for name, x in {"mask": mask, "episode": episode, **others}.items():
        check_shape(whose, name, x, tuple(reward.shape), f"a {name} per row instead of per step")
    for name, x in {"mask": mask, **others}.items():
        if name in ("mask", "terminated", "truncated") and x.dtype != torch.bool:
            raise ShapeError(f"{whose}: `{name}` should be bool, got {x.dtype}. Usual cause: a 0/1 tensor, use `{name}.bool()`.")
    lost = mask & (episode < 0)
    if lost.any():
        raise ShapeError(
            f"{whose}: every counted step should belong to an episode, {int(lost.sum())} have `episode` -1 (the first: row, step "
            f"{lost.nonzero()[0].tolist()}). Usual cause: `mask` counts padding."
        )


def _units(whose: str, reward: Tensor, mask: Tensor, episode: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reward [N, K], which units count [N, K] and their episode [N, K]."""
    unit_reward = pool(reward, level, "sum", mask)
    lost = mask & (level < 0) & (reward != 0)
    if lost.any():
        raise ExpressionError(
            f"{whose}: every reward should lie in a unit of `level`, {int(lost.sum())} counted steps of no unit have one (the "
            f"first: row, step {lost.nonzero()[0].tolist()}) and it would vanish. Usual cause: a splitter skips the last step."
        )
    counted, slot, far = mask & (level >= 0), level.clamp(min=0), torch.iinfo(torch.long).max
    empty = episode.new_full((level.shape[0], unit_count(level)), -1)
    if empty.shape[1] == 0:
        return unit_reward, unit_mask(level, mask), empty
    last = empty.scatter_reduce(1, slot, torch.where(counted, episode, -1), "amax")
    first = torch.full_like(empty, far).scatter_reduce(1, slot, torch.where(counted, episode, far), "amin")
    across = (last >= 0) & (first != last)
    if across.any():
        raise ExpressionError(
            f"{whose}: a unit of `level` should lie in one episode, {int(across.sum())} reach over several (the first: row, unit "
            f"{across.nonzero()[0].tolist()}). Usual cause: a level counted on through a row that holds several episodes."
        )
    return unit_reward, unit_mask(level, mask), last


def _pack(mask: Tensor, episode: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sort each row so that an episode's counted steps are neighbours: (order, counted, linked to the right neighbour)."""
    key = torch.where(mask, episode, torch.iinfo(torch.long).max)
    key, order = key.sort(dim=1, stable=True)
    counted = mask.gather(1, order)
    return order, counted, counted & (key == _shift(key, 1, -1))


def _unpack(x: Tensor, counted: Tensor, order: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter(1, order, torch.where(counted, x, 0))


def _shift(x: Tensor, by: int, fill: float = 0) -> Tensor:
    """x[:, t + by], and ``fill`` beyond the end."""
    return pad(x[:, by:], (0, min(by, x.shape[1])), value=fill)


def _accumulate(x: Tensor, bad: Tensor, linked: Tensor, factor: Tensor) -> Tensor:
    """y_t = x_t + factor y_t+1 where linked; NaN where a bad step enters with a factor other than 0."""
    y = _scan(torch.where(bad, 0, x), torch.where(linked, factor, 0))
    if not bad.any():
        return y
    touched = _scan(bad.to(x.dtype), (linked & (factor != 0)).to(x.dtype)) > 0
    return torch.where(touched, torch.nan, y)


def _scan(x: Tensor, a: Tensor) -> Tensor:
    """y_t = x_t + a_t y_t+1 by doubling: after step k, x_t holds the terms of the next 2^k steps and a_t their product."""
    by = 1
    while by < x.shape[1]:
        x, a = x + a * _shift(x, by), a * _shift(a, by)
        by *= 2
    return x


def _like(number: float | Tensor, x: Tensor) -> Tensor:
    return torch.as_tensor(number, dtype=x.dtype, device=x.device)
