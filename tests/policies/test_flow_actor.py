# SPDX-License-Identifier: Apache-2.0
"""FlowActor: its chains and their densities, and training in an environment by the loop that trains every other policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from guerdon.errors import CheckpointError, InputError
from guerdon.objectives import token_mean
from guerdon.objectives.flow import flow_matching
from guerdon.policies.flow_actor import FlowActor, bounded_std
from guerdon.policies.velocity import time_features
from guerdon.protocols import Context, Policy
from guerdon.rollouts import Field, Rollouts
from guerdon.training.loop import train
from guerdon.training.noised import Noised
from guerdon.training.recipe import Recipe, Stage, Term


def actor_of(**settings: Any) -> FlowActor:
    return FlowActor(3, 2, **{"width": 16, "dtype": torch.float64, "steps": 3, **settings})


def acted(actor: FlowActor, rows: int = 5, greedy: bool = False) -> tuple[np.ndarray, Any]:
    observation = np.random.default_rng(0).standard_normal((rows, 3))
    noise = np.stack([actor.noise(np.random.default_rng(i), 1)[0] for i in range(rows)])
    return observation, actor.act(observation, noise, greedy)


def rollouts_of(observation: np.ndarray, action: Tensor) -> Rollouts:
    seen = torch.as_tensor(observation)[:, None]
    fields = {"observation": Field("step", seen), "next_observation": Field("step", seen + 1)}
    return Rollouts(action[:, None], torch.ones(len(action), 1, dtype=torch.bool), ["a"] * len(action), fields=fields)


def test_it_is_a_policy() -> None:
    assert isinstance(actor_of(), Policy)


def test_a_chain_is_scored_as_it_was_drawn() -> None:
    actor = actor_of()
    observation, done = acted(actor)
    found = actor.evaluate(rollouts_of(observation, done.action), frozenset({"log_prob", "entropy"}))
    torch.testing.assert_close(found["log_prob"][:, 0], done.log_prob)
    assert found["log_prob"].requires_grad
    assert done.action.shape == (5, 4, 2)
    assert torch.equal(done.to_environment, done.action[:, -1].clamp(-1, 1))


def test_the_density_is_that_of_the_markov_chain() -> None:
    actor = actor_of()
    observation, done = acted(actor)
    seen, entropy = torch.as_tensor(observation), torch.zeros(5).double()
    total = Normal(0.0, 1.0).log_prob(done.action[:, 0]).sum(-1)
    for k in range(3):
        time = torch.full((5,), 1 - k / 3, dtype=torch.float64)
        mean = (done.action[:, k] - actor.flow(done.action[:, k], time, seen) / 3).clamp(-1, 1)
        raw = actor.spread(torch.cat([time_features(time), seen], -1)).tanh()
        low, high = (2 * np.log(x) for x in actor.sigma)  # of variances, as the released code has it
        link = Normal(mean, (0.5 * (low + (high - low) * (raw + 1) / 2)).exp())
        total, entropy = total + link.log_prob(done.action[:, k + 1]).sum(-1), entropy + link.entropy().sum(-1)
    found = actor.evaluate(rollouts_of(observation, done.action), frozenset({"log_prob", "entropy"}))
    torch.testing.assert_close(found["log_prob"][:, 0], total)
    torch.testing.assert_close(found["entropy"][:, 0], entropy / 3)


def test_every_link_has_normal_noise_of_its_own() -> None:
    actor = actor_of(sigma=(0.3, 0.3), cut=9.0)
    observation, noise = np.zeros((4000, 3)), actor.noise(np.random.default_rng(0), 4000)
    chain, left = actor.act(observation, noise).action, []
    for k in range(3):
        time = torch.full((4000,), 1 - k / 3, dtype=torch.float64)
        mean = (chain[:, k] - actor.flow(chain[:, k], time, torch.as_tensor(observation)) / 3).clamp(-1, 1)
        left.append((chain[:, k + 1] - mean) / 0.3)
    numbers = torch.cat([chain[:, 0], *left], 1).detach()
    torch.testing.assert_close(numbers.T.cov(), torch.eye(8, dtype=torch.float64), rtol=0, atol=0.1)


def test_without_noise_the_start_decides() -> None:
    actor, other = actor_of(), actor_of(sigma=(0.5, 0.5))
    observation, done = acted(actor, greedy=True)
    assert torch.equal(acted(other, greedy=True)[1].action, done.action)
    assert not torch.allclose(acted(actor)[1].action[:, 1:], done.action[:, 1:])
    by_hand = done.action[:, 0]
    for k in range(3):
        time = torch.full((5,), 1 - k / 3, dtype=torch.float64)
        by_hand = (by_hand - actor.flow(by_hand, time, torch.as_tensor(observation)) / 3).clamp(-1, 1)
    torch.testing.assert_close(done.action[:, -1], by_hand)


def test_noise_is_cut_and_bounded() -> None:
    actor = actor_of(cut=0.5, sigma=(0.1, 0.1))
    _, still = acted(actor, 200, greedy=True)
    _, moved = acted(actor_of(cut=0.5, sigma=(0.1, 0.1), steps=1), 200)
    _, mean = acted(actor_of(steps=1), 200, greedy=True)
    off = (moved.action[:, 1] - mean.action[:, 1]).abs()
    assert off.max().item() == pytest.approx(0.05) and len(still.action) == 200
    assert bounded_std(torch.tensor([0.3]), 0.2, 0.2).item() == pytest.approx(0.2)


def test_fixed_noise_learns_nothing_and_bounded_noise_does() -> None:
    for sigma, learns in (((0.2, 0.2), False), ((0.1, 0.4), True)):
        actor = actor_of(sigma=sigma)
        observation, done = acted(actor)
        actor.evaluate(rollouts_of(observation, done.action), frozenset({"log_prob"}))["log_prob"].sum().backward()
        gradients = [p.grad for k, p in actor.parameters().items() if k.startswith("spread")]
        assert any(g is not None and (g != 0).any() for g in gradients) == learns


def test_the_gradient_is_that_of_finite_differences() -> None:
    actor = actor_of()
    rows = rollouts_of(*(lambda seen, done: (seen, done.action))(*acted(actor)))

    def total() -> Tensor:
        return actor.evaluate(rows, frozenset({"log_prob"}))["log_prob"].sum()

    for name in ("flow.layers.0.weight", "spread.4.weight"):
        weight = actor.parameters()[name]
        (gradient,) = torch.autograd.grad(total(), weight)
        values = []
        for move in (1e-6, -1e-6):
            with torch.no_grad():
                weight[1, 2] += move
                values.append(total().item())
                weight[1, 2] -= move
        assert gradient[1, 2].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-7)


def test_values_are_of_the_state_and_of_the_next() -> None:
    actor = actor_of()
    observation, done = acted(actor)
    rows = rollouts_of(observation, done.action)
    found = actor.evaluate(rows, frozenset({"value", "next_value"}))
    assert set(found) == {"value", "next_value"}
    moved = rollouts_of(observation + 1, done.action)
    torch.testing.assert_close(found["next_value"], actor.evaluate(moved, frozenset({"value"}))["value"])


def test_masked_steps_have_no_probability() -> None:
    actor = actor_of()
    observation, done = acted(actor)
    seen = torch.as_tensor(observation)
    seen[2:], action = torch.nan, done.action.clone()
    action[2:] = torch.nan
    rows = rollouts_of(seen.numpy(), action).replace(mask=torch.arange(5)[:, None] < 2)
    found = actor.evaluate(rows, actor.outputs - {"velocity"})
    assert all((v[2:] == 0).all() and (v[:2] != 0).all() for v in found.values())
    sum(v.sum() for v in found.values()).backward()
    assert all(p.grad.isfinite().all() for p in actor.parameters().values())  # type: ignore[union-attr]


def test_decisions_that_stand_alone_have_their_own_streams() -> None:
    actor = actor_of()
    asked = [Context("a", [0.1, 0.2, 0.3], index=i) for i in range(3)]
    together, alone = actor.sample(asked, None, seed=1), actor.sample(asked[1:2], None, seed=1)
    torch.testing.assert_close(together.action[1], alone.action[0])
    assert not torch.allclose(together.action[0], together.action[1])
    torch.testing.assert_close(actor.evaluate(together, frozenset({"log_prob"}))["log_prob"], together.log_prob)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    actor = actor_of(seed=3)
    actor.save(tmp_path)
    again = FlowActor.load(tmp_path, dtype=torch.float64)
    assert torch.equal(acted(again)[1].action, acted(actor)[1].action)
    assert FlowActor.load(tmp_path, sigma=(0.3, 0.3)).sigma == (0.3, 0.3)
    with pytest.raises(CheckpointError, match="differs in"):
        actor_of(width=8).load_state_dict(actor.state_dict())
    with pytest.raises(InputError, match="least <= largest"):
        actor_of(sigma=(0.3, 0.2))


def test_flow_matching_imitates_two_ways_at_once(tmp_path: Path) -> None:
    """Demonstrators who go left or right, never straight on: neither does the flow."""
    g = torch.Generator().manual_seed(0)
    side = torch.randint(2, (3000, 1), generator=g) * 1.6 - 0.8
    seen, done = torch.rand(3000, 1, generator=g), side + 0.05 * torch.randn(3000, 1, generator=g)
    actor = FlowActor(1, 1, steps=8, width=32)
    source = Noised(done, 256, {"observation": seen})
    stage = Stage("imitate", 1000, source, [Term(1.0, flow_matching, token_mean)], lr=lambda s: 5e-3 * (1 - s / 1000))
    train(Recipe("imitate", lambda: actor, [stage], checkpoint_every=10_000), tmp_path)
    noise = actor.noise(np.random.default_rng(0), 500)
    ways = actor.act(np.full((500, 1), 0.5), noise, greedy=True).to_environment
    assert (ways.abs() > 0.5).float().mean() > 0.85
    assert 0.35 < (ways > 0).float().mean() < 0.65
