# SPDX-License-Identifier: Apache-2.0
"""A point that walks in a walled square, seen from above: a sparse reward that is only found by going round walls.

y 1 +-----------------+
    |  ____           |
    |  |              |     two walls like a U on its side, one open to the right, one to the left
    |  |              |     S: the start
    |  |____          |
    |          _____  |
    |              |  |
    |   S     _____|  |
 -1 +-----------------+ x 1
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from guerdon.errors import InputError, ShapeError

Array = np.ndarray

WALLS = np.array(
    [
        (-0.7, -0.6, -0.2, 0.8),  # the upper U, open to the right: its back, top and bottom
        (-0.7, -0.1, 0.7, 0.8),
        (-0.7, -0.1, -0.2, -0.1),
        (0.6, 0.7, -0.8, -0.2),  # the lower U, open to the left
        (0.0, 0.7, -0.3, -0.2),
        (0.0, 0.7, -0.8, -0.7),
    ]
)
"""[walls, 4] low and high x, low and high y."""

START = np.array([-0.6, -0.8])


class PointMaze(VectorEnv):
    """Many copies in one array. Observations are positions [W, 2] in [-1, 1]; actions [W, 2] in [-1, 1] times ``speed`` move it.

    A wall stops the coordinate that would enter it, the other goes on. It pays nothing itself; episodes are cut after ``limit``
    steps and begun again at once (``info["final_obs"]`` holds where they ended).
    """

    def __init__(self, worlds: int, limit: int = 50, speed: float = 0.08) -> None:
        if not 0 < speed < 0.1:
            raise InputError(f"PointMaze: expected a `speed` above 0 and below 0.1, the walls' thickness, got {speed}.")
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.num_envs, self.limit, self.speed = worlds, limit, speed
        box = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.single_observation_space = self.single_action_space = box
        self.observation_space = self.action_space = batch_space(box, worlds)
        self.place = np.tile(START, (worlds, 1))
        self.elapsed = 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Every world starts at the same place; nothing is random, so ``seed`` changes nothing."""
        self.place[:], self.elapsed = START, 0
        return self.place.astype(np.float32), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        action = np.asarray(actions, dtype=np.float64)
        if action.shape != self.place.shape:
            raise ShapeError(f"PointMaze: `actions` should have shape {list(self.place.shape)}, got {list(action.shape)}.")
        move = self.speed * np.clip(action, -1, 1)
        for axis in (0, 1):
            ahead = self.place.copy()
            ahead[:, axis] = np.clip(ahead[:, axis] + move[:, axis], -1, 1)
            free = ~in_wall(ahead)
            self.place[free] = ahead[free]
        self.elapsed += 1
        cut = np.full(self.num_envs, self.elapsed >= self.limit)
        info: dict[str, Any] = {}
        if cut.all():
            info.update(final_obs=self.place.astype(np.float32), _final_obs=cut)
            self.reset()
        return self.place.astype(np.float32), np.zeros(self.num_envs), np.zeros(self.num_envs, bool), cut, info


def in_wall(place: Array) -> Array:
    """[W] whether ``place`` [W, 2] lies inside a wall.

    >>> in_wall(np.array([[-0.65, 0.0], [0.0, 0.0]])).tolist()
    [True, False]
    """
    x, y = place[:, :1], place[:, 1:]
    inside: Array = (x > WALLS[:, 0]) & (x < WALLS[:, 1]) & (y > WALLS[:, 2]) & (y < WALLS[:, 3])
    return np.asarray(inside.any(1))


def drawn(place: Array, pixels: int = 16, width: float = 1.0) -> Array:
    """[..., pixels, pixels] float32 in [0, 1]: the point as a Gaussian spot ``width`` pixels wide, at positions [..., 2].

    >>> image = drawn(np.array([[-1.0, 1.0]]))[0]
    >>> image.shape, bool(image[0, 0] == image.max()), round(float(image[0, 0]), 4)
    ((16, 16), True, 0.7788)
    """
    at = np.arange(pixels) + 0.5
    column, row = (place[..., 0] + 1) * pixels / 2, (1 - place[..., 1]) * pixels / 2
    across, down = (np.exp(-0.5 * ((at - x[..., None]) / width) ** 2) for x in (column, row))
    return (down[..., :, None] * across[..., None, :]).astype(np.float32)
