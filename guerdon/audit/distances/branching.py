# SPDX-License-Identifier: Apache-2.0
"""What might have happened: from states that a random policy visits, an environment is copied and stepped another way.

Actions are drawn from their space, uniformly where it is bounded. Copies have random numbers of their own. A limit on an
episode's length is taken off the copies, since it is no part of what a state is worth, and kept for the walk itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.audit.distances.sampled import Transitions
from guerdon.errors import InputError
from guerdon.rollouts import Field, Rollouts
from guerdon.sampling.environments import make_environment

PER_WALK = 10
"""Visited states taken from one walk at most."""

CHANCE = 1 / 8
"""Of a step of a walk to be taken."""

LONGEST = 1000
"""Steps of a walk where the environment sets no limit."""


@dataclass(frozen=True)
class Branches:
    """M visited states, what was done in each, and what else might have been.

    at          [M] the transitions; ``walk`` [M] which walk each is of
    ended       [M] bool: the transition ended its episode, so that nothing was tried after it
    given       [M B] rows, B for each state: that action, then random ones
    free        [M B F] rows, F for each of those: another first action (all there are, or one at random), then the same ones
    action      [M, J, ...] actions tried; ``after``, ``after_next`` [M, J, ...] where each leads from s and from s'
    """

    at: Transitions
    walk: Tensor
    ended: Tensor
    given: Rollouts
    free: Rollouts
    action: Tensor
    after: Tensor
    after_next: Tensor


def horizon_of(gamma: float, rest: float = 0.01) -> int:
    """Steps until what is still to come weighs ``rest`` of all.

    >>> horizon_of(0.95)
    90
    """
    return max(math.ceil(math.log(rest) / math.log(gamma)), 1) if gamma > 0 else 1


def branched(
    make: str | Callable[[], Any], *, states: int = 200, branches: int = 2, tried: int = 4, horizon: int = 90, seed: int = 0
) -> Branches:
    """Walk at random, copy the environment at ``states`` visited states, and go on from each in several ways.

    ``branches``: B; ``tried``: J, or the number of actions where that is not above 2 J; ``horizon``: steps a branch goes on.
    """
    for name, value, least in (("states", states, 2), ("branches", branches, 2), ("tried", tried, 1), ("horizon", horizon, 1)):
        if value < least:
            raise InputError(f"branched: `{name}` should be {least} or more, got {value}.")
    return _Brancher(make, branches, tried, horizon, seed).run(states)


class _Brancher:
    def __init__(self, make: str | Callable[[], Any], branches: int, tried: int, horizon: int, seed: int) -> None:
        made = make_environment(make) if isinstance(make, str) else make()
        self.limit = getattr(made.spec, "max_episode_steps", None) or LONGEST
        self.env, self.branches, self.tried, self.horizon = without_limit(made), branches, tried, horizon
        self.rng = np.random.default_rng(seed)
        self.space = copy.deepcopy(made.action_space)
        self.space.seed(seed)
        self.later = copy.deepcopy(made.action_space)
        self.all_actions = _listed(self.space, tried)

    def run(self, states: int) -> Branches:
        seen, tries, given, free = list[Any](), list[Any](), list[list[Any]](), list[list[Any]]()
        walk = 0
        while len(seen) < states:
            for env, observation in self.visited(min(PER_WALK, states - len(seen))):
                action = self.space.sample()
                there, (led, _, ended, _, _) = self.stepped(env, action)
                tries.append(self.tries(env, there, led, ended))
                seen.append((observation, action, led, walk, ended))
                for noise in self.rng.integers(2**31, size=self.branches).tolist():
                    given.append(self.row(env, observation, action, noise))
                    free += [self.row(env, observation, a, noise) for a in self.all_actions or [self.space.sample()]]
            walk += 1
        return _gathered(seen, tries, given, free)

    def visited(self, most: int) -> Iterator[tuple[Any, np.ndarray]]:
        """(environment, observation) at states of a walk, at most ``most``."""
        observation, _ = self.env.reset(seed=int(self.rng.integers(2**31)))
        for _ in range(self.limit):
            if self.rng.random() < CHANCE:
                yield self.copied(self.env, 0), observation
                most -= 1
            observation, _, terminated, truncated, _ = self.env.step(self.space.sample())
            if terminated or truncated or not most:
                return

    def copied(self, env: Any, noise: int) -> Any:
        try:
            other = copy.deepcopy(env)
        except (TypeError, NotImplementedError, RuntimeError) as e:
            raise InputError(
                f"branched: expected an environment that can be copied, {env.unwrapped!r} can't: {e}. Usual cause: a window or a "
                "connection that it holds."
            ) from e
        other.unwrapped.np_random = np.random.default_rng(noise)
        return other

    def stepped(self, env: Any, action: Any) -> tuple[Any, Any]:
        """(a copy that was stepped, what the step returned)."""
        other = self.copied(env, int(self.rng.integers(2**31)))
        return other, other.step(action)

    def row(self, env: Any, observation: np.ndarray, action: Any, noise: int) -> list[tuple[Any, ...]]:
        """(s, a, s', reward, terminated, truncated) of each step; all but the first action, and what is random, by ``noise``."""
        other, steps = self.copied(env, noise), []
        self.later.seed(noise)
        for _ in range(self.horizon):
            led, reward, terminated, truncated, _ = other.step(action)
            steps.append((observation, action, led, float(reward), bool(terminated), bool(truncated)))
            if terminated or truncated:
                break
            observation, action = led, self.later.sample()
        return steps

    def tries(self, here: Any, there: Any, led: np.ndarray, ended: bool) -> tuple[list[Any], list[Any], list[Any]]:
        """(actions, where they lead from s, and from s'); from an end they lead nowhere."""
        actions = self.all_actions or [self.space.sample() for _ in range(self.tried)]
        after = [self.stepped(here, a)[1][0] for a in actions]
        return actions, after, [led if ended else self.stepped(there, a)[1][0] for a in actions]


def _gathered(seen: list[Any], tries: list[Any], given: list[Any], free: list[Any]) -> Branches:
    observation, action, led, walk, ended = zip(*seen, strict=True)
    return Branches(
        Transitions(_stacked(observation), _stacked(action), _stacked(led)),
        torch.tensor(walk),
        torch.tensor(ended),
        _rollouts(given),
        _rollouts(free),
        *(torch.stack([_stacked(t[i]) for t in tries]) for i in range(3)),
    )


def without_limit(env: Any) -> Any:
    """The environment with the wrapper taken out that cuts its episodes."""
    from gymnasium.wrappers import TimeLimit

    if isinstance(env, TimeLimit):
        return env.env
    outer = env
    while hasattr(outer, "env"):
        if isinstance(outer.env, TimeLimit):
            outer.env = outer.env.env
            break
        outer = outer.env
    return env


def _listed(space: Any, most: int) -> list[Any]:
    """Every action, where there are ``most`` x 2 or fewer."""
    count = int(getattr(space, "n", 0)) if type(space).__name__ == "Discrete" else 0
    return [space.start + i for i in range(count)] if 0 < count <= 2 * most else []


def _stacked(values: Any) -> Tensor:
    x = torch.from_numpy(np.stack([np.asarray(v) for v in values]))
    return x.double() if x.is_floating_point() else x


def _rollouts(rows: list[list[tuple[Any, ...]]]) -> Rollouts:
    """Rows of (s, a, s', reward, terminated, truncated), padded with zeros."""
    length = torch.tensor([len(r) for r in rows])
    mask = torch.arange(int(length.max())) < length[:, None]
    flat = [_stacked(column) for column in zip(*(step for r in rows for step in r), strict=True)]
    padded = []
    for x in flat:
        whole = torch.zeros(*mask.shape, *x.shape[1:], dtype=x.dtype)
        whole[mask] = x
        padded.append(whole)
    names = ("observation", "action", "next_observation", "environment_reward", "terminated", "truncated")
    return Rollouts(
        action=padded[1],
        mask=mask,
        task=[str(i) for i in range(len(rows))],
        log_prob=torch.zeros(mask.shape, dtype=torch.float64),
        terminated=padded[4],
        truncated=padded[5],
        length=length,
        fields={name: Field("step", x) for name, x in zip(names, padded, strict=True)},
    )
