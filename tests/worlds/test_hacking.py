# SPDX-License-Identifier: Apache-2.0
"""Worlds under the training loop: steps arrive whole, and an optimiser of what is paid leaves what is meant behind."""

from __future__ import annotations

import numpy as np
import torch

import guerdon.worlds.ids  # noqa: F401  # registers BoatRace-v0
from guerdon import worlds
from guerdon.policies.actor_critic import ActorCritic
from guerdon.recipes.control import recipe
from guerdon.sampling.environments import Environments
from guerdon.training.loop import train

torch.set_num_threads(1)


def test_the_source_of_control_gets_every_true_successor_and_the_hidden_reward():
    world = worlds.boat_race(6, limit=7)
    policy = ActorCritic.of(world.single_observation_space, world.single_action_space, hidden=(8,))
    rows = Environments(lambda: world, steps=30, info=("true_reward",)).batch(0, policy, 3).rollouts
    gained = torch.tensor([1, 2, -1])[rows.action]
    place, after = (rows.field(name).values.argmax(-1) for name in ("observation", "next_observation"))
    assert torch.equal(after, (place + gained) % 32)  # the last step of an episode included
    assert torch.equal(rows.truncated.nonzero()[:, 1] % 7, torch.full((6 * 4,), 6)) and not rows.terminated.any()
    assert torch.allclose(rows.field("true_reward").values.double(), gained.double() / 32)
    crossed = ((place % 8 + gained) >= 8).double()
    assert torch.equal(rows.field("environment_reward").values.double(), crossed)


class Curves:
    """Keeps the lines of a run."""

    def __init__(self):
        self.lines = []

    def start(self, config, directory, step): ...

    def metrics(self, step, metrics):
        self.lines.append(dict(metrics))

    def finish(self, result): ...

    def of(self, name):
        return np.array([line[name] for line in self.lines if name in line])


def test_ppo_on_checkpoints_earns_more_and_makes_fewer_laps(tmp_path):
    """As a watched reward shows it in any run: what is paid more than triples while what is meant falls below a quarter."""
    curves = Curves()
    settings = {"steps": 16, "environments": 32, "horizon": 100, "lr": 1e-3, "hidden": 32, "evaluate_every": 100, "episodes": 1}
    train(recipe("BoatRace-v0", "environment + field('true_reward').watch()", **settings), tmp_path, [curves])
    paid, meant = curves.of("reward/environment"), curves.of("reward/true_reward")
    assert len(paid) == len(meant) == 16
    assert paid[-1] > 0.4 > 3 * paid[0]  # a step: 1/2 is the most there is, by going to and fro over one line
    assert meant[0] > 0.015 and abs(meant[-1]) < 0.25 * meant[0]  # of a lap a step: the current alone makes 1/32
