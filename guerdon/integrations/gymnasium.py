# SPDX-License-Identifier: Apache-2.0
"""A reward expression as a wrapper of Gymnasium environments: it is paid at every step instead of the environment's own reward.

>>> import gymnasium
>>> env = PaidEnv(gymnasium.make("CartPole-v1"), "environment + 0.5*environment.gain()")
>>> _ = env.reset(seed=0)
>>> [env.step(0)[1] for _ in range(2)]
[1.5, 1.0]
>>> env.step(0)[-1]["reward_parts"]
{'environment': 1.0, 'environment_gain': 0.0}

The reward has to be causal: its value at a step depends on steps up to it. Others are refused with the name of what is not, since
a wrapper cannot take back what it paid; ``guerdon.integrations.sb3`` scores whole rollouts. What is paid at each step is what
``reward.score`` says of that step when the episode is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from guerdon.errors import InputError
from guerdon.integrations.stepwise import Paid, Stepwise, checked, stored
from guerdon.rewards import Reward


class PaidEnv(gymnasium.Wrapper):
    """``env`` with ``reward`` (an expression, or its text) as the reward of every step.

    not_ok         what becomes of a step whose reward is not ok: "raise" (RewardFailure), or "nan": NaN is handed on
    training_step  what schedules in the expression read; set it as training goes on

    A step's info gets ``environment_reward``; ``reward_parts``, the value of every named part, unweighted, NaN where it is not
    ok; and ``reward_failures``, name -> "status: reason", where there are any.
    """

    def __init__(self, env: gymnasium.Env, reward: Reward | str, *, not_ok: str = "raise") -> None:
        super().__init__(env)
        check_actions(env.action_space, "PaidEnv")
        reward, self._numbers = checked(reward, "PaidEnv", is_array(env.observation_space))
        self.reward_expression = reward
        self.training_step = 0
        self._stepwise = Stepwise(reward, 1, "PaidEnv", not_ok)
        self._observation: Any = None
        self._seen_info = not self._numbers

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._stepwise.begin()
        self._observation = _copied(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, given, terminated, truncated, info = self.env.step(action)
        if not self._seen_info:
            check_info(info, self._numbers, "PaidEnv")
            self._seen_info = True
        step = {
            "environment_reward": np.asarray([given], np.float32),
            "action": np.asarray(action, self.action_space.dtype)[None],
            "terminated": np.asarray([terminated], bool),
            "truncated": np.asarray([truncated], bool),
            **{name: np.asarray([info.get(name, np.nan)], np.float64) for name in self._numbers},
        }
        if is_array(space := self.env.observation_space):
            step["observation"] = stored(self._observation, space.dtype)[None]
            step["next_observation"] = stored(observation, space.dtype)[None]
        paid = self._stepwise.pay(np.zeros(1, np.int64), step, self.training_step)
        self._observation = _copied(observation)
        told = {name: float(x[0]) for name, x in paid.parts.items()}
        info = {**info, "environment_reward": float(given), "reward_parts": told}
        if paid.failures:
            info["reward_failures"] = {name: found[0] for name, found in paid.failures.items()}
        return observation, float(paid.reward[0]), terminated, truncated, info


class PaidVectorEnv(VectorWrapper):
    """The same for a vector environment, whichever way it resets. Infos hold arrays, one entry an environment.

    Where environments reset in a step of their own (NEXT_STEP), that step is none of the policy's: it keeps the environment's
    reward, its parts are NaN, and ``reward_taken`` in the info is False.
    """

    def __init__(self, env: VectorEnv, reward: Reward | str, *, not_ok: str = "raise") -> None:
        super().__init__(env)
        mode = env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise InputError(
                f"PaidVectorEnv: {env} should say in metadata['autoreset_mode'] when it resets, got {mode!r}. "
                "Usual cause: a vector environment written for Gymnasium before 1.1."
            )
        self.mode = mode
        check_actions(env.single_action_space, "PaidVectorEnv")
        reward, self._numbers = checked(reward, "PaidVectorEnv", is_array(env.single_observation_space))
        self.reward_expression = reward
        self.training_step = 0
        self._stepwise = Stepwise(reward, env.num_envs, "PaidVectorEnv", not_ok)
        self._observation: Any = None
        self._resetting = np.zeros(env.num_envs, bool)
        self._seen_info = not self._numbers

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        begun = (options or {}).get("reset_mask", slice(None))  # before the environment takes it out of the options
        observation, info = self.env.reset(seed=seed, options=options)
        self._stepwise.begin(begun)
        self._resetting[begun] = False
        self._observation = _copied(observation)
        return observation, info

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        observation, given, terminated, truncated, info = self.env.step(actions)
        taken = ~self._resetting
        ended = (terminated | truncated) & taken
        if not self._seen_info:
            check_info({**info, **_final(info)}, self._numbers, "PaidVectorEnv")
            self._seen_info = True
        rows = np.flatnonzero(taken)
        paid = Paid(np.zeros(0))
        if len(rows):
            step = {
                "environment_reward": np.asarray(given, np.float32),
                "action": np.asarray(actions, self.single_action_space.dtype),
                "terminated": np.asarray(terminated, bool),
                "truncated": np.asarray(truncated, bool),
                **{name: self._number(name, info, ended) for name in self._numbers},
                **self._observations(observation, info, ended),
            }
            paid = self._stepwise.pay(rows, {name: x[rows] for name, x in step.items()}, self.training_step)
        self._stepwise.begin(ended)
        self._resetting = ended if self.mode == AutoresetMode.NEXT_STEP else np.zeros_like(ended)
        self._observation = _copied(observation)
        reward = np.array(given, np.float64)
        reward[rows] = paid.reward
        return observation, reward, terminated, truncated, {**info, **_told(paid, rows, np.asarray(given), taken)}

    def _observations(self, observation: Any, info: Mapping[str, Any], ended: np.ndarray) -> dict[str, np.ndarray]:
        if not is_array(self.single_observation_space):
            return {}
        dtype = self.single_observation_space.dtype
        led_to = stored(observation, dtype)
        if self.mode == AutoresetMode.SAME_STEP:
            for i in np.flatnonzero(ended):
                led_to[i] = info["final_obs"][i]
        return {"observation": stored(self._observation, dtype), "next_observation": led_to}

    def _number(self, name: str, info: Mapping[str, Any], ended: np.ndarray) -> np.ndarray:
        """[E] a number of the steps' info, that of the episode's last step where a new one has begun; NaN where there is none."""
        found = _column(info, name, len(ended))
        if self.mode == AutoresetMode.SAME_STEP and ended.any():
            found = np.where(ended, _column(_final(info), name, len(ended)), found)
        return found


def check_actions(space: gymnasium.Space, whose: str) -> None:
    if not is_array(space):
        raise InputError(f"{whose}: expected an action space of one array, got {space}. Wrap the environment so that it has one.")


def check_info(info: Mapping[str, Any], wanted: Sequence[str], whose: str) -> None:
    """An error where the first step's info lacks a number that the reward reads."""
    if missing := [name for name in wanted if name not in info]:
        raise InputError(
            f"{whose}: the reward reads `{'`, `'.join(missing)}`; a step has observation, next_observation, action, "
            f"environment_reward, terminated, truncated, index and, in its info, {', '.join(sorted(info)) or 'nothing'}. "
            "Usual cause: an argument of a function that is named otherwise."
        )


