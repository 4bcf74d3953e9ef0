# SPDX-License-Identifier: Apache-2.0
"""Published methods, one file each, found by walking this package: a file here is a name for ``guerdon systems``.

A folder is a family, named by the role that its methods change; the folder's docstring states that role's contract. A file holds
one ``SYSTEM`` (see ``system``) and is imported only when somebody asks for it. A file of one's own works by its path.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from guerdon.errors import InputError
from guerdon.systems.system import System

_HERE = Path(__file__).parent


def slugs() -> list[str]:
    """Every system's slug, in order; nothing is imported."""
    return sorted(_places())


def family_of(slug: str) -> str:
    """The folder that a built-in system lies in."""
    return _place(slug)[0]


def path_of(slug_or_file: str) -> Path:
    """The source file of a system."""
    if _is_file(slug_or_file):
        return Path(slug_or_file)
    return _HERE.joinpath(*_place(slug_or_file)).with_suffix(".py")


@lru_cache(maxsize=256)
def module_of(slug_or_file: str) -> ModuleType:
    """The imported module of a slug, or of a file whose name ends in .py."""
    if _is_file(slug_or_file):
        return _load(Path(slug_or_file))
    return importlib.import_module(".".join((__name__, *_place(slug_or_file))))


def system_of(slug_or_file: str) -> System:
    """What the file says about itself."""
    system = getattr(module_of(slug_or_file), "SYSTEM", None)
    if not isinstance(system, System):
        got = "none" if system is None else type(system).__name__
        raise InputError(
            f"{path_of(slug_or_file)}: expected a `SYSTEM` of class System, got {got}. Usual cause: a part that several systems "
            "share; it belongs into a room of the library."
        )
    return system


def slug_of(slug_or_file: str) -> str:
    """
    >>> slug_of("mine/my_method.py"), slug_of("adastop")
    ('my-method', 'adastop')
    """
    return Path(slug_or_file).stem.replace("_", "-") if _is_file(slug_or_file) else slug_or_file


def _is_file(slug_or_file: str) -> bool:
    return slug_or_file.endswith(".py")


def _places() -> dict[str, tuple[str, str]]:
    """slug -> (folder, module), of every module that lies in a folder of this package."""
    found: dict[str, tuple[str, str]] = {}
    for folder in (m.name for m in pkgutil.iter_modules([str(_HERE)]) if m.ispkg):
        for module in pkgutil.iter_modules([str(_HERE / folder)]):
            slug = module.name.replace("_", "-")
            if slug in found:
                raise InputError(f"systems: expected one file named {slug}, got one in {found[slug][0]} and one in {folder}.")
            found[slug] = (folder, module.name)
    return found


def _place(slug: str) -> tuple[str, str]:
    places = _places()
    if slug not in places:
        near = difflib.get_close_matches(slug.replace("_", "-"), places, 1, 0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"systems: no system named {slug!r}; `guerdon systems list` shows the {len(places)} there are.{hint}")
    return places[slug]


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"systems: no file {path}; relative paths start at the working directory, {Path.cwd()}.")
    name = f"guerdon_system_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look a class's module up by name
    spec.loader.exec_module(module)
    return module
