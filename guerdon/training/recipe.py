# SPDX-License-Identifier: Apache-2.0
"""Recipe: everything the loop needs to know, as parts. What a system file returns.

A recipe is stages run one after another on one policy; a stage is where rollouts come from, what they are worth, who gets the
credit, and which losses follow. Parts are plain functions with their hyper-parameters bound; see ``binding``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.errors import InputError
from guerdon.protocols import Context, Policy, Sampling, Scorer
from guerdon.rollouts import Rollouts
from guerdon.scores import Scores

Number = float | Callable[[int], float]
"""A number, or a schedule: the number at a step of its stage."""

Sample = Callable[[Policy, Sequence[Context], Sampling, int], Rollouts]
"""(policy, contexts, sampling, seed) -> one row per context; what stands in for ``policy.sample``."""


@dataclass(frozen=True)
class Batch:
    """What a source hands the loop: rows, and judgements about pairs of them if there are any."""

    rollouts: Rollouts
    comparisons: Comparisons | None = None


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
    updates    optimiser steps per batch; the rows are dealt out in order
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
    micro_rows: int = 1024
    lr: Number = 1e-3
    updater: Mapping[str, Any] = field(default_factory=dict)
    max_failed: float = 0.1

    def __post_init__(self) -> None:
        whose = f"stage `{self.name}`"
        _at_least(whose, 0, steps=self.steps)
        _at_least(whose, 1, terms=len(self.terms), updates=self.updates, rounds=self.rounds, micro_rows=self.micro_rows)
        needing = [k for k in ("credit", "select") if getattr(self, k) is not None]
        if needing and self.reward is None:
            raise InputError(f"{whose}: `{needing[0]}` needs a reward, got none.")


@dataclass(frozen=True)
class Evaluation:
    """Held-out tasks scored in the loop: ``samples`` draws per task (pass@k) and one greedy, always with the same random numbers.

    ``success`` scores whole completions, above 1/2 is a success; ``sample`` stands in for ``policy.sample``.
    """

    contexts: Sequence[Context]
    success: Scorer
    every: int
    samples: int = 4
    sampling: Sampling = Sampling()
    greedy: bool = True
    sample: Sample | None = None

    def __post_init__(self) -> None:
        _at_least("evaluation", 1, contexts=len(self.contexts), every=self.every, samples=self.samples)


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
    evaluation: Evaluation | None = None
    seed: int = 0
    checkpoint_every: int = 25
    save_rollouts_every: int = 50
    best: str = "eval/success"
    stop: Callable[[Mapping[str, float]], bool] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _at_least(f"recipe `{self.name}`", 1, stages=len(self.stages), checkpoint_every=self.checkpoint_every)
        _at_least(f"recipe `{self.name}`", 0, save_rollouts_every=self.save_rollouts_every)

    @property
    def total_steps(self) -> int:
        return sum(stage.steps for stage in self.stages)


def _at_least(whose: str, least: int, **counts: int) -> None:
    for name, count in counts.items():
        if count < least:
            raise InputError(f"{whose}: expected `{name}` of {least} or more, got {count}.")
