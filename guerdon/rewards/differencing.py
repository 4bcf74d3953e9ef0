# SPDX-License-Identifier: Apache-2.0
"""Nodes that compare a unit with its neighbour: gain (with the one before), drop (with the one after).

Both telescope: what an episode of any length earns by them in all is bounded by two values, which is why a reward that pays for
each unit can be made safe against more units by taking differences.

    gain_k = x_k - x_{k-1}     x_{-1} = start     sum over the episode = x_last - start
    drop_k = x_k - x_{k+1}     x_{K}  = end       sum from unit k on   = x_k - end
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.errors import ExpressionError
from guerdon.levels import is_finer
from guerdon.rewards import aligning
from guerdon.rewards.building import auto_name, call, hull, names_itself, number, unwatched
from guerdon.rewards.node import Reward
from guerdon.rewards.schedule import number_text
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Status


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Difference(Reward):
    """``how`` "gain" or "drop": each unit's value minus that of its neighbour, minus ``edge`` where it has none.

    A neighbour is the nearest unit of the same episode in which the policy took a step. A unit is ok if it and its neighbour are.
    """

    how: str
    edge: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.how == "drop":  # it reads what comes after
            object.__setattr__(self, "causal", False)

    def _arguments(self) -> list[str]:
        name = {"gain": "start", "drop": "end"}[self.how]
        return [] if self.edge == 0 else [f"{name}={number_text(self.edge)}"]

    def expression(self) -> str:
        return call(self.parts[0], self.how, *self._arguments())

    def label(self) -> str:
        return f"{self.how}({', '.join(self._arguments())})"

    def total_bounds(self) -> Bounds:
        if self.spread == "copy":
            return self.bounds.of_total("step")
        return hull(self.parts[0].bounds + Bounds(-self.edge, -self.edge), Bounds(0.0, 0.0))  # 0: an episode without units

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        (x,) = parts
        used = aligning.taken(rollouts, x.level) & (x.status != Status.NONE)
        other = neighbours(used, aligning.owners(rollouts, x.level, "episode"), after=self.how == "drop")
        has = other >= 0
        at = other.clamp(min=0)
        status = torch.maximum(x.status, torch.where(has, x.status.gather(1, at), int(Status.OK)).to(x.status.dtype))
        status = torch.where(x.status == Status.NONE, x.status, status)
        beside = torch.where(has, x.values.gather(1, at), self.edge)
        values = torch.where(status == Status.OK, x.values - beside, torch.nan)
        return x.replace(values=values, status=status, reasons=self._reasons(x, other, status), uncertainty=None)

    def _reasons(self, x: Component, other: Tensor, status: Tensor) -> aligning.Reasons:
        own = aligning.reasons_of([x], [names_itself(self.parts[0])])
        found = {at: text for at, text in own.items() if status[at] > Status.OK}
        for n, k in (status > Status.OK).nonzero().tolist():
            because = own.get((n, int(other[n, k])))
            if because is not None:
                word = "after" if self.how == "drop" else "before"
                told = f"the {x.level} {word} it: {because}"
                found[n, k] = f"{found[n, k]}; {told}" if (n, k) in found else told
        return found


def gain(part: Reward, start: float) -> Reward:
    return _difference(part, "gain", number("gain", "start", start))


def drop(part: Reward, end: float) -> Reward:
    return _difference(part, "drop", number("drop", "end", end))


def _difference(part: Reward, how: str, edge: float) -> Reward:
    unwatched(how, part)
    if not is_finer(part.level, "episode"):
        raise ExpressionError(
            f"{how}: expected a reward with several units an episode, got `{part}`, which is at level `{part.level}`. "
            "Usual cause: a reward that was pooled first; take differences before .pool(how, level)."
        )
    beside = hull(part.bounds, Bounds(edge, edge))
    return Difference(
        name=auto_name(part.name, how),
        level=part.level,
        spread=part.spread,
        bounds=part.bounds + Bounds(-beside.high, -beside.low),
        parts=(part,),
        how=how,
        edge=edge,
    )


def neighbours(used: Tensor, episode: Tensor, *, after: bool) -> Tensor:
    """[N, K] the nearest used unit before each unit in its episode (``after``: behind it), -1 where there is none.

    ``used`` [N, K] bool; ``episode`` [N, K] int64, the episode that each unit is of.

    >>> used = torch.tensor([[True, False, True, True]]); episode = torch.tensor([[0, 0, 0, 1]])
    >>> neighbours(used, episode, after=False).tolist(), neighbours(used, episode, after=True).tolist()
    ([[-1, 0, 0, -1]], [[2, 2, -1, -1]])
    """
    if after:
        last = used.shape[1] - 1
        mirrored = neighbours(used.flip(1), episode.flip(1), after=False).flip(1)
        return torch.where(mirrored < 0, -1, last - mirrored)
    order = episode.argsort(dim=1, stable=True)  # an episode's units become neighbours
    place = torch.arange(used.shape[1], device=used.device).expand_as(order)
    seen = torch.where(used.gather(1, order), place, -1).cummax(1).values if used.shape[1] else place
    before = torch.cat([torch.full_like(seen[:, :1], -1), seen[:, :-1]], 1)
    at, sorted_episode = before.clamp(min=0), episode.gather(1, order)
    same = (before >= 0) & (sorted_episode.gather(1, at) == sorted_episode)
    return torch.empty_like(order).scatter(1, order, torch.where(same, order.gather(1, at), -1))
