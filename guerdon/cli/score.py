# SPDX-License-Identifier: Apache-2.0
"""Score completions with a reward expression: values, statuses and components.

--data is a JSONL file (prompt, completion, answer, group, anything else by name), a saved rollouts file (.parquet), or a run
directory, whose saved rollouts are scored again and compared with the scores the run saw.
A completion that can't be scored has a status and a reason instead of a value; it is counted, and the exit code stays 0.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from guerdon.rewards import Reward
    from guerdon.rollouts import Rollouts
    from guerdon.scores import Component, Scores

MADE_HERE = {"completion", "messages", "offset", "log_prob", "ref_log_prob", "context_ids"}
"""What a reward may read that is no field of a JSONL line: made of the completion, or kept in rollouts only."""

SHOWN = 8  # different reasons of a part


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reward", required=True, metavar="EXPR", help="reward expression; path.py:name for your own functions")
    parser.add_argument("--data", required=True, metavar="FILE_OR_RUN", type=Path)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a function may take for one completion (default: 10)")
    parser.add_argument("--explain", type=int, metavar="ROW", help="print the tree with one row's values; rows count from 0")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write a line per row: .jsonl, or .parquet with every unit of every part"
    )


def execute(options: argparse.Namespace) -> None:
    from guerdon.judges.tally import tallies
    from guerdon.rewards.parse import parse

    reward = parse(options.reward).with_budget(options.budget)
    if options.data.is_dir():
        if options.out is not None or options.explain is not None:
            raise InputError(
                f"score: --out and --explain take one file; give one of {options.data}/**/rollouts/step-*.parquet as --data."
            )
        compare_run(reward, options.data)
        return
    if options.out is not None:
        check_new(options.out)
    start = time.perf_counter()
    rollouts = read(options.data, reward)
    if options.explain is not None:
        if not 0 <= options.explain < len(rollouts):
            raise InputError(f"score: --explain should be a row from 0 to {len(rollouts) - 1}, got {options.explain}.")
        print(explain(reward, rollouts, options.explain))
        return
    scores = reward.score(rollouts)
    print_table(scores, f"{len(rollouts):,} completions scored in {time.perf_counter() - start:.1f} s")
    for name, tally in tallies(reward).items():
        print(f"{name}: {tally}")
    if options.out is not None and options.out.suffix == ".parquet":
        scores.save(options.out)
    elif options.out is not None:
        with options.out.open("x", encoding="utf-8") as f:
            f.writelines(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows(scores, rollouts))


def explain(reward: Reward, rollouts: Rollouts, row: int) -> str:
    """The tree with one row's values; only that row is scored where the others have no say."""
    if not by_itself(reward):
        return reward.explain(rollouts, row)
    return f"row {row}" + reward.explain(rollouts.rows([row]), 0).removeprefix("row 0")


def check_new(out: Path) -> None:
    """Refuse an --out that could not be written after all the work, or that is there."""
    if out.suffix not in (".jsonl", ".parquet"):
        raise InputError(f"score: --out should end in .jsonl or .parquet, got {out}.")
    if out.exists():
        raise InputError(f"score: {out} exists already; nothing was written. Give another --out, or delete it.")
    if not out.parent.is_dir():
        raise InputError(f"score: --out {out}: there is no directory {out.parent}. Usual cause: a misspelt path.")


def by_itself(reward: Reward) -> bool:
    """Whether a row's scores don't depend on the other rows."""
    return reward.relation not in ("group", "batch")


def read(path: Path, reward: Reward) -> Rollouts:
    """Rollouts of a JSONL or parquet file; characters are the steps where the reward has terms finer than a turn."""
    from guerdon.rollouts import Rollouts
    from guerdon.tasks import read_jsonl

    if path.suffix == ".parquet":
        return Rollouts.load(path)
    lines = read_jsonl(path, ["completion", *sorted(reward.needs - MADE_HERE)])
    columns = dict.fromkeys(k for line in lines for k in line if k not in ("prompt", "completion", "group", "task"))
    finer = any(node.level not in ("turn", "episode") for node in reward.nodes())
    return Rollouts.from_text(
        [line.get("prompt", "") for line in lines],
        [line["completion"] for line in lines],
        steps="characters" if finer else "text",
        task=[str(line.get("task", i)) for i, line in enumerate(lines)],
        group=[_group(line, i) for i, line in enumerate(lines)],
        **{k: [line.get(k) for line in lines] for k in columns},
    )


def _group(line: dict[str, Any], row: int) -> Any:
    """What makes rows a group: their `group`, or else the same prompt; a row without either is its own."""
    if "group" in line:
        return "group", line["group"]
    prompt = line.get("prompt", row)
    return "prompt", prompt if isinstance(prompt, str | int) else json.dumps(prompt)


