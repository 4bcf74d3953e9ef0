# SPDX-License-Identifier: Apache-2.0
"""Recipe: everything the loop needs to know, as parts. What a system file returns.

A recipe is stages run one after another on one policy; a stage is where rollouts come from, what they are worth, who gets the
credit, and which losses follow. Parts are plain functions with their hyper-parameters bound; see ``binding``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from guerdon.errors import InputError
from guerdon.protocols import Batch, Context, Policy, Sampling, Scorer
from guerdon.rewards.oracle import refuse_oracles
from guerdon.rollouts import Rollouts
from guerdon.scores import Scores

Number = float | Callable[[int], float]
"""A number, or a schedule: the number at a step of its stage."""

Sample = Callable[[Policy, Sequence[Context], Sampling, int], Rollouts]
"""(policy, contexts, sampling, seed) -> one row per context; what stands in for ``policy.sample``."""


class Source(Protocol):
    """Where a stage's batches come from: a policy on tasks, a dataset, a replay.

    Must depend on (seed, step) and the policy alone, so that a resumed run sees the same batches.
    """

    def batch(self, step: int, policy: Any, seed: int) -> Batch: ...


@dataclass(frozen=True)
class Term:
    """One loss: ``weight`` x ``reduction`` of ``objective``, over the rows for which ``rows(rollouts, scores)`` [N] is True.

    ``rows`` None: all. A pair counts if both of its rows do.
    """

    weight: Number
    objective: Callable[..., Any]
    reduction: Any
    rows: Callable[[Rollouts, Scores | None], Tensor] | None = None


@dataclass(frozen=True)
class Stage:
    """Part of a run with one source, one reward and one set of losses.

    credit     (reward, ...) -> advantage [N, T]; None: no advantages are needed
    combine    (advantages, weights) -> advantage: the reward's components, not yet weighted, are credited apart, then combined.
               None: the total is credited
    transforms (advantage, ...) -> advantage, applied in order, e.g. whiten
    select     (rollouts, scores) -> [N], the rows kept (bool) or how much each counts (float; 0 and NaN leave a row out). A row
               of weight w adds w times its loss; what a reduction divides by is the number of rows or steps kept, not their
               weight. Rows left out still are in their group's statistics
    updates    optimiser steps per batch; the rows are dealt out in order, or at random with ``shuffle``
    by         what is dealt out: each "row" whole or, for policies that read nothing of a row's other steps, each taken "step" as
               a row of its own (then a level is of no use to a loss)
    evolving   parts that learn while in use, see ``evolving``; those inside the reward are found without being listed
    rounds     passes over the batch
    micro_rows largest number of rows (of pairs, where there are comparisons) in one forward pass; changes nothing but rounding
    updater    settings for ``policy.updater``
    max_failed largest share of a reward term's units that may time out or raise before the run stops
    """

    name: str
    steps: int
    source: Source
    terms: Sequence[Term]
    reward: Scorer | None = None
    credit: Callable[..., Tensor] | None = None
    combine: Callable[..., Tensor] | None = None
    transforms: Sequence[Callable[..., Tensor]] = ()
    select: Callable[[Rollouts, Scores], Tensor] | None = None
    updates: int = 1
    rounds: int = 1
    by: str = "row"
    shuffle: bool = False
    evolving: Sequence[Any] = ()
    micro_rows: int = 1024
    lr: Number = 1e-3
    updater: Mapping[str, Any] = field(default_factory=dict)
    max_failed: float = 0.1

    def __post_init__(self) -> None:
        whose = f"stage `{self.name}`"
        at_least(whose, 0, steps=self.steps)
        at_least(whose, 1, terms=len(self.terms), updates=self.updates, rounds=self.rounds, micro_rows=self.micro_rows)
        if self.by not in ("row", "step"):
            raise InputError(f"{whose}: `by` should be row or step, got {self.by!r}.")
        needing = [k for k in ("credit", "select") if getattr(self, k) is not None]
        if needing and self.reward is None:
            raise InputError(f"{whose}: `{needing[0]}` needs a reward, got none.")
        refuse_oracles(self.reward, whose)


class Evaluator(Protocol):
    """Measures a policy every ``every`` steps of the run; the figures' names begin with ``eval/``."""

    @property
    def every(self) -> int: ...

    def measure(self, policy: Any, step: int) -> dict[str, float]: ...


@dataclass(frozen=True)
class Recipe:
    """A policy, its stages, how it is evaluated; and how often the run is saved.

    ``stop``, told each evaluation, ends its stage early. ``best`` names the evaluation metric whose maximum decides which policy
    is kept as the best. ``save_rollouts_every`` 0: never. ``about`` is printed and reported: a sentence, what is seen, settings
    worth showing. JSON values.
    """

    name: str
    policy: Callable[[], Policy]
    stages: Sequence[Stage]
    evaluation: Evaluator | None = None
    seed: int = 0
    checkpoint_every: int = 25
    save_rollouts_every: int = 50
    best: str = "eval/success"
    stop: Callable[[Mapping[str, float]], bool] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(f"recipe `{self.name}`", 1, stages=len(self.stages), checkpoint_every=self.checkpoint_every)
        at_least(f"recipe `{self.name}`", 0, save_rollouts_every=self.save_rollouts_every)

    @property
    def total_steps(self) -> int:
        return sum(stage.steps for stage in self.stages)


@dataclass(frozen=True)
class Learning:
    """A learner with a loop of its own: value-based, evolutionary, search, exact.

    ``lines()`` trains and yields a line of metrics now and then, e.g. ``{"samples": 500, "eval/return": 31.0}``. The last line's
    figures are the result. Lines go where a Recipe's go; a learner that was interrupted starts again.
    """

    name: str
    lines: Callable[[], Iterator[Mapping[str, Any]]]
    seed: int = 0
    total_steps: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)


def at_least(whose: str, least: int, **counts: int) -> None:
    """Raise unless every one of ``counts`` is ``least`` or more."""
    for name, count in counts.items():
        if count < least:
            raise InputError(f"{whose}: expected `{name}` of {least} or more, got {count}.")
