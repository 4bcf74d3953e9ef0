# SPDX-License-Identifier: Apache-2.0
"""Nodes whose values depend on other rows or units: standardised within a group, dealt anew."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guerdon.errors import ExpressionError
from guerdon.rewards import aligning
from guerdon.rewards.building import auto_name, call, names_itself, unwatched
from guerdon.rewards.node import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Status


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Normalise(Reward):
    """(x - mean) / standard deviation (n - 1) over the ok units of its group or batch; ``scale=False``: x - mean.

    A unit that is alone in its group abstains, since it is compared with nothing. Where all values are equal, each is 0.
    """

    over: str
    scale: bool

    def expression(self) -> str:
        return call(self.parts[0], "normalise", *self._arguments())

    def _arguments(self) -> list[str]:
        return [f"over={self.over!r}", *([] if self.scale else ["scale=False"])]

    def label(self) -> str:
        return f"normalise({', '.join(self._arguments())})"

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        (x,) = parts
        group = groups_of(rollouts, x) if self.over == "group" else torch.zeros_like(x.status, dtype=torch.long)
        used = x.ok & aligning.taken(rollouts, x.level)
        found = standardised(torch.where(used, x.values, 0.0), group, used, self.scale)
        alone = x.ok & torch.isnan(found)
        status = torch.where(alone, int(Status.ABSTAIN), x.status).to(torch.int8)
        values = torch.where(status == Status.OK, found, torch.nan)
        reasons = aligning.reasons_of(parts, [names_itself(self.parts[0])])
        alone_in = f"no other {x.level} of its {self.over} is ok, so there is nothing to compare it with"
        reasons.update(dict.fromkeys(map(tuple, alone.nonzero().tolist()), alone_in))
        return x.replace(values=values, status=status, reasons=reasons, uncertainty=None)


def groups_of(rollouts: Rollouts, c: Component) -> Tensor:
    """[N, K] int64: the group each unit is compared in: the level's own, or its row's."""
    if c.level in rollouts.groups:
        return rollouts.groups[c.level]
    return rollouts.group[:, None].expand(c.values.shape)


def normalise(part: Reward, over: str, scale: bool) -> Reward:
    unwatched("normalise", part)
    if over not in ("group", "batch"):
        raise ExpressionError(f"normalise: `over` should be 'group' or 'batch', got {over!r}.")
    if not isinstance(scale, bool):
        raise ExpressionError(f"normalise: `scale` should be True or False, got {scale!r}.")
    width = part.bounds.high - part.bounds.low
    return Normalise(
        name=auto_name(part.name, "normalised"),
        level=part.level,
        spread=part.spread,
        relation=over,
        bounds=Bounds() if scale else Bounds(-width, width),
        parts=(part,),
        over=over,
        scale=scale,
    )


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Shuffled(Reward):
    """The ok values dealt anew among the units of each row, of each group of rows, or of the batch.

    The amount of reward and its distribution stay; what it says about each unit is lost. The deal depends on the seed, the
    training step and the rows dealt among (task and actions), not on the rest of the batch.
    """

    seed: int
    over: str

    def expression(self) -> str:
        return call(self.parts[0], "shuffled", self._settings())

    def label(self) -> str:
        return f"shuffled({self._settings()})"

    def _settings(self) -> str:
        return f"{self.seed}, over={self.over!r}"

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        (x,) = parts
        used = x.ok & aligning.taken(rollouts, x.level)
        alone = torch.arange(len(rollouts), device=rollouts.group.device)
        across = {"row": alone, "group": rollouts.group, "batch": torch.zeros_like(alone)}[self.over]
        values = dealt(x.values, used, across, rollouts, f"{self.seed}|{step}")
        reasons = aligning.reasons_of(parts, [names_itself(self.parts[0])])
        return x.replace(values=values, reasons=reasons, uncertainty=None)


def shuffled(part: Reward, seed: int, over: str) -> Reward:
    unwatched("shuffled", part)
    allowed = ("group", "batch") if part.level == "episode" else ("row", "group", "batch")
    if over not in allowed:
        raise ExpressionError(
            f"shuffled: `over` should be one of {', '.join(allowed)} for values of level {part.level}, got {over!r}."
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ExpressionError(f"shuffled: `seed` should be a whole number, got {seed!r}.")
    return Shuffled(
        name=auto_name(part.name, "shuffled"),
        level=part.level,
        spread=part.spread,
        relation="self" if over == "row" else over,
        bounds=part.bounds,
        parts=(part,),
        seed=seed,
        over=over,
    )


def standardised(x: Tensor, group: Tensor, used: Tensor, scale: bool = True) -> Tensor:
    """(x - mean) / std over the used units of each group, std with n - 1; without ``scale`` x - mean.

    x, used, group [N, K] (values, bool, int64). Result [N, K], NaN where a unit is not used or alone in its group; 0 where all
    values of a group are equal.

    >>> r = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    >>> standardised(r, torch.zeros(4, 1, dtype=torch.long), torch.ones(4, 1, dtype=torch.bool)).squeeze(1).tolist()
    [1.5, -0.5, -0.5, -0.5]
    """
    out = torch.full_like(x, torch.nan)
    if not used.any():
        return out
    values, ids = x[used], group[used].unique(return_inverse=True)[1]
    size = int(ids.max()) + 1

    def over(v: Tensor) -> Tensor:
        return torch.zeros(size, dtype=x.dtype, device=x.device).index_add(0, ids, v)

    def edge(how: str) -> Tensor:
        return torch.zeros(size, dtype=x.dtype, device=x.device).scatter_reduce(0, ids, values, how, include_self=False)

    number = over(torch.ones_like(values))
    centred = values - (over(values) / number)[ids]
    if scale:
        centred = centred / (over(centred**2) / (number - 1)).sqrt()[ids]
    equal = (edge("amax") == edge("amin"))[ids]  # rounding in the mean must not be blown up to ±1
    found = torch.where(equal, 0.0, centred)
    out[used] = torch.where(number[ids] > 1, found, torch.nan)
    return out


def dealt(x: Tensor, used: Tensor, across: Tensor, rollouts: Rollouts, key: str) -> Tensor:
    """[N, K] the used values permuted among the used units of the rows that share ``across`` [N].

    The permutation is drawn from a stream keyed by ``key`` and by the tasks and actions of those rows.
    """
    out = x.clone()
    for which in across.unique().tolist():
        rows = (across == which).nonzero()[:, 0]
        places = used[rows].nonzero()
        if len(places) < 2:
            continue
        at = (rows[places[:, 0]], places[:, 1])
        order = _stream(rollouts, rows.tolist(), key).permutation(len(places))
        out[at] = x[at][torch.as_tensor(order, device=x.device)]
    return out


def _stream(rollouts: Rollouts, rows: list[int], key: str) -> np.random.Generator:
    digest = hashlib.sha256(key.encode())
    for n in rows:
        digest.update(rollouts.task[n].encode())
        taken = rollouts.action[n, : int(rollouts.length[n])].detach().cpu()
        digest.update(taken.contiguous().view(torch.uint8).numpy().tobytes())
    return np.random.default_rng(list(digest.digest()[:16]))
