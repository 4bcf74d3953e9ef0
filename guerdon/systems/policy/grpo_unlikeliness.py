# SPDX-License-Identifier: Apache-2.0
"""GRPO with an unlikeliness reward: a right answer is worth more the rarer it is in its group.

GRPO strengthens right answers that are likely already and neglects the rare ones, so that one attempt improves and many
attempts don't. A small penalty on the likely right answers of a group turns that around; so do more updates per batch, whose
later ones reach the rare answers once the likely ones are clipped.

    r_i = R_i (1 - beta rank_i / G)        A_i = (r_i - mean r) / (std r + 1e-6)   over the group

    R_i     ``reward`` [N] in {0, 1}, whether the answer is right
    rank_i  0 for the least likely of the group, G - 1 for the likeliest, by ``score`` [N]: the mean log-probability per token
            under the policy that sampled it, nats
    G       the rows of the group ``group`` [N]; wrong answers stay 0, right ones lie in (1 - beta, 1]. beta = 0 gives GRPO

Only groups with right and wrong answers train. Token-wise clipped surrogate, and KL to the reference as a loss.

He, Fried and Welleck 2025, arXiv:2506.02355, and its released code (AndreHe02/rewarding-unlikely-release).
Departures:
1. The rank is by mean log-probability per token, as in the code; the paper writes the sequence's probability.
2. Ties in likelihood, the same answer twice for instance, share the mean of their ranks, where the code has them in the order of
   sampling; so a permutation of the group permutes the rewards.
3. No update is skipped for its gradient norm; gradients are clipped at 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guerdon.credit import group_relative
from guerdon.errors import check_shape
from guerdon.objectives import clipped_surrogate, kl_penalty, token_mean
from guerdon.protocols import Sampling
from guerdon.rewards.building import auto_name, call
from guerdon.rewards.node import Reward
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Scores
from guerdon.systems.system import Comparison, Example, Metric, Reduction, System
from guerdon.tasks.many_answers import make_tasks, pass_at
from guerdon.training.binding import bind
from guerdon.training.evaluation import Measured
from guerdon.training.evolving import Told
from guerdon.training.recipe import Number, Recipe, Stage, Term
from guerdon.training.sources import Prompts


def ranks_in_group(score: Tensor, group: Tensor) -> Tensor:
    """[N] how many of its group have a lower ``score`` [N], plus half of the others that have the same.

    >>> ranks_in_group(torch.tensor([-1., -3., -1., -2.]), torch.tensor([0, 0, 0, 1])).tolist()
    [1.5, 0.0, 1.5, 0.0]
    """
    check_shape("ranks_in_group", "group", group, tuple(score.shape), "groups of another batch")
    same = group[:, None] == group
    below = (same & (score[:, None] > score)).sum(1)
    equal = (same & (score[:, None] == score)).sum(1) - 1
    return (below + equal / 2).to(score.dtype)


def unlikeliness(reward: Tensor, score: Tensor, group: Tensor, *, beta: float = 0.25) -> Tensor:
    """[N] reward (1 - beta rank / G).

    >>> score = torch.tensor([-1., -5., -2., -3.])
    >>> unlikeliness(torch.tensor([1., 1., 0., 1.]), score, torch.zeros(4, dtype=torch.long)).tolist()
    [0.8125, 1.0, 0.0, 0.9375]
    """
    size = (group[:, None] == group).sum(1)
    return reward * (1 - beta * ranks_in_group(score, group) / size)


def mean_log_prob(rollouts: Rollouts) -> Tensor:
    """[N] of the steps taken, under the distribution sampled from."""
    assert rollouts.log_prob is not None  # the reward declares that it needs it
    return torch.where(rollouts.mask, rollouts.log_prob, 0).sum(1) / rollouts.mask.sum(1).clamp(min=1)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Unlikely(Reward):
    """A verifier's 0 or 1 per episode, less for those of a group that were likely."""

    beta: float

    def expression(self) -> str:
        return call(self.parts[0], "unlikely", f"beta={self.beta:g}")

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        shaped = unlikeliness(parts[0].values[:, 0], mean_log_prob(rollouts), rollouts.group, beta=self.beta)
        return parts[0].replace(values=shaped[:, None])


def unlikely(reward: Reward, beta: float = 0.25) -> Reward:  # 0.25: the released scripts
    """``reward`` (0 or 1 per episode) made unlikelier; see the equation."""
    return Unlikely(
        name=auto_name("unlikely", reward.name),
        relation="group",
        bounds=Bounds(0, 1),
        needs=frozenset({"log_prob"}),
        parts=(reward,),
        beta=beta,
    )


def mixed_groups(rollouts: Rollouts, scores: Scores, *, success: str) -> Tensor:
    """[N] whether its group has a right and a wrong answer, by the part ``success`` of the reward."""
    right = scores.trace[success].values[:, 0] > 0.5
    same = rollouts.group[:, None] == rollouts.group
    return (same & right).any(1) & (same & ~right).any(1)


