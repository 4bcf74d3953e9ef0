# SPDX-License-Identifier: Apache-2.0
"""Compare two reward expressions: do they say the same of the same data, or lead to the same policies in an environment?

  guerdon compare 'numeric' 'exact + 0.1*length' --data answers.jsonl

--data is a file that `guerdon score` reads: JSONL, or saved rollouts (.parquet). It prints how the two totals correlate, how many
pairs of a group they rank the other way round, the rows they disagree on most, and rows that one of them could not judge.

  guerdon compare environment ./mine.py:upright --env CartPole-v1

walks at random, copies the environment where it has been, and prints the EPIC, DARD and STARC distances with intervals: 0 is
the same up to shaping and scale, 1 the opposite. The rewards must be of single steps. docs/distances.md says what to make of it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.cli.score import _console, _print, read, row_totals
from guerdon.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.rewards import Reward
    from guerdon.rollouts import Rollouts
    from guerdon.scores import Component

SHOWN = 60  # characters of a completion


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A", help="reward expression; path.py:name for your own functions")
    parser.add_argument("second", metavar="B", help="the other one")
    parser.add_argument("--data", metavar="FILE", type=Path, help="completions (.jsonl) or saved rollouts (.parquet)")
    parser.add_argument("--env", metavar="ID", help="Gymnasium environment, instead of --data")
    parser.add_argument("--rows", type=int, default=5, help="rows of most disagreement to show (default: 5)")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a function may take for a completion (default: 10)")
    parser.add_argument("--states", type=int, default=200, help="states of --env to go on from (default: 200)")
    parser.add_argument("--branches", type=int, default=4, help="times to go on from each with the same action (default: 4)")
    parser.add_argument("--gamma", type=float, default=0.95, help="discount of --env's returns (default: 0.95)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write everything that is printed, and more digits")


def execute(options: argparse.Namespace) -> None:
    from guerdon.rewards.parse import parse

    if (options.data is None) == (options.env is None):
        raise InputError(
            "compare: expected --data FILE or --env ID, one of them, got " + ("both." if options.data else "neither.")
        )
    if options.out is not None:
        check_new(options.out)
    first, second = parse(options.first), parse(options.second)
    told = on_data(first, second, options) if options.env is None else in_environment(first, second, options)
    told = {"first": str(first), "second": str(second), **told}
    if options.out is not None:
        with options.out.open("x", encoding="utf-8") as f:
            json.dump(plain(told), f, indent=1, ensure_ascii=False, allow_nan=False)


def check_new(out: Path) -> None:
    """Refuse an --out that could not be written after all the work, or that is there."""
    if out.suffix != ".json" or not out.parent.is_dir():
        raise InputError(f"compare: --out should be a .json file in a directory that is there, got {out}.")
    if out.exists():
        raise InputError(f"compare: {out} exists already; nothing was written. Give another --out, or delete it.")


# ---- on data


@dataclass(frozen=True)
class Judged:
    """What one reward says of every row: total [N], NaN where it is not ok; status [N] in words; reason [N]."""

    total: Tensor
    status: list[str]
    reason: list[str]


def on_data(first: Reward, second: Reward, options: argparse.Namespace) -> dict[str, Any]:
    """Score both, compare, print; what was found, as data."""
    if options.data.is_dir():
        raise InputError(
            f"compare: --data should be one file, got the directory {options.data}; give one of its rollouts/*.parquet."
        )
    rows = [read(options.data, reward) for reward in (first, second)]  # each with the levels its reward needs
    budgeted = (reward.with_budget(options.budget) for reward in (first, second))
    one, other = (judged(reward.score(r).total) for reward, r in zip(budgeted, rows, strict=True))
    rollouts = rows[0]
    found = agreement(one, other, rollouts.group)
    found["most_different"] = most_different(one, other, rollouts, options.rows)
    found["statuses"] = different_statuses(one, other)
    print_agreement(found, f"{len(rollouts):,} rows of {options.data}")
    return found


def judged(total: Component) -> Judged:
    from guerdon.scores import Status

    worst = total.status.max(1).values.tolist()
    reasons: list[list[str]] = [[] for _ in worst]
    for (n, _), reason in total.reasons.items():
        reasons[n].append(reason)
    return Judged(
        row_totals(total).double(), [Status(s).name.lower() for s in worst], ["; ".join(dict.fromkeys(r)) for r in reasons]
    )


def agreement(one: Judged, other: Judged, group: Tensor) -> dict[str, Any]:
    """Correlations, and pairs of a group that are ranked the other way round; intervals by bootstrap over groups."""
    import torch

    from guerdon.audit.distances.agreement import bootstrapped, pairs_within, pearson_correlation, spearman_correlation

    both = ~(one.total.isnan() | other.total.isnan())
    x, y, group = one.total[both], other.total[both], group[both]
    if len(x) < 2:
        raise InputError(f"compare: expected 2 rows or more that both rewards can judge, got {len(x)} of {len(both)}.")
    groups = [pairs_within(x[group == g], y[group == g], group[group == g]) for g in group.unique()]
    same, opposite, *_ = torch.tensor(groups).unbind(1)

    def disagreement(rows: Tensor) -> float:
        ranked = int((same + opposite)[rows].sum())
        return int(opposite[rows].sum()) / ranked if ranked else math.nan

    totals = dict(zip(groups[0]._fields, torch.tensor(groups).sum(0).tolist(), strict=True))
    return {
        "rows": len(both),
        "both_ok": len(x),
        "groups": len(groups),
        "pearson": bootstrapped(lambda rows: pearson_correlation(x[rows], y[rows]), group),
        "spearman": bootstrapped(lambda rows: spearman_correlation(x[rows], y[rows]), group),
        "disagreement": bootstrapped(disagreement, torch.arange(len(groups))),
        "pairs": totals,
    }


def most_different(one: Judged, other: Judged, rollouts: Rollouts, count: int) -> list[dict[str, Any]]:
    """The rows whose ranks by the two are furthest apart: rank 0 is the lowest value, 1 the highest."""
    from guerdon.audit.distances.agreement import ranks

    both = (~(one.total.isnan() | other.total.isnan())).nonzero()[:, 0]
    places = [ranks(j.total[both]) / max(len(both) - 1, 1) for j in (one, other)]
    apart = (places[0] - places[1]).abs()
    texts = rollouts.values_at("completion", "episode") if "completion" in rollouts.fields else None
    found = []
    for k in apart.argsort(descending=True, stable=True)[:count].tolist():
        if apart[k] == 0:
            break
        n = int(both[k])
        row = {"row": n, "task": rollouts.task[n], "first": float(one.total[n]), "second": float(other.total[n])}
        row |= {"first_rank": float(places[0][k]), "second_rank": float(places[1][k])}
        found.append(row if texts is None or len(texts) != len(rollouts) else {**row, "completion": texts[n]})
    return found


def different_statuses(one: Judged, other: Judged) -> list[dict[str, Any]]:
    """Each pair of statuses that differ: how many rows, the first of them, and why it is not ok."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for n, pair in enumerate(zip(one.status, other.status, strict=True)):
        if pair[0] != pair[1]:
            why = "; ".join(r for r in dict.fromkeys((one.reason[n], other.reason[n])) if r)
            entry = found.setdefault(pair, {"first": pair[0], "second": pair[1], "rows": 0, "first_row": n, "reason": why})
            entry["rows"] += 1
    return sorted(found.values(), key=lambda e: -e["rows"])


