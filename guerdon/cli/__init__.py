# SPDX-License-Identifier: Apache-2.0
"""The command line. One file per command; heavy modules are imported by the command that needs them."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = ("run", "train", "score", "show", "report")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 a mistake in what was asked (one message, nothing written over), 130 interrupted."""
    parser = argparse.ArgumentParser(prog="guerdon", description="The reward is the object you work on: compose it, score with it, train with it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"{__name__}.{name}")
        about = (module.__doc__ or "").strip()
        sub = commands.add_parser(
            name, help=about.split("\n")[0], description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        module.arguments(sub)
        sub.set_defaults(execute=module.execute)
    options, rest = parser.parse_known_args(argv)
    settings = [r for r in rest if "=" in r and not r.startswith("-")] if hasattr(options, "settings") else []
    if rest != settings:  # argparse leaves key=value that comes after an option to us
        parser.error(f"unrecognised arguments: {' '.join(r for r in rest if r not in settings)}")
    if settings:
        options.settings = [*options.settings, *settings]
    from guerdon.errors import GuerdonError

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        options.execute(options)
    except GuerdonError as e:
        print(f"guerdon: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("guerdon: interrupted; the same command goes on from the newest checkpoint", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away: `guerdon score ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0
