# SPDX-License-Identifier: Apache-2.0
"""Environments sampled into Rollouts: true successors, no step that wasn't taken, failures that stay their own."""

from __future__ import annotations

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from guerdon.credit import gae
from guerdon.errors import EnvironmentFailure, InputError
from guerdon.policies.actor_critic import ActorCritic
from guerdon.rewards.parse import parse
from guerdon.rollouts import Rollouts
from guerdon.sampling.environments import Environments, episodes, make_environment, stepper_of
from guerdon.sampling.vector import Singles, Vector
from tests.sampling.counting import Coin, Counting

LONG = (2, 3)


def made(mode: str, ends: str = "terminated", breaks=None):
    """Two environments, of episodes of two and of three steps; ``breaks`` of the second."""
    waiting = [partial(Counting, LONG[0], ends), partial(Counting, LONG[1], ends, breaks)]
    if mode == "single":
        order = iter([f() for f in waiting])
        return lambda: next(order, None) or Counting(LONG[1], ends)
    return lambda: SyncVectorEnv(list(waiting), autoreset_mode=AutoresetMode[mode])


def taken(rollouts: Rollouts, row: int, name: str) -> list:
    values = getattr(rollouts, name) if hasattr(rollouts, name) else rollouts.field(name).values
    return values[row][rollouts.mask[row]].tolist()


def expected(long: int, ends: str, steps: int) -> dict[str, list]:
    """What the first ``steps`` taken steps of an environment of episodes of ``long`` steps are."""
    at = [divmod(i, long) for i in range(steps)]
    last = [s == long - 1 for _, s in at]
    return {
        "observation": [[float(e), float(s)] for e, s in at],
        "next_observation": [[float(e), float(s + 1)] for e, s in at],
        "environment_reward": [10.0 * e + s + 1 for e, s in at],
        "terminated": [x and ends == "terminated" for x in last],
        "truncated": [x and ends == "truncated" for x in last],
    }


MODES = ["single", "NEXT_STEP", "SAME_STEP", "DISABLED"]


# ---- what a step led to


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_every_mode_gives_the_same_true_steps(mode: str, ends: str) -> None:
    rollouts = Environments(made(mode, ends), 2, 12).batch(0, Coin(), 0).rollouts
    for row, long in enumerate(LONG):
        count = int(rollouts.mask[row].sum())
        assert count == (12 if mode != "NEXT_STEP" else 12 - 12 // (long + 1))
        for name, values in expected(long, ends, count).items():
            assert taken(rollouts, row, name) == values, name
        assert taken(rollouts, row, "drawn") == [x for x in taken(rollouts, row, "drawn") if x > 0]
    episode = rollouts.level("episode")
    assert (episode[~rollouts.mask] == -1).all()
    assert episode[0][rollouts.mask[0]].tolist() == [i // LONG[0] for i in range(int(rollouts.mask[0].sum()))]


@pytest.mark.parametrize("mode", MODES)
def test_numbers_of_the_info_are_those_of_the_step_at_the_end_of_an_episode_too(mode: str) -> None:
    rollouts = Environments(made(mode), 2, 12, info=("twice",)).batch(0, Coin(), 0).rollouts
    for row in range(2):
        assert taken(rollouts, row, "twice") == [2 * x for x in taken(rollouts, row, "environment_reward")]


def test_reset_steps_of_next_step_mode_are_not_taken() -> None:
    rollouts = Environments(made("NEXT_STEP"), 2, 6).batch(0, Coin(), 0).rollouts
    assert rollouts.mask.tolist() == [[True, True, False, True, True, False], [True, True, True, False, True, True]]
    scores = parse("environment").score(rollouts)
    assert scores.total.values.isnan().tolist() == (~rollouts.mask).tolist()


@pytest.mark.parametrize("mode", MODES)
def test_episodes_go_on_in_the_next_batch(mode: str) -> None:
    source = Environments(made(mode, "truncated"), 2, 4)
    parts = [source.batch(i, Coin(), 0).rollouts for i in range(3)]
    for row, long in enumerate(LONG):
        for name, values in expected(long, "truncated", sum(int(p.mask[row].sum()) for p in parts)).items():
            assert [x for p in parts for x in taken(p, row, name)] == values, name
    if mode == "single":  # three steps and one, two and two, one and three
        assert [p.level("episode")[1].tolist() for p in parts] == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]]


