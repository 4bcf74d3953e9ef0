# SPDX-License-Identifier: Apache-2.0
"""Distributions of actions: drawn from in NumPy, where one step's arrays are small, and evaluated in PyTorch, with gradient.

Each knows the ``width`` of the network's output that it reads, ``head`` [..., width]. Both draw by given noise, so that a draw is
a function of its arguments. Log-probabilities are in nats; an action of several dimensions has one, the sum over them.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.errors import InputError

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Categorical:
    """One of ``count`` actions, ``start``, ``start`` + 1, ...; ``head`` are its logits.

    log_prob(a) = head_a - log sum_b exp(head_b)

    >>> rng = np.random.default_rng(0)
    >>> two = Categorical(2)
    >>> action, log_prob = two.draw(np.log([[1.0, 3.0]] * 4), np.array([0.1, 0.24, 0.26, 0.9]))
    >>> action.tolist(), np.exp(log_prob).round(2).tolist()
    ([0, 0, 1, 1], [0.25, 0.25, 0.75, 0.75])
    """

    count: int
    start: int = 0

    @property
    def width(self) -> int:
        return self.count

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        """[steps] uniform on [0, 1)."""
        return rng.random(steps)

    def draw(
        self, head: np.ndarray, noise: np.ndarray, log_std: np.ndarray | None = None, greedy: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """(action, log_prob), each [E]: the inverse of the distribution function at ``noise`` [E]; ``greedy``: the mode."""
        shifted = head - head.max(-1, keepdims=True)
        weight = np.exp(shifted)
        if greedy:
            action = head.argmax(-1)
            total = weight.sum(-1)
        else:
            below = weight.cumsum(-1)
            total = below[:, -1]
            action = (below[:, :-1] <= (noise * total)[:, None]).sum(-1)
        return action + self.start, shifted[np.arange(len(head)), action] - np.log(total)

    def to_environment(self, action: np.ndarray) -> np.ndarray:
        return action

    def log_prob(self, head: Tensor, action: Tensor, log_std: Tensor | None = None) -> Tensor:
        """[...] of ``action`` [...]."""
        return head.log_softmax(-1).gather(-1, (action - self.start)[..., None])[..., 0]

    def entropy(self, head: Tensor, log_std: Tensor | None = None) -> Tensor:
        """[...] -sum p log p."""
        log_prob = head.log_softmax(-1)
        return -(log_prob.exp() * log_prob).sum(-1)

    def judged(self, head: np.ndarray, action: np.ndarray | None, log_std: np.ndarray) -> JudgedCategorical:
        """``head`` [B, count] and ``action`` [B] by NumPy, with the gradient."""
        shifted = np.ascontiguousarray(head.T)  # sums over few actions are slow where they are the last axis
        shifted -= shifted.max(0)
        shifted -= np.log(np.exp(shifted).sum(0))
        return JudgedCategorical(shifted, None if action is None else (action - self.start, np.arange(len(head))))


@dataclass(frozen=True)
class Gaussian:
    """A number for each dimension, independent of one another; ``head`` are the means, ``log_std`` [D] the same in every state.

    log_prob(a) = -1/2 sum_d ((a_d - head_d) / std_d)^2 - sum_d log std_d - D/2 log 2 pi

    Actions are stored as they were drawn; environments get them clipped to [``low``, ``high``], in ``shape``.

    >>> one = Gaussian((0.0,), (1.0,), (1,))
    >>> action, log_prob = one.draw(np.array([[0.5]]), np.array([[2.0]]), np.array([0.0]))
    >>> action.tolist(), one.to_environment(action).tolist(), log_prob.round(4).tolist()
    ([[2.5]], [[1.0]], [-2.9189])
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        return len(self.low)

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        """[steps, D] standard normal."""
        return rng.standard_normal((steps, self.width))

    def draw(
        self, head: np.ndarray, noise: np.ndarray, log_std: np.ndarray, greedy: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """(action [E, D], log_prob [E]): head + std noise; ``greedy``: the mode."""
        z = np.zeros_like(head) if greedy else noise.astype(head.dtype, copy=False)
        log_prob = np.einsum("ed,ed->e", z, z)
        log_prob *= -0.5
        log_prob -= log_std.sum() + 0.5 * self.width * LOG_2PI
        return head + np.exp(log_std) * z, log_prob

    def to_environment(self, action: np.ndarray) -> np.ndarray:
        clipped = np.minimum(np.maximum(action, self._edges[0]), self._edges[1]).astype(np.float32, copy=False)
        return clipped if len(self.shape) == 1 else clipped.reshape(-1, *self.shape)

    @cached_property
    def _edges(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.low, dtype=np.float32), np.asarray(self.high, dtype=np.float32)

    def log_prob(self, head: Tensor, action: Tensor, log_std: Tensor) -> Tensor:
        """[...] of ``action`` [..., D]."""
        z = (action - head) * torch.exp(-log_std)
        return -0.5 * (z * z).sum(-1) - (log_std.sum() + 0.5 * self.width * LOG_2PI)

    def entropy(self, head: Tensor, log_std: Tensor) -> Tensor:
        """[...] sum_d log std_d + D/2 log(2 pi e), the same in every state."""
        return (log_std.sum() + 0.5 * self.width * (1 + LOG_2PI)).expand(head.shape[:-1])

    def judged(self, head: np.ndarray, action: np.ndarray | None, log_std: np.ndarray) -> JudgedGaussian:
        """``head`` and ``action`` [B, D] by NumPy, with the gradient."""
        inverse = np.exp(-log_std)
        return JudgedGaussian(None if action is None else (action - head) * inverse, inverse, float(log_std.sum()), len(head))


@dataclass(frozen=True)
class JudgedCategorical:
    """Outputs of B distributions and their gradient. ``log_probs`` [count, B] of all actions; ``chosen`` (actions, rows) [B]."""

    log_probs: np.ndarray
    chosen: tuple[np.ndarray, np.ndarray] | None

    def outputs(self, names: Collection[str]) -> dict[str, np.ndarray]:
        """[B] each of log_prob and entropy, as far as they are among ``names``."""
        found = {}
        if "log_prob" in names:
            found["log_prob"] = self.log_probs[self.chosen]
        if "entropy" in names:
            found["entropy"] = self._entropy
        return found

    def gradient(self, log_prob: np.ndarray | None, entropy: np.ndarray | None) -> tuple[np.ndarray, float]:
        """d loss / d head [B, count] (and d log_std, none), given d loss / d log_prob and d loss / d entropy [B].

        d log p_a / d head_j = [a = j] - p_j,  d H / d head_j = -p_j (log p_j + H)
        """
        p, found = np.exp(self.log_probs), np.zeros_like(self.log_probs)
        if log_prob is not None:
            found -= log_prob * p
            found[self.chosen] += log_prob
        if entropy is not None:
            found -= entropy * p * (self.log_probs + self._entropy)
        return found.T, 0.0

    @cached_property
    def _entropy(self) -> np.ndarray:
        return -(np.exp(self.log_probs) * self.log_probs).sum(0)


@dataclass(frozen=True)
class JudgedGaussian:
    """Outputs of B distributions and their gradient. ``z`` [B, D] of the actions, (a - head) / std; ``inverse`` [D] 1 / std."""

    z: np.ndarray | None
    inverse: np.ndarray
    log_std: float
    count: int

    def outputs(self, names: Collection[str]) -> dict[str, np.ndarray]:
        """[B] each of log_prob and entropy, as far as they are among ``names``."""
        found, half = {}, 0.5 * len(self.inverse)
        if "log_prob" in names and self.z is not None:
            found["log_prob"] = -0.5 * (self.z * self.z).sum(-1) - self.inverse.dtype.type(self.log_std + half * LOG_2PI)
        if "entropy" in names:
            found["entropy"] = np.full(self.count, self.log_std + half * (1 + LOG_2PI), self.inverse.dtype)
        return found

    def gradient(self, log_prob: np.ndarray | None, entropy: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """(d loss / d head [B, D], d loss / d log_std [D]), given d loss / d log_prob and d loss / d entropy [B].

        d log_prob / d head_d = z_d / std_d,  d log_prob / d log_std_d = z_d^2 - 1,  d H / d log_std_d = 1
        """
        head, log_std = np.zeros((self.count, len(self.inverse)), self.inverse.dtype), np.zeros_like(self.inverse)
        if log_prob is not None and self.z is not None:
            head = log_prob[:, None] * (self.z * self.inverse)
            log_std = log_prob @ (self.z * self.z - 1)
        if entropy is not None:
            log_std = log_std + entropy.sum()
        return head, log_std


Distribution = Categorical | Gaussian


def distribution_of(space: Any) -> Distribution:
    """The distribution for a Gymnasium action space: Discrete or a Box of real numbers."""
    kind = type(space).__name__
    if kind == "Discrete":
        return Categorical(int(space.n), int(space.start))
    if kind == "Box" and np.issubdtype(space.dtype, np.floating):
        low, high = (np.asarray(x, dtype=np.float64).reshape(-1).tolist() for x in (space.low, space.high))
        return Gaussian(tuple(low), tuple(high), tuple(space.shape))
    raise InputError(
        f"actor-critic: the action space should be Discrete or a Box of real numbers, got {space}. "
        "Usual cause: several decisions a step; a wrapper that makes one Discrete or Box of them helps."
    )
