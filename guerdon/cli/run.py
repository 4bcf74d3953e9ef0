# SPDX-License-Identifier: Apache-2.0
"""Run a recipe by name, or one of your own in a Python file.

NAME_OR_FILE is a built-in recipe or a file with one function that returns a Recipe; key=value are that function's arguments.
The same command goes on with a run that was interrupted.
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path
from typing import Any

from guerdon.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME_OR_FILE", help="built-in recipe, or path/to/file.py")
    parser.add_argument("settings", metavar="key=value", nargs="*", help="arguments of the recipe, e.g. seeds=11,12")
    parser.add_argument("--out", type=Path, help="run directory (default: runs/NAME)")
    parser.add_argument("--seed", type=int, help="short for seed=S")


def execute(options: argparse.Namespace) -> None:
    settings = dict(parse_setting(s) for s in options.settings)
    if options.seed is not None:
        settings["seed"] = options.seed
    run(options.name, settings, options.out or Path("runs") / Path(options.name).stem)


def run(name: str, settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """Run, report, and say where to look."""
    from guerdon import recipes
    from guerdon.report import write_report
    from guerdon.training.observers import Terminal
    from guerdon.training.run import run as run_directory

    result = run_directory(recipes.make, name, settings, out, [Terminal()], command_of(name, settings, out))
    page = write_report([out])
    verdict = result.get("verdict")
    if isinstance(verdict, dict) and "text" in verdict:
        print(f"\n{verdict['text']}")
    print(f"\nreport   {page}\nresult   {out / 'result.json'}")
    return result


def command_of(name: str, settings: dict[str, Any], out: Path) -> list[str]:
    """The command that repeats a run."""
    told = [f"{k}={','.join(map(str, v)) if isinstance(v, (list, tuple)) else v}" for k, v in settings.items()]
    return ["guerdon", "run", name, *told, "--out", str(out)]


def parse_setting(text: str) -> tuple[str, Any]:
    """``key=value``; the value is a Python literal where it reads as one and text otherwise.

    >>> parse_setting("seeds=11,12"), parse_setting("lr=1e-3"), parse_setting("model=./tiny"), parse_setting("on=true")
    (('seeds', (11, 12)), ('lr', 0.001), ('model', './tiny'), ('on', True))
    """
    key, eq, value = text.partition("=")
    if not eq or not key.isidentifier():
        raise InputError(f"run: expected key=value, got {text!r}. Usual cause: a space around the equals sign.")
    if value in ("true", "false"):
        return key, value == "true"
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