def straight_gae(row: dict[str, list], value, gamma: float, lam: float) -> list[float]:
    """One row's advantages by the definition, a step at a time from the end."""
    out, after = [], 0.0
    for i in reversed(range(len(row["observation"]))):
        term, trunc = row["terminated"][i], row["truncated"][i]
        beyond = 0.0 if term else value(row["next_observation"][i])
        delta = row["environment_reward"][i] + gamma * beyond - value(row["observation"][i])
        after = delta + (0.0 if term or trunc or i == len(row["observation"]) - 1 else gamma * lam * after)
        out.append(after)
    return out[::-1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_advantages_are_those_of_the_definition(mode: str, ends: str) -> None:
    """A row that ends in mid-episode and an episode that is truncated are bootstrapped from where they really led."""

    def value(observation):
        return 0.5 + 2 * observation[0] - 0.25 * observation[1]

    r = Environments(made(mode, ends), 2, 11).batch(0, Coin(), 0).rollouts
    values, beyond = (value(r.field(n).values.double().movedim(-1, 0)) for n in ("observation", "next_observation"))
    advantage = gae(
        r.field("environment_reward").values.double(),
        values,
        r.mask,
        r.level("episode"),
        r.terminated,
        r.truncated,
        gamma=0.9,
        lam=0.8,
        next_value=beyond,
    )
    for row, long in enumerate(LONG):
        want = straight_gae(expected(long, ends, int(r.mask[row].sum())), value, 0.9, 0.8)
        assert advantage[row][r.mask[row]].tolist() == pytest.approx(want, rel=1e-12)
        assert (advantage[row][~r.mask[row]] == 0).all()


def test_figures_of_the_finished_episodes_span_batches() -> None:
    source = Environments(made("single"), 2, 4)
    source.batch(0, Coin(), 0)
    assert source.metrics["episodes"] == 3  # returns 1 + 2, 11 + 12, 1 + 2 + 3
    assert source.metrics["episode_return"] == pytest.approx((3 + 23 + 6) / 3)
    source.batch(1, Coin(), 0)  # 21 + 22, 31 + 32, and 11 + 12 + 13, of which 11 was in the first batch
    assert source.metrics["episode_return"] == pytest.approx((43 + 63 + 36) / 3)
    assert source.metrics["episode_length"] == pytest.approx((2 + 2 + 3) / 3)
    source.batch(2, Coin(), 0)  # 41 + 42, 51 + 52, then 21 + 22 + 23, of which 23 is in this batch, and 31 + 32 + 33
    assert source.metrics["episode_return"] == pytest.approx((83 + 103 + 66 + 96) / 4)
    assert source.metrics["episode_length"] == pytest.approx((2 + 2 + 3 + 3) / 4)


# ---- randomness


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    few, many = (Environments("Pendulum-v1", n, 20) for n in (2, 5))
    space = make_environment("Pendulum-v1")
    torch.manual_seed(0)
    policy = ActorCritic.of(space.observation_space, space.action_space)
    a, b = (source.batch(0, policy, 7).rollouts for source in (few, many))
    assert torch.allclose(a.action, b.action[:2], atol=1e-5)
    assert torch.allclose(a.field("observation").values, b.field("observation").values[:2], atol=1e-4)
    assert not torch.allclose(a.action[0], a.action[1])


def test_batches_depend_on_seed_and_step() -> None:
    def drawn(seed: int, steps: list[int]) -> list:
        source = Environments(made("single"), 2, 5)
        return [source.batch(s, Coin(), seed).rollouts.action.tolist() for s in steps]

    assert drawn(0, [0, 1]) == drawn(0, [0, 1])
    assert drawn(0, [0, 1])[0] != drawn(0, [0, 1])[1]
    assert drawn(0, [0]) != drawn(1, [0])
    assert drawn(0, [3])[0] == drawn(0, [0, 1, 2, 3])[3]


# ---- failures

KINDS = {
    "raises": "ValueError: boom",
    "exits": "SystemExit: 0",
    "nan observation": "not finite",
    "nan reward": "reward of nan",
    "wide reward": r"reward of shape \[2\]",
    "one-element reward": r"reward of shape \[1\]",
    "no reward": "NoneType",
    "wide observation": r"observation of shape \[3\]",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_is_named_and_costs_one_step(kind: str) -> None:
    """The second environment breaks at step 2 of its episode 1, the row's step 4."""
    whole = Environments(made("single"), 2, 12).batch(0, Coin(), 0).rollouts
    source = Environments(made("single", breaks=(1, 2, kind)), 2, 12)
    rollouts = source.batch(0, Coin(), 0).rollouts
    for name in ("observation", "next_observation", "environment_reward"):
        assert torch.equal(rollouts.field(name).values[0], whole.field(name).values[0])
    assert rollouts.mask[0].all()
    assert rollouts.mask[1].tolist() == [True] * 4 + [False] + [True] * 7
    assert rollouts.truncated[1].nonzero()[:, 0].tolist() == [3]
    assert rollouts.field("next_observation").values[1, 3].tolist() == [1, 1]
    assert rollouts.field("observation").values[1, 5].tolist() == [0, 0]  # made anew, it counts from the start
    assert rollouts.level("episode")[1].tolist() == [0, 0, 0, 1, -1, 2, 2, 2, 3, 3, 3, 4]
    assert rollouts.field("environment_reward").values[1, 4] == 0
    failure = rollouts.field("failure").values
    assert failure[0] == "" and failure[1].startswith("step 4: ")
    assert torch.isfinite(rollouts.field("next_observation").values[rollouts.mask]).all()
    with pytest.raises(EnvironmentFailure, match=f"environment 1, step 4: .*{KINDS[kind]}"):
        Environments(made("single", breaks=(1, 2, kind)), 2, 12, max_failed=0.04).batch(0, Coin(), 0)
    assert source.metrics["environment/failed"] == pytest.approx(1 / 24)
    assert source.metrics["environment/failures"].startswith("environment 1, step 4: ")


def test_a_cut_episode_is_bootstrapped_and_not_counted_as_finished() -> None:
    source = Environments(made("single", breaks=(0, 2, "raises")), 2, 4, max_failed=0.5)
    rollouts = source.batch(0, Coin(), 0).rollouts
    assert rollouts.truncated[1].tolist() == [True, False, False, False]
    assert source.metrics["episodes"] == 2 and source.metrics["episode_length"] == 2  # the first environment's


def test_an_environment_that_cannot_reset_is_made_anew() -> None:
    source = Environments(made("single", breaks=(1, 0, "reset")), 2, 12)
    rollouts = source.batch(0, Coin(), 0).rollouts
    assert rollouts.mask[1].tolist() == [True] * 3 + [False] + [True] * 8
    assert rollouts.terminated[1].nonzero()[:, 0].tolist() == [2, 6, 9]
    assert rollouts.field("failure").values[1] == "step 3: RuntimeError: no episode could be begun: RuntimeError: no reset"


def test_one_that_never_works_stops_the_run() -> None:
    def broken():
        return Counting(3, breaks=(0, 1, "raises"))

    with pytest.raises(EnvironmentFailure, match=r"10\.0% of the 20 steps .* 20 of batch 0 did"):
        Environments(broken, 2, 10).batch(0, Coin(), 0)


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP", "DISABLED"])
@pytest.mark.parametrize("kind", ["raises", "nan reward", "nan observation"])
def test_failures_of_vector_environments(mode: str, kind: str) -> None:
    """All of it is made anew, so the other episodes are cut; what they had is kept."""
    source = Environments(made(mode, breaks=(0, 2, kind)), 2, 8, max_failed=0.5)
    waiting = [source.make, made(mode)]
    source.make = lambda: waiting.pop(0)()
    rollouts = source.batch(0, Coin(), 0).rollouts
    lost = [0, 1] if kind == "raises" else [1]  # whose fault an exception is, a vector environment doesn't say
    assert [i for i in (0, 1) if not rollouts.mask[i, 1]] == lost
    assert [f != "" for f in rollouts.field("failure").values] == [i in lost for i in (0, 1)]
    assert rollouts.truncated[1].nonzero()[:, 0].tolist() == [0]
    if kind != "raises":
        assert taken(rollouts, 0, "environment_reward")[:2] == [1, 2]
    after = rollouts.field("observation").values[:, 2].tolist()
    assert after == [[0, 0], [0, 0]]
    if kind == "nan reward":
        assert rollouts.field("environment_reward").values.isfinite().all()


def test_vector_rewards_of_the_wrong_shape() -> None:
    class Wide(SyncVectorEnv):
        def step(self, actions):
            observation, reward, *rest = super().step(actions)
            return observation, reward[:, None], *rest

    with pytest.raises(EnvironmentFailure, match=r"environment 0, step 0: ValueError: rewards of shape \[2, 1\], expected \[2\]"):
        Environments(lambda: Wide([Counting, Counting]), 2, 4).batch(0, Coin(), 0)


def test_a_vector_environment_without_a_mode_is_refused() -> None:
    class Old(SyncVectorEnv):
        metadata: dict = {}  # noqa: RUF012 - as Gymnasium has it

        def __init__(self) -> None:
            super().__init__([Counting])
            self.metadata = {}

    with pytest.raises(InputError, match="autoreset_mode"):
        Environments(Old, 1, 4).batch(0, Coin(), 0)


# ---- real environments


def test_an_ids_own_vector_environment_is_used() -> None:
    stepper = stepper_of("CartPole-v1", 3)
    assert isinstance(stepper, Vector) and stepper.count == 3
    assert isinstance(stepper_of("CartPole-v1", 3, vector=False), Singles)


def test_cart_pole_obeys_its_rule() -> None:
    """Terminated exactly where the successor is out of bounds: an observation after the reset never is."""
    r = Environments("CartPole-v1", 4, 200).batch(0, Coin(), 0).rollouts
    after = r.field("next_observation").values
    out = (after[..., 0].abs() > 2.4) | (after[..., 2].abs() > 12 * 2 * np.pi / 360)
    assert torch.equal(r.terminated[r.mask], out[r.mask])
    inside = r.mask[:, 1:] & r.mask[:, :-1]
    assert torch.equal(r.field("observation").values[:, 1:][inside], after[:, :-1][inside])
    assert r.terminated.sum() > 10


def test_what_mujoco_says_in_its_info_can_be_read() -> None:
    source = Environments("HalfCheetah-v5", 2, 12, info=("reward_forward", "reward_ctrl"))
    env = make_environment("HalfCheetah-v5")
    r = source.batch(0, ActorCritic.of(env.observation_space, env.action_space), 0).rollouts
    both = parse("field('reward_forward') + field('reward_ctrl')").score(r).total.values
    assert torch.allclose(both, parse("environment").score(r).total.values, atol=1e-5)
    assert r.field("observation").values.shape == (2, 12, 17) and both.abs().sum() > 0


def test_minigrid_images() -> None:
    env = make_environment("MiniGrid-Empty-5x5-v0")
    r = (
        Environments("MiniGrid-Empty-5x5-v0", 2, 110)
        .batch(0, ActorCritic.of(env.observation_space, env.action_space), 0)
        .rollouts
    )
    assert r.field("observation").values.shape == (2, 110, 7, 7, 3)
    assert r.field("observation").values.dtype == torch.uint8
    ended = r.terminated | r.truncated
    assert ended.any(1).all()  # its limit is 100 steps


def test_an_observation_of_several_parts_is_flattened() -> None:
    assert make_environment("Blackjack-v1").observation_space.shape == (32 + 11 + 2,)


def test_an_unknown_id() -> None:
    with pytest.raises(InputError, match="Near it: CartPole-v1"):
        Environments("CartPol-v1").batch(0, Coin(), 0)


# ---- whole episodes


def test_whole_episodes() -> None:
    r = episodes(Coin(), lambda: Counting(3, "truncated"), 2, samples=2)
    assert len(r) == 4 and r.length.tolist() == [3] * 4 and r.group.tolist() == [0, 0, 1, 1]
    assert r.truncated[:, -1].all() and not r.truncated[:, :-1].any() and not r.terminated.any()
    assert r.field("environment_reward").values.sum(1).tolist() == [6.0] * 4


def test_episodes_of_unequal_length_are_padded() -> None:
    env = make_environment("CartPole-v1")
    r = episodes(Coin(), "CartPole-v1", 3, samples=2, seed=3)
    assert torch.equal(r.mask, torch.arange(r.mask.shape[1]) < r.length[:, None])
    assert len(set(r.length.tolist())) > 1 and int(r.length.max()) == r.mask.shape[1]
    assert torch.equal(r.terminated.nonzero()[:, 1], r.length - 1)
    first = r.field("observation").values[:, 0]
    assert torch.equal(first[0::2], first[1::2]) and len(first.unique(dim=0)) == 3
    assert not torch.equal(r.action[0], r.action[1])
    torch.manual_seed(0)
    policy = ActorCritic.of(env.observation_space, env.action_space)
    a, b = (episodes(policy, "CartPole-v1", 2, seed=3, greedy=True) for _ in range(2))
    assert torch.equal(a.action, b.action) and a.sampling["temperature"] == 0


def test_an_episode_is_cut_at_the_limit_or_where_it_fails() -> None:
    r = episodes(Coin(), lambda: Counting(400, breaks=None), 1, limit=300)
    assert r.length.tolist() == [300] and r.truncated[0].nonzero()[:, 0].tolist() == [299]
    r = episodes(Coin(), lambda: Counting(9, breaks=(0, 5, "raises")), 1)
    assert r.length.tolist() == [4] and r.truncated[0, 3] and r.field("failure").values == ["step 4: ValueError: boom"]


def test_episodes_of_a_vector_environment() -> None:
    r = episodes(Coin(), made("NEXT_STEP"), 2)
    assert r.length.tolist() == list(LONG) and r.terminated[0, 1] and r.terminated[1, 2]
    with pytest.raises(InputError, match="expected 3 environments"):
        episodes(Coin(), made("NEXT_STEP"), 3)


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP", "DISABLED"])
def test_an_episode_of_a_vector_environment_that_breaks_ends_there(mode: str) -> None:
    r = episodes(Coin(), made(mode, breaks=(0, 2, "nan reward")), 2)
    assert r.length.tolist() == [2, 1] and r.terminated[0, 1] and r.truncated[1, 0]
    assert r.field("failure").values[0] == "" and r.field("failure").values[1].startswith("step 1: ")


def test_environments_at_hand_are_used_again() -> None:
    singles = Singles(lambda: Counting(3), 2, once=True)
    first, second = (episodes(Coin(), singles, 2) for _ in range(2))
    assert first.field("observation").values[:, 0].tolist() == [[0, 0], [0, 0]]
    assert second.field("observation").values[:, 0].tolist() == [[1, 0], [1, 0]]


def test_rollouts_are_stored_and_read(tmp_path) -> None:
    pytest.importorskip("pyarrow")
    r = Environments("Pendulum-v1", 2, 5).batch(0, _gaussian(), 0).rollouts
    r.save(tmp_path / "r.parquet")
    again = Rollouts.load(tmp_path / "r.parquet")
    assert torch.equal(again.action, r.action) and torch.equal(again.mask, r.mask)
    assert torch.equal(again.field("next_observation").values, r.field("next_observation").values)


def _gaussian() -> ActorCritic:
    env = gym.make("Pendulum-v1")
    return ActorCritic.of(env.observation_space, env.action_space)


def test_a_package_before_the_colon_is_imported_for_its_ids():
    assert "BoatRace" in str(make_environment("guerdon.worlds.ids:BoatRace-v0"))
    with pytest.raises(InputError, match="nowhere"):
        make_environment("nowhere_at_all:BoatRace-v0")
