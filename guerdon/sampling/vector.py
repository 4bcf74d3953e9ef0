# SPDX-License-Identifier: Apache-2.0
"""E environments stepped together, whatever they are made of, with what each step really led to.

Gymnasium's environments start again by themselves in three ways, and in two of them what a step returns is not what it led to.
Here a step always tells the true next observation and, apart from it, the one on which the next action is chosen.

    made of                              when an episode ends
    -----------------------------------  ----------------------------------------------------------------------------------
    single environments                  it is reset at once
    a vector environment, SAME_STEP      it was reset in the same step; the true next observation is in the step's info
    a vector environment, NEXT_STEP      its next step ignores the action and resets: no step of the policy, ``taken`` False
    a vector environment, DISABLED       it is reset at once, by a mask

An environment that raises, or returns what is no observation or no reward, has failed: the step isn't taken, and the environment
is made anew. A vector environment is made anew as a whole, which ends the other episodes in it early.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from guerdon.errors import InputError
from guerdon.rewards.worker import caught

Make = Callable[[], Any]
"""() -> a Gymnasium environment."""


@dataclass
class Step:
    """One step of E environments. Arrays may be overwritten by the next.

    observation        [E, ...] on which the next action is chosen
    next_observation   [E, ...] what the step led to
    reward             [E] float64
    terminated         [E] bool
    truncated          [E] bool
    taken              [E] bool; False: the action was not asked for, or the environment failed
    restarted          [E] bool; True: ``observation`` is the first of an episode
    failed             (environment, reason)
    info               name -> [E] numbers from the step's info; NaN where there is none
    """

    observation: np.ndarray
    next_observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    taken: np.ndarray
    restarted: np.ndarray
    failed: list[tuple[int, str]] = field(default_factory=list)
    info: dict[str, np.ndarray] = field(default_factory=dict)


class Stepper(Protocol):
    """E environments."""

    count: int
    observation_space: Any
    action_space: Any

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """[E, ...] first observations; ``seeds`` [E]."""
        ...

    def step(self, action: np.ndarray) -> Step: ...

    def close(self) -> None: ...


def blank(count: int, space: Any, info: Sequence[str]) -> Step:
    """A Step of zeros for ``count`` environments; observations of real numbers are float32, others keep their type."""
    dtype = np.dtype(np.float32) if np.issubdtype(space.dtype, np.floating) else np.dtype(space.dtype)
    observation = np.zeros((count, *space.shape), dtype)
    a, b, c, d = (np.zeros(count, dtype=bool) for _ in range(4))
    return Step(
        observation, observation.copy(), np.zeros(count), a, b, c, d, info={name: np.full(count, np.nan) for name in info}
    )


def _shape(x: Any) -> tuple[int, ...]:
    return x.shape if isinstance(x, np.ndarray) else np.shape(x)


class Singles:
    """Single environments in a plain loop. ``once``: one episode each, and none is made anew."""

    def __init__(self, make: Make, count: int, once: bool = False, info: Sequence[str] = ()) -> None:
        self.make, self.count, self.once = make, count, once
        self.envs: list[Any] = [make() for _ in range(count)]
        self.observation_space, self.action_space = self.envs[0].observation_space, self.envs[0].action_space
        self.shape, self.whole = tuple(self.observation_space.shape), type(self.action_space).__name__ == "Discrete"
        self.now = blank(count, self.observation_space, info)
        self.live = list(range(count))
        self.why: dict[int, str] = {}

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        self.streams = [np.random.default_rng(seed) for seed in seeds]
        self.live = list(range(self.count))
        for i in self.live:
            self._begin(i, seeded=True)
        return self.now.observation

    def step(self, action: np.ndarray) -> Step:
        now = self.now
        for flags in (now.terminated, now.truncated, now.taken, now.restarted):
            flags.fill(False)
        now.failed = []
        given = action.tolist() if self.whole else action
        waiting = list(reversed(self.live))
        while waiting:
            _, error = caught(partial(self._each, waiting, given), SystemExit)
            if error is not None:
                now.failed.append((waiting.pop(), told(error)))
        self._refuse_not_finite()
        ended = (now.terminated | now.truncated).nonzero()[0].tolist()
        np.copyto(now.observation, now.next_observation, where=self._like_observation(now.taken))
        broken = [i for i, _ in now.failed]
        if self.once:
            self.live = [i for i in self.live if i not in ended and i not in broken]
            return now
        for i in broken:
            self.envs[i] = None
        for i in {*ended, *broken}:
            self._begin(i, seeded=i in broken)
        return now

    def _like_observation(self, flags: np.ndarray) -> np.ndarray:
        """[E] as [E, 1, ...]."""
        return flags.reshape(-1, *[1] * len(self.shape))

    def _each(self, waiting: list[int], given: Any) -> None:
        """Step the environments that are ``waiting``, the last first, each leaving when it is done; one that fails raises."""
        now, envs, shape = self.now, self.envs, self.shape
        led_to, paid, over, cut, taken = now.next_observation, now.reward, now.terminated, now.truncated, now.taken
        while waiting:
            i = waiting[-1]
            env = envs[i]
            if env is None:
                raise RuntimeError(f"no episode could be begun: {self.why[i]}")
            observation, reward, terminated, truncated, info = env.step(given[i])
            if (observation.shape if type(observation) is np.ndarray else _shape(observation)) != shape:
                raise ValueError(f"an observation of shape {list(_shape(observation))}, expected {list(shape)}")
            if not isinstance(reward, float) and np.shape(reward) != ():
                raise ValueError(f"a reward of shape {list(np.shape(reward))}, expected one number")
            if not math.isfinite(reward):
                raise ValueError(f"a reward of {reward}, expected a finite number")
            led_to[i], paid[i], over[i], cut[i], taken[i] = observation, reward, terminated, truncated, True
            for name, numbers in now.info.items():
                numbers[i] = info.get(name, np.nan)
            waiting.pop()

    def _refuse_not_finite(self) -> None:
        now = self.now
        numbers = now.next_observation.reshape(-1)
        if math.isfinite(np.dot(numbers, numbers)):
            return
        for i in np.flatnonzero(now.taken):
            if not np.isfinite(now.next_observation[i]).all():
                now.failed.append((int(i), f"an observation that is not finite: {now.next_observation[i]!r:.80}"))
                now.taken[i] = now.terminated[i] = now.truncated[i] = False

    def _begin(self, i: int, seeded: bool) -> None:
        """The first observation of an episode; where there is none, the next step of the environment fails."""
        _, error = caught(partial(self._first, i, seeded), SystemExit)
        if error is not None:
            self.envs[i], self.why[i] = None, told(error)

    def _first(self, i: int, seeded: bool) -> None:
        if self.envs[i] is None:
            self.envs[i] = self.make()
        observation, _ = self.envs[i].reset(seed=int(self.streams[i].integers(2**31)) if seeded else None)
        if np.shape(observation) != self.shape or not np.isfinite(observation).all():
            raise ValueError(f"an observation {observation!r:.80}, expected finite numbers of shape {list(self.shape)}")
        self.now.observation[i] = observation
        self.now.restarted[i] = True

    def close(self) -> None:
        for env in self.envs:
            if env is not None:
                caught(env.close)


class Vector:
    """A Gymnasium vector environment."""

    def __init__(self, make: Make, info: Sequence[str] = ()) -> None:
        self.make = make
        self.env = make()
        self.count = self.env.num_envs
        self.observation_space, self.action_space = self.env.single_observation_space, self.env.single_action_space
        self.shape = (self.count, *self.observation_space.shape)
        mode = self.env.metadata.get("autoreset_mode")
        self.mode = getattr(mode, "value", mode)
        if self.mode not in MODES:
            raise InputError(
                f"environments: {self.env} should say in metadata['autoreset_mode'] when it resets, one of {', '.join(MODES)}; "
                f"got {mode!r}. Usual cause: a vector environment written for Gymnasium before 1.1."
            )
        self.now = blank(self.count, self.observation_space, info)
        self.resetting = np.zeros(self.count, dtype=bool)
        self.why = ""

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        self.stream = np.random.default_rng(list(seeds))
        self._begin()
        return self.now.observation

    def step(self, action: np.ndarray) -> Step:
        now = self.now
        now.failed = []
        _, error = caught(partial(self._one, action), SystemExit)
        if error is not None:
            now.failed = [(i, told(error)) for i in range(self.count)]
        elif not math.isfinite(now.next_observation.sum(dtype=np.float64) + now.reward.sum()):
            for i, (o, r) in enumerate(zip(now.next_observation, now.reward, strict=True)):
                if not (np.isfinite(o).all() and np.isfinite(r)):
                    now.failed.append((i, f"expected finite numbers, got the reward {r} and the observation {o!r:.80}"))
        if now.failed:
            broken = [i for i, _ in now.failed]
            for flags in (now.terminated, now.truncated, now.taken):
                flags[broken] = False
            self._begin()
        return now

    def _one(self, action: np.ndarray) -> None:
        """Step all environments, or raise."""
        now = self.now
        if self.env is None:
            raise RuntimeError(f"no episode could be begun: {self.why}")
        observation, reward, terminated, truncated, info = self.env.step(action)
        if np.shape(observation) != self.shape:
            raise ValueError(f"observations of shape {list(np.shape(observation))}, expected {list(self.shape)}")
        if np.shape(reward) != (self.count,):
            raise ValueError(f"rewards of shape {list(np.shape(reward))}, expected {[self.count]}")
        now.taken[:] = ~self.resetting
        now.terminated[:], now.truncated[:] = terminated & now.taken, truncated & now.taken
        now.next_observation[...], now.reward[:], now.observation[...] = observation, reward, observation
        for name, numbers in now.info.items():
            numbers[:] = np.where(info.get(f"_{name}", name in info), info.get(name, np.nan), np.nan)
        ended = now.terminated | now.truncated
        if self.mode == SAME_STEP and ended.any():  # what stands in ``info`` may be the reset's
            last = info.get("final_info", {})
            for name, numbers in now.info.items():
                if name in last:
                    here = ended & last.get(f"_{name}", True)
                    numbers[here] = np.asarray(last[name])[here]
        if self.mode == NEXT_STEP:
            now.restarted[:], self.resetting = self.resetting, ended
            return
        now.restarted[:] = ended
        if ended.any() and self.mode == SAME_STEP:
            for i in np.flatnonzero(ended):
                now.next_observation[i] = info["final_obs"][i]
        elif ended.any():
            now.observation[...], _ = self.env.reset(options={"reset_mask": ended})

    def _begin(self) -> None:
        """First observations of all; where there are none, the next step fails."""
        now, self.resetting = self.now, np.zeros(self.count, dtype=bool)
        _, error = caught(self._first, SystemExit)
        now.restarted.fill(True)
        if error is not None:
            self.env, self.why = None, told(error)

    def _first(self) -> None:
        if self.env is None or self.now.failed:
            self.close()
            self.env = self.make()
        observation, _ = self.env.reset(seed=int(self.stream.integers(2**31)))
        if np.shape(observation) != self.shape or not np.isfinite(observation).all():
            raise ValueError(f"observations {observation!r:.80}, expected finite numbers of shape {list(self.shape)}")
        self.now.observation[...] = observation

    def close(self) -> None:
        if self.env is not None:
            caught(self.env.close)


NEXT_STEP, SAME_STEP, DISABLED = MODES = ("NextStep", "SameStep", "Disabled")


def told(error: BaseException) -> str:
    """What an environment raised, as a reason."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
