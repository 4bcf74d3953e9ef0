# SPDX-License-Identifier: Apache-2.0
"""Running statistics that bring observations and rewards to a common scale; what they do is written in one place, here.

Observations are centred and divided by their standard deviation over everything seen so far. Rewards are divided, not centred, by
the standard deviation of the discounted return so far; where an episode ends, terminated or truncated alike, its return starts
again. Both are fixed within a batch, from its first action to its last update, and are part of the checkpoint; the statistics of
observations are the policy's and are saved with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


class RunningMoments:
    """Count, mean and variance (divided by the count) of all numbers seen so far, in float64.

    With n, m, M the count, mean and sum of squared deviations so far, and n', m', M' those of what comes:

        m <- m + (m' - m) n' / (n + n'),   M <- M + M' + (m' - m)^2 n n' / (n + n')

    Before there is any, mean 0 and variance 1. Chan, Golub and LeVeque 1979, Updating formulae and a pairwise algorithm.

    >>> seen = RunningMoments(())
    >>> seen.update(np.array([1.0, 2.0])); seen.update(np.array([6.0]))
    >>> seen.count, float(seen.mean), round(float(seen.variance), 4)
    (3, 3.0, 4.6667)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.mean, self.squares = np.zeros(shape), np.zeros(shape)

    @property
    def variance(self) -> np.ndarray:
        return self.squares / self.count if self.count else np.ones_like(self.squares)

    def update(self, x: np.ndarray) -> None:
        """Add ``x`` [B, *shape]."""
        if len(x) == 0:
            return
        x = x.astype(np.float64, copy=False)
        mean, total = x.mean(0), self.count + len(x)
        apart = mean - self.mean
        self.squares = self.squares + ((x - mean) ** 2).sum(0) + apart**2 * (self.count * len(x) / total)
        self.mean = self.mean + apart * (len(x) / total)
        self.count = total

    def state_dict(self) -> dict[str, Tensor]:
        return {"count": torch.tensor(self.count), "mean": torch.tensor(self.mean), "squares": torch.tensor(self.squares)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.count = int(state["count"])
        self.mean, self.squares = (state[k].double().cpu().numpy().copy() for k in ("mean", "squares"))


class ObservationStatistics:
    """Tells a policy's normaliser of each batch's observations, once the policy has been updated."""

    before = False

    def update(self, told: Any) -> Mapping[str, float]:
        rollouts = told.batch.rollouts
        told.policy.observe(rollouts.field("observation").values[rollouts.mask])
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class ReturnScale:
    """One over the standard deviation of the discounted return so far, as a number that credit multiplies rewards by.

    R <- gamma R + reward at each taken step, R <- 0 where the episode ends;   scale = 1 / sqrt(variance of all R + 1e-8)

    A row goes on with the R of its row in the batch before. The scale used in a batch is that after the batch's last step. Steps
    whose reward isn't ok are passed over. The same statistic as Stable-Baselines3's VecNormalize, which takes its value at each
    step instead, and clips.
    """

    before = True

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.moments = RunningMoments(())
        self.running = np.zeros(0)

    def __call__(self, step: int) -> float:
        return float(1 / np.sqrt(self.moments.variance + 1e-8))

    def update(self, told: Any) -> Mapping[str, float]:
        rollouts = told.batch.rollouts
        reward = told.scores.reward().double().cpu().numpy()
        counted = rollouts.mask.cpu().numpy() & np.isfinite(reward)
        self.add(reward, counted, (rollouts.terminated | rollouts.truncated).cpu().numpy())
        return {"reward_scale": self(0)}

    def add(self, reward: np.ndarray, counted: np.ndarray, ended: np.ndarray) -> None:
        """``reward`` [N, T], ``counted`` and ``ended`` [N, T] bool: the next T steps of N rows."""
        running = self.running if len(self.running) == len(reward) else np.zeros(len(reward))
        # R_t = factor_t R_t-1 + returns_t by doubling: after round k either holds what the last 2^k steps say.
        factor, returns = np.where(counted, self.gamma, 1.0), np.where(counted, reward, 0.0)
        factor[:, 1:][ended[:, :-1]] = 0
        returns[:, 0] += factor[:, 0] * running
        by = 1
        while by < reward.shape[1]:
            returns[:, by:] += factor[:, by:] * returns[:, :-by]
            factor[:, by:] *= factor[:, :-by].copy()
            by *= 2
        self.running = np.where(ended[:, -1], 0.0, returns[:, -1])
        self.moments.update(returns[counted])

    def state_dict(self) -> dict[str, Any]:
        return {"moments": self.moments.state_dict(), "running": torch.tensor(self.running)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.moments.load_state_dict(state["moments"])
        self.running = state["running"].numpy().copy()
