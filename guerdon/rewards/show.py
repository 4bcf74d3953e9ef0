# SPDX-License-Identifier: Apache-2.0
"""Printing a reward as a tree, and the same tree with what it said of one row."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from guerdon.errors import InputError
from guerdon.rewards import algebra, building, evaluating
from guerdon.rewards.node import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Status

WIDTH = 100
LABEL = 48  # columns of the tree beside the values; longer labels are cut
LEAST = 30  # columns of the tree beside the rest, however wide that is
UNITS = 8  # values shown of a row's units


@dataclass(frozen=True)
class _Line:
    """One line of a tree: ``label`` with its branches, the node whose values it shows, and what precedes the lines below it."""

    label: str
    node: Reward
    below: str
    repeated: bool


def _lines(root: Reward) -> list[_Line]:
    """Weights, names and watches share the line of what they apply to; what came before is not unfolded again."""
    seen: set[Reward] = set()

    def visit(node: Reward, head: str, tail: str, role: str) -> Iterator[_Line]:
        said, inner = role, node
        while isinstance(inner, algebra.Scale | building.Named | building.Watch):
            said += "watch: " if isinstance(inner, building.Watch) else f"{inner.label()} "
            inner = inner.parts[0]
        repeated = inner in seen
        seen.add(inner)
        children = () if repeated else inner.parts
        below = tail + ("│  " if children else "   ")
        yield _Line(head + said + inner.label(), node, below, repeated)
        for i, child in enumerate(children):
            last = i == len(children) - 1
            yield from visit(child, tail + ("└─ " if last else "├─ "), tail + ("   " if last else "│  "), _role(inner, i))

    return list(visit(root, "", "", ""))


def _unlabelled(node: Reward) -> Reward:
    """What weights, names and watches on one line apply to."""
    while isinstance(node, algebra.Scale | building.Named | building.Watch):
        node = node.parts[0]
    return node


def _role(parent: Reward, i: int) -> str:
    """What the second part of a condition is for."""
    if i == 1 and isinstance(parent, algebra.Gate):
        return "on: "
    return "else: " if i == 1 and isinstance(parent, algebra.Otherwise) else ""


def _table(rows: list[list[str]]) -> list[str]:
    """Left-aligned columns, two spaces apart."""
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def interval(b: Bounds) -> str:
    """An interval as in mathematics.

    >>> interval(Bounds(0, 1)), interval(Bounds(-0.25, math.inf)), interval(Bounds())
    ('[0, 1]', '[-0.25, inf)', '(-inf, inf)')
    """
    left, right = "(" if b.low == -math.inf else "[", ")" if b.high == math.inf else "]"
    return f"{left}{b.low:.4g}, {b.high:.4g}{right}"


def tree(root: Reward) -> str:
    """One line a node: level, relation, bounds per unit and of an episode's sum, budget, what evolves."""
    rows = [["reward", "level", "relation", "per unit", "per episode", ""]]
    for line in _lines(root):
        node = line.node
        bounds = interval(node.bounds), interval(node.total_bounds())
        rows.append([line.label, node.level, node.relation, *bounds, ", ".join(_notes(line))])
    beside = sum(2 + max(len(row[i]) for row in rows) for i in range(1, 6))
    return "\n".join(_table([[_cut(row[0], max(WIDTH - beside, LEAST)), *row[1:]] for row in rows]))


def _notes(line: _Line) -> list[str]:
    inner = _unlabelled(line.node)
    if line.repeated:
        return ["as above"]
    notes = [f"{inner.budget:g} s each"] if inner.budget is not None and not inner.parts else []
    return notes + (["evolves"] if inner.evolves and not inner.parts else [])


def explain(root: Reward, rollouts: Rollouts, row: int, step: int) -> str:
    """The tree with one row's values, then why units of it are not ok."""
    if not -len(rollouts) <= row < len(rollouts):
        raise InputError(f"explain: `row` should be 0 to {len(rollouts) - 1}, got {row}.")
    row = row % len(rollouts)
    e = evaluating.evaluate(root, rollouts, step)
    total = float(evaluating.score(root, e).reward()[row].sum())
    lines = _lines(root)
    cells = [[_cut(line.label, LABEL), line.node.level, _values(line.node, e.values, row)] for line in lines]
    table = _table([["reward", "level", "values"], *cells])
    summed = "not ok" if math.isnan(total) else _said(total)
    out = [f"row {row}, task {rollouts.task[row]}, total {summed}", table[0]]
    for line, text in zip(lines, table[1:], strict=True):
        out.append(text)
        if not line.repeated:
            inner = _unlabelled(line.node)
            out += _told(e.values[inner], _handed_on(inner, e.values, row), row, line.below)
    return "\n".join(_cut(text, WIDTH) for text in out)


def _said(x: float) -> str:
    return "–" if math.isnan(x) else f"{x:.4g}"


def _values(node: Reward, values: dict[Reward, Component], row: int) -> str:
    """The row's values, and those before the weight where there is one."""
    text = _units(values[node], row)
    inner = node
    while isinstance(inner, building.Named | building.Watch):
        inner = inner.parts[0]
    return f"{text} (of {_units(values[inner.parts[0]], row)})" if isinstance(inner, algebra.Scale) else text


def _units(c: Component, row: int) -> str:
    there = (c.status[row] != Status.NONE).nonzero()[:, 0].tolist()
    shown = [_said(c.values[row, k].item()) for k in there[:UNITS]]
    return " ".join(shown) + (f" … ({len(there)})" if len(there) > UNITS else "") if there else "no units"


def _handed_on(node: Reward, values: dict[Reward, Component], row: int) -> set[str]:
    """Reasons that a node has from its parts, which the lines below it tell."""
    return {
        piece for part in node.parts for (n, _), text in values[part].reasons.items() if n == row for piece in text.split("; ")
    }


def _told(c: Component, handed_on: set[str], row: int, below: str) -> list[str]:
    """A line for every reason or rationale that begins here; equal ones of several units together."""
    told: dict[str, list[int]] = {}
    for (n, k), reason in sorted(c.reasons.items()):
        own = [piece for piece in reason.split("; ") if not piece.endswith(tuple(handed_on))]
        if n == row and own:
            told.setdefault(f"{Status(int(c.status[n, k])).name.lower()}: {'; '.join(own)}", []).append(k)
    out = []
    lead = below + "  "
    for text, units in told.items():
        where = "" if c.level == "episode" and units == [0] else f"{c.level} {_ranges(units)} "
        out += textwrap.wrap(lead + where + text, WIDTH, subsequent_indent=lead + "  ", max_lines=4, placeholder=" …")
    return out


def _ranges(units: list[int]) -> str:
    """Numbers with runs joined.

    >>> _ranges([0, 1, 2, 5])
    '0-2, 5'
    """
    runs: list[list[int]] = []
    for k in units:
        if runs and runs[-1][-1] == k - 1:
            runs[-1][1:] = [k]
        else:
            runs.append([k])
    return ", ".join("-".join(map(str, run)) for run in runs)
