# SPDX-License-Identifier: Apache-2.0
"""Paid step by step: the same as scored as a whole; what is not causal is refused; what is not ok is no 0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from guerdon import max_of, reward
from guerdon.errors import ExpressionError, InputError, RewardFailure
from guerdon.integrations.causality import memory, reasons_against
from guerdon.integrations.gymnasium import PaidEnv, PaidVectorEnv
from guerdon.rewards import Reward, parse
from guerdon.rollouts import Field, Rollouts
from guerdon.sampling.environments import Environments
from guerdon.scores import Component, component
from tests.sampling.counting import Coin, Counting

ENV = parse("environment")


@reward(level="step", batched=True)
def speed(observation, next_observation):
    return [float(np.abs(np.asarray(b) - np.asarray(a)).sum()) for a, b in zip(observation, next_observation, strict=True)]


@reward(level="step")
def ending(terminated, truncated, action):
    return 5.0 * terminated - 2.0 * truncated + float(action)


@reward(level="step")
def odd_only(index):
    return 1.0 if index % 2 else None


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SoFar(Reward):
    """The environment's reward summed over the episode so far: it looks back on all of it."""

    name: str = "so_far"
    level: str = "step"
    causal: bool = True

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        given = rollouts.field("environment_reward").values
        episode = rollouts.level("episode")
        out = torch.full_like(given, math.nan)
        for n in range(len(rollouts)):
            for t in range(given.shape[1]):
                if rollouts.mask[n, t] and episode[n, t] >= 0:
                    same = rollouts.mask[n, : t + 1] & (episode[n, : t + 1] == episode[n, t])
                    out[n, t] = given[n, : t + 1][same].sum()
        return component(self.name, "step", out)


EXPRESSIONS = {
    "environment": ENV,
    "gain": ENV + 0.5 * ENV.gain(start=3),
    "gains of gains": speed.gain().gain() - ending.gain(),
    "algebra": max_of(ENV.clip(0, 11), speed).gate(on=ending, above=-1) + odd_only.otherwise(-1 * ENV) + 2 * speed.watch(),
    "all of the episode": SoFar() * speed + ENV,
}


def played(env: PaidEnv, steps: int, seed: int) -> tuple[list[float], list[int], int]:
    """(what was paid, the actions, steps) of one episode."""
    env.action_space.seed(seed)
    env.reset(seed=seed)
    paid, actions, over = [], [], False
    while not over and len(paid) < steps:
        actions.append(int(env.action_space.sample()))
        _, value, terminated, truncated, _ = env.step(actions[-1])
        paid.append(value)
        over = terminated or truncated
    return paid, actions, len(paid)


def whole(make, actions: list[int], seed: int) -> Rollouts:
    """The same episode in one row, by stepping the bare environment."""
    env = make()
    observation, _ = env.reset(seed=seed)
    steps = []
    for i, action in enumerate(actions):
        after, given, terminated, truncated, _ = env.step(action)
        steps.append((observation, after, np.float32(given), action, terminated, truncated, i))
        observation = after
    names = ("observation", "next_observation", "environment_reward", "action", "terminated", "truncated", "index")
    columns = {name: torch.from_numpy(np.stack([np.asarray(s[k]) for s in steps]))[None] for k, name in enumerate(names)}
    return Rollouts(
        action=columns["action"],
        mask=torch.ones(1, len(steps), dtype=torch.bool),
        task=["a"],
        terminated=columns["terminated"],
        truncated=columns["truncated"],
        fields={k: Field("step", v) for k, v in columns.items()},
    )


@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize(
    "make", [partial(gym.make, "CartPole-v1"), partial(Counting, 7), partial(Counting, 5, "truncated")], ids=["pole", "7", "5"]
)
def test_paid_step_by_step_is_what_the_whole_episode_scores(name: str, make) -> None:
    expression = EXPRESSIONS[name]
    paid, actions, count = played(PaidEnv(make(), expression), 40, seed=3)
    scores = expression.score(whole(make, actions, seed=3))
    assert count > 4
    assert paid == pytest.approx(scores.reward()[0].tolist(), abs=1e-6)
    assert len(set(paid)) > 1 or name == "environment"


