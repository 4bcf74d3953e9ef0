# SPDX-License-Identifier: Apache-2.0
"""Control: a policy steps environments, and what happened becomes Rollouts.

A row is one environment's next steps, whole episodes or parts of them: an episode that isn't over at the end of a row goes on in
the next batch's. A step's fields are ``observation`` and ``next_observation`` (what the step really led to, at the end of an
episode too), ``environment_reward``, ``action``, ``terminated`` and ``truncated``; level ``episode`` is counted within the row.
Steps that the policy did not take, since an environment only reset itself in them or failed, have a False mask.
"""

from __future__ import annotations

import difflib
import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from guerdon.errors import EnvironmentFailure, InputError
from guerdon.policies.acting import Acted, Actor
from guerdon.protocols import Batch
from guerdon.rollouts import Field, Rollouts
from guerdon.sampling.vector import Make, Singles, Step, Stepper, Vector

__all__ = ["Acted", "Actor", "Environments", "episodes", "make_environment", "stepper_of"]


class Environments:
    """A source: ``environments`` rows of ``steps`` steps a batch. The environments, and episodes in them, go on between batches.

    ``make``: a Gymnasium id, or a function that returns an environment (called for each) or a vector environment (called once; it
    says how many there are). Where an id names a vector environment of its own, that is used.

    ``info`` names numbers in the steps' info that become step fields, for rewards to read.

    The first episodes begin by (seed, environment, step); a row's actions are drawn from the stream of the same key. A run that
    is resumed begins new episodes: the state of an environment is in no checkpoint.

    A failure of an environment (see ``vector``) ends its episode, truncated at the last good step, and leaves the others alone.
    The run stops when more than ``max_failed`` of a batch's steps fail.
    """

    before = False

    def __init__(
        self, make: str | Make, environments: int = 8, steps: int = 256, info: Sequence[str] = (), max_failed: float = 0.1
    ) -> None:
        for name, value in (("environments", environments), ("steps", steps)):
            if value < 1:
                raise InputError(f"Environments: `{name}` should be 1 or more, got {value}.")
        self.make, self.environments, self.steps, self.info, self.max_failed = make, environments, steps, info, max_failed
        self.stepper: Stepper | None = None
        self.observation = np.zeros(0)
        self.scores = np.zeros((0, 2))
        self.metrics: dict[str, Any] = {}

    def batch(self, step: int, policy: Actor, seed: int) -> Batch:
        if self.stepper is None:
            self.stepper = stepper_of(self.make, self.environments, self.info)
            self.observation = self.stepper.reset([_seed(seed, i, step) for i in range(self.stepper.count)]).copy()
            self.scores = np.zeros((self.stepper.count, 2))
        stepper, count = self.stepper, self.stepper.count
        noise = np.stack([policy.noise(np.random.default_rng([seed, i, step]), self.steps) for i in range(count)], 1)
        record = Record(count, self.steps, self.observation)
        for t in range(self.steps):
            acted = policy.act(self.observation, noise[t])
            given = acted.action if acted.to_environment is None else acted.to_environment
            done = stepper.step(np.asarray(given))
            record.add(t, self.observation, acted, done)
            self.observation = done.observation.copy()
        self.metrics = self._finished(record)
        self._refuse(record, step)
        return Batch(record.rollouts([f"{_name(self.make)}#{i}" for i in range(count)]))

    def _finished(self, record: Record) -> dict[str, Any]:
        """Means over the episodes that ended in this batch and didn't fail, and the share of steps that failed."""
        found, ended = [], record.ended & ~record.cut
        for i, boundary in enumerate((record.ended | record.restarted).T):
            at, (total, length) = 0, self.scores[i]
            for end in (np.flatnonzero(boundary) + 1).tolist():
                if ended[end - 1, i]:
                    found.append((total + record.reward[at:end, i].sum(), length + record.taken[at:end, i].sum()))
                at, total, length = end, 0.0, 0
            self.scores[i] = total + record.reward[at:, i].sum(), length + record.taken[at:, i].sum()
        out: dict[str, Any] = {"episodes": len(found), "environment/failed": len(record.failed) / record.taken.size}
        if found:
            out["episode_return"], out["episode_length"] = np.mean(found, 0).tolist()
        if record.failed:
            out["environment/failures"] = record.told()
        return out

    def _refuse(self, record: Record, step: int) -> None:
        if len(record.failed) > self.max_failed * record.taken.size:
            raise EnvironmentFailure(
                f"environments: at most {self.max_failed:.1%} of the {record.taken.size} steps of a batch may fail, "
                f"{len(record.failed)} of batch {step} did. {record.told()}"
            )

    # ---- told once a step by the loop, like every part with state

    def update(self, told: Any) -> Mapping[str, float]:
        return self.metrics

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def close(self) -> None:
        if self.stepper is not None:
            self.stepper.close()
        self.stepper = None


