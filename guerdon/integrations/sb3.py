# SPDX-License-Identifier: Apache-2.0
"""A reward expression in Stable-Baselines3's on-policy algorithms (PPO, A2C): scored on the whole rollout, before credit.

    PPO("MlpPolicy", env).learn(100_000, callback=RolloutReward("environment + 0.1*bonus.py:upright"))

Stable-Baselines3 computes advantages before it tells its callbacks that a rollout is over. So that a bonus at step k is part of
the advantage of the steps before it, the callback replaces the buffer's rewards and has the buffer compute returns and advantages
anew:

    A_t = Σ_k (γλ)^k δ_{t+k}     δ_t = r_t + γ V(s_{t+1}) (1 - done_t) - V(s_t)

At a step that a time limit cut, Stable-Baselines3 has added γ V(s_{t+1}) to the reward; what it added stays.

Episodes that go on across rollouts:

- A causal reward (its value at a step depends on steps up to it) is scored with as much of the episode before the rollout as it
  looks back on, so its values are those of the whole episode wherever the rollout's edges fall.
- For any other, what follows in the next rollout is unknown: the part of an episode that lies in this one counts as an episode,
  as in ``guerdon train --env``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor

from guerdon.errors import InputError, RewardFailure
from guerdon.integrations.causality import memory, reasons_against
from guerdon.integrations.gymnasium import check_info, is_array
from guerdon.integrations.stepwise import GIVEN, checked, stored
from guerdon.rewards import Reward
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Component, Scores, Status

WHOSE = "RolloutReward"


class RolloutReward(BaseCallback):
    """``reward`` (an expression, or its text) instead of the environment's, on whole rollouts of PPO or A2C.

    It may read ``observation``, ``next_observation``, ``action`` (as the environment was given it), ``environment_reward``,
    ``terminated``, ``truncated``, ``index`` (the step in its episode), ``log_prob`` and numbers of a step's info; with
    ``VecNormalize`` observations before normalisation. A rollout with a step whose reward is not ok raises RewardFailure.

    rollout  how many rollouts were scored: the training step that schedules in the expression read
    scores   what the reward said of the newest rollout
    """

    def __init__(self, reward: Reward | str, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.reward, self._numbers = checked(reward, WHOSE, given=(*GIVEN, "log_prob"))
        self.rollout = 0
        self.scores: Scores | None = None
        self._back = 0 if reasons_against(self.reward) else memory(self.reward)
        self._carried: list[dict[str, np.ndarray]] = []
        self._steps: list[dict[str, np.ndarray]] = []

    def _init_callback(self) -> None:
        if not isinstance(self.model, OnPolicyAlgorithm):
            raise InputError(
                f"{WHOSE}: expected an algorithm that trains on whole rollouts, such as PPO or A2C, "
                f"got {type(self.model).__name__}."
            )
        self._arrays = is_array(self.model.observation_space)
        checked(self.reward, WHOSE, self._arrays, (*GIVEN, "log_prob"))
        self._normaliser = self.model.get_vec_normalize_env()
        if self._normaliser is not None and self._normaliser.norm_reward:
            raise InputError(
                f"{WHOSE}: expected VecNormalize(..., norm_reward=False), got norm_reward=True, whose scale is that of the "
                "environment's reward and not of the one that replaces it."
            )
        if len(self._carried) != self.model.n_envs:  # else a further call of learn, in which episodes may go on
            self._index = np.zeros(self.model.n_envs, np.int64)
            self._carried = [{} for _ in range(self.model.n_envs)]

    def _on_rollout_start(self) -> None:
        assert isinstance(self.model, OnPolicyAlgorithm) and self.model._last_episode_starts is not None
        self._steps = []
        self._observation = self._original(self.model._last_obs)
        for i in np.flatnonzero(self.model._last_episode_starts):
            self._carried[i], self._index[i] = {}, 0

    def _on_step(self) -> bool:
        done, infos = np.array(self.locals["dones"], bool), self.locals["infos"]
        limit = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos])
        if self._numbers and not self._steps and not self.rollout:
            check_info(infos[0], self._numbers, WHOSE)
        step = {
            "environment_reward": np.array(self.locals["rewards"], np.float32),
            "action": np.array(self.locals["clipped_actions"]),
            "terminated": done & ~limit,
            "truncated": done & limit,
            "index": self._index.copy(),
            "log_prob": self.locals["log_probs"].detach().cpu().numpy().reshape(-1),
            **{name: np.array([info.get(name, np.nan) for info in infos], np.float64) for name in self._numbers},
        }
        after = self._original(self.locals["new_obs"])
        if self._arrays:
            step |= {"observation": self._observation, "next_observation": self._led_to(after, done, infos)}
        self._observation = after
        self._index = np.where(done, 0, self._index + 1)
        self._steps.append(step)
        return True

    def _on_rollout_end(self) -> None:
        assert isinstance(self.model, OnPolicyAlgorithm)
        buffer = self.model.rollout_buffer
        rollouts, at = self._rollouts()
        self.scores = self.reward.score(rollouts, step=self.rollout)
        reward = self.scores.reward().detach().gather(1, at)
        self._refuse(reward, at)
        given = np.stack([s["environment_reward"] for s in self._steps])
        buffer.rewards[:] = reward.numpy().T + (buffer.rewards - given)  # the difference: values that a time limit brought in
        buffer.compute_returns_and_advantage(last_values=self.locals["values"], dones=self.locals["dones"])
        self._log(reward, at)
        self.rollout += 1

    # ---- rollouts of what was collected

    def _original(self, observation: Any) -> np.ndarray:
        if not self._arrays:
            return np.zeros(0)
        seen = observation if self._normaliser is None else self._normaliser.get_original_obs()
        return stored(seen, self.model.observation_space.dtype)

    def _led_to(self, after: np.ndarray, done: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
        led_to = after.copy()
        for i in np.flatnonzero(done):
            last = infos[i]["terminal_observation"]
            led_to[i] = last if self._normaliser is None else self._normaliser.unnormalize_obs(last)
        return led_to

    def _rollouts(self) -> tuple[Rollouts, Tensor]:
        """A row per environment, the carried steps first, and [E, T] where in it the steps of this rollout are."""
        new = {name: np.stack([s[name] for s in self._steps], 1) for name in self._steps[0]}
        rows = [
            {name: np.concatenate([c[name], x[i]]) if c else x[i] for name, x in new.items()} for i, c in enumerate(self._carried)
        ]
        length = torch.tensor([len(row["index"]) for row in rows])
        fields = {name: _padded([row[name] for row in rows], int(length.max())) for name in new}
        self._carry(rows)
        longest, steps = int(length.max()), len(self._steps)
        mask = torch.arange(longest) < length[:, None]
        ended = (fields["terminated"] | fields["truncated"]).long()
        episode = torch.where(mask, ended.cumsum(1) - ended, -1)
        made = Rollouts(
            action=fields["action"],
            mask=mask,
            task=[f"environment {i}" for i in range(len(rows))],
            log_prob=fields["log_prob"],
            terminated=fields["terminated"],
            truncated=fields["truncated"],
            length=length,
            levels={"episode": episode, "turn": episode},
            fields={name: Field("step", x) for name, x in fields.items()},
        )
        return made, length[:, None] - steps + torch.arange(steps)

    def _carry(self, rows: list[dict[str, np.ndarray]]) -> None:
        """Keep what the next rollout's steps look back on: of the running episode the last steps."""
        for i, row in enumerate(rows):
            over = np.flatnonzero(row["terminated"] | row["truncated"])
            begun = int(over[-1]) + 1 if len(over) else 0
            length = len(row["index"])
            first = begun if self._back is None else max(begun, length - self._back)
            self._carried[i] = {name: x[first:] for name, x in row.items()} if first < length else {}

    # ---- telling

    def _refuse(self, reward: Tensor, at: Tensor) -> None:
        if not (bad := reward.isnan().nonzero()).numel():
            return
        assert self.scores is not None
        total, (i, t) = self.scores.total, bad[0].tolist()
        unit = int(self.scores.levels[total.level][i, at[i, t]])
        raise RewardFailure(
            f"{WHOSE}: the reward `{self.reward}` is not ok at {len(bad)} of {reward.numel()} steps of the rollout, first in "
            f"environment {i} at step {t}: {Status(int(total.status[i, unit])).name.lower()}: "
            f"{total.reasons.get((i, unit), 'no reason was given')}. Give the part a value with .otherwise(...)."
        )

    def _log(self, reward: Tensor, at: Tensor) -> None:
        assert self.scores is not None
        self.logger.record("reward/total", reward.mean().item())
        for name, part in self.scores.trace.items():
            here = _at(part, at) if part.level == "step" else part
            self.logger.record(f"reward/{name}", here.mean())
            for status, share in here.shares().items():
                if share:
                    self.logger.record(f"reward/{name}_{status}", share)


def _at(part: Component, at: Tensor) -> Component:
    return part.replace(values=part.values.gather(1, at), status=part.status.gather(1, at), reasons={}, uncertainty=None)


def _padded(rows: list[np.ndarray], longest: int) -> Tensor:
    out = np.zeros((len(rows), longest, *rows[0].shape[1:]), rows[0].dtype)
    for n, row in enumerate(rows):
        out[n, : len(row)] = row
    return torch.from_numpy(out)
