# SPDX-License-Identifier: Apache-2.0
"""Where a stage's batches come from. Each batch depends on (seed, step) and the policy alone, so a resumed run sees the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


from guerdon.comparisons import Comparisons
from guerdon.errors import InputError
from guerdon.protocols import Context, Policy, Sampling
from guerdon.rollouts import Rollouts
from guerdon.training.recipe import Batch


def order(count: int, epoch: int, seed: int) -> np.ndarray:
    """A permutation of range(count) that depends on (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def picks(count: int, size: int, step: int, seed: int) -> list[tuple[int, int]]:
    """(item, epoch) of the ``size`` items of batch ``step``: every item once per epoch, each epoch in its own order.

    >>> [len({i for i, _ in picks(6, 2, s, 0)} | {i for i, _ in picks(6, 2, s + 1, 0)} | {i for i, _ in picks(6, 2, s + 2, 0)}) for s in (0, 3)]
    [6, 6]
    """
    places = range(step * size, (step + 1) * size)
    orders = {epoch: order(count, epoch, seed) for epoch in {p // count for p in places}}
    return [(int(orders[p // count][p % count]), p // count) for p in places]


@dataclass(frozen=True)
class Prompts:
    """A policy on tasks: ``prompts`` tasks a step, ``samples`` rows of each, which form a group.

    ``contexts`` carry key, prompt and fields; ``sample`` stands in for ``policy.sample`` (a conversation with an environment, say):
    a function (policy, contexts, sampling, seed) -> Rollouts.
    """

    contexts: Sequence[Context]
    prompts: int
    samples: int
    sampling: Sampling
    sample: Callable[[Policy, Sequence[Context], Sampling, int], Rollouts] | None = None

    def batch(self, step: int, policy: Policy, seed: int) -> Batch:
        rows = [
            Context(c.task, c.prompt, c.fields, index=epoch * self.samples + i, group=g)
            for g, (item, epoch) in enumerate(picks(len(self.contexts), self.prompts, step, seed))
            for c in [self.contexts[item]]
            for i in range(self.samples)
        ]
        with torch.no_grad():
            draw = self.sample or (lambda p, *rest: p.sample(*rest))
            return Batch(draw(policy, rows, self.sampling, seed))


@dataclass(frozen=True)
class Demonstrations:
    """Written completions to imitate: ``encode(prompts, completions, fields)`` turns them into Rollouts (a policy's own)."""

    rows: Sequence[tuple[Any, Any]]
    size: int

    def batch(self, step: int, policy: Any, seed: int) -> Batch:
        chosen = [self.rows[i] for i, _ in picks(len(self.rows), self.size, step, seed)]
        return Batch(policy.encode([p for p, _ in chosen], [c for _, c in chosen]))


@dataclass(frozen=True)
class Pairs:
    """Preference data: (prompt, chosen, rejected, probability that chosen is better); ``size`` pairs a step."""

    rows: Sequence[tuple[Any, Any, Any, float]]
    size: int

    def batch(self, step: int, policy: Any, seed: int) -> Batch:
        chosen = [self.rows[i] for i, _ in picks(len(self.rows), self.size, step, seed)]
        rollouts = policy.encode([r[0] for r in chosen for _ in (1, 2)], [x for r in chosen for x in r[1:3]])
        first = torch.arange(0, 2 * len(chosen), 2)
        return Batch(rollouts, Comparisons(first, first + 1, torch.tensor([r[3] for r in chosen])))


def contexts_of(tasks: Sequence[Any]) -> list[Context]:
    """Contexts of Tasks (key, prompt, fields)."""
    if not tasks:
        raise InputError("contexts_of: expected at least one task, got none. Usual cause: an empty data file or split.")
    return [Context(t.key, t.prompt, t.fields) for t in tasks]


def split(items: Sequence[Any], held_out: int, seed: int) -> tuple[list[Any], list[Any]]:
    """(training, held-out) by a permutation that depends on the seed alone; at least one item each."""
    if not 0 < held_out < len(items):
        raise InputError(f"split: expected 0 < held_out < {len(items)} items, got held_out={held_out}. Usual cause: too small a data file.")
    at = order(len(items), 0, seed)
    return [items[i] for i in at[held_out:]], [items[i] for i in at[:held_out]]


