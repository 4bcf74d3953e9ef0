# SPDX-License-Identifier: Apache-2.0
"""DenseGRPO: step-wise rewards for flow-matching generators.

Flow-GRPO gives every denoising step the reward of the final sample, whatever the step did. Here each latent is worth the reward
of the clean sample that it leads to deterministically, a step is worth what it adds to that, and steps are compared with those
of the group at the same time. Noise that makes most of a step's gains negative is turned down.

    x̂_t = ODEₙ(x_t),  R_t = r(x̂_t)             `clean`, `next_clean` [N, T, D]: before and after the step; n steps at most
    ΔR_t = R_{t−1} − R_t                         `reward_gain`, one per step; the sum over t is R_0 − R_T
    A_tⁱ = (ΔR_tⁱ − mean) / std                  `step_advantage` [N, T]; over i in `group` [N] at the same t of `reward` [N, T]
    ψ_t ← ψ_t + ε₂ if |#(ΔR_t > 0) − #(ΔR_t < 0)| < ε₁ N, else ψ_t − ε₂        `calibrated` [T], before training; σ_t = ψ_t

The loss is Flow-GRPO's: a clipped ratio per step, and β times the exact KL divergence between the steps of policy and reference.

Deng et al. 2026, arXiv:2601.20218, equations 7 to 11 and algorithm 1; steps and loss: Liu et al. 2025 (Flow-GRPO),
arXiv:2505.05470, and its code.
Departures:
1. A step's log-probability is the sum over dimensions, a density; Flow-GRPO's code takes the mean and a clip of 1e-4, not 0.2.
2. ε₁ is a share of the N samples: the paper's 2 says little without its N, which it does not give.
3. Group deviations divide by n − 1 and have 1e-4 added, as in Flow-GRPO's code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guerdon.credit import group_relative
from guerdon.credit.groups import center_by_group
from guerdon.errors import check_shape
from guerdon.objectives import clipped_surrogate, token_mean
from guerdon.objectives.flow import exact_kl, flow_matching
from guerdon.policies.flow import Denoising, FlowPolicy, stochastic
from guerdon.protocols import Context
from guerdon.rewards import Reward
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.systems.system import Comparison, Example, Metric, Reduction, Start, System
from guerdon.tasks import densities
from guerdon.training.binding import bind
from guerdon.training.evaluation import Measured
from guerdon.training.noised import Noised
from guerdon.training.recipe import Batch, Recipe, Stage, Term
from guerdon.training.sources import Prompts

Quality = Callable[[Tensor, Tensor], Tensor]
"""(clean samples [M, D], labels [M]) -> reward [M]."""


def step_advantage(reward: Tensor, mask: Tensor, group: Tensor, *, eps: float | Tensor = 1e-4) -> Tensor:
    """A_tⁱ = (rewardⁱ_t − mean) / (std + eps) over the counted steps t of the rows i of a group, [N, T].

    ``reward`` [N, T], one per step, not summed over later steps: a gain is already relative to the value before it. ``mask``
    [N, T] bool; ``group`` [N]. A reward that is not finite is NaN and left out; so is a step that no other row of its group has.

    >>> gains = torch.tensor([[2., 0.], [1., 0.], [0., 3.]]); yes = torch.ones(3, 2, dtype=torch.bool)
    >>> [[round(x, 3) for x in row] for row in step_advantage(gains, yes, torch.zeros(3, dtype=torch.long), eps=0.0).tolist()]
    [[1.0, -0.577], [0.0, -0.577], [-1.0, 1.155]]
    """
    check_shape("step_advantage", "reward", reward, (None, None), "a reward per row instead of per step")
    check_shape("step_advantage", "mask", mask, tuple(reward.shape), "a mask per row instead of per step")
    place = torch.unique(group, return_inverse=True)[1][:, None] * reward.shape[1] + torch.arange(reward.shape[1]).to(group)
    return torch.zeros_like(reward).masked_scatter(mask, center_by_group(reward[mask], place[mask], scale="std", eps=eps))


def calibrated(sigma: Tensor, gain: Tensor, *, tolerance: float = 0.2, rate: float = 0.01) -> Tensor:
    """One round of algorithm 1: ψ_t up by ``rate`` where gains are balanced, else down, but not below ``rate``, [T].

    ``sigma`` [T], ψ so far; ``gain`` [N, T], ΔR of N samples drawn with it. Balanced: the numbers of positive and negative gains
    differ by less than ``tolerance`` N.

    >>> gain = torch.tensor([[1., -1.], [-1., -1.], [1., -1.], [-1., 1.]])
    >>> [round(s, 2) for s in calibrated(torch.tensor([0.5, 0.5]), gain).tolist()]
    [0.51, 0.49]
    """
    check_shape("calibrated", "gain", gain, (None, len(sigma)), "gains of another number of steps")
    balanced = gain.sign().sum(0).abs() < tolerance * len(gain)
    return torch.where(balanced, sigma + rate, (sigma - rate).clamp(min=rate))


def final_quality(quality: Quality) -> Reward:
    """Flow-GRPO's reward: r of what came out, once an episode."""

    @tensor_reward(needs=("sample", "label"))
    def final_quality(rollouts: Rollouts) -> Tensor:
        return quality(rollouts.field("sample").values[:, 0], rollouts.field("label").values[:, 0])

    return final_quality


