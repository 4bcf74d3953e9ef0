# SPDX-License-Identifier: Apache-2.0
"""Offline learning without actions outside the data: two action values, a state value, an actor that imitates what is better.

One step on a batch of transitions (s, a, r, s'), in this order:

    V      value_loss(V(s), min_k Q'_k(s, a))                 asymmetric, so that V stays near the best of the data's actions
    actor  actor_loss(log pi(a | s), advantage = min_k Q'_k(s, a) - V(s))
    Q_k    critic_loss(Q_k(s, a), r + gamma (1 - terminated) V(s'))
    Q'     moves to Q by the share ``polyak``

With `expectile_loss` it is IQL (Kostrikov et al. 2021, arXiv:2110.06169), with `gumbel_loss` XQL (Garg et al. 2023,
arXiv:2301.02328).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guerdon.errors import GuerdonError, InputError
from guerdon.objectives.loss import Loss
from guerdon.objectives.reduction import token_mean
from guerdon.objectives.value import value_loss as squared_loss
from guerdon.objectives.weighted_likelihood import advantage_weighted_likelihood
from guerdon.protocols import Policy, Scorer, Updater
from guerdon.rewards.oracle import refuse_oracles
from guerdon.rollouts import Rollouts

ValueLoss = Callable[[Tensor, Tensor, Tensor], Loss]
"""(value, target, mask), all [N, T] -> a loss per step."""


class Perceptrons(nn.Module):
    """``copies`` perceptrons that read the same input: [B, sizes[0]] -> [copies, B, sizes[-1]]; ReLU between layers."""

    def __init__(self, sizes: Sequence[int], copies: int = 1) -> None:
        super().__init__()
        limits = [1 / n**0.5 for n in sizes[:-1]]  # as in torch.nn.Linear
        shapes = list(zip(limits, sizes[:-1], sizes[1:], strict=True))
        self.weights = nn.ParameterList([torch.empty(copies, i, o).uniform_(-x, x) for x, i, o in shapes])
        self.biases = nn.ParameterList([torch.empty(copies, 1, o).uniform_(-x, x) for x, _, o in shapes])

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(len(self.weights[0]), *x.shape)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x.relu() if i else x, weight)
        return x


class ActionValue(nn.Module):
    """Q_k(s, a): observations [B, O] and actions ([B] of ``actions`` kinds, or [B, ``actions``] numbers) -> [copies, B]."""

    def __init__(
        self, observation: int, actions: int, discrete: bool, hidden: Sequence[int] = (256, 256), copies: int = 2
    ) -> None:
        super().__init__()
        self.actions, self.discrete = actions, discrete
        self.body = Perceptrons([observation + (0 if discrete else actions), *hidden, actions if discrete else 1], copies)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        if self.discrete:
            every = self.body(observation)
            return every.gather(-1, action.long().expand(len(every), -1)[..., None])[..., 0]
        return self.body(torch.cat([observation, action], -1))[..., 0]


class StateValue(nn.Module):
    """V(s): observations [B, O] -> [B]."""

    def __init__(self, observation: int, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.body = Perceptrons([observation, *hidden, 1])

    def forward(self, observation: Tensor) -> Tensor:
        return self.body(observation)[0, :, 0]


def transitions(rollouts: Rollouts, reward: Scorer) -> Rollouts:
    """The taken steps as rows of one step, with the step field ``reward``; steps whose reward is not ok are left out.

    Needs the step fields ``observation`` and ``next_observation`` (the state that the step led to, at ends of episodes too).
    """
    refuse_oracles(reward, "transitions")
    for name in ("observation", "next_observation"):
        rollouts.field(name)
    paid = rollouts.with_field("reward", "step", reward.score(rollouts).reward())
    found = (rollouts.mask & ~paid.field("reward").values.isnan()).nonzero(as_tuple=True)
    if not len(found[0]):
        raise InputError("transitions: expected a step with a reward, got none. Usual cause: the reward failed on every row.")
    return paid.steps(*found)


@dataclass
class OfflineLearner:
    """The networks and what they descend on. ``lr`` is of all three; ``actor_settings`` go to the actor's updater.

    ``actor`` is any policy that gives ``log_prob`` for rows of one step with the field ``observation``.
    """

    actor: Policy
    critic: nn.Module
    value: nn.Module
    value_loss: ValueLoss
    critic_loss: ValueLoss = squared_loss
    actor_loss: Callable[..., Loss] = advantage_weighted_likelihood
    gamma: float = 0.99
    polyak: float = 0.005
    lr: float = 3e-4
    actor_settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.largest_value = 0.0  # |V| seen so far
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=self.lr, fused=True)
        self.value_optimiser = torch.optim.Adam(self.value.parameters(), lr=self.lr, fused=True)

    @cached_property
    def updater(self) -> Updater:
        return self.actor.updater(lr=self.lr, **self.actor_settings)

    def update(self, batch: Rollouts) -> dict[str, float]:
        """One step on rows made by `transitions`. Metrics: the losses, the mean V, the actor's ``weight``."""
        s, after, reward = (batch.field(k).values[:, 0] for k in ("observation", "next_observation", "reward"))
        action, goes_on = batch.action[:, 0], (~batch.terminated[:, 0]).to(s.dtype)
        with torch.no_grad():
            q = self.target(s, action).amin(0)
        metrics = {"loss/value": self.descend(self.value_optimiser, self.value_loss, self.value(s), q)}
        with torch.no_grad():
            value, ahead = self.value(torch.cat([s, after])).split(len(s))
            target = reward + self.gamma * goes_on * ahead
        metrics |= self.improve(batch, (q - value)[:, None])
        found = self.critic(s, action)
        metrics["loss/critic"] = self.descend(self.critic_optimiser, self.critic_loss, found, target.expand_as(found))
        self.follow()
        self.largest_value = max(self.largest_value, value.abs().max().item())
        return {**metrics, "value": value.mean().item()}

    def descend(self, optimiser: torch.optim.Optimizer, loss: ValueLoss, value: Tensor, target: Tensor) -> float:
        """One step on the mean of ``loss`` over the batch, the sum over the copies of a critic."""
        value, target = (x if x.dim() == 2 else x[None] for x in (value, target))
        total = loss(value, target, torch.ones_like(value, dtype=torch.bool)).value.mean(1).sum()
        if not torch.isfinite(total):
            raise GuerdonError(
                f"offline learner: expected a finite loss, got {total.item()}. Usual cause: values that diverge; a temperature "
                "too small for an exponential loss, or a learning rate too high."
            )
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        return total.item()

    def improve(self, batch: Rollouts, advantage: Tensor) -> dict[str, float]:
        """Hand the actor the gradient of its loss with respect to its log-probabilities."""
        outputs = self.actor.evaluate(batch, frozenset({"log_prob"}))
        log_prob = outputs["log_prob"].detach().requires_grad_()
        loss = self.actor_loss(log_prob, advantage, batch.mask)
        total = token_mean(loss, float(loss.mask.sum()))
        total.backward()
        self.updater.accumulate(outputs, {"log_prob": log_prob.grad})  # type: ignore[dict-item]
        metrics = {k: float(s / c) for k, (s, c) in loss.metrics.items()}
        return {"loss/actor": total.item(), **metrics, **self.updater.step(lr=self.lr)}

    @torch.no_grad()
    def follow(self) -> None:
        torch._foreach_lerp_(list(self.target.parameters()), list(self.critic.parameters()), self.polyak)

    def lines(
        self,
        data: Rollouts,
        *,
        updates: int,
        size: int = 256,
        every: int = 1000,
        seed: int = 0,
        evaluate: Callable[[Policy], Mapping[str, float]] = lambda actor: {},
    ) -> Iterator[dict[str, float]]:
        """Train on minibatches drawn from ``data`` with replacement; a line of means, and ``evaluate(actor)``, every so often."""
        seen: list[dict[str, float]] = []
        for step in range(1, updates + 1):
            drawn = np.random.default_rng([seed, step]).integers(len(data), size=size)
            seen.append(self.update(data.rows(torch.from_numpy(drawn))))
            if step % every == 0 or step == updates:
                means = {k: sum(x[k] for x in seen) / len(seen) for k in seen[0]}
                line = {"updates": step, "samples": step * size, **means, "largest_value": self.largest_value}
                yield {**line, **evaluate(self.actor)}
                seen.clear()