def _told(paid: Paid, rows: np.ndarray, given: np.ndarray, taken: np.ndarray) -> dict[str, Any]:
    """What a vector environment's info gets, [E] each."""

    def everywhere(x: np.ndarray) -> np.ndarray:
        out = np.full(len(taken), np.nan)
        out[rows] = x
        return out

    out: dict[str, Any] = {"environment_reward": given.copy(), "reward_taken": taken}
    out["reward_parts"] = {name: everywhere(x) for name, x in paid.parts.items()}
    if paid.failures:
        out["reward_failures"] = {
            name: {int(rows[n]): text for n, text in found.items()} for name, found in paid.failures.items()
        }
    return out


def _final(info: Mapping[str, Any]) -> Mapping[str, Any]:
    final = info.get("final_info", {})
    return final if isinstance(final, Mapping) else {}


def _column(info: Mapping[str, Any], name: str, count: int) -> np.ndarray:
    there = info.get(f"_{name}", np.full(count, name in info))
    return np.where(there, np.asarray(info.get(name, np.full(count, np.nan)), np.float64), np.nan)


def is_array(space: gymnasium.Space) -> bool:
    return space.shape is not None and isinstance(
        space, (gymnasium.spaces.Box, gymnasium.spaces.Discrete, gymnasium.spaces.MultiBinary, gymnasium.spaces.MultiDiscrete)
    )


def _copied(observation: Any) -> Any:
    return observation.copy() if isinstance(observation, np.ndarray) else observation
