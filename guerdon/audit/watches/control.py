# SPDX-License-Identifier: Apache-2.0
"""Of control: how long episodes are, how jerky the actions, how much of the world is visited."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from guerdon.audit.watches.quantities import Quantity
from guerdon.audit.watches.text import entropy
from guerdon.levels import unit_count
from guerdon.rollouts import Rollouts

BINS = 8


def episode_length(rollouts: Rollouts) -> Tensor:
    """[N, K] steps taken in each episode of a row, as far as it lies in the row; NaN where there is none.

    An episode that the row cuts is shorter here than it was, so the mean is too low, but never falls where episodes get longer.
    """
    level = rollouts.level("episode")
    counted = ((level >= 0) & rollouts.mask).double()
    out = torch.zeros(len(rollouts), unit_count(level), dtype=torch.float64).scatter_add(
        1, level.clamp(min=0).cpu(), counted.cpu()
    )
    return torch.where(out > 0, out, torch.nan)


def jerk(rollouts: Rollouts) -> Tensor:
    """[N] mean over the row of | a_{t+3} - 3 a_{t+2} + 3 a_{t+1} - a_t |, four steps of one episode that the policy took.

    A discrete action is a one-hot vector, so that its number means nothing. In units of the action; NaN where there are no four.

    >>> still = Rollouts(torch.zeros(1, 5), torch.ones(1, 5, dtype=torch.bool), ["a"])
    >>> jerk(still).item(), jerk(still.replace(action=torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]]))).item()
    (0.0, 4.0)
    """
    n, t = rollouts.action.shape[:2]
    if t < 4:
        return torch.full((n,), torch.nan, dtype=torch.float64)
    action = rollouts.action
    if not action.is_floating_point():
        action = one_hot(action.long() - action.min())
    a = action.reshape(n, t, -1).double()
    third = (a[:, 3:] - 3 * a[:, 2:-1] + 3 * a[:, 1:-2] - a[:, :-3]).norm(dim=-1)
    whole = rollouts.mask & (rollouts.level("episode") >= 0)
    episode = torch.where(whole, rollouts.level("episode"), -1)
    same = torch.stack([(episode[:, i : t - 3 + i] == episode[:, : t - 3]) for i in range(4)]).all(0) & (episode[:, : t - 3] >= 0)
    return torch.where(same, third, 0).sum(1) / same.sum(1)


def visitation_entropy(rollouts: Rollouts, low: Tensor, high: Tensor, joint: Tensor) -> Tensor:
    """[N] -sum_c p_c log p_c, nats; p_c the share of the row's steps whose observation lies in cell c. NaN where none was taken.

    A cell is one of ``BINS`` equal parts of [low, high] [D] in each dimension; with ``joint`` all dimensions together, else the
    mean over dimensions of the entropy of each alone, for spaces in which hardly a cell is visited twice.
    """
    cells = _binned(rollouts, low, high)
    out = []
    for row, mask in zip(cells, rollouts.mask.cpu(), strict=True):
        seen = row[mask]
        if not len(seen):
            out.append(torch.nan)
        elif bool(joint):
            out.append(_entropy(seen.unique(dim=0, return_counts=True)[1]))
        else:
            out.append(sum(_entropy(column.unique(return_counts=True)[1]) for column in seen.T) / seen.shape[1])
    return torch.tensor(out, dtype=torch.float64)


def cells_of(rollouts: Rollouts) -> dict[str, Tensor]:
    """The range of each dimension [D] in these rollouts, and whether cells of all dimensions together are visited again."""
    seen = _observations(rollouts)[rollouts.mask.cpu()]
    low, high = seen.amin(0), seen.amax(0)
    binned = _binned(rollouts, low, high)
    rows = [row[mask] for row, mask in zip(binned, rollouts.mask.cpu(), strict=True) if mask.any()]
    again = [len(row.unique(dim=0)) <= 0.5 * len(row) for row in rows]
    return {"low": low, "high": high, "joint": torch.tensor(sum(again) > 0.5 * len(again))}


def _observations(rollouts: Rollouts) -> Tensor:
    x = torch.as_tensor(rollouts.field("observation").values).cpu()
    return x.reshape(*x.shape[:2], -1).double()


def _binned(rollouts: Rollouts, low: Tensor, high: Tensor) -> Tensor:
    """[N, T, D] int64; outside the range counts to the outermost bin."""
    width = torch.where(high > low, high - low, 1.0)
    return ((_observations(rollouts) - low) / width * BINS).long().clamp(0, BINS - 1)


def _entropy(count: Tensor) -> float:
    p = count.double() / count.sum()
    return float(-(p * p.log()).sum())


EPISODE_LENGTH = Quantity(
    "episode_length", episode_length, frozenset({"observation"}), "steps", measures=frozenset({"step_count", "episode_length"})
)
JERK = Quantity("jerk", jerk, frozenset({"action"}), "third difference of the action", harm=1)
VISITATION = Quantity("visitation", visitation_entropy, frozenset({"observation"}), "nats", harm=-1, fit=cells_of)
ENTROPY = Quantity("entropy", partial(entropy), frozenset({"log_prob"}), "nats a step", harm=-1, change=0.9)

CONTROL = (EPISODE_LENGTH, JERK, VISITATION, ENTROPY)
