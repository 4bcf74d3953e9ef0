# SPDX-License-Identifier: Apache-2.0
"""How well a scorer tells better answers from worse ones, on a file of preferences.

SCORER is a reward expression. --data is a JSONL file; a line has a prompt, a chosen answer (or several) and a rejected one (or
several), and may have subset, paraphrases and contrasts; RewardBench's files are read as they are.
An answer that can't be scored takes its line out of the figures; beside them stands what they are with such lines as wrong.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from guerdon.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from guerdon.audit.reward_bench import Evaluation

SHOWN = 8  # different reasons


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scorer", metavar="SCORER", help="reward expression; path.py:name for your own functions")
    parser.add_argument("--data", required=True, metavar="FILE", type=Path)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a function may take for one answer (default: 10)")
    parser.add_argument("--replicates", type=int, default=1000, help="bootstrap samples (default: 1000)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write all figures (.json), or a page with pictures (.html)", action="append"
    )


def execute(options: argparse.Namespace) -> None:
    from guerdon.audit.reward_bench import evaluate, read_lines, write_page
    from guerdon.rewards.parse import parse

    outs = options.out or []
    for out in outs:
        check_new(out)
    if options.replicates < 1:
        raise InputError(f"evaluate: --replicates should be at least 1, got {options.replicates}.")
    reward = parse(options.scorer).with_budget(options.budget)
    found = evaluate(reward, read_lines(options.data), replicates=options.replicates)
    show(found)
    for out in outs:
        if out.suffix == ".html":
            write_page(found, out, options.data.name)
        else:
            out.write_text(json.dumps(found.as_dict() | {"data": str(options.data)}, indent=1, allow_nan=False), encoding="utf-8")


def check_new(out: Path) -> None:
    """Refuse an --out that could not be written after all the work, or that is there."""
    if out.suffix not in (".json", ".html"):
        raise InputError(f"evaluate: --out should end in .json or .html, got {out}.")
    if out.exists():
        raise InputError(f"evaluate: {out} exists already; nothing was written. Give another --out, or delete it.")
    if not out.parent.is_dir():
        raise InputError(f"evaluate: --out {out}: there is no directory {out.parent}. Usual cause: a misspelt path.")


def show(e: Evaluation) -> None:
    """The tables in the terminal."""
    from rich.console import Console

    from guerdon.audit.reward_bench import telling

    console = Console()
    console = Console(width=max(console.width, 120) if console.is_terminal else 160)  # cut figures are worse than long lines
    print_table(console, e.scorer, ["figure", "value", "95 %", "n", ""], [list(r) for r in telling.main_rows(e)], last_left=True)
    if len(e.subsets) > 1:
        print_table(console, "", telling.SUBSET_COLUMNS, telling.subset_rows(e))
    if leanings := telling.leaning_rows(e):
        print_table(console, "", telling.LEANING_COLUMNS, leanings)
    console.print(f"\n{telling.status_line(e)}", markup=False, highlight=False, soft_wrap=True)
    for status, reason, count in e.scoring.reasons[:SHOWN]:
        console.print(f"{count:,} x {status}: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if len(e.scoring.reasons) > SHOWN:
        rest = sum(count for *_, count in e.scoring.reasons[SHOWN:])
        console.print(f"{rest:,} more for other reasons; --out FILE.json has them all", style="yellow")
    for name, tally in e.judges.items():
        console.print(f"{name}: {tally['said']}", markup=False, highlight=False, soft_wrap=True)


def print_table(console: Console, title: str, columns: list[str], rows: list[list[str]], last_left: bool = False) -> None:
    """A table without lines: names left, figures right."""
    from rich.markup import escape
    from rich.table import Table

    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for i, column in enumerate(columns):
        left = i == 0 or (last_left and i == len(columns) - 1)
        shown.add_column(column, justify="left" if left else "right", no_wrap=not (left and i))
    for row in rows:
        shown.add_row(*(escape(cell) for cell in row))
    console.print(shown, highlight=False)
