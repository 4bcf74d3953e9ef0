# SPDX-License-Identifier: Apache-2.0
"""From a comparator, which says which of two is better, to a reward: by matches among the rows of a group.

    win_rate      the mean probability of beating another member of its group; every pair is judged
    tournament    the place in a tournament: 1 for the winner, 0 for the last; far fewer matches (see ``brackets``)

A match that could not be judged is no draw: it counts for nobody. A row without any judged match is not ok, with the worst status
of its matches; a row alone in its group abstains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.errors import InputError
from guerdon.protocols import Comparator
from guerdon.rewards.brackets import Pairs, Topology, single_elimination
from guerdon.rewards.node import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Status

ALONE = "no other row in its group to be compared with"


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class WinRate(Reward):
    comparator: Comparator

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        pairs = torch.tensor([(a, b) for m in members(rollouts.group) for i, a in enumerate(m) for b in m[i + 1 :]])
        total, count = torch.zeros(len(rollouts), dtype=torch.float64), torch.zeros(len(rollouts))
        worst = [Status.OK] * len(rollouts)
        if len(pairs):
            found = compared(self.comparator, rollouts, pairs)
            ok, target = found.status == Status.OK, found.target.double()
            for rows, won in ((pairs[:, 0], target), (pairs[:, 1], 1 - target)):
                total.index_add_(0, rows[ok], won[ok])
                count.index_add_(0, rows[ok], torch.ones(int(ok.sum())))
            note_failures(worst, pairs.tolist(), found)
        return judged(self, total / count, worst, members(rollouts.group), rollouts)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Tournament(Reward):
    comparator: Comparator
    topology: Topology

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        groups = members(rollouts.group)
        worst, value = [Status.OK] * len(rollouts), torch.full((len(rollouts),), math.nan, dtype=torch.float64)
        running = [(rows, self.topology(len(rows))) for rows in groups if len(rows) > 1]
        rounds: list[Pairs] = [next(t) for _, t in running]
        while running:  # all groups' rounds are judged together, so that a judge is called a few times a batch
            pairs = [(rows[a], rows[b]) for (rows, _), p in zip(running, rounds, strict=True) for a, b in p]
            found = compared(self.comparator, rollouts, torch.tensor(pairs))
            note_failures(worst, pairs, found)
            results, left, still = scores_of_match(found), [], []
            for (rows, t), p in zip(running, rounds, strict=True):
                mine, results = results[: len(p)], results[len(p) :]
                try:
                    left.append(t.send(mine))
                    still.append((rows, t))
                except StopIteration as end:
                    value[rows] = 1 - torch.tensor(end.value, dtype=torch.float64) / (len(rows) - 1)
            running, rounds = still, left
        return judged(self, value, worst, groups, rollouts)


def win_rate(comparator: Comparator, name: str = "win_rate") -> Reward:
    """The mean probability of beating another row of its group, in [0, 1]."""
    return WinRate(name=name, relation="group", bounds=Bounds(0, 1), identity=comparator, comparator=comparator)


def tournament(comparator: Comparator, topology: Topology = single_elimination, name: str = "tournament") -> Reward:
    """1 - place / (n - 1) in a tournament of the n rows of a group: 1 for the winner, 0 for the last."""
    return Tournament(
        name=name,
        relation="group",
        bounds=Bounds(0, 1),
        identity=(comparator, topology),
        comparator=comparator,
        topology=topology,
    )


@dataclass(frozen=True)
class BothOrders:
    """Asks a comparator about each pair in both orders and takes the mean, which cancels what it gives to the one named first.

    A pair is judged if both orders are.
    """

    comparator: Comparator

    def __call__(self, rollouts: Rollouts, pairs: Tensor) -> Comparisons:
        both = compared(self.comparator, rollouts, torch.cat([pairs, pairs.flip(1)]))
        p = len(pairs)
        status = torch.maximum(both.status[:p], both.status[p:])
        target = torch.where(status == Status.OK, (both.target[:p] + 1 - both.target[p:]) / 2, torch.nan)
        margin = None if both.margin is None else (both.margin[:p] - both.margin[p:]) / 2
        reasons = {i % p: text for i, text in both.reasons.items()}
        return Comparisons(pairs[:, 0], pairs[:, 1], target, margin=margin, status=status, reasons=reasons)


def compared(comparator: Comparator, rollouts: Rollouts, pairs: Tensor) -> Comparisons:
    """What the comparator says of ``pairs`` [P, 2]; an error where it judged others, or in another order."""
    found = comparator(rollouts, pairs)
    asked = pairs.to(found.first.device)
    if len(found) != len(pairs) or not torch.equal(torch.stack([found.first[:, 0], found.second[:, 0]], 1), asked):
        raise InputError(
            f"comparator: expected a judgement of each of {len(pairs)} pairs, in their order, got {len(found)}"
            f"{' of other pairs' if len(found) == len(pairs) else ''}. Usual cause: answers sorted or filtered on the way."
        )
    return found


def members(group: Tensor) -> list[list[int]]:
    """The rows of each group, in order."""
    found: dict[int, list[int]] = {}
    for row, g in enumerate(group.tolist()):
        found.setdefault(g, []).append(row)
    return list(found.values())


def scores_of_match(found: Comparisons) -> list[tuple[float, float]]:
    """(score of the first, of the second): half the margin each way or, without margins, the probabilities. NaN: not judged."""
    if found.margin is None:
        first, second = found.target, 1 - found.target
    else:
        first = torch.where(found.status == Status.OK, found.margin / 2, torch.nan)
        second = -first
    return list(zip(first.tolist(), second.tolist(), strict=True))


def note_failures(worst: list[Status], pairs: Pairs, found: Comparisons) -> None:
    for (a, b), status in zip(pairs, found.status.tolist(), strict=True):
        for row in (a, b):
            worst[row] = max(worst[row], Status(status))


def judged(reward: Reward, value: Tensor, worst: list[Status], groups: list[list[int]], rollouts: Rollouts) -> Component:
    """A Component of [N] values, NaN where no match was judged."""
    missing = value.isnan().nonzero()[:, 0].tolist()
    status = torch.zeros(len(value), dtype=torch.int8)
    status[missing] = torch.tensor([int(worst[n]) or int(Status.ABSTAIN) for n in missing], dtype=torch.int8)
    alone = {rows[0] for rows in groups if len(rows) == 1}
    reasons = {(n, 0): ALONE if n in alone else "none of its matches could be judged" for n in missing}
    dtype = torch.get_default_dtype() if rollouts.log_prob is None else rollouts.log_prob.dtype
    values = value.to(dtype)[:, None]
    return Component(reward.name, "episode", values, status[:, None], reasons, reward.bounds, version=reward.version)
