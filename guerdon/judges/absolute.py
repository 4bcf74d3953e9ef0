# SPDX-License-Identifier: Apache-2.0
"""A judge that scores answers one by one: a reward from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from guerdon.errors import ExpressionError, InputError
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

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        there = taken(rollouts, "episode").cpu()
        units = [(n, k) for n, k in rollouts.units("episode") if there[n, k]]
        found = self.judge.verdicts(items_of(rollouts, units, self.gold))
        low, high = self.scale
        dtype = torch.get_default_dtype() if rollouts.log_prob is None else rollouts.log_prob.dtype
        values = torch.full(there.shape, math.nan, dtype=dtype)
        status = torch.full(there.shape, int(Status.NONE), dtype=torch.int8)
        for (n, k), verdict in zip(units, found, strict=True):
            status[n, k] = int(verdict.status)
            if verdict.status == Status.OK:
                values[n, k] = (verdict.said - low) / (high - low)
        reasons = {unit: v.reason for unit, v in zip(units, found, strict=True) if v.reason}
        device = rollouts.action.device
        return Component(self.name, "episode", values.to(device), status.to(device), reasons, self.bounds, version=self.version)


def items_of(rollouts: Rollouts, units: Sequence[tuple[int, int]], gold: str = "") -> list[dict[str, Any]]:
    """What a judge is shown of each episode: the prompt, the answer and, with ``gold``, that field."""
    every = {unit: i for i, unit in enumerate(rollouts.units("episode"))}
    columns = {"prompt": "prompt", "answer": "completion"} | ({"reference": gold} if gold else {})
    values = {shown: rollouts.values_at(name, "episode") for shown, name in columns.items() if name in rollouts.fields}
    return [{shown: said[every[unit]] for shown, said in values.items()} for unit in units]


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
    from guerdon.judges.judging import Judge, digest, prompt_of, rubric_of
    from guerdon.judges.tally import Tally
    from guerdon.judges.verdicts import read_score

    said = dict(locals())
    low, high = scale_of(scale)
    endpoint = endpoint_of(said)
    made = Judge(
        endpoint,
        prompt_of("absolute", rubric=rubric_of(rubric), low=f"{low:g}", high=f"{high:g}"),
        partial(read_score, low=low, high=high),
        together,
        cache,
        Tally(endpoint.price),
    )
    version = digest([made.version, low, high, reference])[:8]
    return JudgeReward(
        name="judge",
        bounds=Bounds(0, 1),
        relation="self" if together == 1 else "batch",
        needs=frozenset({"completion"} | ({reference} if reference else set())),
        version=version,
        identity=version,
        judge=made,
        scale=(low, high),
        gold=reference,
        written=written("judge", judge, said),
    )


# ---- what the factories share


ASKING = ("url", "model", "key_env", "timeout", "attempts", "seconds", "concurrency", "max_tokens", "temperature")


def endpoint_of(said: Mapping[str, Any]) -> Any:
    """The Endpoint of a factory's arguments."""
    from guerdon.judges.endpoint import Endpoint

    price = said["price"]
    if price is not None:
        if isinstance(price, str) or len(price) != 2 or not all(isinstance(p, int | float) and p >= 0 for p in price):
            raise InputError(
                f"judge: `price` should be two numbers, for a million prompt and completion tokens, got {price!r:.60}."
            )
        price = (float(price[0]), float(price[1]))
    return Endpoint(**{name: said[name] for name in ASKING}, body=dict(said["body"] or {}), price=price)


def scale_of(said: Sequence[float]) -> tuple[float, float]:
    numbers = not isinstance(said, str) and len(said) == 2 and all(isinstance(x, int | float) for x in said)
    if not numbers or not -math.inf < said[0] < said[1] < math.inf:
        raise ExpressionError(f"judge: `scale` should be the lowest and the highest score, such as [1, 10], got {said!r:.60}.")
    return float(said[0]), float(said[1])


def written(name: str, factory: Any, said: Mapping[str, Any]) -> str:
    """The factory's call as text, with the arguments that differ from their defaults."""
    import inspect

    shown = []
    for p in inspect.signature(factory).parameters.values():
        value = list(said[p.name]) if isinstance(said[p.name], tuple) else said[p.name]
        default = list(p.default) if isinstance(p.default, tuple) else p.default
        if p.name in said and value != default:
            shown.append(repr(value) if p.kind is p.POSITIONAL_OR_KEYWORD else f"{p.name}={value!r}")
    return f"{name}({', '.join(shown)})"
