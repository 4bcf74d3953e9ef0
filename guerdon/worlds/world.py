# SPDX-License-Identifier: Apache-2.0
"""Many copies of a small world stepped together, as a Gymnasium vector environment: state in arrays, no Python per copy.

- A world's course depends on its own seed and actions alone, not on its neighbours: each draws from a stream of its own. The same
  seed gives the same start.
- ``terminated``: the episode ended by itself; ``truncated``: it reached ``limit`` steps and had not. Never both.
- Autoreset is Gymnasium's SAME_STEP: a world that ends is begun again at once and the observation is that of the new episode.
  What the last action led to is in ``info["final_obs"]`` [W, ...], at the worlds that ``info["_final_obs"]`` marks.
- Every other entry of ``info`` is an array [W, ...] about the step just taken, the last of an episode included, with its mask
  ``_name`` that is True everywhere. ``final_info`` holds the same arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from guerdon.errors import InputError, ShapeError

Array = np.ndarray
Which = Array | slice
"""Worlds: an array of their numbers, or all of them as a slice."""

ALL = slice(None)
MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
"""Row and column steps of the actions up, right, down, left."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class World(VectorEnv):
    """What the worlds share. One of them gives three methods and the names of its ``state`` arrays [W, ...].

    begin(which)             write the start of a new episode of the worlds ``which`` into the state
    advance(action [W])      move on; (reward [W], terminated [W], info arrays [W, ...])
    observe(which)           observations [n, ...] of the present state, a new array
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # as the base class declares it
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": [],
    }
    state: ClassVar[tuple[str, ...]] = ()

    def __init__(self, worlds: int, observation: gymnasium.Space, actions: int, limit: int) -> None:
        if worlds < 1 or limit < 1:
            raise InputError(f"{type(self).__name__}: expected `worlds` and a `limit` of 1 or more, got {worlds}, {limit}.")
        self.num_envs, self.limit = worlds, limit
        self.single_observation_space, self.observation_space = observation, batch_space(observation, worlds)
        self.single_action_space = gymnasium.spaces.Discrete(actions)
        self.action_space = batch_space(self.single_action_space, worlds)
        self.elapsed = np.zeros(worlds, dtype=np.int64)
        self.stream = np.zeros(worlds, dtype=np.uint64)
        self._worlds, self._all_true = np.arange(worlds), np.ones(worlds, dtype=bool)
        self._begun = False

    def begin(self, which: Which) -> None:
        raise NotImplementedError

    def advance(self, action: Array) -> tuple[Array, Array, dict[str, Array]]:
        raise NotImplementedError

    def observe(self, which: Which) -> Array:
        raise NotImplementedError

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin all worlds. World i gets ``seed`` + i, or its own of a list; without a seed the streams go on."""
        if seed is None and not self._begun:
            seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(1))
        if isinstance(seed, int | np.integer):
            self._np_random_seed = int(seed)
            seed = [int(seed) + i for i in range(self.num_envs)]
        if seed is not None:
            if len(seed) != self.num_envs or min(seed) < 0:
                raise InputError(f"{type(self).__name__}: expected a seed of 0 or more, or {self.num_envs} of them, got {seed}.")
            self.stream = scramble(scramble(np.array(seed, dtype=np.uint64) + _GOLDEN))
        self._begun = True
        self.elapsed[:] = 0
        self.begin(ALL)
        return self.observe(ALL), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        action = np.asarray(actions)
        if not self._begun or action.shape != (self.num_envs,):
            raise ShapeError(
                f"{type(self).__name__}: `actions` should have shape [{self.num_envs}] and follow a reset, got "
                f"{list(action.shape)}{'' if self._begun else ' before any reset'}."
            )
        count = int(self.single_action_space.n)  # type: ignore[attr-defined]
        if action.dtype.kind not in "iu" or action.min() < 0 or action.max() >= count:
            raise InputError(f"{type(self).__name__}: actions should be integers of 0 to {count - 1}, got {action}.")
        reward, terminated, arrays = self.advance(action)
        self.elapsed += 1
        truncated = (self.elapsed >= self.limit) & ~terminated
        ended = np.flatnonzero(terminated | truncated)
        observation = self.observe(ALL)
        info: dict[str, Any] = dict(arrays)
        info.update({f"_{name}": self._all_true for name in arrays})
        if len(ended):
            which = terminated | truncated
            info.update(final_obs=observation, _final_obs=which, final_info=arrays, _final_info=which)
            self.elapsed[ended] = 0
            self.begin(ended)
            observation = observation.copy()
            observation[ended] = self.observe(ended)
        return observation, reward, terminated, truncated, info

    def uniform(self, which: Which, count: int) -> Array:
        """[n, count] in [0, 1): the next numbers of these worlds' streams (SplitMix64, Steele, Lea and Flood 2014)."""
        stream = self.stream[which]
        ahead = stream[:, None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64)
        self.stream[which] = ahead[:, -1]
        return (scramble(ahead) >> np.uint64(11)) * 2.0**-53

    def state_dict(self) -> dict[str, Array]:
        """All that the future depends on: arrays by name."""
        return {name: getattr(self, name).copy() for name in ("stream", "elapsed", *self.state)}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        expected = {"stream", "elapsed", *self.state}
        if set(state) != expected:
            raise InputError(f"{type(self).__name__}: expected the state {sorted(expected)}, got {sorted(state)}.")
        for name, x in state.items():
            getattr(self, name)[...] = x
        self._begun = True


def scramble(x: Array) -> Array:
    """The finaliser of SplitMix64: a bijection of 64-bit numbers that leaves no visible order."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def below(uniform: Array, count: Array | int) -> Array:
    """Integers of 0 to ``count`` - 1 from numbers in [0, 1)."""
    return (uniform * count).astype(np.int64)


def one_hots(places: Sequence[Array], sizes: Sequence[int], more: Sequence[Array] = ()) -> Array:
    """[n, Σ sizes + len(more)] float32: the place of each, one-hot, one after the other, then ``more`` as they are.

    A place of -1 is none: zeros.

    >>> one_hots([np.array([1]), np.array([-1])], [2, 3], [np.array([True])]).tolist()
    [[0.0, 1.0, 0.0, 0.0, 0.0, 1.0]]
    """
    first = np.cumsum([0, *sizes])
    out = np.zeros((len(places[0]), first[-1] + len(more)), dtype=np.float32)
    at = np.stack(places, 1)
    flat = at + (first[:-1] + out.shape[1] * np.arange(len(at))[:, None])
    out.reshape(-1)[flat[at >= 0] if at.min() < 0 else flat] = 1
    for i, x in enumerate(more):
        out[:, first[-1] + i] = x
    return out


def box(size: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(0.0, 1.0, (size,), np.float32)