class Record:
    """Steps as they come, [T, E, ...], and the Rollouts made of them."""

    def __init__(self, count: int, steps: int, observation: np.ndarray) -> None:
        self.observation = np.zeros((steps, *observation.shape), observation.dtype)
        self.next_observation = np.zeros_like(self.observation)
        self.reward = np.zeros((steps, count))
        self.terminated, self.truncated, self.taken, self.restarted, self.cut = (np.zeros((steps, count), bool) for _ in range(5))
        self.acted: dict[str, np.ndarray] = {}
        self.failed: dict[tuple[int, int], str] = {}

    def add(self, t: int, observation: np.ndarray, acted: Acted, done: Step) -> None:
        self.observation[t], self.next_observation[t] = observation, done.next_observation
        self.terminated[t], self.truncated[t], self.taken[t], self.restarted[t] = (
            done.terminated,
            done.truncated,
            done.taken,
            done.restarted,
        )
        self.reward[t] = done.reward
        for name, x in (("action", acted.action), ("log_prob", acted.log_prob), *acted.fields.items(), *done.info.items()):
            if name not in self.acted:
                x = np.asarray(x)
                self.acted[name] = np.zeros((len(self.reward), *x.shape), x.dtype)
            self.acted[name][t] = x
        if done.failed:
            self.failed |= {(t, i): reason for i, reason in done.failed}
            self._cut(t)

    def resize(self, steps: int) -> None:
        """Make room for ``steps`` steps, or forget those beyond."""

        def sized(x: np.ndarray) -> np.ndarray:
            return np.concatenate([x[:steps], np.zeros((max(steps - len(x), 0), *x.shape[1:]), x.dtype)])

        self.acted = {k: sized(x) for k, x in self.acted.items()}
        for name, x in vars(self).items():
            if isinstance(x, np.ndarray):
                setattr(self, name, sized(x))

    def _cut(self, t: int) -> None:
        """An episode that began again without having ended was cut at its last taken step."""
        for i in np.flatnonzero(self.restarted[t] | ~self.taken[t]):
            last = t if self.taken[t, i] else t - 1
            if last >= 0 and self.taken[last, i] and not self.ended[last, i]:
                self.truncated[last, i] = self.cut[last, i] = True

    @property
    def ended(self) -> np.ndarray:
        return self.terminated | self.truncated

    def told(self) -> str:
        """The failures in words: the first of each kind with its environment and step, the most frequent kinds first."""
        kinds = Counter(self.failed.values())
        first = {reason: (i, t) for (t, i), reason in reversed(self.failed.items())}
        said = [f"environment {first[r][0]}, step {first[r][1]}: {r} ({n} x)" for r, n in kinds.most_common(3)]
        return "; ".join(said) + ("." if len(kinds) <= 3 else f"; and {len(kinds) - 3} other reasons.")

    def rollouts(self, task: Sequence[str], **more: Any) -> Rollouts:
        """[E, T] rows; what stands where no step was taken is 0."""
        begun = np.zeros(self.taken.shape, np.int64)
        begun[1:] = self.ended[:-1].cumsum(0)
        self.reward[~self.taken] = 0
        made = {k: _rows(x) for k, x in self.acted.items()}
        action, log_prob, episode = made.pop("action"), made.pop("log_prob"), _rows(np.where(self.taken, begun, -1))
        mask = _rows(self.taken)
        terminated, truncated = _rows(self.terminated), _rows(self.truncated)
        fields = {
            "observation": _rows(self.observation),
            "next_observation": _rows(self.next_observation),
            "environment_reward": _rows(self.reward.astype(self.acted["log_prob"].dtype)),
            "action": action,
            "terminated": terminated,
            "truncated": truncated,
            **made,
        }
        failure = [""] * len(task)
        for (t, i), reason in reversed(self.failed.items()):
            failure[i] = f"step {t}: {reason}"
        return Rollouts(
            action=action,
            mask=mask,
            task=list(task),
            log_prob=torch.where(mask, log_prob, 0),
            terminated=terminated,
            truncated=truncated,
            levels={"episode": episode, "turn": episode},
            fields={k: Field("step", x) for k, x in fields.items()} | {"failure": Field("task", failure)},
            **more,
        )


def _rows(x: np.ndarray) -> torch.Tensor:
    """[E, T, ...] of [T, E, ...]."""
    return torch.from_numpy(x).transpose(0, 1).contiguous()


# ---- whole episodes


