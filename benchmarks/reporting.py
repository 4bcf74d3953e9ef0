# SPDX-License-Identifier: Apache-2.0
"""What the comparisons share: where results are kept, and how each writes its own part of docs/performance.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"


def command_line(told: str | None) -> tuple[argparse.ArgumentParser, argparse._SubParsersAction[argparse.ArgumentParser]]:
    """A parser and its commands, of which each comparison has `page`."""
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("page")
    return parser, commands


def about(*packages: str) -> dict[str, str]:
    """When, on what and with which versions."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return {"date": time.strftime("%Y-%m-%d"), "machine": machine, **{p: version(p) for p in packages}}


def processor() -> str:
    """What this machine computes with, as precisely as it says."""
    lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    told = {k.strip(): v.strip() for k, v in reversed(lines)}
    return f"{told['model name']}, family {told['cpu family']}, model {told['model']}"


def said(told: Mapping[str, str]) -> str:
    """``about`` as a line."""
    versions = ", ".join(f"{k} {v}" for k, v in told.items() if k not in ("date", "machine"))
    return f"{told['date']}; {told['machine']}; {versions}."


def read(path: Path) -> Any:
    """What is kept in a file; an empty dict where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, value: Any) -> None:
    """Keep it, in one stroke."""
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(unfinished, path)


def put(name: str, script: str, lines: Sequence[str]) -> None:
    """Write one part of the page, between its marks; a part that is not there yet comes last."""
    begin, end = f"<!-- {name}: python benchmarks/{Path(script).name} page -->", f"<!-- end of {name} -->"
    before, found, rest = PAGE.read_text().partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    PAGE.write_text(f"{before.rstrip()}\n\n{begin}\n\n" + "\n".join(lines) + f"\n\n{end}{after}")
