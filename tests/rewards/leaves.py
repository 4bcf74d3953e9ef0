# SPDX-License-Identifier: Apache-2.0
"""Leaves that read their values and statuses from a field, rollouts to read them from, and random expressions over both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from guerdon.errors import ExpressionError
from guerdon.rewards import Reward, linear, max_of, mean_of, min_of
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Bounds, Component, Status


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Told(Reward):
    """Says what the rollouts' field of its name says: per row a list of (value, status) for its units."""

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        size = max(rollouts.unit_counts(self.level), default=0)
        values = torch.full((len(rollouts), size), math.nan, dtype=torch.float64)
        status = torch.full((len(rollouts), size), int(Status.NONE), dtype=torch.int8)
        reasons = {}
        for n, units in enumerate(rollouts.field(self.name).values):
            for k, (value, what) in enumerate(units):
                status[n, k] = int(what)
                values[n, k] = value if what == Status.OK else math.nan
                if what > Status.OK:
                    reasons[n, k] = f"told {Status(what).name.lower()}"
        return Component(self.name, self.level, values, status, reasons)


def told(name: str, level: str = "episode", low: float = -1, high: float = 1, **extra) -> Told:
    return Told(name=name, level=level, bounds=Bounds(low, high), needs=frozenset({name}), **extra)


A, B = told("a"), told("b", low=0)
LINE, LINE2 = told("line_a", "line"), told("line_b", "line", low=0)
STEP, TURN = told("step_a", "step"), told("turn_a", "turn", spread="uniform")
LEAVES = (A, B, LINE, LINE2, STEP, TURN)
TABLE = {leaf.name: (lambda leaf=leaf: leaf) for leaf in LEAVES}

# Three rows of one task and one of another. Row 0: two turns around a tool's steps, a last token in no line. Row 2 has no line.
LINES = torch.tensor([[0, 0, -1, 1, 1, 2, -1], [0, 1, 1, 1, -1, -1, -1], [-1, -1, -1, -1, -1, -1, -1], [0, 0, 1, 2, 2, 3, 3]])
TURNS = torch.tensor([[0, 0, -1, 1, 1, 1, 1], [0, 0, 0, 0, -1, -1, -1], [0, 0, -1, -1, -1, -1, -1], [0, 0, 0, 1, 1, 1, 1]])
MASK = torch.tensor([[1, 1, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]]).bool()
LENGTH = torch.tensor([7, 4, 2, 7])


def rollouts(**told_units) -> Rollouts:
    """The rows above; ``name=[[value or (value, status), ...] for each row]``, 0.5 where nothing is told."""
    empty = Rollouts(
        action=torch.arange(28).reshape(4, 7),
        mask=MASK,
        task=["p", "p", "p", "q"],
        length=LENGTH,
        levels={"line": LINES, "turn": TURNS},
    )
    fields = {}
    for leaf in LEAVES:
        units = told_units.get(leaf.name) or [[0.5] * count for count in empty.unit_counts(leaf.level)]
        rows = [[u if isinstance(u, tuple) else (float(u), Status.OK) for u in row] for row in units]
        fields[leaf.name] = Field("task", rows)
    return empty.replace(fields=fields)


def _units(leaf: Reward, failing: bool):
    values = st.integers(int(leaf.bounds.low * 8), int(leaf.bounds.high * 8)).map(lambda i: i / 8)
    statuses = (
        st.sampled_from([Status.OK] * 5 + [Status.ABSTAIN, Status.TIMEOUT, Status.ERROR]) if failing else st.just(Status.OK)
    )
    counts = rollouts().unit_counts(leaf.level)
    return st.tuples(*(st.lists(st.tuples(values, statuses), min_size=c, max_size=c) for c in counts)).map(list)


def told_rollouts(failing: bool = True):
    """Rollouts in which every leaf says something random."""
    return st.fixed_dictionaries({leaf.name: _units(leaf, failing) for leaf in LEAVES}).map(lambda units: rollouts(**units))


numbers = st.integers(-8, 8).map(lambda i: i / 4)


def _grow(parts, grouped: bool):
    how = st.sampled_from(["copy", "last", "first", "uniform"])
    pools = st.sampled_from(["sum", "mean", "last", "first", "min", "max"])
    levels = st.sampled_from(["step", "line", "turn", "episode"])
    ways = [
        (lambda p, x: x * p, parts, numbers),
        (lambda p, x, y, n: linear(x, y, n) * p, parts, numbers, numbers, st.integers(1, 9)),
        (lambda p: -p, parts),
        (lambda p, x: p.clip(x - 1, x), parts, numbers),
        (lambda p, x: p.clip(high=x), parts, numbers),
        (lambda p, level, rule: p.at(level, rule), parts, levels, how),
        (lambda p, rule, level: p.pool(rule, level), parts, pools, levels),
        (lambda p, x: p.gain(x), parts, numbers),
        (lambda p, x: p.drop(x), parts, numbers),
        (lambda p, name: p.named(name), parts, st.sampled_from(["x", "tidy", "lead_2"])),
        (lambda p, q: p + q, parts, parts),
        (lambda p, q: p - q, parts, parts),
        (lambda p, q: p * q, parts, parts),
        (lambda p, q: p + q.watch(), parts, parts),
        (lambda p, q: p.otherwise(q), parts, parts),
        (lambda p, q, x: p.gate(on=q, above=x), parts, parts, numbers),
        (lambda p, q, x: p.gate(on=q, above=x, softness=0.5), parts, parts, numbers),
        *((lambda p, q, of=of: of(p, q), parts, parts) for of in (min_of, max_of, mean_of)),
    ]
    if grouped:
        ways += [
            (lambda p, over, scale: p.normalise(over, scale), parts, st.sampled_from(["group", "batch"]), st.booleans()),
            (lambda p, seed: p.shuffled(seed), parts, st.integers(0, 99)),
        ]
    return st.one_of(*(st.tuples(*inputs).map(lambda t, make=make: _made(make, t)) for make, *inputs in ways))


def _made(make, inputs: tuple) -> Reward:
    """The expression, or its first part where there is none (a finer condition, say)."""
    try:
        return make(*inputs)
    except ExpressionError:
        return inputs[0]


def expressions(grouped: bool = True, leaves: int = 6):
    """Random rewards; without ``grouped`` none that compares rows."""
    return st.recursive(st.sampled_from(LEAVES), lambda parts: _grow(parts, grouped), max_leaves=leaves)
