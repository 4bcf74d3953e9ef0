# SPDX-License-Identifier: Apache-2.0
"""Environments that everybody knows: a pendulum, a pole on a cart, a sea with treasures."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from guerdon.audit.subject import Episodes
from guerdon.audit.zoo import Specimen
from guerdon.audit.zoo.held_out.control import step_count, taken
from guerdon.rewards import checkers
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.worlds.ids import Single
from guerdon.worlds.sea import deep_sea_treasure

# ---- a pendulum that is to stand


@tensor_reward(level="step", bounds=(0, 1), needs=("next_observation",))
def speed(rollouts: Rollouts) -> Tensor:
    """The pendulum's speed as a share of its greatest: it has to get moving before it can get up."""
    return rollouts.field("next_observation").values[..., 2].double().abs().clamp(max=8) / 8


@tensor_reward(bounds=(0, 1), needs=("next_observation",))
def stands(rollouts: Rollouts) -> Tensor:
    """Share of the steps in which it is upright within 25 degrees and slower than 1 radian a second."""
    after = rollouts.field("next_observation").values.double()
    still = (after[..., 0] > 0.9) & (after[..., 2].abs() < 1) & rollouts.mask
    return still.sum(1) / step_count(rollouts)


# ---- a pole to balance, treasure to find


@tensor_reward(level="step", bounds=(0, 1), needs=("next_observation",))
def upright(rollouts: Rollouts) -> Tensor:
    """1 with the pole straight up, 0 at the angle that ends the episode."""
    return (1 - rollouts.field("next_observation").values[..., 2].double().abs() / 0.2095).clamp(0, 1)


@tensor_reward(bounds=(0, 1))
def balanced(rollouts: Rollouts) -> Tensor:
    """Steps until the pole fell, as a share of 200."""
    return step_count(rollouts).double().clamp(max=200) / 200


HURRY = 0.02


def sea() -> Any:
    """The treasures with a step cost at which each is worth more than the one before it, way included."""
    return Single(deep_sea_treasure, weights=(1.0, HURRY))


@tensor_reward(bounds=(0, 124), needs=("environment_reward",))
def treasure(rollouts: Rollouts) -> Tensor:
    """What was found, whatever time it took."""
    return taken(rollouts, "environment_reward").sum(1) + HURRY * rollouts.mask.sum(1)


SPECIMENS = [
    Specimen(
        name="speed-of-the-swing",
        reward=lambda: speed,
        gold=lambda: stands,
        subject=lambda: Episodes("Pendulum-v1", limit=200),
        about="Speed as a way to get a pendulum up: going round and round has the most of it.",
        defect="speed without direction or aim: spinning for ever is paid more than standing",
    ),
    Specimen(
        name="upright-and-alive",
        reward=lambda: checkers.environment() + 0.1 * upright,
        gold=lambda: balanced,
        subject=lambda: Episodes("CartPole-v1", limit=200),
        about="A reward for every step alive, where staying alive is the task, and a little for a straight pole.",
        source="Barto, Sutton and Anderson 1983",
    ),
    Specimen(
        name="treasure-less-time",
        reward=checkers.environment,
        gold=lambda: treasure,
        subject=lambda: Episodes(sea, limit=100),
        about="Treasure minus time: each step costs, and every treasure further away is worth more than the way there.",
        source="Vamplew et al. 2011",
    ),
]
