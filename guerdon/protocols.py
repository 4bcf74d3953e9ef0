# SPDX-License-Identifier: Apache-2.0
"""The roles that snap together: a policy samples, a reward scores, a comparator judges, an observer is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.rollouts import Rollouts
from guerdon.scores import Scores


@dataclass(frozen=True)
class Context:
    """Where a policy starts from: a task, or later a prefix of a rollout.

    ``index`` numbers the samples of a task over the whole run: (seed, task, index) is the key of the row's random stream.
    ``group`` marks the rows that are compared with one another.
    """

    task: str
    prompt: Any
    fields: Mapping[str, Any] = field(default_factory=dict)
    index: int = 0
    group: int = 0


@dataclass(frozen=True)
class Sampling:
    """How to draw actions. ``temperature`` 0 is greedy; ``keep_set`` stores which tokens truncation kept, to train on them."""

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    keep_set: bool = False


@runtime_checkable
class Policy(Protocol):
    """What the loop asks of any policy: language model, control network, flow, boosted trees, table.

    ``outputs``: the names ``evaluate`` can give, e.g. log_prob, entropy, value, ref_log_prob.
    """

    @property
    def outputs(self) -> frozenset[str]: ...

    def sample(self, contexts: Sequence[Context], sampling: Any, seed: int) -> Rollouts:
        """One row per context, each drawn from its own stream keyed by (seed, context.task, context.index)."""
        ...

    def evaluate(self, rollouts: Rollouts, want: frozenset[str]) -> dict[str, Tensor]:
        """Outputs by name ([N, T] unless said otherwise) for the rollouts' actions, in one pass, with gradient."""
        ...

    def updater(self, **settings: Any) -> Updater:
        """What turns gradients with respect to this policy's outputs into a better policy."""
        ...

    def save(self, path: Path) -> None:
        """Write what the model's own library loads."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Updater(Protocol):
    """Takes the loss's gradient with respect to the policy's *outputs*; networks back-propagate it, boosted trees fit it."""

    def accumulate(self, outputs: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None: ...

    def step(self, **schedule: float) -> dict[str, float]:
        """Apply what was accumulated; metrics such as the gradient's norm."""
        ...

    def take_gradient(self) -> Tensor:
        """[P] what was accumulated, flat, instead of applying it."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Batch:
    """What a source hands the loop: rows, and judgements about pairs of them if there are any."""

    rollouts: Rollouts
    comparisons: Comparisons | None = None


class Scorer(Protocol):
    """A reward, as far as a loop needs to know one."""

    @property
    def needs(self) -> frozenset[str]: ...

    def score(self, rollouts: Rollouts, *, step: int = 0) -> Scores: ...


class Comparator(Protocol):
    """Judges pairs of units; may be called several times (a bracket chooses its next matches)."""

    def __call__(self, rollouts: Rollouts, pairs: Tensor) -> Comparisons: ...


class Observer(Protocol):
    """Is told what happens; must not change it. Every method may be called many times; ``metrics`` is flat and JSON-able."""

    def start(self, config: Mapping[str, Any], directory: Path, step: int) -> None: ...

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None: ...

    def finish(self, result: Mapping[str, Any]) -> None: ...
