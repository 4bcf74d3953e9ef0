# SPDX-License-Identifier: Apache-2.0
"""ReinFlow: fine-tuning a flow policy by online reinforcement learning.

A flow that imitates demonstrations is deterministic once its start is drawn, so it has no likelihood to improve. Each of its few
steps is given Gaussian noise, learnt within bounds from time and observation; the chain is then Markov, with an exact joint
density for any number of steps, and PPO trains it. At evaluation the noise is left out. The first claim compares what the code
offers, noise that is learnt and noise at the lower bound ("const"); the second is about noise fixed at the upper bound, which
explores most and costs nothing where it is left out at evaluation.

    a₀ ~ N(0, 1),  aₖ₊₁ = clip(aₖ − v(aₖ, 1 − k/K, s)/K) + σₖ ξ           `FlowActor`; the environment gets a_K
    log σₖ = log σ_min + (log σ_max − log σ_min) (1 + tanh raw)/2          `bounded_std` [..., D]; raw from (time, s)
    log π(a₀ … a_K | s) = log N(a₀) + Σₖ log N(aₖ₊₁; aₖ − v/K, σₖ²)        `chain_log_prob` [...], `chain` [..., K + 1, D], nats
    loss = clipped surrogate + ½ (value − return)² / 2 − 0.03 entropy      advantages by `gae`, whitened over the batch

Zhang et al. 2025, arXiv:2505.22094, and its released code (`ppoflow.py`, `mlp_flow.py`, Hopper's settings).
Departures:
1. The ratio is of the joint density; the code divides its logarithm by steps and dimensions, clamps that to [-1, 1] and clips at
   0.01. For a chain of 4 steps and 2 dimensions, 0.01 on the mean is about 0.1 on the sum; 0.2 is used, PPO's usual value.
2. The time grid is 1 − k/K everywhere; the code samples on another grid than it scores on.
3. The last link is clipped on its way to the environment, not in the chain, so that its density is that of what was drawn.
4. One learning rate for actor and critic; no action chunks, no decay of σ_max, no regulariser towards the demonstrations' flow:
   trainings are short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guerdon.credit import gae, whiten
from guerdon.objectives import clipped_surrogate, entropy_bonus, negative_log_likelihood, token_mean, value_loss
from guerdon.objectives.flow import flow_matching
from guerdon.policies.flow_actor import FlowActor, bounded_std, chain_log_prob
from guerdon.rewards.fields import environment
from guerdon.sampling.environments import Environments, episodes
from guerdon.systems.system import Arm, Comparison, Example, Metric, Reduction, Start, System
from guerdon.training.binding import bind
from guerdon.training.evaluation import Measured
from guerdon.training.noised import Noised
from guerdon.training.recipe import Recipe, Stage, Term


def reinflow(
    source: Environments,
    steps: int,
    *,
    minibatch: int = 512,
    rounds: int = 5,  # released code
    clip: float = 0.2,  # see Departures
    entropy: float = 0.03,  # released code
    value: float = 0.5,  # released code
    gamma: float = 0.99,  # released code
    lam: float = 0.95,  # released code
    lr: float = 4.5e-5,  # released code, the actor's
) -> Stage:
    """PPO on whole chains; the policy is a ``FlowActor``, and any other whose outputs have these names is trained alike."""
    terms = [
        Term(1.0, bind(clipped_surrogate, clip_low=clip, clip_high=clip), token_mean),
        Term(value, value_loss, token_mean),
        Term(entropy, entropy_bonus, token_mean),
    ]
    return Stage(
        "reinflow",
        steps,
        source,
        terms,
        reward=environment(),
        credit=bind(gae, "next_value", gamma=gamma, lam=lam),
        transforms=[whiten],
        by="step",
        shuffle=True,
        updates=source.environments * source.steps // minibatch,
        rounds=rounds,
        lr=lr,
    )


# ---- the claim

BATCHES, ENVIRONMENTS, HORIZON, LEAST, LARGEST = 20, 32, 64, 0.1, 0.24  # noise of Hopper's settings
IMITATED = 1500


def maze() -> Any:
    """The task."""
    from guerdon.tasks.point_maze import PointMaze

    return PointMaze()


def measured(every: int) -> Measured:
    """Return and success of 64 episodes without noise."""

    def figures(policy: Any, step: int) -> dict[str, float]:
        rows = episodes(policy, maze, 64, seed=7, greedy=True)
        reward = torch.where(rows.mask, rows.field("environment_reward").values, 0).sum(1)
        return {"eval/return": reward.mean().item(), "eval/success": rows.terminated.any(1).float().mean().item()}

    return Measured(every, figures)


def imitation(seed: int, objective: Any) -> Stage:
    """10,000 steps of demonstrators who dawdle."""
    from guerdon.tasks.point_maze import demonstrations

    seen, done = demonstrations(10_000, seed)
    source = Noised(done, 256, {"observation": seen})
    return Stage("imitate", IMITATED, source, [Term(1.0, objective, token_mean)], lr=lambda s: 2e-3 * (1 - s / IMITATED))


def prepare(seed: int) -> Recipe:
    """A rectified flow that imitates them."""
    policy = partial(FlowActor, 2, 2, sigma=(LEAST, LARGEST), seed=seed)
    stages = [imitation(seed, flow_matching)]
    return Recipe("imitation", policy, stages, measured(IMITATED), seed=seed, checkpoint_every=500, best="eval/return")


def arm(changes: dict[str, Any], seed: int, start: Start, **choice: Any) -> Recipe:
    """The flow that was prepared, with other noise or steps."""

    def policy() -> FlowActor:
        assert start is not None
        return FlowActor.load(start / "policy", **changes)

    return tuned("reinflow", policy, [], seed, choice)


def gaussian(seed: int, start: Start, **choice: Any) -> Recipe:
    """PPO on a Gaussian policy that imitated the same demonstrations."""
    from guerdon.policies.action_distribution import Gaussian
    from guerdon.policies.actor_critic import ActorCritic

    box = Gaussian((-1.0, -1.0), (1.0, 1.0), (2,))
    return tuned("gaussian", partial(ActorCritic, 2, box), [imitation(seed, negative_log_likelihood)], seed, choice)


def tuned(name: str, policy: Any, before: Sequence[Stage], seed: int, choice: dict[str, Any]) -> Recipe:
    """Whatever comes before, then the fine-tuning."""
    stage = reinflow(Environments(maze, ENVIRONMENTS, HORIZON), BATCHES, **choice)
    return Recipe(name, policy, [*before, stage], measured(5), seed=seed, best="eval/return", save_rollouts_every=0)


ARMS: dict[str, Arm] = {
    "learned": partial(arm, {}),
    "fixed-least": partial(arm, {"sigma": (LEAST, LEAST)}),
    "fixed-largest": partial(arm, {"sigma": (LARGEST, LARGEST)}),
    "fixed-tiny": partial(arm, {"sigma": (LEAST / 5, LEAST / 5)}),
    "learned-one-step": partial(arm, {"steps": 1}),
    "gaussian": gaussian,
}
CHOSEN = {"learned": {"lr": 1e-3}, "fixed-least": {"lr": 3e-3}, "fixed-largest": {"lr": 3e-3}}
OTHERS = {k: {"lr": 1e-3} for k in ("fixed-tiny", "learned-one-step", "gaussian")}
DIFFERENCES = (
    "A point maze of 40 steps instead of Gymnasium's tasks: a training takes seconds.",
    f"{BATCHES * ENVIRONMENTS * HORIZON:,} steps of the environment instead of 200,000; 4 steps of the flow, with 1 in an arm.",
    "The noise is compared: any arm beats the flow it starts from, and wall time on a shared machine is no measure.",
    "No diffusion arm: its cost in network evaluations is the number of its steps, by construction.",
)

CLAIM = Comparison(
    statement="PPO takes an imitating flow further with noise learnt within bounds than with noise fixed at the lower bound.",
    arms=ARMS,
    better="learned",
    than="fixed-least",
    metric=Metric("eval/return"),
    budget=f"{BATCHES * ENVIRONMENTS * HORIZON} steps of the environment",
    prepare=prepare,
    grid={"lr": [1e-3, 3e-3, 1e-2]},
    chosen=CHOSEN | OTHERS,
    differences=(*DIFFERENCES, "Noise fixed at the lower bound is the released code's `const` scheduler."),
    tried="Against the upper bound: noise learnt up to 0.5, with and without the entropy bonus; fixed at 0.5 led there too.",
)
UPPER = replace(
    CLAIM,
    statement="PPO takes an imitating flow further with noise learnt within bounds than with noise fixed at the upper bound.",
    arms={k: ARMS[k] for k in ("learned", "fixed-largest")},
    than="fixed-largest",
    grid={"lr": [1e-3, 3e-3]},
    chosen={k: CHOSEN[k] for k in ("learned", "fixed-largest")},
    differences=DIFFERENCES,
)


def _chain(dtype: torch.dtype) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    chain, mean, raw = (torch.randn(4, k, 2, generator=g).to(dtype) for k in (4, 3, 3))
    return {"chain": chain, "mean": mean, "std": bounded_std(raw, 0.1, 0.24)}


def _one_step() -> tuple[Tensor, Tensor]:
    """The chain's density, and its start's plus that of a Gaussian policy."""
    one = {k: v[:, : 2 if k == "chain" else 1] for k, v in _chain(torch.float64).items()}
    start = torch.distributions.Normal(0.0, 1.0).log_prob(one["chain"][:, 0]).sum(-1)
    policy = torch.distributions.Normal(one["mean"][:, 0], one["std"][:, 0]).log_prob(one["chain"][:, 1]).sum(-1)
    return chain_log_prob(**one), start + policy


SYSTEM = System(
    title="ReinFlow",
    paper="Zhang 2025",
    arxiv="2505.22094",
    roles=("policy-objective", "exploration", "diffusion-rl", "imitation"),
    claims=(CLAIM, UPPER),
    built_from=("FlowActor", "gae", "clipped_surrogate", "flow_matching"),
    examples=(Example(chain_log_prob, _chain, rows=("chain", "mean", "std")),),
    reductions=(Reduction("with one step the density is a Gaussian policy's, times the start's", _one_step),),
    extras=("control",),
    follows="code",
)
