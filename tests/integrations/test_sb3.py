# SPDX-License-Identifier: Apache-2.0
"""In Stable-Baselines3: a bonus reaches earlier advantages, time limits keep their bootstrap, episodes cross rollouts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from guerdon import reward
from guerdon.errors import InputError, RewardFailure
from guerdon.integrations.sb3 import RolloutReward
from guerdon.rewards import Reward, parse
from tests.integrations.test_gymnasium import SoFar
from tests.sampling.counting import Counting

ENV = parse("environment")
GAMMA, LAM, STEPS = 0.9, 0.8, 12


class Kept(BaseCallback):
    """What the buffer holds when the callbacks before it are done."""

    def __init__(self) -> None:
        super().__init__()
        self.rewards, self.advantages, self.returns = [], [], []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        for name in ("rewards", "advantages", "returns"):
            getattr(self, name).append(getattr(buffer, name).copy())


def ppo(envs: Any, **settings: Any) -> PPO:
    made = {"n_steps": STEPS, "batch_size": 2, "n_epochs": 1, "gamma": GAMMA, "gae_lambda": LAM, "seed": 0, "device": "cpu"}
    return PPO("MlpPolicy", envs, **{**made, **settings})


def collected(callbacks: list[BaseCallback], make: Callable[[], gym.Env], rollouts: int = 1, **settings: Any) -> Kept:
    """The buffers of some rollouts, the policy staying as it is."""
    kept = Kept()
    envs = DummyVecEnv([make, make])
    ppo(envs, learning_rate=0.0, **settings).learn(rollouts * 2 * settings.get("n_steps", STEPS), callback=[*callbacks, kept])
    return kept


# ---- a bonus at step k is part of the advantage of step 0


class AddedAfterwards(BaseCallback):
    """The recipe that is going around: the bonus is added to advantages and returns once the rollout is over."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        buffer.advantages[self.k] += 1
        buffer.returns[self.k] += 1


def paid_at(k: int) -> Reward:
    @reward(level="step", batched=True)
    def bonus(index):
        return [float(i == k) for i in index]

    return bonus