def test_a_second_episode_begins_anew() -> None:
    env = PaidEnv(Counting(3), "environment + environment.gain()")
    for episode in range(2):
        env.reset()
        given = [10.0 * episode + s for s in (1, 2, 3)]
        assert [env.step(0)[1] for _ in range(3)] == [2 * given[0], given[1] + 1, given[2] + 1]


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP", "DISABLED"])
@pytest.mark.parametrize("ends", ["terminated", "truncated"])
@pytest.mark.parametrize("name", [n for n in EXPRESSIONS if n != "algebra"])  # which reads `index`, there of rows
def test_a_vector_environment_pays_what_the_trainer_scores(mode: str, ends: str, name: str) -> None:
    expression, count, steps = EXPRESSIONS[name], 3, 11

    def make() -> SyncVectorEnv:
        return SyncVectorEnv([partial(Counting, i + 2, ends) for i in range(count)], autoreset_mode=AutoresetMode[mode])

    rollouts = Environments(make, steps=steps).batch(0, Coin(), 1).rollouts
    expected = expression.score(rollouts).reward().double().numpy()
    envs = PaidVectorEnv(make(), expression)
    envs.reset(seed=0)
    for t in range(steps):
        _, paid, terminated, truncated, info = envs.step(rollouts.action[:, t].numpy())
        taken = rollouts.mask[:, t].numpy()
        assert info["reward_taken"].tolist() == taken.tolist()
        assert paid[taken] == pytest.approx(expected[taken, t], abs=1e-5)
        assert (paid[~taken] == 0).all()
        if mode == "DISABLED" and (terminated | truncated).any():
            envs.reset(options={"reset_mask": terminated | truncated})
    assert (~rollouts.mask).any() == (mode == "NEXT_STEP")


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP"])
def test_a_number_of_the_info_is_that_of_the_step_also_where_an_episode_ends(mode: str) -> None:
    envs = PaidVectorEnv(SyncVectorEnv([partial(Counting, 2)] * 2, autoreset_mode=AutoresetMode[mode]), "field('twice')")
    envs.reset()
    assert envs.step(np.zeros(2, int))[1].tolist() == [2, 2]
    assert envs.step(np.zeros(2, int))[1].tolist() == [4, 4]


def test_parts_are_in_the_info() -> None:
    env = PaidEnv(Counting(4), 2 * ENV.named("own") + odd_only.watch())
    env.reset()
    _, paid, _, _, info = env.step(1)
    assert paid == 2 and info["environment_reward"] == 1 and info["twice"] == 2
    assert info["reward_parts"] == pytest.approx({"own": 1.0, "odd_only": math.nan}, nan_ok=True)
    assert info["reward_failures"] == {"odd_only": "abstain: returned None"}
    _, paid, _, _, info = env.step(1)
    assert paid == 4 and info["reward_parts"] == {"own": 2.0, "odd_only": 1.0} and "reward_failures" not in info
    envs = PaidVectorEnv(SyncVectorEnv([partial(Counting, 4)] * 2), 2 * ENV + odd_only.watch())
    envs.reset()
    info = envs.step(np.zeros(2, int))[-1]
    assert info["reward_parts"]["environment"].tolist() == [1, 1] and info["environment_reward"].tolist() == [1, 1]
    assert info["reward_failures"] == {"odd_only": {0: "abstain: returned None", 1: "abstain: returned None"}}


# ---- not ok


