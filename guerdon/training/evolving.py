# SPDX-License-Identifier: Apache-2.0
"""Parts that learn while in use: a reward model, a multiplier, weights of components, a sampler of tasks.

The loop tells each of them once a step what happened, before the policy's update or after it, and keeps their state in the
checkpoint. What a part does with it, and how often, is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from guerdon.rewards.node import Reward
from guerdon.scores import Scores
from guerdon.training.binding import Ingredients
from guerdon.training.recipe import Batch, Stage


@dataclass(frozen=True)
class Told:
    """What happened in a step.

    step         of the stage
    scores       of every component
    ingredients  what the losses may ask for; ``advantage`` and the ``mask`` of usable steps only after the credit
    evaluation   the figures of the last evaluation, {} before the first
    advantages   () -> name -> [N, T]: each component's own credit, not weighted
    gradient     (advantage [N, T]) -> [P]: the gradient of the stage's loss with respect to the policy's parameters, had the
                 advantage been this
    metrics      of the step, as far as they are there
    """

    step: int
    batch: Batch
    scores: Scores | None
    ingredients: Ingredients
    policy: Any
    evaluation: Mapping[str, float]
    advantages: Callable[[], Mapping[str, Tensor]]
    gradient: Callable[[Tensor], Tensor]
    metrics: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Stateful(Protocol):
    """What must be in a checkpoint. A state is a nesting of dicts and lists with tensors, numbers and strings at the leaves."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Evolving(Stateful, Protocol):
    """``before``: told between scoring and credit, so that this batch's credit is by what it learns; else after the update."""

    before: bool

    def update(self, told: Told) -> Mapping[str, float]:
        """Learn from a step; metrics of it."""
        ...


@runtime_checkable
class Stopping(Protocol):
    """A part that may end the run: ``stopping`` says why, "" to go on."""

    @property
    def stopping(self) -> str: ...


def why_stop(stage: Stage) -> str:
    """The first reason that a part of the stage has to end the run, or ""."""
    return next((p.stopping for p in _parts(stage) if isinstance(p, Stopping) and p.stopping), "")


def evolve(stage: Stage, before: bool, told: Told) -> dict[str, float]:
    """Tell the stage's evolving parts and those inside its reward, each once, if it is their time; their metrics."""
    metrics = dict[str, float]()
    for part in _parts(stage):
        if isinstance(part, Evolving) and part.before is before:
            metrics |= part.update(told)
    return metrics


def state_of(stage: Stage) -> dict[str, Any]:
    """Of everything in the stage that has state: its source, its evolving parts, nodes of its reward."""
    return {key: part.state_dict() for key, part in _stateful(stage).items()}


def load_state(stage: Stage, state: Mapping[str, Any]) -> None:
    for key, part in _stateful(stage).items():
        part.load_state_dict(state[key])


def _stateful(stage: Stage) -> dict[str, Stateful]:
    parts = [p for p in _parts(stage) if isinstance(p, Stateful)]
    return {f"{i}-{type(p).__name__}": p for i, p in enumerate(parts)}


def _parts(stage: Stage) -> list[Any]:
    inside = stage.reward.nodes() if isinstance(stage.reward, Reward) else []
    found: dict[int, Any] = {id(p): p for p in [stage.source, *stage.evolving, *inside]}
    return list(found.values())