def print_agreement(found: Mapping[str, Any], title: str) -> None:
    console, pairs = _console(), found["pairs"]
    judged_by = f"{found['both_ok']:,} judged by both, in {found['groups']:,} groups; intervals of 95 % by bootstrap over groups"
    rows = [[name, *figures(found[key])] for name, key in (("Pearson", "pearson"), ("Spearman", "spearman"))]
    ranked = f"{pairs['opposite']:,} of {pairs['same'] + pairs['opposite']:,}"
    rows.append(["pairs ranked the other way round", *figures(found["disagreement"]), ranked])
    tied = f"{pairs['tied_first']:,} / {pairs['tied_second']:,} / {pairs['tied_both']:,}"
    rows.append(["pairs equal for A alone / B alone / both", "", "", "", tied])
    _print(
        console,
        f"{title}: {judged_by}",
        ["", "value", "low", "high", "pairs"],
        [[*r, *[""] * (5 - len(r))] for r in rows],
        left=1,
    )
    if worst := found["most_different"]:
        cells = [
            [
                *(f"{w['row']:,}", short(w["task"], 24), short(w.get("completion", ""), SHOWN)),
                *figures((w["first"], w["second"], w["first_rank"], w["second_rank"])),
            ]
            for w in worst
        ]
        columns = ["row", "task", "completion", "A", "B", "rank by A", "rank by B"]
        print()
        _print(console, "They disagree most on (rank 0 is lowest, 1 highest)", columns, cells, left=3)
    if statuses := found["statuses"]:
        cells = [[s["first"], s["second"], f"{s['rows']:,}", f"{s['first_row']:,}", short(s["reason"], 80)] for s in statuses]
        print()
        _print(console, "Rows with another status", ["A", "B", "rows", "first", "reason there"], cells, left=2)