def reward_gain(quality: Quality) -> Reward:
    """ΔR of each step."""

    @tensor_reward(level="step", needs=("clean", "next_clean", "label"))
    def reward_gain(rollouts: Rollouts) -> Tensor:
        clean, after, label = (rollouts.field(k).values for k in ("clean", "next_clean", "label"))
        led_to = torch.cat([clean[:, :1], after], 1).flatten(0, 1)
        worth = quality(led_to, label[:, 0].repeat_interleave(clean.shape[1] + 1))
        return worth.reshape(len(clean), -1).diff(dim=1)

    return reward_gain


@dataclass
class Calibrated:
    """A source that first fits the noise to the policy as it is then, for ``rounds`` of algorithm 1, and keeps it."""

    source: Prompts
    gain: Reward
    rounds: int = 30
    sigma: Tensor | None = None

    def batch(self, step: int, policy: Any, seed: int) -> Batch:
        if self.sigma is None:
            sampling: Any = self.source.sampling
            psi = torch.tensor(sampling.sigma)
            for k in range(self.rounds):
                drawn = self._with(psi).batch(k, policy, seed + 1)  # another seed: the first batch is not drawn twice
                psi = calibrated(psi, self.gain.score(drawn.rollouts).total.values)
            self.sigma = psi
        return self._with(self.sigma).batch(step, policy, seed)

    def _with(self, psi: Tensor) -> Prompts:
        sampling: Any = self.source.sampling
        return replace(self.source, sampling=replace(sampling, sigma=tuple(psi.tolist())))

    def state_dict(self) -> dict[str, Any]:
        return {} if self.sigma is None else {"sigma": self.sigma}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sigma = state.get("sigma")


def densegrpo(
    source: Prompts,
    steps: int,
    quality: Quality,
    *,
    calibrate: bool = True,
    clip: float = 0.2,  # see Departures
    kl: float = 0.01,  # section 5.1, human preference; 0.04 for the other two tasks
    lr: float = 3e-4,  # appendix A
) -> Stage:
    """``source`` samples with a look-ahead, as many steps as are left in the paper; the policy has a reference."""
    gain = reward_gain(quality)
    made = Calibrated(source, gain) if calibrate else source
    return Stage("densegrpo", steps, made, terms(clip, kl), gain, step_advantage, lr=lr)


def flow_grpo(source: Prompts, steps: int, quality: Quality, *, clip: float = 0.2, kl: float = 0.01, lr: float = 3e-4) -> Stage:
    """The parent: the final sample's reward for all steps."""
    credit = bind(group_relative, scale="std", eps=1e-4)
    return Stage("flow-grpo", steps, source, terms(clip, kl), final_quality(quality), credit, lr=lr)


def terms(clip: float, kl: float) -> list[Term]:
    """Of both: the clipped ratio of each step, and what holds it near the reference."""
    clipped = bind(clipped_surrogate, clip_low=clip, clip_high=clip)
    return [Term(1.0, clipped, token_mean), Term(kl, exact_kl, token_mean)]


# ---- the claim

STEPS, UPDATES, SAMPLES = 10, 60, 12  # denoising steps of section 5.1
CONTEXTS = [Context(f"mode {k}", k) for k in range(densities.MODES)]


def quality(points: Tensor, label: Tensor) -> Tensor:
    """A classifier's probability of the mode asked for, and how near the point is to the circle of the modes; up to 2."""
    return densities.mode_probability(points, label) + densities.roundness(points)


