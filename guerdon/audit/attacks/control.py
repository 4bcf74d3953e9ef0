# SPDX-License-Identifier: Apache-2.0
"""Behaviours in an environment, many at a time: scripted ones that need no sense, and small policies that a search can shape.

A behaviour is a row of parameters; ``Crowd`` lets a whole population act at once, one behaviour for each environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guerdon.errors import InputError
from guerdon.policies.acting import Acted

HIDDEN = 8


@dataclass(frozen=True)
class Actions:
    """How numbers become actions: the largest of ``count`` for Discrete, the numbers themselves, squashed, for a Box."""

    count: int
    start: int = 0
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    shape: tuple[int, ...] = ()

    @staticmethod
    def of(space: Any) -> Actions:
        kind = type(space).__name__
        if kind == "Discrete":
            return Actions(int(space.n), int(space.start))
        if kind == "Box":
            low, high = (np.clip(np.asarray(x, np.float64).reshape(-1), -10, 10) for x in (space.low, space.high))
            return Actions(len(low), 0, low, high, tuple(space.shape))
        raise InputError(f"audit: behaviours need Discrete or Box actions, got {space}. Usual cause: several decisions a step.")

    def act(self, scores: np.ndarray) -> np.ndarray:
        """[E, ...] of scores [E, count]."""
        if self.low is None or self.high is None:
            return scores.argmax(-1) + self.start
        inside = self.low + (np.tanh(scores) + 1) / 2 * (self.high - self.low)
        return inside.astype(np.float32).reshape(-1, *self.shape)


def scripted(actions: Actions) -> list[tuple[str, np.ndarray]]:
    """(name, scores [period, count]) of behaviours that look at nothing: each action alone, and pairs of actions in turn."""
    if actions.low is None:
        one = 4.0 * np.eye(actions.count)
    else:
        one = np.concatenate([4.0 * np.eye(actions.count), -4.0 * np.eye(actions.count), np.zeros((1, actions.count))])
        corners = np.array([np.full(actions.count, 4.0), np.full(actions.count, -4.0)])
        one = np.unique(np.concatenate([one, corners]), axis=0)
    one = one[:8]
    found = [(f"always action {i}", one[i : i + 1]) for i in range(len(one))]
    pairs = [(i, j) for i in range(len(one)) for j in range(i + 1, len(one))][:15]
    for i, j in pairs:
        for run in (1, 2, 5):
            script = np.concatenate([np.repeat(one[i : i + 1], run, 0), np.repeat(one[j : j + 1], run, 0)])
            found.append((f"actions {i} and {j} in turn, {run} each", script))
    return found


class Scripts:
    """Environment e repeats script e [period, count]."""

    def __init__(self, actions: Actions, scripts: Sequence[np.ndarray]) -> None:
        self.actions, self.scripts, self.t = actions, list(scripts), 0

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        return np.zeros(steps)

    def act(self, observation: np.ndarray, noise: np.ndarray, greedy: bool = False) -> Acted:
        scores = np.stack([s[self.t % len(s)] for s in self.scripts])
        self.t += 1
        return Acted(self.actions.act(scores), np.zeros(len(scores), np.float32))


class Random:
    """Actions at random."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        return rng.standard_normal((steps, self.actions.count))

    def act(self, observation: np.ndarray, noise: np.ndarray, greedy: bool = False) -> Acted:
        return Acted(self.actions.act(2 * noise), np.zeros(len(noise), np.float32))


@dataclass(frozen=True)
class Network:
    """A small network whose parameters are one row: tanh(x W + b) V + x U + c, of an observation x of ``size`` numbers."""

    size: int
    actions: Actions

    @property
    def parameters(self) -> int:
        n, k = self.size, self.actions.count
        return n * HIDDEN + HIDDEN + HIDDEN * k + n * k + k


class Crowd:
    """Environment e is acted in by the network with the parameters ``rows[e]``; discrete actions are drawn by their scores."""

    def __init__(self, network: Network, rows: np.ndarray) -> None:
        n, k, e = network.size, network.actions.count, len(rows)
        ends = np.cumsum([n * HIDDEN, HIDDEN, HIDDEN * k, n * k, k])
        w, b, v, u, c = np.split(rows, ends[:-1], axis=1)
        self.w, self.b, self.v = w.reshape(e, n, HIDDEN), b, v.reshape(e, HIDDEN, k)
        self.u, self.c, self.actions = u.reshape(e, n, k), c, network.actions

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        """[steps, count] Gumbel noise, the largest score with which is a draw from their softmax; none for a Box."""
        shape = steps, self.actions.count
        return np.zeros(shape) if self.actions.low is not None else rng.gumbel(size=shape)

    def act(self, observation: np.ndarray, noise: np.ndarray, greedy: bool = False) -> Acted:
        x = np.asarray(observation, np.float64).reshape(len(observation), -1)
        hidden = np.tanh(np.einsum("en,enh->eh", x, self.w) + self.b)
        scores = np.einsum("eh,ehk->ek", hidden, self.v) + np.einsum("en,enk->ek", x, self.u) + self.c
        return Acted(self.actions.act(2 * scores + noise), np.zeros(len(x), np.float32))
