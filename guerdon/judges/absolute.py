# SPDX-License-Identifier: Apache-2.0
"""A judge that scores answers one by one: a reward from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from guerdon.errors import ExpressionError
from guerdon.judges.making import items_of, judge_of, needs_of, written
from guerdon.levels import unit_count
from guerdon.rewards.aligning import taken
from guerdon.rewards.node import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Status

if TYPE_CHECKING:
    from guerdon.judges.judging import Judge
    from guerdon.judges.tally import Tally


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class JudgeReward(Reward):
    """The judge's score of each episode's completion, on its scale from 0 (lowest) to 1 (highest)."""

    judge: Judge
    scale: tuple[float, float]
    reference: str = ""
    gold: str = ""
    written: str

    @property
    def tally(self) -> Tally:
        return self.judge.tally

    def expression(self) -> str:
        return self.written

    begins = True

    def begin(self, rollouts: Rollouts) -> None:
        if self.needs <= rollouts.fields.keys():
            self.judge.begin(items_of(rollouts, self.units(rollouts), self.gold))

    def units(self, rollouts: Rollouts) -> list[tuple[int, int]]:
        """(row, episode) of the episodes in which the policy took a step."""
        there = taken(rollouts, "episode").tolist()
        return [(n, k) for n, k in rollouts.units("episode") if there[n][k]]

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        units = self.units(rollouts)
        found = self.judge.verdicts(items_of(rollouts, units, self.gold))
        shape = (len(rollouts), unit_count(rollouts.level("episode")))
        low, high = self.scale
        dtype = torch.get_default_dtype() if rollouts.log_prob is None else rollouts.log_prob.dtype
        values = torch.full(shape, math.nan, dtype=dtype)
        status = torch.full(shape, int(Status.NONE), dtype=torch.int8)
        for (n, k), verdict in zip(units, found, strict=True):
            status[n, k] = int(verdict.status)
            if verdict.status == Status.OK:
                values[n, k] = (verdict.said - low) / (high - low)
        reasons = {unit: v.reason for unit, v in zip(units, found, strict=True) if v.reason}
        device = rollouts.action.device
        return Component(self.name, "episode", values.to(device), status.to(device), reasons, self.bounds, version=self.version)


def judge(
    url: str,
    rubric: str = "",
    *,
    model: str = "",
    scale: Sequence[float] = (1, 10),
    reference: str = "",
    together: int = 1,
    cache: str = "",
    key_env: str = "",
    timeout: float = 60.0,
    attempts: int = 4,
    seconds: float = 180.0,
    concurrency: int = 8,
    max_tokens: int = 1024,
    temperature: float = 0.0,
    price: Sequence[float] | None = None,
    body: Mapping[str, Any] | None = None,
) -> JudgeReward:
    """A language model's score of the completion by a rubric, 0 to 1, from an OpenAI-compatible endpoint.

    ``rubric``: text, or the path of a .txt or .md file. ``scale``: the lowest and highest score the model may give.
    ``reference``: a field that the model is shown as the reference answer. ``together``: items a request. ``cache``: a file that
    keeps verdicts.
    ``body``: more fields of the request. The rest is said in ``guerdon.judges.endpoint.Endpoint``.

    >>> print(judge("http://127.0.0.1:8000/v1", "Is it polite?", model="m", cache="verdicts.sqlite"))
    judge('http://127.0.0.1:8000/v1', 'Is it polite?', model='m', cache='verdicts.sqlite')
    """
    from guerdon.judges.judging import digest
    from guerdon.judges.verdicts import read_score

    said = dict(locals())
    low, high = scale_of(scale)
    made = judge_of(said, "absolute", partial(read_score, low=low, high=high), low=f"{low:g}", high=f"{high:g}")
    version = digest([made.version, low, high, reference])[:8]
    return JudgeReward(
        name="judge",
        bounds=Bounds(0, 1),
        relation="self" if together == 1 else "batch",
        needs=needs_of(reference),
        version=version,
        identity=version,
        judge=made,
        scale=(low, high),
        gold=reference,
        written=written("judge", judge, said),
    )


def scale_of(said: Sequence[float]) -> tuple[float, float]:
    numbers = not isinstance(said, str) and len(said) == 2 and all(isinstance(x, int | float) for x in said)
    if not numbers or not -math.inf < said[0] < said[1] < math.inf:
        raise ExpressionError(f"judge: `scale` should be the lowest and the highest score, such as [1, 10], got {said!r:.60}.")
    return float(said[0]), float(said[1])
