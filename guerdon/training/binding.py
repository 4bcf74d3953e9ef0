# SPDX-License-Identifier: Apache-2.0
"""How parts get what they need: a function's required parameters are its needs, fetched by name.

So a recipe holds plain functions with their hyper-parameters bound (``functools.partial(gae, gamma=0.99)``), and the loop never
learns what any of them is called.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.errors import InputError
from guerdon.rollouts import Rollouts

Part = Callable[..., Any]


def name_of(part: Part) -> str:
    """The name of the function inside any number of partials."""
    while isinstance(part, functools.partial):
        part = part.func
    return getattr(part, "__name__", type(part).__name__)


@functools.cache
def needs_of(part: Part) -> frozenset[str]:
    """The parameters without a default and not yet bound.

    >>> sorted(needs_of(functools.partial(lambda reward, mask, gamma: 0, gamma=1)))
    ['mask', 'reward']
    """
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(p.name for p in inspect.signature(part).parameters.values() if p.default is p.empty and p.kind in kinds)


class Ingredients(dict[str, Any]):
    """What parts may ask for by name: tensors of the batch, and every step field of its Rollouts."""

    def __init__(self, rollouts: Rollouts, comparisons: Comparisons | None = None, **more: Any) -> None:
        super().__init__(
            action=rollouts.action,
            mask=rollouts.mask,
            episode=rollouts.level("episode"),
            terminated=rollouts.terminated,
            truncated=rollouts.truncated,
            group=rollouts.group,
            **({} if rollouts.log_prob is None else {"old_log_prob": rollouts.log_prob}),
            **{k: f.values for k, f in rollouts.fields.items() if f.level == "step" and isinstance(f.values, Tensor)},
        )
        if comparisons is not None:
            whole = comparisons.level == "episode"
            self.update(
                first=comparisons.first[:, 0] if whole else comparisons.first,
                second=comparisons.second[:, 0] if whole else comparisons.second,
                target=comparisons.target,
            )
        self.levels = rollouts.levels
        self.update(more)

    def call(self, part: Part, step: int, **more: Any) -> Any:
        """``part`` with its needs from here, schedules among its bound arguments read at ``step``, level names turned into tensors."""
        given = {**self, **more}
        missing = needs_of(part) - given.keys()
        if missing:
            raise InputError(
                f"{name_of(part)}: needs {', '.join(f'`{m}`' for m in sorted(missing))}, which this recipe has no source for; there are "
                f"{', '.join(sorted(given))}. Usual cause: no reference policy, no value head, or no group for a part that needs one."
            )
        bound = {k: self._read(k, v, step) for k, v in _keywords(part).items() if callable(v) or isinstance(v, str)}
        return part(**{n: given[n] for n in needs_of(part)}, **bound)

    def _read(self, name: str, value: Any, step: int) -> Any:
        if name == "level" and isinstance(value, str):
            if value not in self.levels:
                raise InputError(f"level={value!r}: the rollouts have levels {', '.join(self.levels)}. Usual cause: nothing splits the rollouts at it.")
            return self.levels[value]
        return value(step) if callable(value) else value


def _keywords(part: Part) -> Mapping[str, Any]:
    return part.keywords if isinstance(part, functools.partial) else {}


def at(value: Any, step: int) -> Any:
    """A number, or a schedule read at ``step``."""
    return value(step) if callable(value) else value


def not_ok(x: Tensor) -> Tensor:
    """Where a status that isn't ok reached a tensor function."""
    return torch.isnan(x)
