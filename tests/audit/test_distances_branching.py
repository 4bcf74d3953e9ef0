# SPDX-License-Identifier: Apache-2.0
"""Environments copied and stepped another way, and the distances that come of it."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch

from guerdon.audit.distances import starc
from guerdon.audit.distances.branching import branched, horizon_of, without_limit
from guerdon.audit.distances.compared import compared
from guerdon.errors import InputError
from guerdon.rewards import checkers, reward

GAMMA = 0.8


class Ring(gymnasium.Env):
    """Five states in a ring; left, stay and right go astray one time in five. It pays where it arrives."""

    observation_space = gymnasium.spaces.Box(0, 4, (1,), dtype=np.float64)
    action_space = gymnasium.spaces.Discrete(3)
    pays = (0.0, 1.0, 0.0, -2.0, 0.5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(5))
        return np.array([float(self.state)]), {}

    def step(self, action):
        move = int(self.np_random.integers(3)) if self.np_random.random() < 0.2 else int(action)
        self.state = (self.state + move - 1) % 5
        return np.array([float(self.state)]), self.pays[self.state], False, False, {}


def table() -> tuple[torch.Tensor, torch.Tensor]:
    """(transition, reward) of the ring."""
    transition = torch.zeros(5, 3, 5, dtype=torch.float64)
    for s in range(5):
        for a in range(3):
            for move in range(3):
                transition[s, a, (s + move - 1) % 5] += 0.2 / 3 + 0.8 * (move == a)
    return transition, torch.tensor(Ring.pays, dtype=torch.float64).expand(5, 3, 5)


@reward(level="step")
def near_two(next_observation):
    return -abs(float(next_observation[0]) - 2)


@reward(level="step")
def moved_potential(observation, next_observation):
    return near_two(next_observation) + GAMMA * float(next_observation[0]) ** 2 - float(observation[0]) ** 2


@reward(level="step")
def index_counts(observation, index):
    return float(observation[0]) + index


@reward(level="step")
def fails_at_three(next_observation):
    return None if next_observation[0] == 3 else 1.0


@pytest.fixture(scope="module")
def ring():
    return branched(Ring, states=40, branches=2, horizon=horizon_of(GAMMA, 3e-3), seed=0)


def test_the_ring_s_distance_is_near_its_table_s() -> None:
    ring = branched(Ring, states=200, branches=3, horizon=horizon_of(GAMMA), seed=0)
    transition, paid = table()
    other = -(torch.arange(5.0).double() - 2).abs().expand(5, 3, 5)
    exact = float(starc(paid, other, transition, GAMMA))
    found = compared(checkers.environment(), near_two, ring, GAMMA)
    value, low, high = found["starc"].estimate
    assert value == pytest.approx(exact, abs=0.06) and low < exact < high and high - low < 0.25
    for name in ("epic", "dard"):
        assert found[name].estimate is None and "environment reads environment_reward" in found[name].reason


def test_shaping_is_seen_by_none(ring) -> None:
    found = compared(near_two, moved_potential, ring, GAMMA)
    assert found["epic"].estimate.value < 1e-6 and found["dard"].estimate.value < 1e-6
    assert found["starc"].estimate.value < 0.02
    opposite = compared(near_two, -1 * near_two, ring, GAMMA)
    assert all(d.estimate.value == pytest.approx(1) for d in opposite.values())


def test_what_branches_hold(ring) -> None:
    assert len(ring.at) == 40 and ring.action.shape == (40, 3) and ring.after.shape == (40, 3, 1)
    assert len(ring.given) == 80 and len(ring.free) == 240  # every action, twice
    first = ring.given.fields["observation"].values[:, 0, 0].view(40, 2)
    assert (first == ring.at.observation).all() and (ring.given.action[:, 0].view(40, 2) == ring.at.action[:, None]).all()
    assert ring.free.action[:3, 0].tolist() == [0, 1, 2]
    steps = ring.given.action.view(40, 2, -1)
    assert (ring.free.action.view(40, 2, 3, -1)[:, :, 1, 1:] == steps[:, :, 1:]).all()  # the same luck but for the first
    assert not (steps[:, 0, 1:] == steps[:, 1, 1:]).all()
    again = branched(Ring, states=20, horizon=5, seed=3), branched(Ring, states=20, horizon=5, seed=3)
    assert torch.equal(again[0].given.action, again[1].given.action) and torch.equal(again[0].after, again[1].after)


def test_limits_on_length_are_taken_off() -> None:
    env = gymnasium.wrappers.TransformReward(gymnasium.wrappers.TimeLimit(Ring(), 3), lambda r: r)
    free = without_limit(env)
    free.reset(seed=0)
    assert not any(free.step(1)[3] for _ in range(10))
    assert horizon_of(0.0) == 1 and GAMMA ** horizon_of(GAMMA) <= 0.01 < GAMMA ** (horizon_of(GAMMA) - 1)


def test_rewards_of_more_than_a_transition_are_refused(ring) -> None:
    with pytest.raises(InputError, match="it has parts of the episode"):
        compared(checkers.numeric(), near_two, ring, GAMMA)
    with pytest.raises(InputError, match="it reads speed"):
        compared(near_two, checkers.field("speed"), ring, GAMMA)
    with pytest.raises(InputError, match="compares a step with others of its batch"):
        compared(near_two.normalise(over="batch"), near_two, ring, GAMMA)
    for remembers in (near_two.gain(), index_counts):
        with pytest.raises(InputError, match="to say the same of a transition wherever it stands"):
            compared(remembers, checkers.environment(), ring, GAMMA)


def test_a_failing_reward_has_no_distance_and_says_so(ring) -> None:
    found = compared(near_two, fails_at_three, ring, GAMMA)
    assert all(d.estimate is None and "fails_at_three is not ok where" in d.reason for d in found.values())


def test_a_reward_that_prefers_nothing_is_told(ring) -> None:
    @reward(level="step")
    def flat(action):
        return 2.0

    found = compared(near_two, flat, ring, GAMMA)
    assert found["epic"].estimate.value == pytest.approx(0.5) and "flat is constant in this form" in found["epic"].reason
    assert found["starc"].estimate is None and "can't be told from one that prefers no action" in found["starc"].reason


def test_an_environment_that_can_t_be_copied_is_told() -> None:
    class Window(Ring):
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle a window")

    with pytest.raises(InputError, match=r"expected an environment that can be copied, .* can't: cannot pickle a window"):
        branched(Window, states=2, horizon=2)
    with pytest.raises(InputError, match="`branches` should be 2 or more, got 1"):
        branched(Ring, branches=1)
    assert math.isfinite(branched(Ring, states=2, horizon=2).at.observation.sum())
