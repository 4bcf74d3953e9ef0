# SPDX-License-Identifier: Apache-2.0
"""Reward functions written for other trainers, unchanged, as rewards here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Any

from torch import nn

from guerdon.errors import ExpressionError
from guerdon.rewards import checks
from guerdon.rewards.function import FunctionReward, checked_budget, field_values, source_version
from guerdon.rollouts import Rollouts, as_messages
from guerdon.scores import Bounds


def from_trl(
    function: Callable[..., Any],
    *,
    name: str = "",
    chat: bool | None = None,
    budget: float | None = None,
    bounds: tuple[float, float] = (-inf, inf),
) -> FunctionReward:
    """A reward function of TRL (``function(prompts=, completions=, completion_ids=, **columns, ...) -> list``) as a Reward.

    It is called as TRL 1.x calls it: every task field is a column; ``completions`` are strings, or lists of messages where the
    prompts are; ``trainer_state`` is None; what it gives to ``log_extra`` becomes the rationale; coroutines are awaited. None
    abstains. NaN is an error here, while TRL can't tell it from None.

    ``chat``: whether completions are passed as messages (default: as the rollouts have them). ``budget``: seconds an item.
    ``completion_ids`` are passed where the rollouts hold tokens; a function that must have them needs such rollouts.
    """
    if isinstance(function, (str, nn.Module)):
        raise ExpressionError(
            f"from_trl: expected a function, got {type(function).__name__}. A reward model is no function of text."
        )
    name = name or getattr(function, "__name__", type(function).__name__)
    parameters = inspect.signature(function).parameters
    ids = parameters.get("completion_ids")
    needs = {p.name for p in parameters.values() if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    needs -= {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"}
    if ids is not None and ids.default is ids.empty:
        needs.add("context_ids")
    return FunctionReward(
        name=name,
        bounds=Bounds(*bounds),
        needs=frozenset(needs | {"prompt", "completion"}),
        budget=checked_budget(budget, name),
        version=source_version(function),
        identity=function,
        function=partial(checks.call_trl, function),
        batched=True,
        arguments=partial(trl_columns, chat=chat),
    )


def trl_columns(rollouts: Rollouts, chat: bool | None = None) -> dict[str, list[Any]]:
    """What TRL passes to a reward function, one value for each episode."""
    names = [name for name, f in rollouts.fields.items() if f.level == "task" and name != "context_ids"]
    columns = {name: field_values(rollouts, name, "episode") for name in names}
    prompts, texts = columns.pop("prompt"), field_values(rollouts, "completion", "episode")
    if chat is None:
        chat = "messages" in rollouts.fields or any(not isinstance(p, str) for p in prompts)
    if "messages" in rollouts.fields:
        whole = field_values(rollouts, "messages", "episode")
        said = [messages[len(as_messages(p)) :] for p, messages in zip(prompts, whole, strict=True)]
    else:
        said = [[{"role": "assistant", "content": text}] for text in texts]
    columns |= {"prompts": [as_messages(p) for p in prompts] if chat else prompts, "completions": said if chat else texts}
    if "context_ids" in rollouts.fields:
        rows = [n for n, _ in rollouts.units("episode")]
        columns["completion_ids"] = [rollouts.action[n, : int(rollouts.length[n])].tolist() for n in rows]
    return columns


def from_verl(
    compute_score: Callable[..., Any],
    *,
    name: str = "",
    data_source: str = "data_source",
    ground_truth: str = "ground_truth",
    extra_info: str = "extra_info",
    kwargs: Mapping[str, Any] | None = None,
    budget: float | None = None,
    bounds: tuple[float, float] = (-inf, inf),
) -> FunctionReward:
    """verl's ``compute_score(data_source, solution_str, ground_truth, extra_info, **kwargs)`` as a Reward.

    It may return a number, or a dict whose ``score`` counts while its other keys become the rationale; it may be a coroutine
    function. ``data_source``, ``ground_truth`` and ``extra_info`` name fields; the first and the last may be missing ("" and {}).
    ``kwargs`` are verl's ``reward_kwargs``.
    """
    name = name or getattr(compute_score, "__name__", type(compute_score).__name__)

    def columns(rollouts: Rollouts) -> dict[str, list[Any]]:
        texts = field_values(rollouts, "completion", "episode")
        found = {f: field_values(rollouts, f, "episode") for f in (data_source, ground_truth, extra_info) if f in rollouts.fields}
        return {
            "solution_str": texts,
            "ground_truth": found[ground_truth],
            "data_source": found.get(data_source, [""] * len(texts)),
            "extra_info": found.get(extra_info, [{}] * len(texts)),
        }

    return FunctionReward(
        name=name,
        bounds=Bounds(*bounds),
        needs=frozenset({"completion", ground_truth}),
        budget=checked_budget(budget, name),
        version=source_version(compute_score),
        identity=compute_score,
        function=partial(checks.call_verl, compute_score, dict(kwargs or {})),
        arguments=columns,
    )
