# SPDX-License-Identifier: Apache-2.0
"""Running statistics: against numpy on everything at once, and beside Stable-Baselines3's VecNormalize."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from guerdon.credit import gae
from guerdon.credit.scaled import scaled_gae
from guerdon.policies.normaliser import ReturnScale, RunningMoments
from guerdon.sampling.environments import Environments
from tests.sampling.counting import Coin, Counting


def test_pieces_add_up_to_the_whole() -> None:
    x = np.random.default_rng(0).standard_normal((1000, 3)) * [1, 1e-3, 1e3] + [0, 1e4, -5]
    seen = RunningMoments((3,))
    for piece in np.split(x, [1, 1, 10, 500, 999]):
        seen.update(piece)
    assert seen.count == 1000
    assert seen.mean == pytest.approx(x.mean(0), rel=1e-12)
    assert seen.variance == pytest.approx(x.var(0), rel=1e-7)


def test_before_anything_was_seen_it_changes_nothing() -> None:
    seen = RunningMoments((2,))
    assert seen.mean.tolist() == [0, 0] and seen.variance.tolist() == [1, 1]
    assert ReturnScale(0.9)(0) == pytest.approx(1)


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_beside_vec_normalize(ends: str) -> None:
    """The same rewards and observations, 2 environments of episodes of 7 steps, 24 steps in three batches."""
    source = Environments(lambda: Counting(7, ends), 2, 8)
    scale, seen, gamma = ReturnScale(0.9), RunningMoments((2,)), 0.9
    for i in range(3):
        r = source.batch(i, Coin(), 0).rollouts
        scale.add(r.field("environment_reward").values.double().numpy(), r.mask.numpy(), (r.terminated | r.truncated).numpy())
        seen.update(r.field("observation").values.numpy().reshape(-1, 2))
    theirs = VecNormalize(DummyVecEnv([lambda: Counting(7, ends)] * 2), gamma=gamma)
    for rms in (theirs.ret_rms, theirs.obs_rms):
        rms.count = 1e-12  # it begins as if it had seen 1e-4 of a 0 and a variance of 1
    theirs.reset()
    for _ in range(24):
        theirs.step(np.zeros(2, np.int64))
    assert theirs.ret_rms.var == pytest.approx(float(scale.moments.variance), rel=1e-9)
    assert 1 / np.sqrt(theirs.ret_rms.var + theirs.epsilon) == pytest.approx(scale(0), rel=1e-9)
    # It has seen the two observations that the next batch begins with as well.
    seen.update(np.array([[3, 3], [3, 3]], np.float64))
    assert theirs.obs_rms.mean == pytest.approx(seen.mean, rel=1e-9)
    assert theirs.obs_rms.var == pytest.approx(seen.variance, rel=1e-9)


def test_a_return_by_hand() -> None:
    scale = ReturnScale(0.5)
    reward, yes = np.array([[1.0, 2.0, 100.0, 4.0]]), np.ones((1, 4), bool)
    counted, ended = yes.copy(), np.array([[False, True, False, False]])
    counted[0, 2] = False  # not the policy's step
    scale.add(reward, counted, ended)  # returns 1, 2.5, then anew 4
    assert float(scale.moments.variance) == pytest.approx(np.var([1, 2.5, 4]))
    scale.add(np.array([[1.0]]), yes[:, :1], ended[:, :1])  # goes on: 0.5 x 4 + 1
    assert float(scale.moments.variance) == pytest.approx(np.var([1, 2.5, 4, 3]))


def test_the_state_goes_on() -> None:
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((2, 5)), np.ones((2, 5), bool), rng.random((2, 5)) > 0.8) for _ in range(2)]
    whole, first, second = ReturnScale(0.9), ReturnScale(0.9), ReturnScale(0.9)
    for b in batches:
        whole.add(*b)
    first.add(*batches[0])
    second.load_state_dict(first.state_dict())
    second.add(*batches[1])
    assert second(0) == whole(0) != first(0)


def test_scaled_gae_is_gae_of_scaled_rewards() -> None:
    generator = torch.Generator().manual_seed(0)
    reward, value, beyond = torch.randn(3, 2, 6, generator=generator, dtype=torch.float64)
    yes, episode = torch.ones(2, 6, dtype=torch.bool), torch.zeros(2, 6, dtype=torch.long)
    flags = {"mask": yes, "episode": episode, "terminated": ~yes, "truncated": ~yes}
    a = scaled_gae(reward, value, beyond, **flags, scale=0.25, gamma=0.9, lam=0.8)
    b = gae(reward / 4, value, **flags, gamma=0.9, lam=0.8, next_value=beyond)
    assert torch.equal(a, b)
