# SPDX-License-Identifier: Apache-2.0
"""Where a stage's batches come from. Each batch depends on (seed, step) and the policy alone, so a resumed run sees the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
    ready    told rows as they end, so that a reward can begin with them (``reward.begin``) while the others are drawn, by a
             policy whose ``sample`` takes ``ready``, such as LanguagePolicy
    """

    contexts: Sequence[Context]
    prompts: int
    samples: int
    sampling: Sampling
    sample: Sample | None = None
    ready: Callable[[Rollouts], None] | None = None

    def __post_init__(self) -> None:
        _check("Prompts", contexts=len(self.contexts), prompts=self.prompts, samples=self.samples)

    def batch(self, step: int, policy: Policy, seed: int) -> Batch:
        chosen = [(self.contexts[item], epoch) for item, epoch in picks(len(self.contexts), self.prompts, step, seed)]
        rows = [
            replace(context, index=epoch * self.samples + i, group=g)
            for g, (context, epoch) in enumerate(chosen)
            for i in range(self.samples)
        ]
        sample: Callable[..., Rollouts] = policy.sample if self.sample is None else partial(self.sample, policy)
        told = {} if self.ready is None else {"ready": self.ready}
        with torch.no_grad():
            return Batch(sample(rows, self.sampling, seed, **told))


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
