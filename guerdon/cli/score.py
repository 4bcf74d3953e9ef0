# SPDX-License-Identifier: Apache-2.0
"""Score completions with a reward expression: values, statuses and components.

--data is a JSONL file (prompt, completion, answer, group, anything else by name), a saved rollouts file (.parquet), or a run
directory, whose saved rollouts are scored again and compared with the scores the run saw.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.errors import InputError

if TYPE_CHECKING:
    from guerdon.rewards import Reward
    from guerdon.rollouts import Rollouts
    from guerdon.scores import Component, Scores


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reward", required=True, metavar="EXPR", help="reward expression; path.py:name for your own functions")
    parser.add_argument("--data", required=True, metavar="FILE_OR_RUN", type=Path)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a function may take for one completion (default: 10)")
    parser.add_argument("--explain", type=int, metavar="ROW", help="print the tree with one row's values")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write a line per row: .jsonl, or .parquet with every unit of every part")


def execute(options: argparse.Namespace) -> None:
    from guerdon.rewards.parse import parse

    reward = parse(options.reward).with_budget(options.budget)
    if options.out is not None and options.out.suffix not in (".jsonl", ".parquet"):
        raise InputError(f"score: --out should end in .jsonl or .parquet, got {options.out}.")
    if options.out is not None and options.out.exists():
        raise InputError(f"score: {options.out} exists already; nothing was written. Give another --out, or delete it.")
    if options.data.is_dir():
        compare_run(reward, options.data)
        return
    start = time.perf_counter()
    rollouts = read(options.data, reward)
    if options.explain is not None:
        if not 0 <= options.explain < len(rollouts):
            raise InputError(f"score: --explain should be a row from 0 to {len(rollouts) - 1}, got {options.explain}.")
        print(reward.explain(rollouts, options.explain))
        return
    scores = reward.score(rollouts)
    print_table(scores, f"{len(rollouts):,} completions scored in {time.perf_counter() - start:.1f} s")
    if options.out is not None and options.out.suffix == ".parquet":
        scores.save(options.out)
    elif options.out is not None:
        with options.out.open("x") as f:
            f.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows(scores, rollouts))


def read(path: Path, reward: Reward) -> Rollouts:
    """Rollouts of a JSONL or parquet file; characters are the steps where the reward has terms finer than a turn."""
    from guerdon.rollouts import Rollouts
    from guerdon.tasks import read_jsonl

    if path.suffix == ".parquet":
        return Rollouts.load(path)
    lines = read_jsonl(path)
    for number, line in enumerate(lines, 1):
        if "completion" not in line:
            raise InputError(f"{path}, line {number}: expected a `completion` to score, got fields {', '.join(line) or 'none'}.")
    columns = dict.fromkeys(k for line in lines for k in line if k not in ("prompt", "completion", "group"))
    finer = any(node.level not in ("turn", "episode") for node in reward.nodes())
    return Rollouts.from_text(
        [line.get("prompt", "") for line in lines],
        [line["completion"] for line in lines],
        steps="characters" if finer else "text",
        group=[line.get("group", json.dumps(line.get("prompt", i))) for i, line in enumerate(lines)],
        **{k: [line.get(k) for line in lines] for k in columns},
    )


def print_table(scores: Scores, title: str) -> None:
    """A line per named part: what it says on average and what became of its units; then why units failed."""
    from rich.console import Console
    from rich.table import Table

    from guerdon.scores import Status

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("part")
    for name in ("level", "weight", "mean", "min", "max", "ok", "abstain", "timeout", "error"):
        table.add_column(name, justify="left" if name == "level" else "right")
    for name, c in [("total", scores.total), *scores.trace.items()]:
        ok = c.values[c.ok]
        figures = [f"{x:.4g}" for x in (ok.mean(), ok.min(), ok.max())] if len(ok) else ["-"] * 3
        weight = "" if name == "total" else "watch" if c.weight is None else f"{c.weight:g}"
        counts = [f"{int((c.status == s).sum()):,}" for s in (Status.OK, Status.ABSTAIN, Status.TIMEOUT, Status.ERROR)]
        table.add_row(name, c.level, weight, *figures, *counts)
    console = Console(width=max(Console().width, 100))
    console.print(table)
    for name, c in scores.trace.items():
        for (status, reason), count in reasons(c).most_common(8):
            console.print(f"{name}: {count:,} x {status}: {reason}", style="yellow", markup=False, highlight=False)


def reasons(c: Component) -> Counter[tuple[str, str]]:
    """(status, reason) of the units that are not ok, counted."""
    from guerdon.scores import Status

    return Counter((Status(int(c.status[n, k])).name.lower(), r) for (n, k), r in c.reasons.items() if not c.ok[n, k])


def rows(scores: Scores, rollouts: Rollouts) -> Iterator[dict[str, Any]]:
    """One JSON object a row: the total and each part with value(s), status and reason; a list where a row has several units."""
    from guerdon.scores import Status

    def of(c: Component, n: int) -> dict[str, Any]:
        there = (c.status[n] != Status.NONE).nonzero()[:, 0].tolist()
        values = [c.values[n, k].item() if c.ok[n, k] else None for k in there]
        status = [Status(int(c.status[n, k])).name.lower() for k in there]
        out: dict[str, Any] = {"value": values, "status": status} if c.level != "episode" else {"value": values[0], "status": status[0]}
        why = [c.reasons[n, k] for k in there if (n, k) in c.reasons]
        return out | ({"reason": "; ".join(why)} if why else {})

    for n, task in enumerate(rollouts.task):
        yield {"row": n, "task": task, "total": of(scores.total, n), **{name: of(c, n) for name, c in scores.trace.items()}}


def compare_run(reward: Reward, directory: Path) -> None:
    """Score each saved batch of a run again; a line per batch: the mean total then and now, and how many rows changed."""
    from guerdon.rollouts import Rollouts
    from guerdon.scores import Scores

    files = sorted(directory.rglob("rollouts/*.parquet"))
    if not files:
        raise InputError(f"score: {directory} holds no saved rollouts (rollouts/step-*.parquet). Usual cause: not a run directory.")
    print(f"{'batch':40s} {'then':>9s} {'now':>9s} {'rows changed':>13s}")
    for file in files:
        rollouts = Rollouts.load(file)
        now = reward.score(rollouts)
        then = Scores.load(file.parents[1] / "scores" / file.name)
        a, b = then.reward().nan_to_num().sum(1), now.reward().nan_to_num().sum(1)
        changed = int(((a - b).abs() > 1e-6).sum())
        same = f"{changed:>8d} of {len(rollouts)}"
        print(f"{str(file.relative_to(directory)):40s} {_mean(then):9.4f} {_mean(now):9.4f} {same:>13s}", file=sys.stdout)


def _mean(scores: Scores) -> float:
    from guerdon.training.loop import episode_mean

    return episode_mean(scores.total)
