# SPDX-License-Identifier: Apache-2.0
"""Bringing components to one level, with their statuses and reasons.

Two ways to a finer level: ``copied`` gives every unit the value of the coarser unit it starts in (for products, conditions,
minima); ``landed`` puts each value where the component's spread rule says (for sums), so that a failure reaches only the units
it lands on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from guerdon import levels
from guerdon.rollouts import Rollouts
from guerdon.scores import Component, Status

Reasons = dict[tuple[int, int], str]


def present(rollouts: Rollouts, level: str) -> Tensor:
    """[N, K] True where the row has such a unit."""
    return levels.unit_mask(rollouts.level(level))


def taken(rollouts: Rollouts, level: str) -> Tensor:
    """[N, K] True where the policy took a step of the unit."""
    ids = rollouts.level(level)
    if level == "step":  # a step is its own unit
        return ((ids >= 0) & rollouts.mask)[:, : levels.unit_count(ids)]
    return levels.unit_mask(ids, rollouts.mask)


def owners(rollouts: Rollouts, fine: str, coarse: str) -> Tensor:
    """[N, K] int64: the unit of ``coarse`` in which each unit of ``fine`` starts; -1 for none."""
    outer = rollouts.level(coarse).to(torch.float64)
    return levels.pool(outer, rollouts.level(fine), "first").nan_to_num(-1.0).long()


def copied(c: Component, rollouts: Rollouts, level: str) -> Component:
    """The component at a finer level: every unit has the value of the unit it starts in; one that starts in none abstains."""
    if c.level == level:
        return c
    owner, there = owners(rollouts, level, c.level), present(rollouts, level)
    at = owner.clamp(min=0)
    if c.values.shape[1] == 0:
        values, status = torch.full(owner.shape, torch.nan, dtype=c.values.dtype, device=c.values.device), torch.zeros_like(owner)
    else:
        values, status = c.values.gather(1, at), c.status.gather(1, at).long()
    orphan = there & (owner < 0)
    status = torch.where(orphan, int(Status.ABSTAIN), torch.where(there, status, int(Status.NONE))).to(torch.int8)
    values = torch.where(status == Status.OK, values, torch.nan)
    reasons = {(n, j): c.reasons[n, k] for n, k in c.reasons for j in (owner[n] == k).nonzero()[:, 0].tolist()}
    reasons.update(dict.fromkeys(map(tuple, orphan.nonzero().tolist()), f"this {level} starts in no {c.level}"))
    return c.replace(level=level, values=values, status=status, reasons=reasons, uncertainty=None)


def landed(c: Component, rollouts: Rollouts, level: str) -> Component:
    """The component at another level by its own spread rule: Σ over the steps of each unit of what the rule puts there.

    Units it puts nothing on are a real 0. A unit that is not ok makes only the units it would land on not ok. Steps in no unit
    of ``level`` are passed over, so that a value meant for the last step is not lost on a token that is in no line.
    """
    if c.level == level:
        return c
    outer, inner = rollouts.level(c.level), rollouts.level(level)
    mask = rollouts.mask & (inner >= 0)
    x = levels.spread(c.values.nan_to_num(0.0), outer, c.spread, mask)
    values = levels.pool(x.nan_to_num(0.0), inner, "sum", mask)
    hit = levels.spread(torch.ones_like(c.values), outer, c.spread, mask).nan_to_num(0.0) > 0
    worst = levels.spread(c.status.clamp(min=0).to(values.dtype), outer, "copy", mask)
    reached = levels.pool(torch.where(hit, worst, 0), inner, "max", mask).nan_to_num(0.0)
    status = torch.where(present(rollouts, level), reached.to(torch.int8), int(Status.NONE)).to(torch.int8)
    values = torch.where(status == Status.OK, values, torch.nan)
    found: list[tuple[tuple[int, int], str]] = []
    for (n, k), text in _failures(c):
        on = inner[n][hit[n] & (outer[n] == k)].unique().tolist()
        found += [((n, j), text) for j in on]
    return c.replace(level=level, values=values, status=status, reasons=_joined(found), uncertainty=None)


def stacked(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one shape on one another, [D, ...]: in one stack, or each in its own where they differ in type or device."""
    alike = len({(x.dtype, x.device) for x in tensors}) == 1
    return [torch.stack(list(tensors))] if alike else [x[None] for x in tensors]


def combined(parts: Sequence[Component], function: Callable[..., Tensor], say: Iterable[bool]) -> Component:
    """``function`` of the parts' values (all at one level), unit by unit; a unit is ok only if it is in every part.

    Otherwise it has the worst status and every reason, preceded by its part's name where ``say`` holds. A unit that some part
    does not have is not there.
    """
    statuses = torch.stack([c.status for c in parts])
    least, worst = statuses.amin(0), statuses.amax(0)
    status = torch.where(least == Status.NONE, least, worst).to(torch.int8)
    values = torch.where(status == Status.OK, function(*(c.values for c in parts)), torch.nan)
    return parts[0].replace(values=values, status=status, reasons=reasons_of(parts, say), uncertainty=None)


def reasons_of(parts: Sequence[Component], say: Iterable[bool]) -> Reasons:
    """Why units are not ok in any of the parts, each reason once."""
    return _joined(
        (at, f"{c.name}: {text}" if named else text) for c, named in zip(parts, say, strict=True) for at, text in _failures(c)
    )


def _failures(c: Component) -> list[tuple[tuple[int, int], str]]:
    """(row, unit), reason of the units that are not ok; rationales of those that are stay with their leaf."""
    if not c.reasons:
        return []
    status = c.status.tolist()
    return [((n, k), text) for (n, k), text in c.reasons.items() if status[n][k] > Status.OK]


def _joined(found: Iterable[tuple[tuple[int, int], str]]) -> Reasons:
    out: dict[tuple[int, int], list[str]] = {}
    for at, text in found:
        have = out.setdefault(at, [])
        if text not in have:
            have.append(text)
    return {at: "; ".join(texts) for at, texts in out.items()}
