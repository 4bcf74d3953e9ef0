# SPDX-License-Identifier: Apache-2.0
"""Constrained RLHF (mu-PPO, xi-PPO, NM-PPO): several reward models, each kept at the level up to which it is useful.

A reward model says something true up to a point, beyond which more of it makes answers worse. Fixed weights run past these
points. Here the divergence from the reference is minimised, subject to each model's mean score being at its point, by learned
multipliers: J_i = theta_i (xi-PPO, multipliers may be negative) or J_i >= theta_i (mu-PPO).

    A = (N - sum_i m_i) A_0 + sum_i m_i A_i       m_i = tanh(l_i) for equalities, sigmoid(l_i) for inequalities
    l_i <- l_i - lr d/dl_i [m_i (J_i - theta_i)]  by gradient descent with momentum

    A_i      advantages of the N reward models, A_0 of the negative divergence, each whitened; m_i ``multipliers``
    J_i      mean return of an episode in the batch; theta_i ``targets``, in the reward models' units

NM-PPO knows no theta_i: a Nelder-Mead search proposes them, each proposal is trained on until all J_i are within 5 % or a number
of steps is over, and its value is the evaluation then; the policy goes on from there, in one run. The mix and the multipliers are
``guerdon.credit.lagrangian``.

Moskovitz et al. 2023, arXiv:2310.04373, and its released code (tedmoskovitz/ConstrainedRL4LMs, constrained_ppo.py,
training_utils.py).
Departures:
1. The baseline of each component's advantage is the mean of the batch's rows at the same step, where the paper trains a value
   head for each: a table of a single task needs none.
2. Thresholds that were tried before are tried again, since the policy is another by then; the code caches nearby points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guerdon.credit import group_relative, whiten
from guerdon.credit.lagrangian import Multipliers, constrained_mix
from guerdon.learners.nelder_mead import NelderMead
from guerdon.objectives import clipped_surrogate, token_mean
from guerdon.policies.table import TablePolicy
from guerdon.protocols import Context, Sampling
from guerdon.rewards.node import Reward
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.systems.system import Comparison, Example, Metric, Reduction, System
from guerdon.training.binding import bind
from guerdon.training.evaluation import Measured
from guerdon.training.evolving import Told
from guerdon.training.recipe import Recipe, Source, Stage, Term
from guerdon.training.sources import Prompts


@tensor_reward(level="step", needs=("log_prob", "ref_log_prob"))
def kl(rollouts: Rollouts) -> Tensor:
    """log pi - log mu of each step taken, nats: an estimate of the divergence from the reference."""
    assert rollouts.log_prob is not None  # declared as a need
    return torch.where(rollouts.mask, rollouts.log_prob - rollouts.field("ref_log_prob").values, 0)


class ThresholdSearch:
    """NM-PPO: proposes the multipliers' targets by the evaluation ``metric`` (higher better), which should be measured each step.

    A proposal is tried until all mean returns are within ``near`` of it, or for ``patience`` steps.
    """

    before = False

    def __init__(
        self, multipliers: Multipliers, corners: Sequence[Sequence[float]], metric: str, *, near: float = 0.05, patience: int = 25
    ) -> None:
        self.multipliers, self.search, self.metric, self.near, self.patience = (
            multipliers,
            NelderMead(corners),
            metric,
            near,
            patience,
        )
        self.tried = 0

    def update(self, told: Told) -> dict[str, float]:
        self.multipliers.target = torch.from_numpy(self.search.point.copy())
        found = self.multipliers.update(told)
        self.tried += 1
        reached = all(found[f"gap/{k}"] <= self.near for k in self.multipliers.names)
        if (reached or self.tried >= self.patience) and self.metric in told.evaluation:
            self.search.tell(-told.evaluation[self.metric])
            self.tried = 0
        return found | {f"target/{k}": x for k, x in zip(self.multipliers.names, self.multipliers.target.tolist(), strict=True)}

    def state_dict(self) -> dict[str, Any]:
        return {"multipliers": self.multipliers.state_dict(), "search": self.search.state_dict(), "tried": self.tried}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.multipliers.load_state_dict(state["multipliers"])
        self.search.load_state_dict(state["search"])
        self.tried = state["tried"]


def constrained_ppo(
    source: Source,
    rewards: Sequence[Reward],
    targets: Mapping[str, float],
    *,
    steps: int,
    kind: str = "equal",  # xi-PPO, the better of the paper's; "at_least" is mu-PPO
    search: Callable[[Multipliers], ThresholdSearch] | None = None,  # NM-PPO: what finds the targets
    multiplier_lr: float = 0.1,  # released configuration
    momentum: float = 0.1,  # released configuration
    rounds: int = 2,
    lr: float = 1e-6,  # released configuration, for GPT-2
) -> Stage:
    """Watched: return/NAME, multiplier/NAME and gap/NAME, the relative distance of J_i from theta_i."""
    multipliers = Multipliers(targets, kind, lr=multiplier_lr, momentum=momentum)
    mix = bind(constrained_mix, multipliers=multipliers, objective="kl")
    return Stage(
        "train",
        steps,
        source,
        [Term(1.0, clipped_surrogate, token_mean)],
        reward=sum(rewards[1:], rewards[0]) - kl,
        credit=bind(group_relative, level="step"),
        combine=mix,
        rounds=rounds,
        lr=lr,
        updater={"optimiser": "adam"},
        evolving=[multipliers if search is None else search(multipliers)],
    )


# ---- the claim: strings of 8 symbols and two judges of them that agree in part

LENGTH, ROWS, STEPS = 8, 128, 250
FLUENT = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
HELPFUL = torch.tensor([0.3, 0.0, 0.9, 0.1, 0.7, 1.0])
PEAK = {"fluent": 6.5, "helpful": 6.0}
PACE = 0.01  # of the multipliers: the paper's 0.1 is for scores up to 1, these go up to 10


def points(rollouts: Rollouts, table: Tensor) -> Tensor:
    """[N] ten times the mean of a string's entries in ``table``."""
    return 10 * table[rollouts.action].mean(1)