def episodes(
    policy: Actor,
    make: str | Make | Stepper,
    count: int,
    *,
    samples: int = 1,
    seed: int = 0,
    greedy: bool = False,
    info: Sequence[str] = (),
    limit: int = 100_000,
) -> Rollouts:
    """Whole episodes, one a row: ``count`` starts, each of them ``samples`` times, which makes a group.

    ``make`` as for ``Environments``, single environments where there is a choice; or environments that are there already, as many
    as rows. Rows of a group have the same first observation, as far as ``reset(seed=...)`` decides it, and their own streams of
    actions. An episode is cut after ``limit`` steps; where its environment fails it is cut too, see the field ``failure``.
    """
    rows = count * samples
    given = not isinstance(make, str) and hasattr(make, "observation_space") and hasattr(make, "step")
    stepper: Any = make if given else stepper_of(make, rows, info, vector=False, once=True)  # type: ignore[arg-type]
    if stepper.count != rows or (samples > 1 and isinstance(stepper, Vector)):
        raise InputError(
            f"episodes: expected {rows} environments for {count} starts x {samples} samples, got {stepper.count}. "
            "Usual cause: a vector environment, which says itself how many there are and can't begin several alike."
        )
    observation = stepper.reset([_seed(seed, i // samples, 0) for i in range(rows)]).copy()
    streams = [np.random.default_rng([seed, i, 1]) for i in range(rows)]
    record, alive, t, start = Record(rows, 0, observation), np.ones(rows, bool), 0, 0
    while alive.any() and t < limit:
        if t == len(record.reward):
            start = t
            record.resize(min(max(2 * t, CHUNK), limit))
            noise = np.stack([policy.noise(s, len(record.reward) - t) for s in streams], 1)
        acted = policy.act(observation, noise[t - start], greedy)
        done = stepper.step(np.asarray(acted.action if acted.to_environment is None else acted.to_environment))
        for flags in (done.taken, done.terminated, done.truncated, done.restarted):
            flags &= alive
        done.failed = [(i, reason) for i, reason in done.failed if alive[i]]
        record.add(t, observation, acted, done)
        alive &= ~(record.ended[t] | (~done.taken & ~done.restarted))
        alive[[i for i, _ in done.failed]] = False
        observation, t = done.observation.copy(), t + 1
    record.resize(t)
    record.truncated[-1] |= alive
    if not given:
        stepper.close()
    taken = torch.from_numpy(record.taken.sum(0))
    return record.rollouts(
        [f"{_name(make)}#{seed}.{i // samples}" for i in range(rows)],
        length=taken,
        group=torch.arange(rows) // samples,
        sampling={"temperature": 0.0 if greedy else 1.0},
    )


CHUNK = 256


# ---- environments


def stepper_of(make: str | Make, count: int, info: Sequence[str] = (), vector: bool = True, once: bool = False) -> Stepper:
    """``count`` environments of an id or of a function; ``vector``: where an id has a vector environment of its own, that."""
    from gymnasium.vector import VectorEnv

    if isinstance(make, str):
        spec = _spec(make)
        if vector and spec.vector_entry_point is not None:
            return Vector(partial(_made, "make_vec", make, num_envs=count, vectorization_mode="vector_entry_point"), info)
        return Singles(partial(make_environment, make), count, once, info)
    first = make()
    if isinstance(first, VectorEnv):
        return Vector(_after(first, make), info)
    return Singles(_after(first, make), count, once, info)


def _after(first: Any, make: Make) -> Make:
    """``make`` whose first call gives ``first``."""
    waiting = [first]
    return lambda: waiting.pop() if waiting else make()


def make_environment(name: str) -> Any:
    """The Gymnasium environment of an id, its observation one Box where it has several parts; of MiniGrid's, the image."""
    _spec(name)
    env = _made("make", name, disable_env_checker=True)
    space = env.observation_space
    if type(space).__name__ == "Dict" and {"image", "mission"} <= set(space.spaces):
        from minigrid.wrappers import ImgObsWrapper

        return ImgObsWrapper(env)
    if type(space).__name__ in ("Dict", "Tuple") and space.is_np_flattenable:
        from gymnasium.wrappers import FlattenObservation

        return FlattenObservation(env)
    return env


def _spec(name: str) -> Any:
    """What Gymnasium knows of an id, or an error with ids like it."""
    import gymnasium

    if name.startswith(("MiniGrid-", "BabyAI-")):
        import minigrid  # noqa: F401 - registers its ids
    package, _, known = name.rpartition(":")
    if package:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as e:
            raise InputError(
                f"environments: {name!r} should name a package before the colon that can be imported, got: {e}."
            ) from e
    try:
        return gymnasium.spec(known)
    except gymnasium.error.Error as e:
        near = difflib.get_close_matches(name, gymnasium.registry, 3, 0.5)
        hint = f" Near it: {', '.join(near)}." if near else ""
        raise InputError(
            f"environments: no environment {name!r} is registered with Gymnasium ({e}).{hint} Usual cause: a misspelt id or "
            "version, or a package that registers it and isn't imported; write PACKAGE:ID then."
        ) from e


def _made(how: str, name: str, **settings: Any) -> Any:
    import gymnasium

    try:
        return getattr(gymnasium, how)(name, **settings)
    except (gymnasium.error.Error, ImportError) as e:
        raise InputError(
            f"environments: {name} could not be made: {e} Usual cause: its simulator isn't installed; "
            "pip install 'guerdon[control]' brings MuJoCo and MiniGrid."
        ) from e


def _seed(seed: int, index: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, index, step]).generate_state(1)[0])


def _name(make: Any) -> str:
    return make if isinstance(make, str) else getattr(make, "__name__", type(make).__name__)
