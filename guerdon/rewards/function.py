# SPDX-License-Identifier: Apache-2.0
"""Rewards from functions: ``@reward`` and what runs their calls."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor

from guerdon.errors import ExpressionError
from guerdon.levels import is_finer, unit_count
from guerdon.rewards.node import Reward
from guerdon.rewards.pool import Outcome, run_here, shared_pool
from guerdon.rewards.splitters import compiled, with_segments
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Status

DERIVED = ("index", "step_count")
"""Arguments without a field: the unit's place in its row, and how many steps the policy took in it."""


def run_items(
    function: Callable[..., Any], items: Sequence[dict[str, Any]], budget: float | None = None, batched: bool = False
) -> list[Outcome]:
    """An Outcome for each item, in order: in this process without a budget, else in the worker pool, ``budget`` seconds each."""
    if budget is None:
        return run_here(function, items, batched)
    return shared_pool().run(function, items, budget, batched)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class FunctionReward(Reward):
    """A reward that calls a function for each unit (``batched``: with lists of all) and takes its arguments from fields by name.

    reads      argument -> field, where they differ (argument ``answer`` from a column ``solution``)
    every      it receives every other field too (``**fields``)
    arguments  makes the columns of arguments, one value a unit, instead of ``reads``
    split      pattern that cuts the completion into the units of ``level``; "": the level is there already
    written    its text in the expression language, where it is not its name
    """

    function: Callable[..., Any]
    batched: bool = False
    reads: Mapping[str, str] = field(default_factory=dict)
    every: bool = False
    arguments: Callable[[Rollouts], dict[str, list[Any]]] | None = None
    split: str = ""
    written: str = ""

    def expression(self) -> str:
        return self.written or self.name

    def label(self) -> str:
        return self.name if self.reference else str(self)

    def with_budget(self, seconds: float) -> FunctionReward:
        return self if self.budget is not None else replace(self, budget=checked_budget(seconds, self.name))

    def prepare(self, rollouts: Rollouts) -> Rollouts:
        return with_segments(rollouts, self.split, self.level) if self.split else rollouts

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        units, items = self.items(rollouts)
        return self.scored(rollouts, units, run_items(self.function, items, self.budget, self.batched))

    @property
    def begins(self) -> bool:
        """Not where it runs in the worker pool: what it would begin with is in another process."""
        return self.budget is None and callable(getattr(self.function, "begin", None))

    def begin(self, rollouts: Rollouts) -> None:
        """Hand the items to the function's own ``begin``, if it has one and the rows have all that it reads by now."""
        if self.begins and self.needs <= rollouts.fields.keys():
            ready = self.prepare(rollouts)
            if self.level in ready.levels:
                self.function.begin(self.items(ready)[1])  # type: ignore[attr-defined]

    def __call__(self, *args: Any, **fields: Any) -> Any:
        """The function itself; with ``completions=`` (and one list a field), Scores as of any reward."""
        if "completions" in fields and not args and "completions" not in self.reads:
            return super().__call__(**fields)
        return self.function(*args, **fields)

    def items(self, rollouts: Rollouts) -> tuple[list[tuple[int, int]], list[dict[str, Any]]]:
        """(row, unit) of the units in which the policy took a step, and the function's arguments for each."""
        counts = _counts(rollouts.level(self.level), rollouts.mask).tolist()
        units = list(rollouts.units(self.level))
        columns = self.arguments(rollouts) if self.arguments else self._columns(rollouts, units, counts)
        names, values = list(columns), list(columns.values())
        kept = [i for i, (n, k) in enumerate(units) if counts[n][k]]
        return [units[i] for i in kept], [{name: v[i] for name, v in zip(names, values, strict=True)} for i in kept]

    def _columns(self, rollouts: Rollouts, units: list[tuple[int, int]], counts: list[list[int]]) -> dict[str, list[Any]]:
        columns = {}
        for argument, name in self.reads.items():
            if name == "index" and (self.split or name not in rollouts.fields):
                columns[argument] = [k for _, k in units]
            elif name == "step_count":
                columns[argument] = [counts[n][k] for n, k in units]
            elif name in rollouts.fields or name in self.needs:  # not there: it has a default
                columns[argument] = field_values(rollouts, name, self.level)
        if self.every:
            others = sorted(set(rollouts.fields) - set(self.reads.values()) - set(self.reads))
            columns |= {f: field_values(rollouts, f, self.level) for f in others if _serves(rollouts, f, self.level)}
        return columns

    def scored(self, rollouts: Rollouts, units: Sequence[tuple[int, int]], outcomes: Sequence[Outcome]) -> Component:
        """The outcomes of units as a Component; a unit without an outcome is NONE."""
        shape, device = (len(rollouts), unit_count(rollouts.level(self.level))), rollouts.action.device
        # Scores of a float64 policy are float64, so that nothing downstream is rounded to less than it was sampled with.
        dtype = torch.get_default_dtype() if rollouts.log_prob is None else rollouts.log_prob.dtype
        values = torch.full(shape, math.nan, dtype=dtype)
        status = torch.full(shape, int(Status.NONE), dtype=torch.int8)
        if units:
            n, k = torch.tensor(units).unbind(1)
            values[n, k] = torch.tensor([o.value for o in outcomes], dtype=values.dtype)
            status[n, k] = torch.tensor([int(o.status) for o in outcomes], dtype=torch.int8)
        reasons = {unit: o.reason for unit, o in zip(units, outcomes, strict=True) if o.reason}
        return Component(
            self.name, self.level, values.to(device), status.to(device), reasons, self.bounds, self.spread, version=self.version
        )