fluent = tensor_reward(bounds=(0, 10), name="fluent")(partial(points, table=FLUENT))
helpful = tensor_reward(bounds=(0, 10), name="helpful")(partial(points, table=HELPFUL))


def gold(rollouts: Rollouts) -> Tensor:
    """[N] what the two judges stand for: concave, 1 where both are at their points, falling with the square of the distance."""
    a, b = points(rollouts, FLUENT) - PEAK["fluent"], points(rollouts, HELPFUL) - PEAK["helpful"]
    return 1 - (a**2 + b**2) / 4


def measure(policy: TablePolicy, step: int) -> dict[str, float]:
    """Means of the gold score and of both judges over 512 strings, always with the same random numbers."""
    rollouts = policy.sample([Context("string", "string", index=-1 - i) for i in range(512)], Sampling(), 0)
    found = {"gold": gold(rollouts), "fluent": points(rollouts, FLUENT), "helpful": points(rollouts, HELPFUL)}
    return {f"eval/{k}": x.mean().item() for k, x in found.items()}


def source() -> Source:
    """The one task, ROWS strings a step."""
    return Prompts([Context("string", "string")], 1, ROWS, Sampling())


def recipe(stage: Stage, seed: int, every: int = 10) -> Recipe:
    """What all arms share."""
    policy = partial(TablePolicy, ["string"], len(FLUENT), length=LENGTH)
    return Recipe("constrained", policy, [stage], Measured(every, measure), seed, STEPS, 0, best="eval/gold")


def constrained(seed: int, start: Any = None, *, kind: str = "equal", lr: float = 0.1) -> Recipe:
    """PPO with the known points as constraints."""
    return recipe(constrained_ppo(source(), [fluent, helpful], PEAK, steps=STEPS, kind=kind, multiplier_lr=PACE, lr=lr), seed)


