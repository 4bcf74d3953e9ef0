# SPDX-License-Identifier: Apache-2.0
"""A reward for every step from labels of whole episodes: the log-ratio of two policies, trained as a classifier of outcomes.

    r_t = beta log(pi_phi(a_t | s_t) / pi_ref(a_t | s_t))        loss = cross-entropy of sigmoid(sum_t r_t) against the outcome

Trained so that the *sum* tells right episodes from wrong ones, each r_t is how much its action changed the model's verdict: the
difference of two soft values. Yuan et al. 2024, arXiv:2412.01981.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from guerdon.errors import InputError, check_shape
from guerdon.protocols import Batch, Policy, Updater
from guerdon.rewards.node import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Component, Scores, component

OUTPUTS = frozenset({"log_prob", "ref_log_prob"})
ROUNDING = 16
"""Units in the last place that two sums of the same numbers may be apart."""


def outcome_logit(log_prob: Tensor, ref_log_prob: Tensor, mask: Tensor, *, beta: float | Tensor) -> Tensor:
    """beta sum_t (log_prob - ref_log_prob) over the counted steps, [N]: the log-odds of a good outcome.

    >>> log_prob, ref_log_prob = torch.tensor([[-1., -2., 9.]]), torch.tensor([[-2., -2.5, 0.]])
    >>> outcome_logit(log_prob, ref_log_prob, torch.tensor([[True, True, False]]), beta=0.5).tolist()
    [0.75]
    """
    return beta * torch.where(mask, log_prob - ref_log_prob, 0).sum(1)


def log_ratio(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """log_prob - ref_log_prob, and 0 where that is no more than rounding, of the same shape.

    A model and its equal reference may differ by the order of their sums; whoever divides by the largest reward, as PRIME does,
    would make that as loud as a verdict.

    >>> log_ratio(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0000001, -1.5])).tolist()
    [0.0, 0.5]
    """
    ratio = log_prob - ref_log_prob
    rounding = ROUNDING * torch.finfo(ratio.dtype).eps * (1 + torch.minimum(log_prob.abs(), ref_log_prob.abs()))
    return torch.where(ratio.abs() <= rounding, 0, ratio)


class Heard(Protocol):
    """What of a training step this reward learns from."""

    @property
    def step(self) -> int: ...

    @property
    def batch(self) -> Batch: ...

    @property
    def scores(self) -> Scores | None: ...

    @property
    def ingredients(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Implicit(Reward):
    """The log-ratio of each step, learnt while in use from the rollouts that it scores.

    It scores first and learns after, from the rows that the policy was trained on. Metrics, before it learns: ``NAME/loss``,
    ``NAME/accuracy`` (of sum > 0 as a verdict), ``NAME/grad_norm``.

    model    makes the policy that is the classifier, with a frozen reference; called when first needed
    outcome  name of the term, watched or not, that says which episodes are good: above 1/2
    until    training step from which on it stays as it is; None: it never stops learning
    updates  steps of its optimiser for each batch, on as many parts of it; the rows are dealt out in order
    """

    model: Callable[[], Policy]
    outcome: str
    beta: float = 0.05
    lr: float = 1e-6
    max_grad_norm: float = 10.0
    until: int | None = None
    updates: int = 1
    micro_rows: int = 1024
    before: bool = False
    level: str = "step"
    relation: str = "reference"
    evolves: bool = True
    causal: bool = True
    identity: Any = field(default_factory=object)  # two of them with the same settings learn apart

    def expression(self) -> str:
        return f"implicit({self.outcome!r})"

    @cached_property
    def policy(self) -> Policy:
        made = self.model()
        if not made.outputs >= OUTPUTS:
            raise InputError(
                f"{self.name}: the model should offer log_prob and ref_log_prob, got one that offers "
                f"{', '.join(sorted(made.outputs))}. Usual cause: a policy made without reference='copy'."
            )
        return made

    @cached_property
    def updater(self) -> Updater:
        return self.policy.updater(lr=self.lr, max_grad_norm=self.max_grad_norm)

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        with torch.no_grad():
            pieces = [rollouts.rows(rows) for rows in torch.arange(len(rollouts)).split(self.micro_rows)]
            found = [self.policy.evaluate(r, OUTPUTS) for r in pieces]
        ratio = torch.cat([log_ratio(x["log_prob"], x["ref_log_prob"]) for x in found])
        taken = rollouts.mask & (rollouts.level("step") >= 0)
        return component(self.name, "step", torch.where(taken, self.beta * ratio, math.nan))

    def update(self, told: Heard) -> dict[str, float]:
        if self.until is not None and told.step >= self.until:
            return {}
        good = self._labels(told.scores)
        rows = ~good.isnan() & (told.batch.rollouts.weight > 0) & told.ingredients["mask"].any(1)
        if not rows.any():
            return {}
        parts = [
            self._learn(told.batch.rollouts.rows(at), good[at] > 0.5) for at in rows.nonzero()[:, 0].tensor_split(self.updates)
        ]
        return {f"{self.name}/{k}": sum(p[k] for p in parts) / len(parts) for k in parts[0]}

    def _learn(self, rollouts: Rollouts, good: Tensor) -> dict[str, float]:
        """One step of its optimiser on the mean cross-entropy."""
        loss, right = 0.0, 0
        for at in torch.arange(len(rollouts)).split(self.micro_rows):
            some, label = rollouts.rows(at), good[at]
            outputs = self.policy.evaluate(some, OUTPUTS)
            log_prob = outputs["log_prob"].detach().requires_grad_()
            logit = outcome_logit(log_prob, outputs["ref_log_prob"], some.mask, beta=self.beta)
            total = binary_cross_entropy_with_logits(logit, label.to(logit.dtype), reduction="sum") / len(rollouts)
            total.backward()
            assert log_prob.grad is not None
            self.updater.accumulate(outputs, {"log_prob": log_prob.grad})
            loss, right = loss + total.item(), right + int(((logit > 0) == label).sum())
        return {"loss": loss, "accuracy": right / len(rollouts), **self.updater.step()}

    def _labels(self, scores: Scores | None) -> Tensor:
        """[N] the outcome, NaN where it is not ok."""
        if scores is None or self.outcome not in scores.trace:
            there = "none" if scores is None else ", ".join(scores.trace)
            raise InputError(
                f"{self.name}: learns from the term `{self.outcome}`, but the terms are {there}. "
                "Usual cause: an outcome that is not part of the reward; add it, or add it watched."
            )
        values = scores.trace[self.outcome].values
        check_shape(self.name, self.outcome, values, (values.shape[0], 1), "an outcome per step instead of per episode")
        return values[:, 0]

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.policy.state_dict(), "updater": self.updater.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.policy.load_state_dict(state["model"])
        self.updater.load_state_dict(state["updater"])


def implicit(model: Callable[[], Policy], outcome: str, *, name: str = "process", **settings: Any) -> Implicit:
    """An ``Implicit`` reward; ``settings`` are its fields: beta, lr, max_grad_norm, until, micro_rows."""
    return Implicit(name=name, model=model, outcome=outcome, **settings)
