# SPDX-License-Identifier: Apache-2.0
"""Nodes that move a reward between levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.errors import ExpressionError
from guerdon.levels import INVERSE, POOLS, is_finer
from guerdon.levels import pool as pool_steps
from guerdon.rewards import aligning
from guerdon.rewards.building import auto_name, call, check_level, hull, names_itself, unwatched
from guerdon.rewards.node import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Status


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class At(Reward):
    """At a finer level, or at its own with another spread rule."""

    def expression(self) -> str:
        return call(self.parts[0], "at", repr(self.level), f"how={self.spread!r}")

    def label(self) -> str:
        return f"at({self.level!r}, how={self.spread!r})"

    def total_bounds(self) -> Bounds:
        part = self.parts[0]
        return part.bounds.of_total("step" if self.spread == "copy" else part.level)

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        rule = parts[0].replace(spread=self.spread)
        moved = (
            aligning.copied(rule, rollouts, self.level) if self.spread == "copy" else aligning.landed(rule, rollouts, self.level)
        )
        return aligning.combined([moved], lambda x: x, [names_itself(self.parts[0])])


def at(part: Reward, level: str, how: str | None) -> Reward:
    unwatched("at", part)
    how = part.spread if how is None else how
    if how not in INVERSE or how == "weights":
        raise ExpressionError(f"at: `how` should be one of copy, last, first, uniform, got {how!r}.")
    check_level("at", level)
    if is_finer(part.level, level):
        raise ExpressionError(
            f"at: `{part}` is at level `{part.level}`, finer than `{level}`. A finer part becomes coarser with "
            f".pool('sum', {level!r}) (or mean, last, first, min, max)."
        )
    moved = part.bounds if how == "copy" or level == part.level else hull(part.bounds, Bounds(0.0, 0.0))
    return At(name=part.name, level=level, spread=how, bounds=moved, parts=(part,))


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Pool(Reward):
    """At a coarser level: sum, mean, last, first, min or max over the finer units that start within each coarser unit.

    Units that the policy took no step of do not count. A coarser unit without one is 0 for a sum and abstains otherwise.
    """

    how: str

    def expression(self) -> str:
        return call(self.parts[0], "pool", repr(self.how), repr(self.level))

    def label(self) -> str:
        return f"pool({self.how!r}, {self.level!r})"

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        (fine,) = parts
        owner = aligning.owners(rollouts, fine.level, self.level)
        there = aligning.present(rollouts, self.level)
        counted = aligning.taken(rollouts, fine.level) & (fine.status != Status.NONE)

        def pooled(x: Tensor, how: str) -> Tensor:
            out = pool_steps(x, owner, how, counted)
            pad = torch.full((len(rollouts), there.shape[1] - out.shape[1]), 0.0 if how == "sum" else torch.nan, dtype=x.dtype)
            return torch.cat([out, pad.to(x.device)], 1)

        reads = self.how if self.how in ("last", "first") else "max"
        worst = pooled(fine.status.to(fine.values.dtype), reads)
        empty = torch.isnan(worst)
        if self.how == "sum":
            worst = worst.nan_to_num(0.0)
        status = torch.where(torch.isnan(worst), int(Status.ABSTAIN), worst.nan_to_num(0.0).to(torch.int8))
        status = torch.where(there, status, int(Status.NONE)).to(torch.int8)
        values = torch.where(status == Status.OK, pooled(fine.values, self.how), torch.nan)
        reasons = self._reasons(fine, owner, status)
        if self.how != "sum":
            none = f"no {fine.level} to take the {self.how} of"
            reasons.update(dict.fromkeys(map(tuple, (there & empty).nonzero().tolist()), none))
        return fine.replace(level=self.level, values=values, status=status, reasons=reasons, uncertainty=None)

    def _reasons(self, fine: Component, owner: Tensor, status: Tensor) -> aligning.Reasons:
        named = names_itself(self.parts[0])
        out: dict[tuple[int, int], list[str]] = {}
        for (n, j), text in aligning.reasons_of([fine], [named]).items():
            k = int(owner[n, j])
            if k >= 0 and status[n, k] > Status.OK:
                out.setdefault((n, k), []).append(f"{fine.level} {j}: {text}")
        return {at: _few(texts) for at, texts in out.items()}


def _few(texts: list[str], most: int = 3) -> str:
    rest = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + rest


def pool(part: Reward, how: str, level: str) -> Reward:
    unwatched("pool", part)
    check_level("pool", level)
    if how not in POOLS:
        raise ExpressionError(f"pool: `how` should be one of {', '.join(POOLS)}, got {how!r}.")
    if not is_finer(part.level, level):
        raise ExpressionError(
            f"pool: `level` should be coarser than that of `{part}`, which is `{part.level}`; got {level!r}. "
            "To a finer level a reward goes with .at(level, how=...)."
        )
    bounds = part.bounds.of_total(part.level) if how == "sum" else part.bounds
    return Pool(name=auto_name(part.name, how), level=level, bounds=bounds, parts=(part,), how=how)
