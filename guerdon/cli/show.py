# SPDX-License-Identifier: Apache-2.0
"""Print a reward expression as a tree, or what a recipe is made of and which arguments it has."""

from __future__ import annotations

import argparse
import inspect


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="EXPR_OR_RECIPE", help="e.g. 'numeric + 0.2*length' or quickstart or path/to/recipe.py")


def execute(options: argparse.Namespace) -> None:
    from guerdon import recipes

    what = options.what
    if what in recipes.names() or what.endswith(".py"):
        show_recipe(what)
        return
    from guerdon.rewards.parse import parse

    print(parse(what).tree())


def show_recipe(name: str) -> None:
    from guerdon import recipes

    function = recipes.find(name)
    print(f"{name}: {inspect.getdoc(function) or 'no description'}\n\narguments")
    for p in inspect.signature(function).parameters.values():
        print(f"  {p.name:20s} {'required' if p.default is p.empty else p.default!r}")
