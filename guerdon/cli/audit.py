# SPDX-License-Identifier: Apache-2.0
"""Check a reward: what it promises, and whether it can be made to pay for what is not right.

  guerdon audit REWARD --data FILE [--gold REWARD]   every check, on tasks with answers known to be right
  guerdon audit REWARD --env ID --gold REWARD        on an environment: behaviours that are paid and were not meant
  guerdon audit REWARD --digits --gold REWARD        on images of digits
  guerdon audit contract REWARD --data FILE          the contracts alone
  guerdon audit zoo first|held_out                   the auditor itself, on rewards that are known to be bad or good

A line of FILE has a prompt, `right` completions (or an answer), and may have `wrong` and `malformed` ones and fields by name.
Without --gold, what needs one is not run, and says so. Exit code: 0 nothing found, 1 something found, 2 a mistake in what was
asked.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.errors import InputError

if TYPE_CHECKING:
    from guerdon.audit.auditing import Audit
    from guerdon.audit.subject import Subject
    from guerdon.rewards import Reward


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="REWARD", help="reward expression; `contract REWARD`, or `zoo first|held_out`")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, metavar="FILE", help="JSONL of tasks with answers known to be right")
    source.add_argument("--env", metavar="ID", help="Gymnasium id of an environment")
    source.add_argument("--digits", action="store_true", help="scikit-learn's digits, for a reward of `sample` and `label`")
    parser.add_argument("--gold", metavar="REWARD", help="what was meant, as a reward expression; it may be oracle(...)")
    parser.add_argument("--malformed", default="wrong", metavar="WHAT", help="what no answer gets: wrong, abstain or error")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a function may take for one unit (default: 10)")
    parser.add_argument("--limit", type=int, default=200, help="steps an episode runs at most (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, action="append", metavar="FILE", help="write a page (.html) or everything (.json)")


def execute(options: argparse.Namespace) -> int:
    for out in options.out or []:
        check_new(out)
    if options.what[0] == "zoo":
        return zoo(options)
    alone = len(options.what) > 1 and options.what[0] == "contract"
    words = options.what[alone:]
    if len(words) != 1:
        raise InputError(
            f"audit: expected one reward expression, got {len(words)}: {' '.join(words)}. Usual cause: it needs quotes."
        )
    from guerdon.audit.auditing import audit
    from guerdon.rewards.parse import parse

    reward, gold = parse(words[0]), None if options.gold is None else parse(options.gold)
    console, subject = _console(), subject_of(options, [r for r in (reward, gold) if r is not None])
    with console.status("audit") as status:
        found = audit(
            lambda: parse(words[0]),
            subject,
            None if options.gold is None else lambda: parse(options.gold),
            seed=options.seed,
            budget=options.budget,
            exploits=not alone,
            told=status.update,
        )
    show(found)
    for out in options.out or []:
        write(found, subject, out)
    return 0 if found.passed else 1


def subject_of(options: argparse.Namespace, rewards: list[Reward]) -> Subject:
    from guerdon.audit import reading

    if options.data is not None:
        return reading.texts(options.data, options.malformed)
    if options.env is not None:
        return reading.episodes(options.env, rewards, options.limit)
    if options.digits:
        return reading.digits()
    raise InputError("audit: expected --data FILE, --env ID or --digits, got none of them: a reward is audited on something.")


def check_new(out: Path) -> None:
    """Refuse an --out that could not be written after all the work, or that is there."""
    if out.suffix not in (".json", ".html"):
        raise InputError(f"audit: --out should end in .json or .html, got {out}.")
    if out.exists():
        raise InputError(f"audit: {out} exists already; nothing was written. Give another --out, or delete it.")
    if not out.parent.is_dir():
        raise InputError(f"audit: --out {out}: there is no directory {out.parent}. Usual cause: a misspelt path.")


def write(found: Audit, subject: Subject, out: Path) -> None:
    from guerdon.audit.page import write_page
    from guerdon.audit.reading import describe

    if out.suffix == ".html":
        write_page(found, describe(subject), out)
    else:
        out.write_text(json.dumps(found.as_json(), indent=1) + "\n", encoding="utf-8")


# ---- printing


def show(found: Audit) -> None:
    """A line per check; then what was found, worst first, with the output that shows it."""
    from rich.markup import escape
    from rich.table import Table

    console = _console()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("check", "outcome", "looked at", "what it says"):
        table.add_column(column, justify="right" if column == "looked at" else "left", no_wrap=column != "what it says")
    colour = {"passed": "green", "found": "red", "not run": "yellow"}
    for c in found.checks:
        count = f" {len(c.findings)}" if c.findings else ""
        outcome = f"[{colour[c.outcome]}]{c.outcome}{count}[/]"
        table.add_row(c.name, outcome, f"{c.looked_at:,}", escape(c.skipped or c.about))
    console.print(table, highlight=False)
    for c in found.checks:
        for f in c.findings[:SHOWN]:
            console.print(f"\n{c.name}: {f.names}", style="bold red", markup=False, highlight=False)
            console.print(f.says, markup=False, highlight=False, soft_wrap=True)
            if f.where:
                console.print(f"  on {f.where}", style="dim", markup=False, highlight=False)
            if f.shown:
                console.print(f"  {f.shown}", style="cyan", markup=False, highlight=False, soft_wrap=True)
            if f.paid is not None:
                console.print(f"  paid {f.paid:.2f} of a right output, gold {f.gold or 0:.2f}", markup=False, highlight=False)
        if len(c.findings) > SHOWN:
            console.print(f"{c.name}: {len(c.findings) - SHOWN} more; --out FILE.json has them all", style="dim")
    n, not_run = len(found.findings), sum(c.outcome == "not run" for c in found.checks)
    said = "nothing found" if not n else f"{n} finding{'s' * (n != 1)}"
    more = f", {not_run} check{'s' * (not_run != 1)} not run" if not_run else ""
    console.print(f"\n{said}{more}; {found.seconds:.1f} s", style="bold red" if n else "bold green", highlight=False)


SHOWN = 3
"""Findings of one check that are printed."""


def zoo(options: argparse.Namespace) -> int:
    """The auditor on a half of the zoo: a line per specimen, then the rates with intervals."""
    from guerdon.audit.grading import graded, rates, report
    from guerdon.audit.zoo import HALVES

    if options.what[1:] not in ([h] for h in HALVES):
        raise InputError(f"audit: `zoo` is followed by {' or '.join(HALVES)}, got {' '.join(options.what[1:]) or 'nothing'}.")
    console, found = _console(), []
    for g in graded(options.what[1]):
        found.append(g)
        said = "good" if g.specimen.good else g.specimen.defect
        outcome = "ok" if g.right else "alarm" if g.specimen.good else "miss"
        why = g.counted.names if g.counted else ""
        line = f"{outcome:6} {g.domain:8} {g.specimen.name:26} {g.audit.seconds:5.1f} s  {said}" + (f"  <- {why}" if why else "")
        console.print(line, style="" if g.right else "red", markup=False, highlight=False, soft_wrap=True)
    shares = rates(found)
    for name, e in shares.items():
        console.print(f"{name}: {round(e.value * e.n)} of {e.n}, {e.value:.1%} (95 % interval {e.low:.1%} to {e.high:.1%})")
    for out in options.out or []:
        out.write_text(json.dumps(report(options.what[1], found), indent=1) + "\n", encoding="utf-8")
    return 0


def _console() -> Any:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=160)
