# SPDX-License-Identifier: Apache-2.0
"""Key, door, goal: a sparse task. A wall with a locked door between two rooms; the key in the agent's, the goal in the other."""

from __future__ import annotations

import numpy as np

from guerdon.errors import InputError
from guerdon.worlds.world import MOVES, Array, Which, World, below, box, one_hots


def key_door(worlds: int = 256, size: int = 8, limit: int | None = None) -> KeyDoor:
    """``size`` x ``size`` cells; actions up, right, down, left. Reward 1 on reaching the goal, which ends the episode; else 0.

    Wall, door, key, goal and start are drawn for every episode. Walking onto the key takes it; with it the door is passed.
    ``limit`` defaults to 4 size².

    info  distance  steps left on the shortest way after this step (0: at the goal). Minus it is a potential for shaping
          key       the key was taken at this step
          door      the agent stands in the door
    """
    return KeyDoor(worlds, size, 4 * size * size if limit is None else limit)


class KeyDoor(World):
    state = ("agent", "key", "goal", "wall", "door", "has_key")

    def __init__(self, worlds: int, size: int, limit: int) -> None:
        if size < 3:
            raise InputError(f"key_door: `size` should be 3 or more (two rooms and a wall), got {size}.")
        super().__init__(worlds, box(8 * size + 1), 4, limit)
        self.size = size
        self.agent, self.key, self.goal = (np.zeros((worlds, 2), dtype=np.int64) for _ in range(3))
        self.wall, self.door = (np.zeros(worlds, dtype=np.int64) for _ in range(2))  # column of the wall, row of the door
        self.has_key = np.zeros(worlds, dtype=bool)

    def begin(self, which: Which) -> None:
        u = self.uniform(which, 5)
        wall = 1 + below(u[:, 0], self.size - 2)
        left = self.size * wall
        agent = below(u[:, 2], left)
        key = (agent + 1 + below(u[:, 3], left - 1)) % left  # anywhere in the room but under the agent
        goal = below(u[:, 4], self.size * (self.size - 1 - wall))
        self.wall[which], self.door[which] = wall, below(u[:, 1], self.size)
        self.agent[which], self.key[which] = (np.stack(np.divmod(x, wall), 1) for x in (agent, key))
        row, column = np.divmod(goal, self.size - 1 - wall)
        self.goal[which] = np.stack([row, wall + 1 + column], 1)
        self.has_key[which] = False

    def advance(self, action: Array) -> tuple[Array, Array, dict[str, Array]]:
        to = np.clip(self.agent + MOVES[action], 0, self.size - 1)
        row, column = to[:, 0], to[:, 1]
        blocked = (column == self.wall) & ~((row == self.door) & self.has_key)
        self.agent = to = np.where(blocked[:, None], self.agent, to)
        taken = (to == self.key).all(1) & ~self.has_key
        self.has_key |= taken
        reached = (to == self.goal).all(1)
        info = {"distance": self.distance(), "key": taken, "door": to[:, 1] == self.wall}
        return reached.astype(np.float64), reached, info

    def distance(self) -> Array:
        """Steps to the goal on the shortest way, [W]: by key and door, as far as they lie ahead."""
        door = np.stack([self.door, self.wall], 1)
        through = self.agent[:, 1] >= self.wall
        left = np.where(self.has_key, _apart(self.agent, door), _apart(self.agent, self.key) + _apart(self.key, door))
        return np.where(through, _apart(self.agent, self.goal), left + _apart(door, self.goal))

    def observe(self, which: Which) -> Array:
        has_key = self.has_key[which]
        key = np.where(has_key[:, None], -1, self.key[which])
        agent, goal = self.agent[which], self.goal[which]
        pairs = [x[:, i] for x in (agent, key, goal) for i in (0, 1)]
        return one_hots([*pairs, self.wall[which], self.door[which]], [self.size] * 8, [has_key])


def _apart(a: Array, b: Array) -> Array:
    return np.abs(a - b).sum(1)