def _counts(level: Tensor, mask: Tensor) -> Tensor:
    """[N, K] steps that the policy took in each unit."""
    counted = (level >= 0) & mask
    out = torch.zeros(level.shape[0], unit_count(level), dtype=torch.long, device=level.device)
    return out.scatter_add(1, level.clamp(min=0), counted.long()) if out.shape[1] else out


def field_values(rollouts: Rollouts, name: str, level: str) -> list[Any]:
    """Field ``name`` for each unit of ``level``, numbers in tensors as plain numbers."""
    values = rollouts.values_at(name, level)
    return [v.item() if isinstance(v, Tensor) and v.dim() == 0 else v for v in values]


def _serves(rollouts: Rollouts, name: str, level: str) -> bool:
    """Whether a unit of ``level`` has one value of the field: it is as coarse or coarser."""
    of = rollouts.field(name).level
    return of in ("task", level) or is_finer(level, of)


# ---- making one


@overload
def reward(function: Callable[..., Any], /) -> FunctionReward: ...


@overload
def reward(
    *,
    batched: bool = ...,
    budget: float | None = ...,
    level: str = ...,
    split: str = ...,
    bounds: tuple[float, float] = ...,
    spread: str = ...,
    name: str = ...,
    version: str = ...,
    reads: Mapping[str, str] | None = ...,
) -> Callable[[Callable[..., Any]], FunctionReward]: ...


