# SPDX-License-Identifier: Apache-2.0
"""Ready-made recipes, found by walking this folder: a file here is a name for ``guerdon run``.

A recipe file has one function that returns a Recipe or a Study; its arguments are what ``key=value`` sets on the command line.
A user's own file works the same way.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from guerdon.errors import InputError
from guerdon.training.recipe import Recipe
from guerdon.training.study import Study


def names() -> list[str]:
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__))


def find(name_or_file: str) -> Callable[..., Any]:
    """The recipe function of a built-in name or of a Python file."""
    if name_or_file.endswith(".py"):
        return _function_of(_load(Path(name_or_file)), name_or_file)
    if name_or_file not in names():
        near = difflib.get_close_matches(name_or_file, names(), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"run: no recipe named {name_or_file!r}; there are {', '.join(names())}, or give a path ending in .py.{hint}"
        )
    return _function_of(importlib.import_module(f"{__name__}.{name_or_file.replace('-', '_')}"), name_or_file)


def make(name_or_file: str, arguments: Mapping[str, Any]) -> Any:
    """Call the recipe function; an argument it does not have is an error that lists those it has."""
    function = find(name_or_file)
    have = inspect.signature(function).parameters
    unknown = arguments.keys() - have.keys()
    if unknown:
        near = difflib.get_close_matches(min(unknown), have, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(n if p.default is p.empty else f"{n}={p.default!r}" for n, p in have.items()) or "none"
        raise InputError(f"{name_or_file}: no argument {', '.join(sorted(unknown))}; it has {listed}.{hint}")
    missing = [n for n, p in have.items() if p.default is p.empty and n not in arguments]
    if missing:
        raise InputError(
            f"{name_or_file}: needs {', '.join(f'{m}=...' for m in missing)}, got {', '.join(arguments) or 'no arguments'}."
        )
    for name, value in arguments.items():
        _check_number(f"{name_or_file}: `{name}`", have[name], value)
    made = function(**arguments)
    if not isinstance(made, Recipe | Study):
        raise InputError(f"{name_or_file}: `{function.__name__}` should return a Recipe or a Study, got {type(made).__name__}.")
    return made


def _check_number(whose: str, parameter: inspect.Parameter, value: Any) -> None:
    """An argument that is a number by default, or an integer by its annotation, should be one; of several integers, each."""
    of, several = type(parameter.default), value if isinstance(value, tuple | list) else (value,)
    if of is tuple and {type(x) for x in parameter.default} == {int} != {type(x) for x in several}:
        raise InputError(f"{whose} should be integers, such as {','.join(map(str, parameter.default))}, got {value!r}.")
    wanted: Any = {bool: bool, int: int | float, float: int | float}.get(of)
    wanted = int if parameter.annotation in (int, "int") else wanted
    if wanted is not None and (not isinstance(value, wanted) or isinstance(value, bool) is not (of is bool)):
        kind = "true or false" if of is bool else "an integer" if wanted is int else "a number"
        raise InputError(f"{whose} should be {kind}, got {value!r}.")


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"run: no file {path}; relative paths start at the working directory, {Path.cwd()}.")
    name = f"guerdon_recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up by name
    spec.loader.exec_module(module)
    return module


def _function_of(module: ModuleType, whose: str) -> Callable[..., Any]:
    """`recipe`, or else the one public function defined in the file."""
    if callable(getattr(module, "recipe", None)):
        return module.recipe
    own = [
        f for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__ and not n.startswith("_")
    ]
    if len(own) != 1:
        raise InputError(
            f"{whose}: expected a function `recipe`, or one public function, that returns a Recipe; got {len(own)}: "
            f"{', '.join(f.__name__ for f in own) or 'none'}. Usual cause: helpers without a leading underscore."
        )
    return own[0]
