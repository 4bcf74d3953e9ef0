# SPDX-License-Identifier: Apache-2.0
"""A point maze: two rooms, a door between them, a goal in the other room; and demonstrators who know the way but dawdle.

The square [-1, 1]^2 is cut by a wall at x = 0 with a door, |y| <= ``DOOR``. A point starts on the left and moves by ``SPEED``
times its action, in [-1, 1]^2, each step; a move that meets the wall keeps its y and loses its x. A step costs ``COST``; the
goal, a disc on the right, pays 1 and ends the episode, which is cut after ``LIMIT`` steps.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

DOOR, SPEED, COST, LIMIT, GOAL, REACH = 0.12, 0.15, 0.05, 40, (0.7, 0.6), 0.15


class PointMaze(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observation: x, y. Reward: -0.05 a step, and 1 at the goal."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.x = self.y = 0.0
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.y = self.np_random.uniform((-0.9, -0.9), (-0.3, 0.9)).tolist()
        self.steps = 0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.x, self.y = moved(self.x, self.y, float(action[0]), float(action[1]))
        self.steps += 1
        there = (self.x - GOAL[0]) ** 2 + (self.y - GOAL[1]) ** 2 <= REACH**2
        return self._seen(), float(there) - COST, there, not there and self.steps >= LIMIT, {}

    def _seen(self) -> np.ndarray:
        return np.array((self.x, self.y), np.float32)


def moved(x: float, y: float, right: float, up: float) -> tuple[float, float]:
    """Where a step in direction (right, up), each clipped to [-1, 1], leads from (x, y).

    >>> moved(-0.1, 0.0, 1.0, 0.0), moved(-0.1, 0.5, 1.0, 1.0)
    ((0.05, 0.0), (-0.001, 0.65))
    """
    to_x = min(max(x + SPEED * min(max(right, -1), 1), -1), 1)
    to_y = min(max(y + SPEED * min(max(up, -1), 1), -1), 1)
    if (x < 0) != (to_x < 0):
        at = y + (to_y - y) * x / (x - to_x)
        if abs(at) > DOOR:
            to_x = -0.001 if x < 0 else 0.001
    return round(to_x, 9), round(to_y, 9)


def demonstrations(count: int, seed: int, speed: float = 0.5, spread: float = 0.4) -> tuple[Tensor, Tensor]:
    """(observations, actions) [count, 2] of a demonstrator: ``speed`` towards the door, then towards the goal, plus normal noise.

    >>> seen, done = demonstrations(500, seed=0)
    >>> seen.shape, bool((done.abs() <= 1).all())
    (torch.Size([500, 2]), True)
    """
    env, rng = PointMaze(), np.random.default_rng(seed)
    at, _ = env.reset(seed=seed)
    seen, done = list[np.ndarray](), list[np.ndarray]()
    while len(done) < count:
        way = np.array((0.1, 0.0) if at[0] < 0 else GOAL) - at
        action = np.clip(speed * way / max(float(np.linalg.norm(way)), 1e-6) + spread * rng.standard_normal(2), -1, 1)
        seen.append(at)
        done.append(action)
        at, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            at, _ = env.reset()
    return torch.tensor(np.array(seen), dtype=torch.float32), torch.tensor(np.array(done), dtype=torch.float32)
