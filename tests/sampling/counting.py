# SPDX-License-Identifier: Apache-2.0
"""Environments that count their steps, so that every number in a batch is known beforehand, and break when told to."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from guerdon.policies.acting import Acted


class Counting(gym.Env):
    """Observation (number of the episode, steps taken in it); reward 10 x episode + step. Ends after ``long`` steps.

    ``breaks`` (episode, step, how): what goes wrong at that step; step 0 is the reset.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, long: int = 3, ends: str = "terminated", breaks: tuple[int, int, str] | None = None) -> None:
        self.long, self.ends, self.breaks = long, ends, breaks
        self.episode, self.steps = -1, 0

    def broken(self, how: str) -> bool:
        return self.breaks == (self.episode, self.steps, how)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        if self.broken("reset"):
            raise RuntimeError("no reset")
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action: int):
        self.steps += 1
        if self.broken("raises"):
            raise ValueError("boom")
        if self.broken("exits"):
            raise SystemExit(0)
        observation: Any = np.array([self.episode, self.steps], np.float32)
        reward: Any = 10.0 * self.episode + self.steps
        if self.broken("nan observation"):
            observation[1] = np.nan
        if self.broken("nan reward"):
            reward = float("nan")
        if self.broken("wide reward"):
            reward = np.array([1.0, 2.0])
        if self.broken("one-element reward"):
            reward = np.array([1.0])
        if self.broken("no reward"):
            reward = None
        if self.broken("wide observation"):
            observation = np.zeros(3, np.float32)
        over = self.steps == self.long
        return observation, reward, over and self.ends == "terminated", over and self.ends == "truncated", {"twice": 2 * reward}


class Coin:
    """Acts by its noise alone: 1 where it is above a half."""

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        return rng.random(steps)

    def act(self, observation: np.ndarray, noise: np.ndarray, greedy: bool = False) -> Acted:
        return Acted((noise > 0.5).astype(np.int64), np.full(len(noise), np.log(0.5), np.float32), fields={"drawn": noise})