def reward(
    function: Callable[..., Any] | None = None,
    /,
    *,
    batched: bool = False,
    budget: float | None = None,
    level: str = "episode",
    split: str = "",
    bounds: tuple[float, float] = (-math.inf, math.inf),
    spread: str = "last",
    name: str = "",
    version: str = "",
    reads: Mapping[str, str] | None = None,
) -> Any:
    """A Reward made of a function that returns a number, a bool or None (abstain) for one unit; stays callable as it was.

    Arguments are taken by name from the fields of the rollouts: ``prompt``, ``completion``, and any column of the task. One
    with a default may be missing there; ``**fields`` receives all others; ``index`` is the unit's place in its row,
    ``step_count`` the number of steps the policy took in it. What it raises, and NaN, is an error of that unit, never a 0.

    - batched: the function takes a list for each argument and returns as many values. It may be called with any part of a batch.
    - budget: seconds one item may take; it then runs in the worker pool and is killed beyond that. None: in this process.
    - level: the units it scores; ``split`` a pattern that cuts the completion into them (field ``segment`` for level "segment").
    - bounds: interval its values lie in. version: changes when its values would (default: a hash of the function's source).
    - reads: argument -> field, where the names differ.

    A function without a budget that has a method ``begin(items)`` is told of units before the whole batch is there, one dict of
    arguments each, and may start on them in the background; it is then called as ever.

    >>> @reward
    ... def correct(completion, answer):
    ...     return completion.strip() == answer
    >>> correct(completions=["4", "5"], answer=["4", "4"]).total.values.tolist()
    [[1.0], [0.0]]
    >>> correct(completion="4", answer="4")
    True
    """
    if function is None:
        return partial(
            reward,
            batched=batched,
            budget=budget,
            level=level,
            split=split,
            bounds=bounds,
            spread=spread,
            name=name,
            version=version,
            reads=reads,
        )
    name = name or getattr(function, "__name__", type(function).__name__)
    arguments, needs, every = arguments_of(function, name, reads or {})
    needs -= {*DERIVED}
    if split:
        compiled(split, name)
        needs = (needs - {level}) | {"completion", "offset"}
    version = version or source_version(function)
    reference = path_reference(function)
    made = FunctionReward(
        name=name,
        level=level,
        bounds=Bounds(*bounds),
        spread=spread,
        needs=frozenset(needs),
        budget=checked_budget(budget, name),
        version=version,
        identity=version if reference else function,
        reference=reference,
        function=function,
        batched=batched,
        reads=arguments,
        every=every,
        split=split,
    )
    object.__setattr__(made, "__doc__", function.__doc__)
    return made


def checked_budget(budget: float | None, whose: str) -> float | None:
    if budget is not None and not (isinstance(budget, (int, float)) and 0 < budget < math.inf):
        raise ExpressionError(f"{whose}: `budget` should be seconds above 0, or None to run in this process, got {budget!r}.")
    return budget


def arguments_of(function: Callable[..., Any], whose: str, reads: Mapping[str, str]) -> tuple[dict[str, str], set[str], bool]:
    """(argument -> field, fields of the arguments without a default, whether it takes ``**fields``)."""
    kinds = inspect.signature(function).parameters.values()
    if wrong := [p.name for p in kinds if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)]:
        raise ExpressionError(
            f"{whose}: arguments are passed by the name of a field, but `{'`, `'.join(wrong)}` can only be passed by position."
        )
    named = [p for p in kinds if p.kind is not p.VAR_KEYWORD]
    if unknown := set(reads) - {p.name for p in named}:
        have = ", ".join(p.name for p in named)
        raise ExpressionError(
            f"{whose}: `reads` should name arguments of the function ({have}), got {', '.join(sorted(unknown))}."
        )
    fields = {p.name: reads.get(p.name, p.name) for p in named}
    required = {fields[p.name] for p in named if p.default is p.empty}
    return fields, required, any(p.kind is p.VAR_KEYWORD for p in kinds)


def source_version(function: Any) -> str:
    """Eight hex digits of the SHA-256 of a function's source, or of its code where there is no source to be had."""
    while isinstance(function, partial):
        function = function.func
    thing = function if inspect.isroutine(function) else type(function)
    try:
        text = textwrap.dedent(inspect.getsource(thing)).encode()
    except (OSError, TypeError):
        code = getattr(thing, "__code__", None)
        text = code.co_code + repr(code.co_consts).encode() if code else repr(thing).encode()
    return hashlib.sha256(text).hexdigest()[:8]


def path_reference(function: Any) -> str:
    """``path.py:name`` of a function at the top level of a file, relative to the working directory if it lies below; else ""."""
    code, name = getattr(function, "__code__", None), getattr(function, "__qualname__", "<none>")
    if code is None or not name.isidentifier() or not os.path.isfile(code.co_filename):
        return ""
    path = os.path.abspath(code.co_filename)
    below = os.path.relpath(path)
    return f"{path if below.startswith(os.pardir) else below}:{name}"