def short(text: str, most: int) -> str:
    """One line of at most ``most`` characters.

    >>> short("one\\n two three", 8)
    'one two…'
    """
    line = " ".join(str(text).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def figures(values: Iterable[float]) -> list[str]:
    """
    >>> figures((0.5, float("nan"), float("nan")))
    ['0.500', '-', '-']
    """
    return ["-" if x != x else f"{x:.3f}" for x in values]


# ---- in an environment


def in_environment(first: Reward, second: Reward, options: argparse.Namespace) -> dict[str, Any]:
    """Walk, branch, compare, print; what was found, as data."""
    from guerdon.audit.distances.branching import branched, horizon_of
    from guerdon.audit.distances.compared import compared, refuse
    from guerdon.audit.distances.equivalence import check_gamma

    check_gamma("compare", options.gamma)
    for reward in (first, second):
        refuse(reward)
    horizon = horizon_of(options.gamma)
    branches = branched(options.env, states=options.states, branches=options.branches, horizon=horizon, seed=options.seed)
    found = compared(first, second, branches, options.gamma)
    walks = int(branches.walk.max()) + 1
    settings = {"env": options.env, "states": options.states, "walks": walks, "branches": options.branches, "horizon": horizon}
    settings |= {"gamma": options.gamma, "seed": options.seed}
    title = (
        f"{options.env}: {options.states:,} states of {walks:,} random walks, {options.branches} branches of up to {horizon} "
        f"steps, gamma {options.gamma:g}; intervals of 95 % by bootstrap over walks"
    )
    rows = [[NAMES[name], *(figures(d.estimate) if d.estimate else ["-"] * 3)] for name, d in found.items()]
    console = _console()
    _print(console, title, ["distance", "value", "low", "high"], rows, left=1)
    for name, d in found.items():
        if d.reason:
            console.print(f"{NAMES[name]}: {d.reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    distances = {name: {"estimate": d.estimate, "reason": d.reason} for name, d in found.items()}
    return {**settings, "distances": distances}


NAMES = {"starc": "STARC-VAL", "epic": "EPIC", "dard": "DARD"}


def plain(x: Any) -> Any:
    """As JSON: an estimate as an object, NaN as null.

    >>> plain({"a": float("nan"), "b": [1.0]})
    {'a': None, 'b': [1.0]}
    """
    if isinstance(x, Mapping):
        return {k: plain(v) for k, v in x.items()}
    if hasattr(x, "_asdict"):
        return plain(x._asdict())
    if isinstance(x, Sequence) and not isinstance(x, str):
        return [plain(v) for v in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x