def print_table(scores: Scores, title: str) -> None:
    """A line per named part: what it says on average and what became of its units; then why units are not ok."""
    from guerdon.scores import Status

    columns = ["part", "level", "weight", "mean", "min", "max", "ok", "abstain", "timeout", "error"]
    table = []
    for name, c in [("total", scores.total), *scores.trace.items()]:
        ok = c.values[c.ok]
        figures = [f"{x:.4g}" for x in (ok.mean().item(), ok.min().item(), ok.max().item())] if len(ok) else ["-"] * 3
        weight = "" if name == "total" else "watch" if c.weight is None else f"{c.weight:g}"
        counts = [int((c.status == s).sum()) for s in (Status.OK, Status.ABSTAIN, Status.TIMEOUT, Status.ERROR)]
        table.append([name, c.level, weight, *figures, f"{counts[0]:,}", *(yellow(n) for n in counts[1:])])
    console = _console()
    _print(console, title, columns, table, left=2)
    for name, c in scores.trace.items():
        found = reasons(c).most_common()
        for (status, reason), count in found[:SHOWN]:
            console.print(
                f"{name}: {count:,} x {status}: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True
            )
        if len(found) > SHOWN:
            rest = sum(count for _, count in found[SHOWN:])
            console.print(
                f"{name}: {rest:,} more for {len(found) - SHOWN:,} other reasons; --out FILE has them all", style="yellow"
            )


def yellow(count: int) -> str:
    return f"[yellow]{count:,}[/yellow]" if count else "0"


def reasons(c: Component) -> Counter[tuple[str, str]]:
    """(status, reason) of the units that are not ok, counted."""
    from guerdon.scores import Status

    status = c.status.tolist()
    return Counter((Status(s).name.lower(), r) for (n, k), r in c.reasons.items() if (s := status[n][k]) > Status.OK)


def rows(scores: Scores, rollouts: Rollouts) -> Iterator[dict[str, Any]]:
    """One JSON object a row: the total and each part with value(s), status and reason; a list where a row has several units."""
    from guerdon.scores import Status

    names = {int(s): s.name.lower() for s in Status}
    parts = [("total", scores.total), *scores.trace.items()]
    lists = [(name, c, c.values.tolist(), c.status.tolist()) for name, c in parts]
    for n, task in enumerate(rollouts.task):
        row: dict[str, Any] = {"row": n, "task": task}
        for name, c, values, status in lists:
            there = [k for k, s in enumerate(status[n]) if s != Status.NONE]
            said: list[Any] = [values[n][k] if status[n][k] == Status.OK else None for k in there]
            became: list[Any] = [names[status[n][k]] for k in there]
            whole = c.level == "episode" and len(there) == 1
            row[name] = {"value": said[0], "status": became[0]} if whole else {"value": said, "status": became}
            if why := [c.reasons[n, k] for k in there if (n, k) in c.reasons]:
                row[name]["reason"] = "; ".join(dict.fromkeys(why))
        yield row


# ---- a run's saved rollouts, scored again


def compare_run(reward: Reward, directory: Path) -> None:
    """A line per saved batch of each run: the mean total when it was trained on and now, and in how many rows it differs."""
    from guerdon.rollouts import Rollouts

    files = sorted(directory.rglob("rollouts/*.parquet"))
    if not files:
        raise InputError(
            f"score: {directory} holds no saved rollouts (rollouts/step-*.parquet). Usual cause: not a run directory."
        )
    before, table = "", list[list[str]]()
    for file in files:
        rollouts = Rollouts.load(file)
        now = row_totals(reward.score(rollouts).total)
        then = _then(file)
        run = file.parents[1].relative_to(directory).as_posix()
        run = directory.resolve().name if run == "." else run
        shown = "" if run == before else run
        before = run
        table.append([shown, file.stem.removeprefix("step-").lstrip("0") or "0", f"{len(rollouts):,}", *difference(then, now)])
    columns = ["run", "step", "rows", "then", "now", "change", "rows changed", "not ok now"]
    _print(_console(), f"{directory}: mean total reward of the saved rollouts, then and with {reward}", columns, table, left=1)


def _then(file: Path) -> Tensor | None:
    """The totals a run saw for a file of rollouts; None where it kept none."""
    from guerdon.scores import Scores

    kept = file.parents[1] / "scores" / file.name
    return row_totals(Scores.load(kept).total) if kept.exists() else None


def row_totals(total: Component) -> Tensor:
    """[N] the sum over each row's units; NaN where a unit is not ok or there is none."""
    from guerdon.scores import Status

    there = total.status != Status.NONE
    return total.values.nan_to_num().sum(1).where((total.ok | ~there).all(1) & there.any(1), float("nan"))


def difference(then: Tensor | None, now: Tensor) -> list[str]:
    """Cells: mean then, mean now, change of the mean, rows changed (to or from not ok counts), rows not ok now.

    >>> import torch
    >>> difference(torch.tensor([1.0, 0.0, float("nan")]), torch.tensor([1.0, 1.0, 0.0]))
    ['0.5000', '0.6667', '+0.1667', '2', '0']
    """
    failed = yellow(int(now.isnan().sum()))
    if then is None:
        return ["-", f"{now.nanmean().item():.4f}", "-", "-", failed]
    a, b = then.nanmean().item(), now.nanmean().item()
    same = ((then - now).abs() <= 1e-6) | (then.isnan() & now.isnan())
    return [f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}", f"{int((~same).sum()):,}", failed]


# ---- printing


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=160)


def _print(console: Console, title: str, columns: list[str], table: list[list[str]], left: int) -> None:
    """A table without lines, the first ``left`` columns aligned left and the numbers right."""
    from rich.markup import escape
    from rich.table import Table

    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for i, column in enumerate(columns):
        shown.add_column(column, justify="left" if i < left else "right", no_wrap=True)
    for row in table:
        shown.add_row(*(escape(cell) if i < left else cell for i, cell in enumerate(row)))
    console.print(shown, highlight=False)
