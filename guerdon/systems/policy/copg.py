# SPDX-License-Identifier: Apache-2.0
"""CoPG: contrastive policy gradient.

A policy gradient on answers that somebody else gave needs importance weights, or it converges to the wrong policy. CoPG compares
the answers to one prompt with each other instead: their rewards, each less what the policy already pays for it, should be equal.
The partition function cancels in the difference, so the optimum is right whatever distribution the answers came from.

    R_b(y) = R(y) − beta log(π(y) / π_ref(y))            beta: nats cost this much reward
    loss   = 1 / (k − 1)  sum over i > j of (R_b(y_i) − R_b(y_j))²,    for the k answers of a `group`

    R        total of `advantage` over its first counted step, that of a row whose credit is its return   [N], higher is better
    log π    sum of `log_prob` over a row's counted steps; log π_ref of `ref_log_prob`                    [N, T], nats

Since sum over i > j of (a_i − a_j)² = k sum over i of (a_i − mean)², a row's share is k / (k − 1) (R_b(y_i) − mean)².
Two answers whose rewards differ by 1/2 make it IPO's loss; on the policy's own answers its gradient is 2 beta times that of RLOO.

Flet-Berliac et al. 2024, arXiv:2406.19185. No code was published.
Departures: none known.
Not to be confused with competitive policy gradient, a method for games.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.credit import group_relative, return_to_go
from guerdon.objectives import Loss, reinforce, sequence_mean
from guerdon.policies.table import TablePolicy
from guerdon.protocols import Batch
from guerdon.rewards import Reward, reward
from guerdon.systems.system import Comparison, Exact, Example, Metric, Reduction, Start, System
from guerdon.training.binding import bind
from guerdon.training.evaluation import Measured
from guerdon.training.recipe import Recipe, Source, Stage, Term


def contrastive(
    log_prob: Tensor, ref_log_prob: Tensor, advantage: Tensor, mask: Tensor, group: Tensor, *, beta: float | Tensor = 0.1
) -> Loss:
    """k / (k - 1) (R_b - mean of the group's R_b)² per row, R_b = R - beta sum of (log_prob - ref_log_prob) over counted steps.

    ``log_prob``, ``ref_log_prob``, ``mask`` [N, T]; ``advantage`` [N, T], of which R is the value at a row's first counted step
    (credit: `return_to_go`); ``group`` [N] int64. A row that is alone in its group, or has no counted step, does not count.

    >>> log_prob, yes, group = torch.tensor([[-1.], [-2.]]), torch.ones(2, 1, dtype=torch.bool), torch.tensor([0, 0])
    >>> loss = contrastive(log_prob, torch.zeros(2, 1), torch.tensor([[1.], [0.5]]), yes, group, beta=0.3)
    >>> [round(x, 4) for x in loss.value.tolist()]
    [0.02, 0.02]
    """
    first = mask & (mask.cumsum(1) == 1)
    ratio = torch.where(mask, log_prob - ref_log_prob, 0).sum(1)
    regularised = torch.where(first, advantage, 0).sum(1) - beta * ratio
    there = mask.any(1)
    same = (group[:, None] == group) & there & there[:, None]
    k = same.sum(1).to(ratio.dtype)
    mean = torch.where(same, regularised, 0).sum(1) / k.clamp(min=1)
    counted = k > 1
    value = torch.where(counted, k / (k - 1).clamp(min=1) * (regularised - mean) ** 2, 0)
    return Loss(value, "row", counted)


def copg(source: Source, wanted: Reward, steps: int, *, beta: float = 0.1, lr: float = 0.1) -> Stage:
    """``source``: groups of answers from anywhere; the policy has a reference. The paper sweeps ``beta`` from 0.01 to 1."""
    return Stage("copg", steps, source, [Term(1.0, bind(contrastive, beta=beta), sequence_mean)], wanted, return_to_go, lr=lr)


# ---- the claim: a bandit whose best policy is known

TASKS, ARMS, ANSWERS, UPDATES, BETA = 4, 10, 4, 400, 0.5


@reward
def payoff(paid: float) -> float:
    """What the answer is worth in its task."""
    return paid


@dataclass(frozen=True)
class Logged:
    """A source of answers that a skewed distribution gave, the same in all arms: ``ANSWERS`` of each task a batch."""

    worth: Tensor
    behaviour: np.ndarray

    def batch(self, step: int, policy: Any, seed: int) -> Batch:
        rng = np.random.default_rng([seed, step])
        chosen = [[int(a) for a in rng.choice(ARMS, ANSWERS, p=p)] for p in self.behaviour]
        tasks = [str(k) for k in range(TASKS) for _ in range(ANSWERS)]
        rollouts = policy.encode(tasks, [a for row in chosen for a in row])
        paid = [self.worth[k, a].item() for k, row in enumerate(chosen) for a in row]
        return Batch(rollouts.replace(group=torch.arange(TASKS).repeat_interleave(ANSWERS)).with_field("paid", "task", paid))


def bandit(seed: int) -> tuple[Logged, Tensor]:
    """What was logged, and the best policy π_ref exp(R / beta) with a uniform reference, [TASKS, ARMS]."""
    rng = np.random.default_rng(seed)
    worth = torch.from_numpy(rng.normal(size=(TASKS, ARMS)))
    behaviour = rng.dirichlet(np.ones(ARMS), TASKS)
    return Logged(worth, 0.9 * behaviour + 0.1 / ARMS), (worth / BETA).softmax(-1)


def value_baseline(reward: Tensor, log_prob: Tensor, ref_log_prob: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    """R_b less the mean of R over the group: the partner's R_b replaced by a value, without importance weights."""
    return group_relative(reward, mask, group) - BETA * (log_prob - ref_log_prob)


def plain(source: Source, wanted: Reward, steps: int, *, lr: float = 0.1) -> Stage:
    """The baseline's stage."""
    return Stage("reinforce", steps, source, [Term(1.0, reinforce, sequence_mean)], wanted, value_baseline, lr=lr)


def arm(make: Callable[..., Stage], seed: int, start: Start, **choice: Any) -> Recipe:
    """One training; evaluated by the exact divergence from the best policy and the reward that is missed."""
    logged, best = bandit(seed)

    def figures(policy: TablePolicy, step: int) -> dict[str, float]:
        found = policy.probabilities()[:, 0, 0]
        divergence = (found * (found.log() - best.log())).sum(-1).mean().item()
        return {"eval/divergence": divergence, "eval/regret": ((best - found) * logged.worth).sum(-1).mean().item()}

    def policy() -> TablePolicy:
        return TablePolicy([str(k) for k in range(TASKS)], ARMS, dtype=torch.float64)

    stage = make(logged, payoff, UPDATES, **choice)
    return Recipe("copg", policy, [stage], Measured(20, figures), seed=seed, save_rollouts_every=0, best="eval/divergence")


def at_the_optimum() -> dict[str, tuple[float, float]]:
    """The loss at the best policy, for any answers."""
    logged, best = bandit(0)
    actions = torch.tensor([[0, 1, 2], [3, 4, 5]])
    log_prob = torch.stack([best[k].log()[a] for k, a in enumerate(actions)]).reshape(-1, 1)
    paid = torch.stack([logged.worth[k][a] for k, a in enumerate(actions)]).reshape(-1, 1)
    uniform, yes = torch.full_like(log_prob, 1 / ARMS).log(), torch.ones(6, 1, dtype=torch.bool)
    loss = contrastive(log_prob, uniform, paid, yes, torch.tensor([0, 0, 0, 1, 1, 1]), beta=BETA)
    return {f"row {i}": (x, 0.0) for i, x in enumerate(loss.value.tolist())}


def example(dtype: torch.dtype) -> dict[str, Any]:
    """Two groups of two answers of up to two steps."""
    log_prob = torch.tensor([[-1.0, -0.5], [-2.0, -0.1], [-0.3, -0.7], [-1.5, 0.0]], dtype=dtype)
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    paid = torch.tensor([[1.0, 1.0], [0.5, 0.0], [-1.0, -1.0], [2.0, 0.0]], dtype=dtype)
    group = torch.tensor([0, 0, 1, 1])
    return {"log_prob": log_prob, "ref_log_prob": log_prob / 2, "advantage": paid, "mask": mask, "group": group}


def as_rloo() -> tuple[Tensor, Tensor]:
    """(gradient of this loss with respect to log_prob over 2 beta, RLOO's on the regularised reward)."""
    given, beta = example(torch.float64), 0.3
    log_prob = given.pop("log_prob").requires_grad_()
    contrastive(log_prob, **given, beta=beta).value.sum().backward()
    ratio = torch.where(given["mask"], log_prob.detach() - given["ref_log_prob"], 0)
    regularised = given["advantage"][:, :1] - beta * ratio.sum(1, keepdim=True)
    own = torch.ones(4, 1, dtype=torch.bool)
    advantage = group_relative(regularised, own, given["group"], baseline="leave_one_out")
    assert log_prob.grad is not None
    return log_prob.grad / (2 * beta), torch.where(given["mask"], -advantage, 0)


SYSTEM = System(
    title="CoPG",
    paper="Flet-Berliac 2024",
    arxiv="2406.19185",
    roles=("policy-objective", "preference-objective", "offline-rl"),
    claims=(
        Comparison(
            statement="On answers from a fixed skewed distribution, CoPG comes nearer to the best KL-regularised policy than a "
            "policy gradient with a value baseline and no importance weights.",
            arms={"copg": partial(arm, partial(copg, beta=BETA)), "value baseline": partial(arm, plain)},
            better="copg",
            than="value baseline",
            metric=Metric("eval/divergence", higher=False),
            budget=f"{UPDATES} updates of {TASKS * ANSWERS} logged answers",
            grid={"lr": (0.02, 0.05, 0.1, 0.2)},
            chosen={"copg": {"lr": 0.1}, "value baseline": {"lr": 0.2}},
            differences=(
                "Gradients are of samples, not exact, since the loop samples; the divergence is exact.",
                "The arms with importance weights, IPO and DPO are left out: the statement is about the value baseline.",
            ),
        ),
        Exact("At the best policy the loss of any answers is 0.", at_the_optimum, 1e-24),
    ),
    built_from=("return_to_go", "sequence_mean", "TablePolicy"),
    examples=(
        Example(
            contrastive,
            example,
            rows=("log_prob", "ref_log_prob", "advantage", "mask", "group"),
            padded=("log_prob", "ref_log_prob", "advantage"),
        ),
    ),
    reductions=(Reduction("On the policy's own answers the gradient is 2 beta times RLOO's.", as_rloo),),
)
