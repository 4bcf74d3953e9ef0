# SPDX-License-Identifier: Apache-2.0
"""Open-ended answers with a true quality that only judges see, dimly: alone on a scale that bunches, or two side by side.

An answer is ``length`` actions; its quality in [0, 1] is the mean of a table entry for each. A judge gives whole points from 0 to
10 with noise of ``sigma`` points. Asked about one answer, it uses ``span`` points of its scale for the whole range of quality,
around 7; asked about two it gives each 5 points plus or minus 5 times their difference, and ``favour`` points to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.policies.counter_stream import counter_stream
from guerdon.policies.table import TablePolicy
from guerdon.protocols import Context
from guerdon.rollouts import Rollouts


@dataclass(frozen=True, eq=False)
class Answers:
    """``table`` [K, T, A]: what each action adds to an answer's quality, times T."""

    table: Tensor

    @property
    def keys(self) -> list[str]:
        return [f"question {k}" for k in range(len(self.table))]

    def contexts(self) -> list[Context]:
        return [Context(key, key, {"row": k}) for k, key in enumerate(self.keys)]

    def policy(self) -> TablePolicy:
        return TablePolicy(self.keys, self.table.shape[2], length=self.table.shape[1])

    def quality(self, rollouts: Rollouts) -> Tensor:
        """[N] float64."""
        rows = torch.tensor(rollouts.field("row").values)
        steps = torch.arange(rollouts.action.shape[1])
        return self.table[rows[:, None], steps, rollouts.action].mean(1)

    def expected(self, policy: TablePolicy) -> float:
        """Mean quality over questions of the policy's answers."""
        return (policy.probabilities()[:, :, 0].double() * self.table).sum(-1).mean().item()


@lru_cache(maxsize=4)
def make_answers(seed: int, *, questions: int = 16, length: int = 4, actions: int = 16) -> Answers:
    g = torch.Generator().manual_seed(seed)
    return Answers(torch.rand(questions, length, actions, generator=g, dtype=torch.float64))


def with_tickets(policy: Any, contexts: Sequence[Context], sampling: Any, seed: int) -> Rollouts:
    """Samples with a task field ``ticket`` that tells each from all others of its run, for the judge's noise to depend on."""
    rollouts = policy.sample(contexts, sampling, seed)
    return rollouts.with_field("ticket", "task", [f"{seed}/{c.task}/{c.index}" for c in contexts])


@dataclass(frozen=True)
class Judge:
    """``fails``: the share of its answers about two that cannot be read."""

    answers: Answers
    sigma: float = 1.0
    span: float = 2.0
    favour: float = 1.0
    fails: float = 0.0

    def alone(self, rollouts: Rollouts, calls: int = 1) -> Tensor:
        """[N] the mean of ``calls`` scores of each answer by itself."""
        noise = normal([f"{t}/alone" for t in rollouts.field("ticket").values], calls)
        quality = self.answers.quality(rollouts)[:, None]
        return points(7 + self.span * (quality - 0.5) + self.sigma * noise).mean(1)

    def __call__(self, rollouts: Rollouts, pairs: Tensor) -> Comparisons:
        """Compares the answers of rows [P, 2]; ``margin`` is the difference in points."""
        tickets, quality = rollouts.field("ticket").values, self.answers.quality(rollouts)
        noise = normal([f"{tickets[a]} against {tickets[b]}" for a, b in pairs.tolist()], 3)
        lead = 5 * (quality[pairs[:, 0]] - quality[pairs[:, 1]])
        first, second = points(5 + lead + self.favour + self.sigma * noise[:, 0]), points(5 - lead + self.sigma * noise[:, 1])
        margin = first - second
        unreadable = torch.special.ndtr(noise[:, 2]) < self.fails
        target = torch.where(unreadable, torch.nan, (margin.sign() + 1) / 2)
        reasons = dict.fromkeys(unreadable.nonzero()[:, 0].tolist(), "the verdict could not be read")
        return Comparisons(pairs[:, 0], pairs[:, 1], target, margin=margin, annotator=["judge"] * len(pairs), reasons=reasons)


def points(x: Tensor) -> Tensor:
    """Whole points from 0 to 10."""
    return x.round().clamp(0, 10)


def normal(keys: Sequence[str], count: int) -> Tensor:
    """[N, count] standard normal, a stream for each key."""
    uniform = counter_stream(0, [(key, 0) for key in keys], count)
    return torch.special.ndtri(uniform.clamp(1e-12, 1 - 1e-12))
