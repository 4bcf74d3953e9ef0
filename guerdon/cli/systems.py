# SPDX-License-Identifier: Apache-2.0
"""List published methods, show one, train one of its arms, search its grid, or verify its claims.

  guerdon systems list                       what there is, and whether its claim held
  guerdon systems show SLUG                  idea, equation, claim, stored result
  guerdon systems run SLUG --arm A --seed S  one training of one arm; key=value sets hyper-parameters
  guerdon systems search SLUG                the grid of its comparison, on development seeds
  guerdon systems verify SLUG                its claims to a verdict; --full trains all arms

SLUG may be a path to a system file of your own. The same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, act, about in (
        ("list", list_all, "every system with its roles, claims and last verdict"),
        ("show", show, "one system: idea, claim and stored result"),
        ("run", run, "one training of one arm"),
        ("search", search, "every point of a comparison's grid, on development seeds"),
        ("verify", verify, "its claims, to a verdict"),
        ("table", table, "the page of all systems, in Markdown"),
    ):
        action = actions.add_parser(name, help=about, description=about, allow_abbrev=False)
        action.set_defaults(act=act)
        if name in ("show", "run", "search", "verify"):
            action.add_argument("slug", metavar="SLUG", help="name of a system, or path/to/file.py")
        if name in ("run", "search"):
            action.add_argument("--claim", type=int, default=1, help="number of the comparison among its claims (default: 1)")
        if name == "run":
            action.add_argument("--arm", help="arm of the comparison (default: the one that should be better)")
            action.add_argument("--seed", type=int, default=0)
            action.add_argument("--out", type=Path, help="run directory (default: below runs/systems/SLUG)")
            action.add_argument("settings", metavar="key=value", nargs="*", help="hyper-parameters of the arm")
        if name == "search":
            action.add_argument("--seeds", type=int, default=3, help="development seeds of each point, from 0 on (default: 3)")
        if name == "verify":
            action.add_argument("--full", action="store_true", help="train all arms, not only the two that decide")
        if name == "table":
            action.add_argument("--write", type=Path, metavar="PAGE", help="write the page and its pictures (default: print it)")


def execute(options: argparse.Namespace) -> None:
    options.act(options)


def list_all(options: argparse.Namespace) -> None:
    from guerdon import systems
    from guerdon.systems.telling import row_of

    rows = [("slug", "title", "family", "roles", "claims", "verdict"), *map(row_of, systems.slugs())]
    wide = [max(len(row[i]) for row in rows) for i in range(5)]
    for *cells, last in rows:
        print("  ".join([*(f"{c:{w}s}" for c, w in zip(cells, wide, strict=True)), last]))


def show(options: argparse.Namespace) -> None:
    from guerdon.systems.telling import told

    print(told(options.slug))


def run(options: argparse.Namespace) -> None:
    from guerdon.cli.run import value_of
    from guerdon.systems.single import train_one

    choice = {key: value_of(value) for key, _, value in (s.partition("=") for s in options.settings)}
    out, result = train_one(options.slug, options.claim - 1, options.arm, options.seed, choice, options.out)
    for key, value in result.items():
        if isinstance(value, int | float) and key != "schema":
            print(f"{key:24s} {value:.6g}")
    print(f"\n{out}")


def search(options: argparse.Namespace) -> None:
    from guerdon.systems.results import path_of
    from guerdon.systems.searching import search
    from guerdon.systems.telling import search_table

    found = search(options.slug, options.claim - 1, options.seeds)
    print(search_table(found))
    print(f"\nthe best of each arm, to be written into the claim:\n\n    chosen={found['best']!r},")
    print(f"\nstored  {path_of(options.slug)}")


def verify(options: argparse.Namespace) -> None:
    from guerdon.systems.results import path_of
    from guerdon.systems.telling import claim_text
    from guerdon.systems.verifying import verify

    command = ["guerdon", "systems", "verify", options.slug, *(["--full"] if options.full else [])]
    result = verify(options.slug, options.full, command)
    for claim in result["claims"]:
        print("\n" + textwrap.indent(claim_text(claim), "  "))
    print(f"\n{result['claims'][0]['verdict']}\n\nstored  {path_of(options.slug)}")


def table(options: argparse.Namespace) -> None:
    from guerdon.systems.table import page, write

    if options.write:
        print("\n".join(map(str, write(options.write))))
    else:
        print(page())