def check_credit(callback: BaseCallback, k: int) -> None:
    """By GAE a 1 at step k adds (γλ)^(k - t) to the advantage of step t <= k, and nothing to those after."""
    make = partial(gym.make, "Pendulum-v1")
    without, beside = collected([], make), collected([callback], make)
    added = (beside.advantages[0] - without.advantages[0])[:, 0]
    expected = [(GAMMA * LAM) ** (k - t) if t <= k else 0.0 for t in range(STEPS)]
    np.testing.assert_allclose(added, expected, atol=1e-4)
    np.testing.assert_allclose((beside.returns[0] - without.returns[0])[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("k", [0, 5, STEPS - 1])
def test_a_bonus_at_step_k_is_part_of_the_advantage_of_step_0(k: int) -> None:
    check_credit(RolloutReward(ENV + paid_at(k)), k)


def test_the_check_rejects_a_bonus_added_after_the_advantages() -> None:
    with pytest.raises(AssertionError, match="Mismatched elements: 5 / 12"):
        check_credit(AddedAfterwards(5), 5)


# ---- what Stable-Baselines3 does stays as it is


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_with_the_environments_own_reward_training_is_the_same_to_the_last_digit(algorithm: str, ends: str) -> None:
    def trained(callback: BaseCallback | None) -> list[torch.Tensor]:
        envs = DummyVecEnv([partial(Counting, 7, ends), partial(Counting, 4, ends)])
        torch.manual_seed(0)
        model = ppo(envs) if algorithm == "PPO" else A2C("MlpPolicy", envs, seed=0, device="cpu")
        return list(model.learn(200, callback=callback).policy.parameters())

    for a, b in zip(trained(None), trained(RolloutReward("environment")), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


class Bootstraps(BaseCallback):
    """γ V(terminal observation) of the steps that a time limit cut, and where each rollout's edge lay."""

    def __init__(self) -> None:
        super().__init__()
        self.added: list[list[float]] = []

    def _on_step(self) -> bool:
        row = []
        for info in self.locals["infos"]:
            cut = info.get("TimeLimit.truncated", False)
            seen = self.model.policy.obs_to_tensor(info["terminal_observation"])[0] if cut else None
            with torch.no_grad():
                row.append(GAMMA * self.model.policy.predict_values(seen).item() if cut else 0.0)
        self.added.append(row)
        return True


@pytest.mark.parametrize("steps", [10, 12])  # 12: two episodes end with the rollout
def test_a_time_limit_keeps_its_bootstrap_and_an_end_has_none(steps: int) -> None:
    seen = Bootstraps()
    kept = collected([seen, RolloutReward("3*environment.clip(0, 1)")], partial(Counting, 6, "truncated"), n_steps=steps)
    expected = 3 + np.array(seen.added)
    assert (expected != 3).sum() == 2 * (steps // 6)
    np.testing.assert_allclose(kept.rewards[0], expected, rtol=1e-5)
    kept = collected([RolloutReward("3*environment.clip(0, 1)")], partial(Counting, 6), n_steps=steps)
    assert (kept.rewards[0] == 3).all()


# ---- episodes across rollouts


@pytest.mark.parametrize("steps", [4, 5, 30])
def test_a_causal_reward_is_that_of_the_whole_episode_wherever_rollouts_end(steps: int) -> None:
    kept = collected(
        [RolloutReward("environment + environment.gain().gain()")], partial(Counting, 7), -(-30 // steps), n_steps=steps
    )
    found = np.concatenate(kept.rewards)[:30, 0]
    given = [[10 * e + s for s in range(1, 8)] for e in range(5)]
    gains = [[g[0], *np.diff(g)] for g in given]
    expected = [x + y for g, d in zip(given, gains, strict=True) for x, y in zip(g, [d[0], *np.diff(d)], strict=True)]
    np.testing.assert_allclose(found, expected[:30], rtol=1e-6)


def test_of_another_the_part_in_a_rollout_is_an_episode() -> None:
    kept = collected([RolloutReward(ENV.pool("sum", "episode"))], partial(Counting, 7), 2, n_steps=5)
    np.testing.assert_allclose(kept.rewards[0][:, 0], [0, 0, 0, 0, 1 + 2 + 3 + 4 + 5])
    np.testing.assert_allclose(kept.rewards[1][:, 0], [0, 6 + 7, 0, 0, 11 + 12 + 13])


@pytest.mark.parametrize("anew", [True, False])
def test_a_further_call_of_learn_begins_new_episodes_or_goes_on(anew: bool) -> None:
    kept, envs = Kept(), DummyVecEnv([partial(Counting, 7)])
    model = ppo(envs, n_steps=4, learning_rate=0.0)
    callback = RolloutReward("environment.gain()")
    for _ in range(2):
        model.learn(4, callback=[callback, kept], reset_num_timesteps=anew)
    assert [r[:, 0].tolist() for r in kept.rewards] == [[1, 1, 1, 1], [11, 1, 1, 1] if anew else [1, 1, 1, 11]]
    assert callback.rollout == 2


def test_a_reward_that_looks_back_on_all_of_an_episode_carries_no_more_than_that() -> None:
    callback = RolloutReward(SoFar())
    kept = collected([callback], partial(Counting, 7), 3, n_steps=5)
    whole = np.cumsum([[10 * e + s for s in range(1, 8)] for e in range(3)], 1).ravel()
    np.testing.assert_allclose(np.concatenate(kept.rewards)[:, 0], whole[:15])
    assert callback.scores is not None and callback.scores.mask.shape == (2, 3 + 5)


# ---- fields


@reward(level="step")
def led_to(observation, next_observation, action, twice, environment_reward, terminated, log_prob):
    assert twice == 2 * environment_reward and action in (0, 1) and log_prob < 0
    return 100 * observation[1] + next_observation[1] + 0.5 * terminated


def test_fields_are_those_of_the_step_also_where_an_episode_ends() -> None:
    kept = collected([RolloutReward(led_to)], partial(Counting, 3), n_steps=6)
    np.testing.assert_allclose(kept.rewards[0][:, 0], [1, 102, 203.5] * 2)


def test_with_normalised_observations_the_reward_reads_the_original_ones() -> None:
    kept = Kept()
    envs = VecNormalize(DummyVecEnv([partial(Counting, 3)]), norm_reward=False, clip_obs=1000)
    ppo(envs, n_steps=6, learning_rate=0.0).learn(12, callback=[RolloutReward(led_to), kept])
    np.testing.assert_allclose(np.concatenate(kept.rewards)[:, 0], [1, 102, 203.5] * 4, rtol=1e-4)
    with pytest.raises(InputError, match="norm_reward=False"):
        ppo(VecNormalize(DummyVecEnv([Counting]))).learn(12, callback=RolloutReward("environment"))


# ---- loud


@reward(level="step")
def first_only(index):
    return 1.0 if index < 2 else None


def test_a_step_that_is_not_ok_stops_the_training() -> None:
    with pytest.raises(RewardFailure, match=r"not ok at 4 of 12 steps .* environment 0 at step 2: abstain: first_only: returned"):
        collected([RolloutReward(ENV + first_only)], partial(Counting, 3), n_steps=6)


def test_other_algorithms_and_missing_fields_are_refused() -> None:
    with pytest.raises(InputError, match="such as PPO or A2C, got DQN"):
        DQN("MlpPolicy", Counting(), device="cpu").learn(4, callback=RolloutReward("environment"))
    with pytest.raises(InputError, match=r"reads `thrice`; .* in its info, .*twice"):
        collected([RolloutReward("field('thrice')")], Counting)
    with pytest.raises(InputError, match="ref_log_prob"):
        RolloutReward("environment - kl")


def test_parts_are_logged() -> None:
    class Lines(KVWriter):
        def __init__(self) -> None:
            self.lines: list[dict[str, Any]] = []

        def write(self, key_values, key_excluded, step=0) -> None:
            self.lines.append(dict(key_values))

        def close(self) -> None: ...

    lines = Lines()
    model = ppo(DummyVecEnv([partial(Counting, 3)]), n_steps=6, batch_size=6)
    model.set_logger(Logger(None, [lines]))
    model.learn(6, callback=RolloutReward(0.5 * ENV.named("own") + first_only.watch()))
    told = {k: v for k, v in lines.lines[0].items() if k.startswith("reward/")}
    own = np.mean([1, 2, 3, 11, 12, 13])
    assert told == pytest.approx(
        {"reward/total": own / 2, "reward/own": own, "reward/first_only": 1.0, "reward/first_only_abstain": 1 / 3}
    )


# ---- a training


class Line(gym.Env):
    """A point on a line that a step moves by the action; the environment pays nothing."""

    observation_space = gym.spaces.Box(-4, 4, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.uniform(-2, 2, 1).astype(np.float32), 0
        return self.at.copy(), {}

    def step(self, action: np.ndarray):
        self.at, self.steps = np.clip(self.at + 0.5 * action, -4, 4).astype(np.float32), self.steps + 1
        return self.at.copy(), 0.0, False, self.steps == 10, {}


@reward(level="step", batched=True)
def near(next_observation):
    return [-abs(float(x[0])) for x in next_observation]


def far(model: PPO) -> float:
    """Mean distance after ten steps of the policy's mean action."""
    envs = [Line() for _ in range(20)]
    seen = np.stack([env.reset(seed=i)[0] for i, env in enumerate(envs)])
    for _ in range(10):
        action, _ = model.predict(seen, deterministic=True)
        seen = np.stack([env.step(a)[0] for env, a in zip(envs, action, strict=True)])
    return float(np.abs(seen).mean())


def test_ppo_learns_from_a_reward_that_the_environment_does_not_give() -> None:
    model = ppo(DummyVecEnv([Line] * 4), n_steps=100, batch_size=100, n_epochs=10, learning_rate=3e-3, gae_lambda=0.95)
    before = far(model)
    model.learn(6000, callback=RolloutReward(near + 0.5 * near.gain()))
    assert before > 0.8 and far(model) < 0.3
