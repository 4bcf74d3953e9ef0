# SPDX-License-Identifier: Apache-2.0
"""Write report.html of a finished or unfinished run; with two runs, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from guerdon.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directories", metavar="DIR", nargs="+", type=Path, help="one run directory, or two to compare")
    parser.add_argument("--out", type=Path, help="where to write (default: report.html in the first directory)")


def execute(options: argparse.Namespace) -> None:
    from guerdon.report import write_report

    if len(options.directories) > 2:
        raise InputError(f"report: expected one or two run directories, got {len(options.directories)}.")
    print(write_report(options.directories, options.out))
