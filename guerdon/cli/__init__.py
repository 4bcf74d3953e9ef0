# SPDX-License-Identifier: Apache-2.0
"""The command line. One file per command; heavy modules are imported by the command that needs them."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = ("run", "train", "score", "show", "audit", "compare", "evaluate", "serve", "report", "systems")

EXTRAS = {"transformers": "language", "tokenizers": "language", "peft": "language", "safetensors": "language"}
EXTRAS |= {"gymnasium": "control", "mujoco": "control", "minigrid": "control"}
EXTRAS |= {"starlette": "serve", "uvicorn": "serve", "pydantic": "serve", "httpx2": "serve"}
EXTRAS |= {"scipy": "images", "pyarrow": "data", "reasoning_gym": "tasks", "rich": "report", "jinja2": "report"}
"""What an optional package is installed with."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 an audit found something, 2 a mistake in what was asked (one message, nothing written over), 130
    interrupted."""
    options = _options(argv)
    from guerdon.errors import GuerdonError

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        code = options.execute(options)
    except GuerdonError as e:
        print("\n".join([f"guerdon: {e}", *getattr(e, "__notes__", [])]), file=sys.stderr)
        return 2
    except ModuleNotFoundError as e:
        if e.name not in EXTRAS:
            raise
        print(
            f"guerdon: this needs {e.name}, which is not installed. Install it with: pip install 'guerdon[{EXTRAS[e.name]}]'.",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # the reader of our output went away: `guerdon score ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:
        if e.filename is None:  # no file that somebody named: a fault of ours, to be seen whole
            raise
        print(f"guerdon: {e.filename}: expected to read or write it, got: {e.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from the newest checkpoint" if hasattr(options, "settings") else ""
        print(f"guerdon: interrupted{goes_on}", file=sys.stderr)
        return 130
    return code or 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, with key=value wherever it stands: argparse leaves what comes after an option to us."""
    parser = argparse.ArgumentParser(
        prog="guerdon", description="The reward is the object you work on: compose it, score with it, train with it."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {}
    for name in COMMANDS:
        module = importlib.import_module(f"{__name__}.{name}")
        about = (module.__doc__ or "").strip()
        parsers[name] = commands.add_parser(
            name,
            help=about.split("\n")[0],
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.arguments(parsers[name])
        parsers[name].set_defaults(execute=module.execute)
    options, rest = parser.parse_known_args(argv)
    settings = [r for r in rest if "=" in r and not r.startswith("-")] if hasattr(options, "settings") else []
    if unknown := [r for r in rest if r not in settings]:
        parsers[options.command].error(f"unrecognised: {' '.join(unknown)}")
    if settings:
        options.settings = [*options.settings, *settings]
    return options
