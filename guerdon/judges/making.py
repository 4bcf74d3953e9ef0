# SPDX-License-Identifier: Apache-2.0
"""What the factories of judges share: the judge that their arguments make, what it is shown, and their call as text."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guerdon.errors import InputError
from guerdon.rollouts import Rollouts

if TYPE_CHECKING:
    from guerdon.judges.endpoint import Endpoint
    from guerdon.judges.judging import Judge
    from guerdon.judges.verdicts import Read

ASKING = ("url", "model", "key_env", "timeout", "attempts", "seconds", "concurrency", "max_tokens", "temperature")


def judge_of(said: Mapping[str, Any], prompt: str, read: Read, **filled_in: str) -> Judge:
    """The Judge of a factory's arguments ``said``. ``prompt``: its name; ``filled_in``: what stands in it beside the rubric."""
    from guerdon.judges.judging import Judge, prompt_of, rubric_of
    from guerdon.judges.tally import Tally

    endpoint = _endpoint_of(said)
    text = prompt_of(prompt, rubric=rubric_of(said["rubric"]), **filled_in)
    return Judge(endpoint, text, read, said["together"], said["cache"], Tally(endpoint.price))


def _endpoint_of(said: Mapping[str, Any]) -> Endpoint:
    from guerdon.judges.endpoint import Endpoint

    price = said["price"]
    if price is not None:
        if isinstance(price, str) or len(price) != 2 or not all(isinstance(p, int | float) and p >= 0 for p in price):
            raise InputError(
                f"judge: `price` should be two numbers, for a million prompt and completion tokens, got {price!r:.60}."
            )
        price = (float(price[0]), float(price[1]))
    return Endpoint(**{name: said[name] for name in ASKING}, body=dict(said["body"] or {}), price=price)


def needs_of(gold: str) -> frozenset[str]:
    """Fields that a judge reads: the completion and, with ``gold``, that field. The prompt is shown where there is one."""
    return frozenset({"completion"} | ({gold} if gold else set()))


def items_of(rollouts: Rollouts, units: Sequence[tuple[int, int]], gold: str = "") -> list[dict[str, Any]]:
    """What a judge is shown of each episode: the prompt, the answer and, with ``gold``, that field."""
    every = {unit: i for i, unit in enumerate(rollouts.units("episode"))}
    columns = {"prompt": "prompt", "answer": "completion"} | ({"reference": gold} if gold else {})
    values = {shown: rollouts.values_at(name, "episode") for shown, name in columns.items() if name in rollouts.fields}
    return [{shown: said[every[unit]] for shown, said in values.items()} for unit in units]


def written(name: str, factory: Callable[..., Any], said: Mapping[str, Any]) -> str:
    """The factory's call as text, with the arguments that differ from their defaults."""
    shown = []
    for p in inspect.signature(factory).parameters.values():
        value = list(said[p.name]) if isinstance(said[p.name], tuple) else said[p.name]
        default = list(p.default) if isinstance(p.default, tuple) else p.default
        if p.name in said and value != default:
            shown.append(repr(value) if p.kind is p.POSITIONAL_OR_KEYWORD else f"{p.name}={value!r}")
    return f"{name}({', '.join(shown)})"
