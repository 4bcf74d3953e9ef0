# SPDX-License-Identifier: Apache-2.0
"""A causal reward, step by step: each environment's episode so far is kept as far back as the reward looks, and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch

from guerdon.errors import InputError, RewardFailure
from guerdon.integrations.causality import memory, refuse_non_causal
from guerdon.rewards import Reward, parse
from guerdon.rewards.oracle import refuse_oracles
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Component, Status

GIVEN = ("observation", "next_observation", "environment_reward", "action", "terminated", "truncated", "index")
"""What a reward may read of any step, by name; ``index`` counts the steps of the episode from 0."""

NOT_OK = ("raise", "nan")

_OWN = {f.name for f in fields(Rollouts)} | {"ref_log_prob"}


def checked(
    reward: Reward | str, whose: str, observations: bool = True, given: Sequence[str] = GIVEN
) -> tuple[Reward, tuple[str, ...]]:
    """(the reward, the numbers of a step's info that it reads), or an error for what no environment has.

    ``observations``: whether they are arrays, so that there is one field of them. ``given``: what every step has.
    """
    made = parse(reward) if isinstance(reward, str) else reward
    refuse_oracles(made, whose)
    if wrong := sorted(made.needs & _OWN - set(given)):
        raise InputError(f"{whose}: `{made}` reads `{'`, `'.join(wrong)}`, which belongs to a policy; an environment has none.")
    if not observations and (wrong := sorted(made.needs & {"observation", "next_observation"})):
        raise InputError(
            f"{whose}: `{made}` reads `{'`, `'.join(wrong)}`, expected an observation space of one array, got one of several "
            "parts. gymnasium.wrappers.FlattenObservation makes one array of them."
        )
    return made, tuple(sorted(made.needs - set(given)))


@dataclass
class Paid:
    """What a reward says of one step of some environments.

    reward    [n] the total; NaN where it is not ok
    parts     name -> [n] values of every named part, unweighted; NaN where not ok
    failures  name of a part, or "total" -> {row: "status: reason"}
    """

    reward: np.ndarray
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    failures: dict[str, dict[int, str]] = field(default_factory=dict)


class Stepwise:
    """The reward of the newest step of each of ``count`` environments.

    Arrays are [count, K, ...]: the last K steps of the running episodes, from the left; ``length`` says how many are there.
    """

    def __init__(self, reward: Reward, count: int, whose: str, not_ok: str = "raise") -> None:
        refuse_non_causal(reward, whose)
        if not_ok not in NOT_OK:
            raise InputError(f"{whose}: `not_ok` should be one of {', '.join(NOT_OK)}, got {not_ok!r}.")
        self.reward, self.whose, self.not_ok = reward, whose, not_ok
        back = memory(reward)
        self.window = None if back is None else back + 1
        self.length = np.zeros(count, np.int64)
        self.index = np.zeros(count, np.int64)
        self.kept: dict[str, np.ndarray] = {}

    def begin(self, which: Any = slice(None)) -> None:
        """New episodes begin in the environments at ``which``."""
        self.length[which] = self.index[which] = 0

    def pay(self, rows: np.ndarray, step: Mapping[str, Any], training_step: int = 0) -> Paid:
        """Score the step that the environments at ``rows`` took; ``step``: name -> [len(rows), ...]."""
        self._keep(rows, {**step, "index": self.index[rows]})
        self.index[rows] += 1
        scores = self.reward.score(self._rollouts(rows), step=training_step)
        last = torch.from_numpy(self.length[rows] - 1)[:, None]
        paid = Paid(scores.total.values.detach().gather(1, last)[:, 0].numpy())
        for name, part in [("total", scores.total), *scores.trace.items()]:
            if name in scores.trace:
                paid.parts[name] = part.values.detach().gather(1, last)[:, 0].numpy()
            if not bool((part.status.gather(1, last) == Status.OK).all()):
                paid.failures[name] = _failures(part, last[:, 0].tolist())
        if self.not_ok == "raise" and np.isnan(paid.reward).any():
            self._refuse(rows, paid.failures["total"])
        return paid

    def _keep(self, rows: np.ndarray, step: Mapping[str, Any]) -> None:
        full = rows[self.length[rows] == self.window]
        for name, values in step.items():
            x = np.asarray(values)
            if name not in self.kept:
                self.kept[name] = np.zeros((len(self.length), self.window or 64, *x.shape[1:]), x.dtype)
            kept = self.kept[name]
            if self.window is None and self.length.max() == kept.shape[1]:
                kept = self.kept[name] = np.concatenate([kept, np.zeros_like(kept)], 1)
            if len(full) and kept.shape[1] > 1:
                kept[full, :-1] = kept[full, 1:]
            kept[rows, np.minimum(self.length[rows], kept.shape[1] - 1)] = x
        self.length[rows] += 1
        if self.window is not None:
            np.minimum(self.length, self.window, out=self.length)

    def _rollouts(self, rows: np.ndarray) -> Rollouts:
        length = torch.from_numpy(self.length[rows])
        longest = int(length.max())
        there = {name: torch.from_numpy(x[rows, :longest]) for name, x in self.kept.items()}
        return Rollouts(
            action=there["action"],
            mask=torch.arange(longest) < length[:, None],
            task=[f"environment {i}" for i in rows.tolist()],
            terminated=there["terminated"],
            truncated=there["truncated"],
            length=length,
            fields={name: Field("step", x) for name, x in there.items()},
        )

    def _refuse(self, rows: np.ndarray, failures: Mapping[int, str]) -> None:
        at, reason = next(iter(failures.items()))
        raise RewardFailure(
            f"{self.whose}: the reward `{self.reward}` is not ok at step {self.index[rows[at]] - 1} of the episode in "
            f"environment {rows[at]}: {reason}. Give the part a value with .otherwise(...), or take NaN with not_ok='nan'."
        )


def _failures(part: Component, last: list[int]) -> dict[int, str]:
    """row -> "status: reason" of the units at ``last`` that are not ok."""
    found = {}
    for n, k in enumerate(last):
        status = Status(int(part.status[n, k]))
        if status != Status.OK:
            found[n] = f"{status.name.lower()}: {part.reasons.get((n, k), 'no reason was given')}"
    return found


def stored(x: Any, dtype: np.dtype | None) -> np.ndarray:
    """An observation as the control trainer stores it: real numbers as float32, others as they are."""
    x = np.asarray(x)
    real = np.issubdtype(dtype if dtype is not None else x.dtype, np.floating)
    return np.array(x, np.float32 if real else x.dtype)