def nelder_mead(seed: int, start: Any = None, *, lr: float = 0.1) -> Recipe:
    """PPO with constraints whose points are searched for in the same run."""
    corners = [[5.0, 5.0], [7.0, 5.0], [5.0, 7.0]]  # of the search: around the first policy's scores
    search = partial(ThresholdSearch, corners=corners, metric="eval/gold")
    return recipe(
        constrained_ppo(source(), [fluent, helpful], PEAK, steps=STEPS, search=search, multiplier_lr=PACE, lr=lr), seed, every=1
    )


def fixed(seed: int, start: Any = None, *, weight: float = 0.2, saturated: bool = False, lr: float = 0.1) -> Recipe:
    """PPO on the sum of the judges; ``weight`` of the divergence, 0.2 in the paper; ``saturated``: no reward beyond theta_i."""
    judges: list[Reward] = [fluent, helpful]
    if saturated:
        judges = [r.clip(high=PEAK[r.name]) for r in judges]
    stage = Stage(
        "train",
        STEPS,
        source(),
        [Term(1.0, clipped_surrogate, token_mean)],
        reward=judges[0] + judges[1] - weight * kl,
        credit=bind(group_relative, level="step"),
        transforms=[whiten],
        rounds=2,
        lr=lr,
        updater={"optimiser": "adam"},
    )
    return recipe(stage, seed)


def _example(dtype: torch.dtype) -> dict[str, Any]:
    advantages = {
        "kl": torch.tensor([[0.5, -1.0], [0.25, 0.0]], dtype=dtype),
        "fluent": torch.tensor([[1.0, 2.0], [-3.0, 0.0]], dtype=dtype),
    }
    mask = torch.tensor([[True, True], [True, False]])
    weights = {"kl": -1.0, "fluent": 1.0}
    return {"advantages": advantages, "weights": weights, "mask": mask, "multipliers": {"fluent": 0.3}, "objective": "kl"}


def _single_component() -> tuple[Tensor, Tensor]:
    given = _example(torch.float64)
    mixed = constrained_mix(**{**given, "multipliers": {"fluent": 1.0}})
    return mixed, whiten(given["advantages"]["fluent"], given["mask"])


SYSTEM = System(
    title="Constrained RLHF (mu-PPO, xi-PPO, NM-PPO)",
    paper="Moskovitz 2023",
    arxiv="2310.04373",
    roles=("multi-objective", "reward-combination", "safety", "policy-objective", "reward-model"),
    claims=(
        Comparison(
            statement="Where a gold score peaks at interior values of two correlated proxies, PPO with these values as equality "
            "constraints ends with a higher gold score than PPO on the proxies' sum.",
            arms={
                "xi-ppo": constrained,
                "ppo": fixed,
                "mu-ppo": partial(constrained, kind="at_least"),
                "saturated-ppo": partial(fixed, saturated=True),
                "ppo-strong-kl": partial(fixed, weight=1.0),
                "nm-ppo": nelder_mead,
            },
            better="xi-ppo",
            than="ppo",
            metric=Metric("eval/gold"),
            budget=f"{STEPS * ROWS:,} samples",
            grid={"lr": (0.03, 0.1, 0.3)},
            chosen={"xi-ppo": {"lr": 0.3}, "ppo": {"lr": 0.03}},
            differences=(
                "A table policy that writes 8 symbols and judges that add up a number for each, for GPT-2 on dialogues.",
                "The gold score and so the proxy points are known; the paper finds them by training on each model first.",
                "Learning rates too small to get anywhere within the budget are not in the grid: they would stop PPO early.",
                "The correlation of the proxies is fixed (0.6 over symbols); the spec also varies it.",
            ),
        ),
    ),
    built_from=("constrained_mix", "Multipliers", "group_relative", "clipped_surrogate", "NelderMead"),
    examples=(Example(constrained_mix, _example),),
    reductions=(Reduction("one reward model at m = 1 is PPO on its whitened advantage", _single_component),),
    follows="code",
)
