# SPDX-License-Identifier: Apache-2.0
"""G-RA: gated reward accumulation.

Step rewards count only in episodes whose outcome clears a threshold. Easy rewards for every step of a long episode are farmed:
the policy does what pays each step and forgets the task. G-RA ranks rewards by priority and lets one through only where every
reward above it is large enough.

    R~⁽ⁱ⁾ = R⁽ⁱ⁾ if R⁽ʲ⁾ > gⱼ for every j > i, else 0          j above i in priority; the highest is never gated
    G = Σᵢ Σₜ R~⁽ⁱ⁾ₜ
    with one outcome and step rewards rₜ:  R = R_out + 1[R_out > g] Σₜ rₜ        `outcome`, `steps`, g `above`

Two levels are one call of `gated_accumulation`; more are calls within calls, since the gate of a sum is the sum of the gates:
gated_accumulation(top, gated_accumulation(middle, low, above=g2), above=g1). g = −∞ is direct accumulation (D-RA).

Sun et al. 2025, arXiv:2508.10548. Read through others' notes and a re-implementation.
Departures:
1. The paper's reward values and thresholds are not known to us. Here the outcome pays 1 or 0, as the claim has it, and the gate
   reads how far the episode got (``on``), of which the outcome is the last degree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.credit import group_relative
from guerdon.objectives import clipped_surrogate, token_mean
from guerdon.protocols import Batch
from guerdon.rewards import Reward
from guerdon.rewards.fields import field
from guerdon.rollouts import Rollouts
from guerdon.systems.system import Comparison, Metric, Reduction, Start, System
from guerdon.training.binding import bind
from guerdon.training.evaluation import Measured
from guerdon.training.recipe import Recipe, Stage, Term


def gated_accumulation(outcome: Reward, steps: Reward, *, above: float, on: Reward | None = None) -> Reward:
    """outcome + steps where the condition is larger than ``above``. ``on``: what is compared with it (default: the outcome).

    The condition is of the whole episode: a finer one is summed over it.

    >>> from guerdon.rewards import reward
    >>> outcome = reward(lambda completion: {"solved": 1.0, "tried": 0.3}.get(completion.split()[-1], 0.0), name="outcome")
    >>> words = reward(lambda completion: 0.1 * len(completion.split()), name="words")
    >>> said = ["look solved", "look tried", "look look look look"]
    >>> gated_accumulation(outcome, words, above=0.2)(completions=said).total.values.round(decimals=4).tolist()
    [[1.2000000476837158], [0.5], [0.0]]
    """
    condition = outcome if on is None else on
    whole = condition if condition.level == "episode" else condition.pool("sum")
    return outcome + steps.gate(on=whole, above=above)


# ---- the claim

RESOLVED, VALID, PROGRESS = field("resolved"), field("valid"), field("progress")
STEP_REWARD, STARTS, SAMPLES, STEPS, EVERY = 0.1, 8, 8, 300, 20
THRESHOLDS = {"submitted": 0.5, "edited": 1.5, "resolved": 2.5}

ARMS: Mapping[str, Reward] = {
    "outcome": RESOLVED + VALID.watch(),
    "direct": RESOLVED + STEP_REWARD * VALID,
    **{k: gated_accumulation(RESOLVED, STEP_REWARD * VALID, on=PROGRESS, above=g) for k, g in THRESHOLDS.items()},
}


@dataclass(frozen=True)
class Episodes:
    """A source: whole episodes, ``starts`` of them ``samples`` times each."""

    starts: int
    samples: int

    def batch(self, step: int, policy: Any, seed: int) -> Batch:
        key = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
        return Batch(played(policy, self.starts, self.samples, key))


def played(policy: Any, starts: int, samples: int, seed: int) -> Rollouts:
    """Episodes of the editing task, with what it tells of each step."""
    from guerdon.sampling.environments import episodes
    from guerdon.tasks.editing import INFO, Editing

    return episodes(policy, Editing, starts, samples=samples, seed=seed, info=INFO)


def figures(policy: Any, step: int) -> dict[str, float]:
    """Shares of episodes that submit, submit an edit, and resolve; the outcome's and the steps' reward apart; commands given."""
    rollouts = played(policy, 256, 1, 0)
    progress, valid = (torch.where(rollouts.mask, rollouts.field(k).values, 0).sum(1) for k in ("progress", "valid"))
    names = ("completion", "modification", "resolution")
    rates = {k: (progress > g).float().mean().item() for k, g in zip(names, THRESHOLDS.values(), strict=True)}
    steps = STEP_REWARD * valid.float().mean().item()
    total = rates["resolution"] + steps
    length = rollouts.mask.sum(1).float().mean().item()
    return {f"eval/{k}": v for k, v in {**rates, "steps": steps, "total": total, "length": length}.items()}


def fresh() -> Any:
    """An untrained network."""
    from guerdon.policies.actor_critic import ActorCritic
    from guerdon.tasks.editing import COMMANDS, NOTES

    return ActorCritic.of(NOTES, COMMANDS, hidden=(32,))


def arm(name: str, seed: int, start: Start, *, lr: float = 1e-2) -> Recipe:
    """GRPO with the reward that ARMS calls ``name``."""
    credit = bind(group_relative, scale="std")
    terms = [Term(1.0, clipped_surrogate, token_mean)]
    stage = Stage(name, STEPS, Episodes(STARTS, SAMPLES), terms, reward=ARMS[name], credit=credit, lr=lr)
    evaluation = Measured(EVERY, figures)
    return Recipe(name, fresh, [stage], evaluation, seed, STEPS, 0, best="eval/resolution")


def _never_gated() -> tuple[Tensor, Tensor]:
    """Two episodes, the second one resolved."""
    rollouts = Rollouts(action=torch.zeros(2, 3), mask=torch.ones(2, 3, dtype=torch.bool), task=["a", "b"])
    rollouts = rollouts.with_field("valid", "step", torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]))
    rollouts = rollouts.with_field("resolved", "step", torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    open_to_all = gated_accumulation(RESOLVED, STEP_REWARD * VALID, above=-1.0)
    return open_to_all.score(rollouts).reward(), ARMS["direct"].score(rollouts).reward()


SYSTEM = System(
    title="G-RA: gated reward accumulation",
    paper="Sun 2025",
    arxiv="2508.10548",
    roles=("reward-combination", "reward-shaping", "agents", "partial-reward", "safety"),
    claims=(
        Comparison(
            statement="Where each well-formed command pays 0.1 and a right submission 1, an agent trained with G-RA, its gate "
            "opened by submitting an edit, resolves more tasks at the end than one whose rewards are added up (D-RA), which "
            "learns to go on until it is cut: its total reward rises while what it resolves falls.",
            arms={k: partial(arm, k) for k in ("edited", "direct", "outcome", "submitted", "resolved")},
            better="edited",
            than="direct",
            metric=Metric("eval/resolution"),
            budget=f"{STEPS * STARTS * SAMPLES:,} episodes",
            grid={"lr": (3e-3, 1e-2, 3e-2)},
            chosen={"edited": {"lr": 1e-2}, "direct": {"lr": 1e-2}},
            differences=(
                "A small network that reads notes of what it saw and edited stands in for a text agent; an action is a command.",
                "A file of three lines, two things that a line may be; 20 commands at most, as in the spec.",
                "The gate reads how far an episode got, since the claim's outcome is 1 or 0 and its thresholds are degrees.",
                "The notes do not count commands: an agent that counted could farm all steps and submit last, under any reward.",
                "Outcome only is an arm that decides nothing: here the outcome is not rare, and it does best.",
            ),
        ),
    ),
    built_from=("gate", "field", "group_relative", "clipped_surrogate", "token_mean"),
    reductions=(Reduction("a threshold below every outcome gives direct accumulation", _never_gated),),
    extras=("control",),
    exempt={"examples": "its mathematics is the algebra's own gate, no function of tensors"},
    follows="paper, through others' notes",
)