class Uplift:
    """Watches the update: the share of right answers that became likelier, of the likelier and the rarer half of a group."""

    before = False

    def update(self, told: Told) -> dict[str, float]:
        rollouts = told.batch.rollouts
        assert told.scores is not None
        right = next(iter(told.scores.components.values())).values[:, 0] > 0
        with torch.no_grad():
            now = told.policy.evaluate(rollouts, frozenset({"log_prob"}))["log_prob"]
        up = (torch.where(rollouts.mask, now - rollouts.log_prob, 0).sum(1) > 0).float()
        score = mean_log_prob(rollouts)
        size = (rollouts.group[:, None] == rollouts.group).sum(1)
        likely = ranks_in_group(score, rollouts.group) >= size / 2
        halves = {"likely": right & likely, "rare": right & ~likely}
        return {f"uplift/{k}": up[rows].mean().item() for k, rows in halves.items() if rows.any()}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def grpo_unlikeliness(
    source: Prompts,
    success: Reward,
    *,
    steps: int,
    beta: float = 0.25,  # released scripts; the paper tries more
    rounds: int = 1,  # passes over a batch; 2 in the paper's second remedy
    kl: float = 0.1,  # released scripts
    lr: Number = 1e-6,  # released scripts, for a language model
) -> Stage:
    """GRPO on ``success`` made unlikelier. Watched: uplift/likely and uplift/rare, see `Uplift`."""
    return Stage(
        "train",
        steps,
        source,
        [Term(1.0, clipped_surrogate, token_mean), Term(kl, bind(kl_penalty, estimator="k3"), token_mean)],
        reward=unlikely(success, beta) + success.watch(),
        credit=bind(group_relative, scale="std", eps=1e-6),
        select=partial(mixed_groups, success=success.name),
        rounds=rounds,
        lr=lr,
        updater={"optimiser": "adam"},
        evolving=[Uplift()],
    )


# ---- the claim

PROMPTS, GROUP, STEPS = 16, 32, 300  # the paper's batch: 16 problems, 32 samples of each


@tensor_reward(bounds=(0, 1), needs=("row",))
def right(rollouts: Rollouts) -> Tensor:
    """1 if the action is one of its task's right ones."""
    return make_tasks(0).right[torch.tensor(rollouts.field("row").values), rollouts.action[:, 0]].float()


def measure(policy: Any, step: int) -> dict[str, float]:
    """eval/pass@1, 8, 64, 256 on the held-out tasks."""
    mass = make_tasks(0).mass(policy)
    return {f"eval/pass@{k}": pass_at(mass, k) for k in (1, 8, 64, 256)}


def arm(seed: int, start: Any = None, *, beta: float = 0.25, rounds: int = 1, lr: float = 0.1) -> Recipe:
    """GRPO, with the unlikeliness reward unless ``beta`` is 0."""
    tasks = make_tasks(0)
    stage = grpo_unlikeliness(
        Prompts(tasks.contexts(), PROMPTS, GROUP, Sampling()),
        right,
        steps=STEPS,
        beta=beta,
        rounds=rounds,
        lr=lambda s: lr * (1 - s / STEPS),
    )
    return Recipe("unlikely", tasks.policy, [stage], Measured(25, measure), seed, STEPS, 0, best="eval/pass@64")


def _example(dtype: torch.dtype) -> dict[str, Tensor]:
    reward = torch.tensor([1, 0, 1, 1, 0, 1], dtype=dtype)
    return {
        "reward": reward,
        "score": torch.tensor([-1.0, -2.5, -3.0, -0.5, -4.0, -6.0], dtype=dtype),
        "group": torch.tensor([0, 0, 0, 1, 1, 1]),
    }


def _without_penalty() -> tuple[Tensor, Tensor]:
    given = _example(torch.float64)
    shaped, mask = unlikeliness(**given, beta=0.0), torch.ones(6, 1, dtype=torch.bool)
    credit = partial(group_relative, mask=mask, group=given["group"], scale="std", eps=1e-6)
    return credit(shaped[:, None]), credit(given["reward"][:, None])


SYSTEM = System(
    title="GRPO with an unlikeliness reward",
    paper="He 2025",
    arxiv="2506.02355",
    roles=("policy-objective", "reward-shaping", "exploration", "verifiable-reward", "evaluation"),
    claims=(
        Comparison(
            statement="On tasks with 10 to 20 right ones of 128 actions, more held-out tasks are solved within 64 attempts after "
            "GRPO with an unlikeliness reward than after plain GRPO, at the same number of samples.",
            arms={
                "unlikeliness": arm,
                "grpo": partial(arm, beta=0.0),
                "unlikeliness-0.5": partial(arm, beta=0.5),
                "two-rounds": partial(arm, beta=0.0, rounds=2),
                "both": partial(arm, rounds=2),
            },
            better="unlikeliness",
            than="grpo",
            metric=Metric("eval/pass@64"),
            budget=f"{STEPS * PROMPTS * GROUP:,} samples",
            grid={"lr": (0.01, 0.03, 0.1)},
            chosen={"unlikeliness": {"lr": 0.1}, "grpo": {"lr": 0.1}},
            first_seed=2000,  # those from 1000 on were spent on fewer tasks and a constant learning rate: undecided
            differences=(
                "A softmax policy, linear in what it sees of a task, for a prover of 1.5 billion parameters on Lean theorems.",
                "Tasks share weights, and no answer is right whenever it looks so: without sharing, nothing is forgotten.",
                "pass@k is computed from the policy's probabilities: the expectation of the unbiased estimate.",
                "The tasks are the same for all seeds, 1,024 to train on and 512 held out; a seed decides order and samples.",
                "No supervised stage: the first policy is drawn with an error, which is what such a stage leaves.",
                "One update per batch of 512, for accumulating until 256 useful samples; Adam, its learning rate falling to 0.",
            ),
        ),
    ),
    built_from=("group_relative", "clipped_surrogate", "kl_penalty", "token_mean"),
    examples=(Example(unlikeliness, _example, rows=("reward", "score", "group")),),
    reductions=(Reduction("beta = 0 gives GRPO's advantages", _without_penalty),),
    follows="code",
)
