# SPDX-License-Identifier: Apache-2.0
"""Print a reward expression as a tree, or what a recipe is made of and which arguments it has; without WHAT, what there is."""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="WHAT", nargs="?", help="e.g. 'numeric + 0.2*length' or quickstart or path/to/recipe.py")


def execute(options: argparse.Namespace) -> None:
    from guerdon import recipes
    from guerdon.rewards.parse import parse

    what = options.what
    if what is None:
        show_names()
    elif what.endswith(".py") or difflib.get_close_matches(what, recipes.names(), 1, 0.8):
        show_recipe(what)
    else:
        print(parse(what).tree())


def show_names() -> None:
    """Every recipe and every built-in reward, with the first line of its description."""
    from guerdon import recipes
    from guerdon.rewards.parse import builtin_names

    for title, found in (("recipes", {n: recipes.find(n) for n in recipes.names()}), ("rewards", builtin_names())):
        first = {name: [(inspect.getdoc(f) or "").partition("\n")[0].replace("``", "`")] for name, f in sorted(found.items())}
        print(f"{title}\n{listed(first)}\n")
    print("guerdon show NAME says more of a recipe; guerdon show 'numeric + 0.2*length' prints a reward as a tree.")


def show_recipe(name: str) -> None:
    """Description, arguments with default and meaning, and the rewards if the recipe can be made without arguments."""
    from guerdon import recipes

    function = recipes.find(name)
    parameters = inspect.signature(function).parameters
    about, meaning = described(function)
    print(f"{name}: {about or 'no description'}\n")
    if parameters:
        rows = {
            p.name: ["required" if p.default is p.empty else f"{p.default!r}", meaning.get(p.name, "")]
            for p in parameters.values()
        }
        print(f"arguments\n{listed(rows)}\n")
    if all(p.default is not p.empty for p in parameters.values()):
        for title, tree in trees(recipes.make(name, {})).items():
            print(f"{title}\n{textwrap.indent(tree, '  ')}\n")


def trees(made: Any) -> dict[str, str]:
    """title -> tree of each reward of a Recipe's stages, or of a Study's arms as it tells of them."""
    told = made.about.get("reward_tree")
    if isinstance(told, Mapping):
        return {f"reward of {arm}": tree for arm, tree in told.items()}
    stages = [s for s in getattr(made, "stages", ()) if hasattr(s.reward, "tree")]
    return {f"reward of stage {s.name}": s.reward.tree() for s in stages}


def described(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """(description, argument -> meaning) of a docstring that says ``name: meaning``, on lines of their own or after ; or a stop.

    >>> def recipe(steps, lr):
    ...     '''Learns. It stops.
    ...
    ...     steps: how many; lr: the
    ...     step size.
    ...     '''
    >>> described(recipe)
    ('Learns. It stops.', {'steps': 'how many', 'lr': 'the step size'})
    """
    text = inspect.getdoc(function) or ""
    names = "|".join(map(re.escape, inspect.signature(function).parameters)) or r"(?!)"
    about, *pieces = re.split(rf"(?:^|;\s+|(?<=\.)\s+|\n\s*)({names}):\s", text)
    meaning = {name: " ".join(said.split()).rstrip(".;") for name, said in zip(pieces[::2], pieces[1::2], strict=True)}
    return about.strip(), meaning


def listed(rows: Mapping[str, Sequence[str]]) -> str:
    """Names and cells in columns, the last cell wrapped to the terminal's width."""
    table = [[name, *cells] for name, cells in rows.items()]
    wide = [max(len(r[i]) for r in table) for i in range(len(table[0]) - 1)]
    indent = 2 + sum(w + 2 for w in wide)
    width = max(min(shutil.get_terminal_size().columns, 130), indent + 30)
    lines = []
    for *cells, last in table:
        head = "  " + "".join(f"{c:{w}s}  " for c, w in zip(cells, wide, strict=True))
        lines += textwrap.wrap(last, width, initial_indent=head, subsequent_indent=" " * indent, drop_whitespace=True) or [
            head.rstrip()
        ]
    return "\n".join(lines)
