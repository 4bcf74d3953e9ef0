# SPDX-License-Identifier: Apache-2.0
"""How parts get what they need: a function's required parameters are its needs, fetched by name.

So a recipe holds plain functions with their hyper-parameters bound (``bind(gae, gamma=0.99)``), and the loop never
learns what any of them is called. Two beginnings of a name mean something:

    ref_NAME   output NAME of the frozen reference: the same in the whole run, so fetched once per batch
    old_NAME   output NAME as it was before the batch's first update; ``old_log_prob`` is that of the distribution sampled from
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import torch
from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.errors import InputError
from guerdon.rollouts import Rollouts

Part = Callable[..., Any]

REFERENCE, BEFORE = "ref_", "old_"


class Bound(functools.partial):
    """A part with hyper-parameters bound; ``fetched``: parameters that it could do without and is to be given all the same."""

    fetched: frozenset[str] = frozenset()


def bind(part: Part, *fetched: str, **settings: Any) -> Part:
    """``part`` with hyper-parameters bound: numbers, tensors, schedules (step -> number), or the name of a level.

    ``fetched`` names parameters with a default that become needs.

    >>> def credit(reward, mask, gamma, value=None): ...
    >>> sorted(needs_of(bind(credit, gamma=1))), sorted(needs_of(bind(credit, "value", gamma=1)))
    (['mask', 'reward'], ['mask', 'reward', 'value'])
    """
    unknown = set(fetched) - set(inspect.signature(part).parameters)
    if unknown:
        raise InputError(f"bind: `{name_of(part)}` has no parameter {', '.join(sorted(unknown))} that could be fetched for it.")
    bound = Bound(part, **settings)
    bound.fetched = frozenset(fetched) | (part.fetched if isinstance(part, Bound) else frozenset())
    return bound


def function_in(part: Part) -> Part:
    """The function inside any number of partials."""
    while isinstance(part, functools.partial):
        part = part.func
    return part


def name_of(part: Part) -> str:
    """The name of the function inside."""
    part = function_in(part)
    return getattr(part, "__name__", type(part).__name__)


def names_of(parts: Iterable[Part]) -> list[str]:
    """``name_of`` each; a name that comes again is numbered.

    >>> names_of([sorted, len, sorted])
    ['sorted', 'len', 'sorted_2']
    """
    names = [name_of(p) for p in parts]
    return [n if (k := names[: i + 1].count(n)) == 1 else f"{n}_{k}" for i, n in enumerate(names)]


@functools.lru_cache(maxsize=1024)
def needs_of(part: Part) -> frozenset[str]:
    """The parameters without a default and not yet bound, and those to be fetched."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = (p.name for p in inspect.signature(part).parameters.values() if p.default is p.empty and p.kind in kinds)
    return frozenset(needed) | (part.fetched if isinstance(part, Bound) else frozenset())


def needs_of_all(parts: Iterable[Part]) -> frozenset[str]:
    return frozenset[str]().union(*(needs_of(p) for p in parts))


class Ingredients(dict[str, Any]):
    """What parts may ask for by name: tensors of the batch's rows, every step field of its Rollouts, its comparisons.

    Everything but ``first``, ``second`` and ``target``, which are of pairs, has a first dimension of rows.
    """

    def __init__(self, rollouts: Rollouts, comparisons: Comparisons | None = None) -> None:
        fields = {k: f.values for k, f in rollouts.fields.items() if f.level == "step" and isinstance(f.values, Tensor)}
        super().__init__(
            fields,
            action=rollouts.action,
            mask=rollouts.mask,
            episode=rollouts.level("episode"),
            terminated=rollouts.terminated,
            truncated=rollouts.truncated,
            group=rollouts.group,
        )
        if rollouts.log_prob is not None:
            self["old_log_prob"] = rollouts.log_prob
        if comparisons is not None:
            self.update(_pairs(comparisons, rollouts.action.device))
        self.levels: Mapping[str, Tensor] = rollouts.levels

    def copy(self) -> Ingredients:
        """The same tensors under names of its own."""
        some = Ingredients.__new__(Ingredients)
        some.update(self)
        some.levels = self.levels
        return some

    def at(self, rows: Tensor | slice, comparisons: Comparisons | None, names: Set[str] | None = None) -> Ingredients:
        """Those of some rows, of ``names`` as far as they are here, with ``comparisons`` that count these rows."""
        some = Ingredients.__new__(Ingredients)
        some.update(
            {k: self[k][rows] for k in (self if names is None else names & self.keys()) if k not in ("first", "second", "target")}
        )
        if comparisons is not None:
            some.update(_pairs(comparisons, self["mask"].device))
        some.levels = {k: v[rows] for k, v in self.levels.items()}
        return some

    def steps(self, rows: Tensor, steps: Tensor, names: Set[str]) -> Ingredients:
        """Those of ``names``, as far as they are here, of some steps, each as a row of its own."""
        some, shape = Ingredients.__new__(Ingredients), self["mask"].shape
        for k in names & self.keys():
            some[k] = self[k][rows, steps][:, None] if self[k].shape[:2] == shape else self[k][rows]
        one = torch.zeros(len(rows), 1, dtype=torch.long, device=rows.device)
        some.levels = {"step": one, "turn": one, "episode": one}
        some["episode"] = one
        return some

    def call(self, part: Part, step: int, **more: Any) -> Any:
        """``part`` with its needs from here; bound schedules are read at ``step``, a bound level's name becomes its tensor."""
        given = {**self, **more}
        missing = needs_of(part) - given.keys()
        if missing:
            raise InputError(
                f"{name_of(part)}: needs {', '.join(f'`{m}`' for m in sorted(missing))}, which this recipe has no source for; "
                f"there are {', '.join(sorted(given))}. Usual cause: a policy without reference or value head, a stage without "
                "reward or credit, or a hyper-parameter without a default that was not bound."
            )
        bound = {k: self._read(part, k, v, step) for k, v in _keywords(part).items() if callable(v) or isinstance(v, str)}
        return part(**{n: given[n] for n in needs_of(part)}, **bound)

    def _read(self, part: Part, name: str, value: Any, step: int) -> Any:
        if name == "level" and isinstance(value, str):
            if value not in self.levels:
                raise InputError(
                    f"{name_of(part)}: `level` should be one of the rollouts' levels, {', '.join(self.levels)}, got {value!r}. "
                    "Usual cause: nothing splits the rollouts at it."
                )
            return self.levels[value]
        return at(value, step)


def _pairs(c: Comparisons, device: torch.device) -> dict[str, Tensor]:
    """Pairs of whole episodes are rows; those of a finer level are (row, unit)."""
    whole = c.level == "episode"
    first, second = (x[:, 0] if whole else x for x in (c.first, c.second))
    return {"first": first.to(device), "second": second.to(device), "target": c.target.to(device)}


def _keywords(part: Part) -> Mapping[str, Any]:
    return part.keywords if isinstance(part, functools.partial) else {}


def at(value: Any, step: int) -> Any:
    """A number, or a schedule read at ``step``."""
    return value(step) if callable(value) else value