def test_a_step_that_is_not_ok_raises_or_is_nan_and_never_0() -> None:
    env = PaidEnv(Counting(4), ENV + odd_only)
    env.reset()
    with pytest.raises(RewardFailure, match="not ok at step 0 of the episode in environment 0: abstain: odd_only: returned"):
        env.step(0)
    env = PaidEnv(Counting(4), ENV + odd_only, not_ok="nan")
    env.reset()
    _, paid, _, _, info = env.step(0)
    assert math.isnan(paid) and info["reward_failures"]["total"] == "abstain: odd_only: returned None"
    assert env.step(0)[1] == 3
    envs = PaidVectorEnv(SyncVectorEnv([partial(Counting, 4)] * 2), ENV + odd_only, not_ok="nan")
    envs.reset()
    assert np.isnan(envs.step(np.zeros(2, int))[1]).all()
    with pytest.raises(InputError, match="`not_ok` should be one of raise, nan, got 'zero'"):
        PaidEnv(Counting(), ENV, not_ok="zero")


@reward(level="step")
def fragile(environment_reward):
    return 1 / (environment_reward - 2)


def test_a_function_that_raises_is_told_with_its_step() -> None:
    env = PaidEnv(Counting(4), fragile)
    env.reset()
    env.step(0)
    with pytest.raises(RewardFailure, match=r"at step 1 of the episode .* error: ZeroDivisionError"):
        env.step(0)


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("environment + environment.pool('sum', 'episode')", r"`environment.pool\('sum', 'episode'\)` has one value per episode"),
        ("0.5*environment.drop() + environment", r"`environment.drop\(\)` reads later steps"),
        ("environment.gain().normalise(over='batch')", r"normalise\(over='batch'\)` depends on the rest of the batch"),
        ("environment.shuffled(1, over='row')", "depends on the rest of the row"),
        ("exact + environment", "`exact` has one value per episode"),
        ("environment + environment.drop().watch()", r"`environment.drop\(\)` reads later steps"),
    ],
)
def test_what_is_not_causal_is_refused_by_name(text: str, named: str) -> None:
    for wrapped in (lambda: PaidEnv(Counting(), text), lambda: PaidVectorEnv(SyncVectorEnv([Counting]), text)):
        with pytest.raises(ExpressionError, match=named):
            wrapped()


def test_a_leaf_has_to_say_that_it_is_causal() -> None:
    silent = SoFar(causal=False)
    assert reasons_against(silent) == {silent: "does not say that it is causal, so it may read later steps"}
    assert list(reasons_against(ENV + speed.drop() * silent)) == [speed.drop(), silent]
    assert reasons_against(ENV + speed.gain()) == {}


def test_how_far_back_a_reward_looks() -> None:
    looks = {"environment": 0, "gain": 1, "gains of gains": 2, "algebra": 0, "all of the episode": None}
    assert {name: memory(r) for name, r in EXPRESSIONS.items()} == looks


def test_what_no_environment_has_is_refused() -> None:
    with pytest.raises(InputError, match=r"reads `ref_log_prob`|reads `log_prob`"):
        PaidEnv(Counting(), "environment - 0.1*kl")
    env = PaidEnv(Counting(), "field('thrice')")
    env.reset()
    with pytest.raises(InputError, match=r"reads `thrice`; .* in its info, twice"):
        env.step(0)

    class Parts(Counting):
        observation_space = gym.spaces.Dict({"a": gym.spaces.Discrete(2)})

    PaidEnv(Parts(), "environment")
    with pytest.raises(InputError, match="FlattenObservation"):
        PaidEnv(Parts(), speed)
    Parts.action_space = gym.spaces.Tuple([gym.spaces.Discrete(2)])
    with pytest.raises(InputError, match="action space of one array"):
        PaidEnv(Parts(), "environment")


def test_schedules_read_the_training_step() -> None:
    env = PaidEnv(Counting(9), "linear(0, 1, 10)*environment")
    env.reset()
    assert env.step(0)[1] == 0
    env.set_wrapper_attr("training_step", 5)
    assert env.step(0)[1] == pytest.approx(1.0)
