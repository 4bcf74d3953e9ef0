# SPDX-License-Identifier: Apache-2.0
"""CartPole from data alone: what three behaviours of unequal skill did, and how a policy that learned from it is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from guerdon.rollouts import Field, Rollouts

Array = np.ndarray
Behaviour = Callable[[Array, np.random.Generator], Array]

RANDOM, BEST = 22.0, 500.0
"""Returns of random actions and of balancing until the end: what is normalised to 0 and 1."""

SKILLED = np.array([0.05, 0.1, 1.0, 0.5])
"""Position, speed, angle, turning speed: pushing to the side of their sum balances to the end."""


def at_random(observation: Array, rng: np.random.Generator) -> Array:
    return rng.integers(2, size=len(observation))


def naive(observation: Array, rng: np.random.Generator) -> Array:
    """Pushes to the side that the pole leans to, 3 times in 10 at random; lasts some 45 steps."""
    return np.where(rng.random(len(observation)) < 0.3, at_random(observation, rng), (observation[:, 2] > 0).astype(int))


def skilled(observation: Array, rng: np.random.Generator) -> Array:
    """Balances to the end, though 3 times in 10 it acts at random."""
    return np.where(rng.random(len(observation)) < 0.3, at_random(observation, rng), (observation @ SKILLED > 0).astype(int))


MIX: tuple[tuple[Behaviour, int], ...] = ((at_random, 2000), (naive, 4000), (skilled, 2000))
"""(behaviour, steps): what a data set holds."""


def _world(count: int) -> Any:
    import gymnasium

    return gymnasium.make_vec("CartPole-v1", num_envs=count, vectorization_mode="vector_entry_point")


def collect(behaviour: Behaviour, steps: int, seed: int) -> list[Array]:
    """Observation, action, reward, next observation and whether it ended, of ``steps`` steps in eight environments."""
    world, rng = _world(8), np.random.default_rng(seed)
    seen, _ = world.reset(seed=seed)
    began, count = np.zeros(8, dtype=bool), 0
    kept: list[list[Array]] = []
    while count < steps:
        action = behaviour(seen, rng)
        after, reward, terminated, truncated, _ = world.step(action)
        real = ~began  # the step after an end only begins the next episode
        kept.append([x[real] for x in (seen, action, reward, after, terminated)])
        count += int(real.sum())
        seen, began = after, real & (terminated | truncated)
    world.close()
    return [np.concatenate(x)[:steps] for x in zip(*kept, strict=True)]


def dataset(seed: int) -> Rollouts:
    """The steps of `MIX` as rows of one step each, with the step fields of `learners.offline.transitions`."""
    parts = [collect(behaviour, steps, 10 * seed + i) for i, (behaviour, steps) in enumerate(MIX)]
    observation, action, reward, after, terminated = (
        torch.from_numpy(np.concatenate(x))[:, None] for x in zip(*parts, strict=True)
    )
    fields = {"observation": observation.float(), "next_observation": after.float(), "reward": reward.float()}
    return Rollouts(
        action=action,
        mask=torch.ones(action.shape, dtype=torch.bool),
        task=["CartPole-v1"] * len(action),
        terminated=terminated,
        source=[behaviour.__name__ for behaviour, steps in MIX for _ in range(steps)],
        fields={k: Field("step", x) for k, x in fields.items()},
    )


def measured(actor: Any, episodes: int = 32) -> dict[str, float]:
    """eval/return: the mean return of greedy actions, 0 for `RANDOM` and 1 for `BEST`."""
    world = _world(episodes)
    seen, _ = world.reset(seed=0)
    going, total = np.ones(episodes, dtype=bool), 0
    noise = np.full(episodes, 0.5)
    while going.any():
        seen, _, terminated, truncated, _ = world.step(np.asarray(actor.act(seen, noise, greedy=True).action))
        total += int(going.sum())
        going &= ~(terminated | truncated)
    world.close()
    return {"eval/return": (total / episodes - RANDOM) / (BEST - RANDOM)}
