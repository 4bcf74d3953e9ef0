# SPDX-License-Identifier: Apache-2.0
"""The worlds as Gymnasium ids, registered when this module is imported: ``guerdon train --env guerdon.worlds.ids:BoatRace-v0``.

    KeyDoor-v0  BoatRace-v0  TomatoWatering-v0  SideEffects-v0  DeepSeaTreasure-v0

Keyword arguments are those of the worlds' functions. ``gymnasium.make`` gives one world, ``gymnasium.make_vec`` many.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from guerdon.worlds.boxes import side_effects
from guerdon.worlds.garden import tomato_watering
from guerdon.worlds.races import boat_race
from guerdon.worlds.rooms import key_door
from guerdon.worlds.sea import deep_sea_treasure
from guerdon.worlds.world import World

MAKE: dict[str, Callable[..., World]] = {
    "KeyDoor-v0": key_door,
    "BoatRace-v0": boat_race,
    "TomatoWatering-v0": tomato_watering,
    "SideEffects-v0": side_effects,
    "DeepSeaTreasure-v0": deep_sea_treasure,
}


class Single(gymnasium.Env):
    """One world by Gymnasium's plain interface: it does not begin again by itself."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # as the base class declares it

    def __init__(self, make: Callable[..., World], **settings: Any) -> None:
        self.world = make(1, **settings)
        self.observation_space, self.action_space = self.world.single_observation_space, self.world.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.world.reset(seed=seed)[0][0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.world.step(np.array([action]))
        after = info.get("final_obs", observation)[0]
        told = {k: x[0] for k, x in info.items() if k[0] != "_" and not k.startswith("final_")}
        return after, float(reward[0]), bool(terminated[0]), bool(truncated[0]), told


def _vector(make: Callable[..., World], num_envs: int, **settings: Any) -> World:
    return make(num_envs, **settings)


for _id, _make in MAKE.items():
    gymnasium.register(_id, entry_point=partial(Single, _make), vector_entry_point=partial(_vector, _make))
