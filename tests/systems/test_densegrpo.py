# SPDX-License-Identifier: Apache-2.0
"""DenseGRPO's gains on the eight modes, with the exact velocity of their mixture in the network's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from guerdon.credit import group_relative
from guerdon.objectives import token_mean
from guerdon.objectives.flow import flow_matching
from guerdon.policies.flow import Denoising, FlowPolicy, stochastic
from guerdon.protocols import Context
from guerdon.rollouts import Rollouts
from guerdon.systems.generator.densegrpo import (
    Calibrated,
    calibrated,
    densegrpo,
    final_quality,
    quality,
    reward_gain,
    step_advantage,
)
from guerdon.tasks import digits
from guerdon.tasks.densities import MODES, SPREAD, centres
from guerdon.training.evaluation import Measured
from guerdon.training.loop import train
from guerdon.training.noised import Noised
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Prompts


def exact_velocity(latent: Tensor, time: Tensor, condition: Tensor) -> Tensor:
    """E[eps - x_0 | x_t] for the mixture: each mode's own, weighted by its probability given x_t."""
    t = time[..., None, None]
    variance = (1 - t) ** 2 * SPREAD**2 + t**2
    means = centres(latent.dtype)
    off = latent[..., None, :] - (1 - t) * means
    weight = (-(off**2).sum(-1) / (2 * variance[..., 0])).softmax(-1)
    return (weight[..., None] * ((t - (1 - t) * SPREAD**2) / variance * off - means)).sum(-2)


@pytest.fixture(scope="module")
def policy() -> FlowPolicy:
    made: Any = FlowPolicy(2, labels=MODES)
    made.network = exact_velocity
    return made


def drawn(policy: FlowPolicy, rows: int, look_ahead: int, seed: int = 0) -> Rollouts:
    return policy.sample([Context("mode 0", 0, index=i) for i in range(rows)], stochastic(10, 0.7, look_ahead), seed)


def test_gains_add_up_to_what_the_chain_gained(policy: FlowPolicy) -> None:
    rows = drawn(policy, 6, 10)
    gains = reward_gain(quality).score(rows).total
    assert gains.level == "step" and gains.values.shape == (6, 10)
    label = torch.zeros(6, dtype=torch.long)
    start = quality(rows.field("clean").values[:, 0], label)
    end = final_quality(quality).score(rows).total.values[:, 0]
    torch.testing.assert_close(gains.values.sum(1), end - start, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(end, quality(rows.action[:, -1], label))


def test_gains_are_near_what_steps_are_worth(policy: FlowPolicy) -> None:
    """A step is worth V(after) - V(before), V of a latent being the mean quality of its forks."""
    branches, rows = 48, drawn(policy, 6, 10)
    places = [(i, k) for i in range(6) for k in range(10) for _ in range(branches)]
    forked = policy.fork(rows, places, index=[1000 + j for j in range(len(places))], seed=1)
    value = final_quality(quality).score(forked).total.values.reshape(6, 10, branches).mean(-1)
    worth = torch.cat([value, final_quality(quality).score(rows).total.values], 1).diff(dim=1)
    gains = reward_gain(quality).score(rows).total.values
    assert torch.corrcoef(torch.stack([gains.flatten(), worth.flatten()]))[0, 1] > 0.7


def test_an_advantage_compares_a_step_with_the_groups_at_the_same_time() -> None:
    g = torch.Generator().manual_seed(0)
    reward, group = torch.randn(6, 4, generator=g, dtype=torch.float64), torch.tensor([3, 0, 3, 0, 3, 0])
    found = step_advantage(reward, torch.ones(6, 4, dtype=torch.bool), group, eps=0.0)
    for member in (0, 3):
        own = reward[group == member]
        torch.testing.assert_close(found[group == member], (own - own.mean(0)) / own.std(0))
    assert not torch.allclose(found, group_relative(reward, torch.ones(6, 4, dtype=torch.bool), group, scale="std"))


def test_a_failed_gain_stays_out_of_its_steps_statistics() -> None:
    reward = torch.tensor([[1.0, 1.0], [3.0, 2.0], [float("nan"), 6.0]])
    found = step_advantage(reward, torch.ones(3, 2, dtype=torch.bool), torch.zeros(3, dtype=torch.long), eps=0.0)
    assert found[:2, 0].tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])
    assert found[2, 0].isnan() and found[:, 1].isfinite().all()


def test_calibration_turns_noise_up_where_gains_are_balanced_and_down_elsewhere() -> None:
    gain = torch.ones(10, 3)
    gain[:5, 0], gain[:4, 1] = -1, -1  # 5 against 5, 4 against 6, 0 against 10
    moved = calibrated(torch.tensor([0.5, 0.5, 0.005]), gain, tolerance=0.2, rate=0.01)
    assert moved.tolist() == pytest.approx([0.51, 0.49, 0.01])


def test_a_calibrated_source_fits_its_noise_once_and_keeps_it(policy: FlowPolicy) -> None:
    sampling: Any = stochastic(6, 0.7, 6)
    made = Calibrated(Prompts([Context("mode 0", 0)], 1, 24, sampling), reward_gain(quality), rounds=5)
    first = made.batch(0, policy, 0).rollouts
    fitted = first.field("sigma").values[0]
    moved = (fitted - torch.tensor(sampling.sigma)).abs()
    assert (moved > 0.005).any() and (moved < 0.0501).all()
    again = replace(made, sigma=None)
    again.load_state_dict(made.state_dict())
    batches = [source.batch(1, policy, 0).rollouts for source in (made, again)]
    assert torch.equal(batches[0].field("sigma").values[0], fitted)
    assert torch.equal(batches[0].action, batches[1].action)


def test_digits_go_through_the_same_loop(tmp_path: Path) -> None:
    """Class-conditional digits: a few steps of flow matching, then a few updates by a classifier's probability and roundness."""
    pixels, label = digits.images()
    probability = digits.classifier(pixels[:600], label[:600])

    def worth(x: Tensor, asked: Tensor) -> Tensor:
        return probability(x, asked) + digits.roundness(x)

    flow = FlowPolicy(64, labels=10, width=64, reference=True)
    match = Stage("match", 200, Noised(pixels, 128, {"label": label}), [Term(1.0, flow_matching, token_mean)], lr=3e-3)
    asked, sampling = [Context(f"digit {k}", k) for k in range(10)], stochastic(6, 0.7, 6)
    gains = densegrpo(Prompts(asked, 10, 6, cast(Any, sampling)), 25, worth, calibrate=False, kl=0.0, lr=4e-3)
    rewards = []

    def kept(policy: FlowPolicy, step: int) -> dict[str, float]:
        drawn = policy.sample([replace(c, index=i) for c in asked for i in range(10)], Denoising(10), seed=5)
        x, of = drawn.field("sample").values[:, 0], drawn.field("label").values[:, 0]
        rewards.append(worth(x, of).mean().item())
        return {"eval/reward": rewards[-1]}

    whole = Recipe("digits", lambda: flow, [match, gains], Measured(200, kept), best="eval/reward", save_rollouts_every=0)
    train(whole, tmp_path)
    untrained, matched, trained = rewards
    assert matched > untrained + 0.1
    assert trained > matched + 0.1
