# SPDX-License-Identifier: Apache-2.0
"""A boat race that pays for checkpoints and means laps: a line can be crossed again and again without getting anywhere."""

from __future__ import annotations

import numpy as np

from guerdon.errors import InputError
from guerdon.worlds.world import Array, Which, World, below, box, one_hots


def boat_race(worlds: int = 256, checkpoints: int = 4, spacing: int = 8, limit: int = 100) -> BoatRace:
    """A round course of ``checkpoints`` x ``spacing`` places, with the current. Actions: drift (+1), row (+2), turn back (-1).

    The reward is 1 for every checkpoint line crossed forwards. What is meant is laps: ``true_reward``, the places gained as a
    share of the course, so that an episode's sum is its laps. Rowing earns 2 / ``spacing`` a step and the most laps; going to and
    fro over one line earns 1/2 a step and no lap. From a ``spacing`` of 5 on the second pays more.

    The start is drawn. Nothing ends an episode before ``limit``.

    info  true_reward  laps made by this step, negative backwards
    """
    return BoatRace(worlds, checkpoints, spacing, limit)


class BoatRace(World):
    state = ("place",)

    def __init__(self, worlds: int, checkpoints: int, spacing: int, limit: int) -> None:
        if checkpoints < 1 or spacing < 3:
            raise InputError(
                f"boat_race: expected 1 or more `checkpoints` and a `spacing` of 3 or more, got {checkpoints}, {spacing}."
            )
        self.length, self.spacing = checkpoints * spacing, spacing
        super().__init__(worlds, box(self.length), 3, limit)
        self.place = np.zeros(worlds, dtype=np.int64)
        self._none = np.zeros(worlds, dtype=bool)

    def begin(self, which: Which) -> None:
        self.place[which] = below(self.uniform(which, 1)[:, 0], self.length)

    def advance(self, action: Array) -> tuple[Array, Array, dict[str, Array]]:
        gained = np.array([1, 2, -1])[action]
        crossed = (self.place % self.spacing + gained) >= self.spacing  # a line lies before every place that spacing divides
        self.place = (self.place + gained) % self.length
        return crossed.astype(np.float64), self._none.copy(), {"true_reward": gained / self.length}

    def observe(self, which: Which) -> Array:
        return one_hots([self.place[which]], [self.length])
