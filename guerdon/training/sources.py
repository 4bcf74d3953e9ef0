# SPDX-License-Identifier: Apache-2.0
"""Where a stage's batches come from. Each batch depends on (seed, step) and the policy alone, so a resumed run sees the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from guerdon.comparisons import Comparisons
from guerdon.errors import InputError
from guerdon.protocols import Context, Policy, Sampling
from guerdon.rollouts import Rollouts
from guerdon.training.recipe import Batch, Sample

Item = TypeVar("Item")


def order(count: int, epoch: int, seed: int) -> np.ndarray:
    """A permutation of range(count) that depends on (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def picks(count: int, size: int, step: int, seed: int) -> list[tuple[int, int]]:
    """(item, epoch) of the ``size`` items of batch ``step``: every item once per epoch, each epoch in its own order.

    >>> sorted(item for step in (0, 1, 2) for item, _ in picks(6, 2, step, seed=0))
    [0, 1, 2, 3, 4, 5]
    >>> [epoch for _, epoch in picks(6, 4, 1, seed=0)]
    [0, 0, 1, 1]
    """
    places = range(step * size, (step + 1) * size)
    orders = {epoch: order(count, epoch, seed) for epoch in {p // count for p in places}}
    return [(int(orders[p // count][p % count]), p // count) for p in places]


@dataclass(frozen=True)
class Prompts:
    """A policy on tasks: ``prompts`` tasks a step, ``samples`` rows of each, which form a group.

    sample   stands in for ``policy.sample`` (a conversation with an environment, say)
    parts    the tasks are sampled in that many turns, whole groups in each. A row's random numbers are its own, so what is drawn
             does not change, up to rounding; smaller turns take the policy longer
    ready    told each part as it is drawn, so that a reward can begin with it (``reward.begin``) while the next is drawn
    """

    contexts: Sequence[Context]
    prompts: int
    samples: int
    sampling: Sampling
    sample: Sample | None = None
    parts: int = 1
    ready: Callable[[Rollouts], None] | None = None

    def __post_init__(self) -> None:
        _check("Prompts", contexts=len(self.contexts), prompts=self.prompts, samples=self.samples, parts=self.parts)

    def batch(self, step: int, policy: Policy, seed: int) -> Batch:
        chosen = [(self.contexts[item], epoch) for item, epoch in picks(len(self.contexts), self.prompts, step, seed)]
        drawn = []
        for some in _turns(chosen if self.parts == 1 else _of_the_same_fields(chosen), self.parts):
            drawn.append(self._drawn(some, policy, seed))
            if self.ready is not None:
                self.ready(drawn[-1])
        return Batch(drawn[0] if len(drawn) == 1 else Rollouts.concat(drawn))

    def _drawn(self, chosen: Sequence[tuple[Context, int]], policy: Policy, seed: int) -> Rollouts:
        """Rows of (task, epoch); groups are numbered from 0, and stay apart from those of other parts when put together."""
        rows = [
            replace(context, index=epoch * self.samples + i, group=g)
            for g, (context, epoch) in enumerate(chosen)
            for i in range(self.samples)
        ]
        with torch.no_grad():
            if self.sample is None:
                return policy.sample(rows, self.sampling, seed)
            return self.sample(policy, rows, self.sampling, seed)


def _of_the_same_fields(chosen: Sequence[tuple[Context, int]]) -> list[tuple[Context, int]]:
    """With None where a task lacks a field of another: parts that are put together have the same fields."""
    missing = dict.fromkeys(name for context, _ in chosen for name in context.fields)
    return [(replace(context, fields={**missing, **context.fields}), epoch) for context, epoch in chosen]


def _turns(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    """``items`` in order, cut into ``count`` runs of nearly the same length; fewer where there are fewer items.

    >>> _turns("abcdefg", 3), _turns("ab", 3)
    (['ab', 'cd', 'efg'], ['a', 'b'])
    """
    count = min(count, len(items))
    return [items[len(items) * i // count : len(items) * (i + 1) // count] for i in range(count)]


@dataclass(frozen=True)
class Demonstrations:
    """Completions to imitate: (prompt, completion), ``size`` a step. The policy's ``encode`` turns text into Rollouts."""

    rows: Sequence[tuple[Any, Any]]
    size: int

    def __post_init__(self) -> None:
        _check("Demonstrations", rows=len(self.rows), size=self.size)

    def batch(self, step: int, policy: Any, seed: int) -> Batch:
        chosen = [self.rows[i] for i, _ in picks(len(self.rows), self.size, step, seed)]
        return Batch(policy.encode([p for p, _ in chosen], [c for _, c in chosen]))


@dataclass(frozen=True)
class Pairs:
    """Preferences: (prompt, one completion, another, probability that the first is better), ``size`` pairs a step.

    NaN for a probability nobody gave: the pair takes no part.
    """

    rows: Sequence[tuple[Any, Any, Any, float]]
    size: int

    def __post_init__(self) -> None:
        _check("Pairs", rows=len(self.rows), size=self.size)

    def batch(self, step: int, policy: Any, seed: int) -> Batch:
        chosen = [self.rows[i] for i, _ in picks(len(self.rows), self.size, step, seed)]
        rollouts = policy.encode([r[0] for r in chosen for _ in (1, 2)], [x for r in chosen for x in r[1:3]])
        first = torch.arange(0, 2 * len(chosen), 2)
        return Batch(rollouts, Comparisons(first, first + 1, torch.tensor([float(r[3]) for r in chosen])))


def contexts_of(tasks: Sequence[Any]) -> list[Context]:
    """Contexts of Tasks (key, prompt, fields)."""
    if not tasks:
        raise InputError("contexts_of: expected at least one task, got none. Usual cause: an empty data file or split.")
    return [Context(t.key, t.prompt, t.fields) for t in tasks]


def split(items: Sequence[Item], held_out: int, seed: int) -> tuple[list[Item], list[Item]]:
    """(training, held-out) by a permutation that depends on the seed alone; at least one item each."""
    if not 0 < held_out < len(items):
        raise InputError(
            f"split: expected 0 < held_out < {len(items)} items, got held_out={held_out}. Usual cause: too small a data file."
        )
    at = order(len(items), 0, seed)
    return [items[i] for i in at[held_out:]], [items[i] for i in at[:held_out]]


def _check(whose: str, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{whose}: expected `{name}` of 1 or more, got {count}. Usual cause: an empty data file or split.")
