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
from guerdon.protocols import Context, Policy, Sampling, Scorer
from guerdon.rollouts import Rollouts
from guerdon.scores import Scores

Number = float | Callable[[int], float]


@dataclass(frozen=True)
class Batch:
    """What a source hands the loop: rows, and judgements about pairs of them if there are any."""

    rollouts: Rollouts
    comparisons: Comparisons | None = None


class Source(Protocol):
    """Where a stage's batches come from: a policy on tasks, a dataset, a replay.

    Must depend on (seed, step) and the policy alone, so that a resumed run sees the same batches.
    """

    def batch(self, step: int, policy: Policy, seed: int) -> Batch: ...


@dataclass(frozen=True)
class Term:
    """One loss: ``weight`` x ``reduction`` of ``objective``, over the rows for which ``rows(rollouts, scores)`` [N] is True (None: all)."""

    weight: Number
    objective: Callable[..., Any]
    reduction: Any
    rows: Callable[[Rollouts, Scores | None], Tensor] | None = None


@dataclass(frozen=True)
class Stage:
    """Part of a run with one source, one reward and one set of losses.

    credit     (reward, ...) -> advantage [N, T]; None: no advantages are needed
    combine    (advantages, weights) -> advantage: components are credited apart, then combined. None: the summed reward is credited
    transforms (advantage, ...) -> advantage, applied in order, e.g. whiten
    select     (rollouts, scores) -> [N] rows kept (bool) or their weights (float)
    updates    optimiser steps per batch; the rows are dealt out in order
    rounds     passes over the batch
    micro_rows largest number of rows (of pairs, where there are comparisons) in one forward pass; no effect on the result but rounding
    updater    settings for ``policy.updater``; lr may be a schedule
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


@dataclass(frozen=True)
class Evaluation:
    """Held-out tasks scored in the loop: ``samples`` draws per task (pass@k) and one greedy; the random streams are the same each time."""

    contexts: Sequence[Context]
    success: Scorer
    every: int
    samples: int = 4
    sampling: Sampling = Sampling()
    greedy: bool = True
    sample: Callable[..., Rollouts] | None = None


@dataclass(frozen=True)
class Recipe:
    """A policy, its stages, how it is evaluated; and how often the run is saved.

    ``stop`` ends a stage early, told the newest evaluation. ``best`` names the evaluation metric whose maximum decides which policy is kept as the best.
    ``about`` is printed and reported: a sentence, what is seen, settings worth showing. JSON values.
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
