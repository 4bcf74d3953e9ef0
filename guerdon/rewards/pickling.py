# SPDX-License-Identifier: Apache-2.0
"""Pickling of rewards made by a decorator: a function's name in its module is its reward's, so pickle does not find it there."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any


@dataclass(frozen=True)
class Decorated:
    """Stands for the function of the reward that has its name."""

    module: str
    name: str

    def function(self) -> Any:
        return _named(importlib.import_module(self.module), self.name).function


def stored(value: Any) -> Any:
    """``value``, or what stands for it where pickle would look for it under a name that a reward has taken."""
    if isinstance(value, partial):
        return partial(stored(value.func), *value.args, **value.keywords)
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "<none>")
    if module not in sys.modules or "<" in name:
        return value
    taken = _named(sys.modules[module], name)
    return Decorated(module, name) if taken is not value and getattr(taken, "function", None) is value else value


def restored(value: Any) -> Any:
    if isinstance(value, partial):
        return partial(restored(value.func), *value.args, **value.keywords)
    return value.function() if isinstance(value, Decorated) else value


def _named(module: Any, name: str) -> Any:
    return reduce(lambda thing, part: getattr(thing, part, None), name.split("."), module)
