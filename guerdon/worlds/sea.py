# SPDX-License-Identifier: Apache-2.0
"""Deep-sea treasure: two objectives, treasure and time, and a known front between them."""

from __future__ import annotations

import numpy as np

from guerdon.worlds.world import MOVES, Array, Which, World, box, one_hots

DEPTH = np.array([1, 2, 3, 4, 4, 4, 7, 7, 9, 10])
TREASURE = np.array([1.0, 2.0, 3.0, 5.0, 8.0, 16.0, 24.0, 50.0, 74.0, 124.0])
"""By column: the row of the sea floor, and what lies on it."""


def deep_sea_treasure(worlds: int = 256, weights: tuple[float, float] = (1.0, 1.0), limit: int = 100) -> DeepSeaTreasure:
    """A submarine starts at the surface, at the left, of a sea of 11 rows and 10 columns; actions up, right, down, left.

    Every step gives two ``objectives``: the treasure found and -1 for time. A treasure ends the episode. The reward is their sum
    weighed by ``weights``. The treasure of column c takes at least c + DEPTH[c] steps, and these ten pairs are the front of what
    is possible (`front`); it is concave in places, so no weights lead to some of them. (Map of Vamplew et al. 2011.)

    info  objectives  [W, 2]: treasure, time
    """
    return DeepSeaTreasure(worlds, weights, limit)


def front() -> Array:
    """[10, 2]: the treasure and the time (negative) of the best ways to each column, undiscounted sums of an episode."""
    return np.stack([TREASURE, -(np.arange(10.0) + DEPTH)], 1)


class DeepSeaTreasure(World):
    state = ("agent",)

    def __init__(self, worlds: int, weights: tuple[float, float], limit: int) -> None:
        super().__init__(worlds, box(21), 4, limit)
        self.weights = np.array(weights, dtype=np.float64)
        self.agent = np.zeros((worlds, 2), dtype=np.int64)
        self._last = np.array([10, 9])

    def begin(self, which: Which) -> None:
        self.agent[which] = 0

    def advance(self, action: Array) -> tuple[Array, Array, dict[str, Array]]:
        to = np.clip(self.agent + MOVES[action], 0, self._last)
        self.agent = np.where((to[:, 0] <= DEPTH[to[:, 1]])[:, None], to, self.agent)
        row, column = self.agent[:, 0], self.agent[:, 1]
        found = row == DEPTH[column]
        objectives = np.stack([np.where(found, TREASURE[column], 0.0), np.full(self.num_envs, -1.0)], 1)
        return objectives @ self.weights, found, {"objectives": objectives}

    def observe(self, which: Which) -> Array:
        agent = self.agent[which]
        return one_hots([agent[:, 0], agent[:, 1]], [11, 10])