def measured(every: int, evaluations: int = 0) -> Measured:
    """Mean reward and its parts by the deterministic flow of 40 steps (section 5.1), and the network evaluations of training."""
    contexts = [replace(c, index=i) for c in CONTEXTS for i in range(32)]

    def figures(policy: Any, step: int) -> dict[str, float]:
        drawn = policy.sample(contexts, Denoising(40), seed=7)
        x, label = drawn.field("sample").values[:, 0], drawn.field("label").values[:, 0]
        parts = {"mode": densities.mode_probability(x, label), "roundness": densities.roundness(x), "reward": quality(x, label)}
        spent = {"eval/evaluations": step * len(CONTEXTS) * SAMPLES * evaluations}
        return {f"eval/{k}": v.mean().item() for k, v in parts.items()} | spent

    return Measured(every, figures)


def prepare(seed: int) -> Recipe:
    """A conditional flow that has learnt the eight modes from labels half of which are random."""
    points, label = densities.sample_modes(20_000, seed, confusion=0.5)
    source = Noised(points, 256, {"label": label})
    stage = Stage("match", 1500, source, [Term(1.0, flow_matching, token_mean)], lr=lambda s: 3e-3 * (1 - s / 1500))
    policy = partial(FlowPolicy, 2, labels=densities.MODES, seed=seed)
    return Recipe("flow", policy, [stage], measured(500), seed=seed, checkpoint_every=500, best="eval/reward")


def arm(make: Any, look_ahead: int, seed: int, start: Start, **choice: Any) -> Recipe:
    """One training of the stage that ``make`` gives, from the flow that was prepared."""
    sampling: Any = stochastic(STEPS, 0.7, look_ahead)
    stage = make(Prompts(CONTEXTS, len(CONTEXTS), SAMPLES, sampling), UPDATES, quality, **choice)

    def policy() -> FlowPolicy:
        assert start is not None
        return FlowPolicy.load(start / "policy", reference=True)

    watched = measured(5, sampling.evaluations)
    return Recipe(stage.name, policy, [stage], watched, seed=seed, best="eval/reward", save_rollouts_every=0)


def dense(look_ahead: int, calibrate: bool = False) -> Any:
    """DenseGRPO with so many steps of look-ahead at most."""
    return partial(arm, partial(densegrpo, calibrate=calibrate), look_ahead)


CLAIM = Comparison(
    statement="At equal updates a flow learns faster from each step's gain in look-ahead reward than from the final reward.",
    arms={
        "flow-grpo": partial(arm, flow_grpo, 0),
        "densegrpo": dense(STEPS),
        "densegrpo-n1": dense(1),
        "densegrpo-psi": dense(STEPS, calibrate=True),
    },
    better="densegrpo",
    than="flow-grpo",
    metric=Metric("eval/reward", how="mean"),
    budget=f"{UPDATES} updates of {densities.MODES * SAMPLES} samples each",
    prepare=prepare,
    grid={"lr": [3e-3, 6e-3, 1.2e-2, 2.4e-2]},
    chosen={
        "flow-grpo": {"lr": 1.2e-2},
        "densegrpo": {"lr": 1.2e-2},
        "densegrpo-n1": {"lr": 3e-3},
        "densegrpo-psi": {"lr": 1.2e-2},
    },
    differences=(
        "The 2-D densities of the two tasks proposed: a training takes seconds.",
        "Noise level 0.7 in both arms that decide: the calibration is an arm of its own, so that the reward alone differs.",
        "The mean of the learning curve decides, since both arms come near the largest reward, 2.",
        "A dense row costs 65 network evaluations instead of 10 (look-ahead of one step: 20); `eval/evaluations` counts them.",
        "Groups of 12 instead of 24, five seeds or more instead of 3.",
    ),
)


def _example(dtype: torch.dtype) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    mask = torch.tensor([[True, True, False], [True, True, True], [True, True, True], [True, True, True]])
    return {"reward": torch.randn(4, 3, generator=g).to(dtype), "mask": mask, "group": torch.tensor([0, 0, 1, 1])}


def _one_step() -> tuple[Tensor, Tensor]:
    one = {k: v[:, :1] if v.dim() == 2 else v for k, v in _example(torch.float64).items()}
    return step_advantage(**one), group_relative(**one, scale="std", eps=1e-4)


SYSTEM = System(
    title="DenseGRPO",
    paper="Deng 2026",
    arxiv="2601.20218",
    roles=("process-reward", "credit-assignment", "exploration"),
    claims=(CLAIM,),
    built_from=("FlowPolicy", "center_by_group", "clipped_surrogate", "exact_kl"),
    examples=(Example(step_advantage, _example, rows=("reward", "mask", "group"), padded=("reward",)),),
    reductions=(Reduction("with a single denoising step it is Flow-GRPO's group-relative advantage", _one_step),),
    follows="paper",
)
