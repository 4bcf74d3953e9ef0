# SPDX-License-Identifier: Apache-2.0
"""From an expression to Scores: every distinct node once, then the total split into its additive components."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import groupby

import torch
from torch import Tensor

from guerdon import levels
from guerdon.errors import ExpressionError, InputError, ShapeError
from guerdon.rewards import algebra, aligning, building
from guerdon.rewards.node import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Scores, Status

ROUNDING = 1e-6  # a float32 value may miss a bound it was clipped to by this much, relative to max(1, |bound|)


_OWN = frozenset(f.name for f in fields(Rollouts))  # tensors that a reward may need besides the named fields


@dataclass(frozen=True)
class Plan:
    """What of an evaluation is the same for any rollouts and step.

    runs   every distinct node, parts first; neighbours of one class and level, which don't read one another, together
    names  of the nodes that people see
    live   nodes that the total reads
    """

    runs: list[list[Reward]]
    names: dict[Reward, str]
    live: frozenset[Reward]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What ``score`` and ``explain`` share: rollouts with every level, each distinct node's component, names, weights."""

    rollouts: Rollouts
    values: dict[Reward, Component]
    names: dict[Reward, str]
    weights: dict[Reward, float]
    live: frozenset[Reward]


def distinct(root: Reward) -> list[Reward]:
    """Every node once, parts before what they are parts of."""
    seen: dict[Reward, None] = {}

    def visit(node: Reward) -> None:
        if node not in seen:
            for part in node.parts:
                visit(part)
            seen[node] = None

    visit(root)
    return list(seen)


def additive(root: Reward, step: int) -> dict[Reward, float]:
    """The terms of a sum, through nested sums and factors, each with its weight at this step; equal terms are one.

    A reward that is no sum is its own only term.
    """
    found: dict[Reward, float] = {}

    def visit(node: Reward, weight: float) -> None:
        if isinstance(node, algebra.Sum):
            for part in node.parts:
                visit(part, weight)
        elif isinstance(node, algebra.Scale):
            visit(node.parts[0], weight * node.weight(step))
        elif not isinstance(node, building.Watch):
            found[node] = found.get(node, 0.0) + weight

    visit(root, 1.0)
    if not found:
        raise ExpressionError(
            f"score: `{root}` has nothing but watched terms, so there is no reward. Add a term without .watch()."
        )
    return found


def visible(root: Reward, terms: dict[Reward, float]) -> list[Reward]:
    """Nodes that people see by name: the additive terms, what is named, watched terms, leaves that have no other name."""
    seen: dict[Reward, None] = {}

    def visit(node: Reward, shown: bool) -> None:
        weighed = isinstance(node, algebra.Scale)
        if (shown and not weighed) or node in terms or isinstance(node, building.Named) or not node.parts:
            seen[node] = None
        for part in node.parts:
            if not (isinstance(node, building.Named) and building.names_itself(part)):
                visit(part, isinstance(node, building.Watch) or (shown and weighed))

    visit(root, False)
    return list(seen)


def live_nodes(root: Reward) -> frozenset[Reward]:
    """Nodes that the total reads."""
    seen: set[Reward] = set()

    def visit(node: Reward) -> None:
        if isinstance(node, building.Watch) or node in seen:
            return
        seen.add(node)
        for part in node.parts:
            visit(part)

    visit(root)
    return frozenset(seen)


def unique_names(nodes: list[Reward]) -> dict[Reward, str]:
    """numeric, numeric_2, ... in order; a name somebody gave is kept by its first bearer."""
    out: dict[Reward, str] = {}
    taken: set[str] = set()
    for node in sorted(nodes, key=lambda node: not isinstance(node, building.Named)):
        name, number = node.name, 1
        while name in taken:
            number += 1
            name = f"{node.name}_{number}"
        taken.add(name)
        out[node] = name
    return {node: out[node] for node in nodes}


def planned(root: Reward) -> Plan:
    """Its nodes in runs, by depth, and their names."""
    by_depth = sorted(root.nodes(), key=lambda node: node.depth)  # stable: leaves keep their order
    runs = [list(run) for _, run in groupby(by_depth, lambda node: (node.depth, type(node), node.level))]
    return Plan(runs, unique_names(visible(root, additive(root, 0))), live_nodes(root))


def evaluate(root: Reward, rollouts: Rollouts, step: int) -> Evaluation:
    """Every distinct node's component, with the names and weights it has in this expression."""
    plan, weights = root.plan, additive(root, step)
    for node in root.nodes():
        rollouts = node.prepare(rollouts)
    _check_needs(root.nodes(), rollouts)
    values: dict[Reward, Component] = {}
    for run in plan.runs:
        found = type(run[0]).together(run, rollouts, [[values[part] for part in node.parts] for node in run], step)
        _check_shapes(run, found, rollouts)
        named = [
            c.unchecked(name=plan.names.get(node, node.name), bounds=node.bounds, spread=node.spread, version=node.version)
            for node, c in zip(run, found, strict=True)
        ]
        values.update(zip(run, _refused(named, check_bounds=not run[0].parts), strict=True))
    return Evaluation(rollouts, values, plan.names, weights, plan.live)


def score(root: Reward, e: Evaluation) -> Scores:
    """The total with its components and its trace."""
    components = {e.names[node]: e.values[node].replace(weight=w) for node, w in e.weights.items()}
    trace = {}
    for node, name in e.names.items():
        trace[name] = components.get(name) or e.values[node].replace(weight=1.0 if node in e.live else None)
    return Scores(total(root, e), components, trace, dict(e.rollouts.levels), e.rollouts.mask)


def total(root: Reward, e: Evaluation) -> Component:
    """The composed reward, at the terms' own level if they share one and its spread rule.

    Terms of several meet on the steps, the only level that holds each in its place: a value for the last token may be of no line.
    """
    places = {(node.level, node.spread) for node in e.weights}
    if len(places) == 1:
        return e.values[root].replace(name="total")
    on_steps = [aligning.landed(e.values[node], e.rollouts, "step") for node in e.weights]
    say = [building.names_itself(node) for node in e.weights]
    factors = list(e.weights.values())
    whole = aligning.combined(on_steps, lambda *xs: torch.stack([w * x for w, x in zip(factors, xs, strict=True)]).sum(0), say)
    return whole.replace(name="total", spread="copy", bounds=algebra.on_level(root, "step"), version=root.version)


def _check_needs(nodes: list[Reward], rollouts: Rollouts) -> None:
    for node in nodes:
        if node.level not in rollouts.levels:
            raise InputError(
                f"{node.name}: scores `{node.level}` units, but these rollouts have the levels {', '.join(rollouts.levels)}. "
                "Usual cause: the splitter that makes that level is not part of the expression."
            )
        if node.parts:
            continue
        missing = sorted(f for f in node.needs if f not in rollouts.fields and (f not in _OWN or getattr(rollouts, f) is None))
        if missing:
            raise InputError(
                f"{node.name}: reads `{'`, `'.join(missing)}`, which these rollouts do not have; their fields are "
                f"{', '.join(rollouts.fields) or 'none'}. Usual cause: the task file has no column of that name."
            )


def _check_shapes(run: list[Reward], found: list[Component], rollouts: Rollouts) -> None:
    level = run[0].level
    expected = (len(rollouts), levels.unit_count(rollouts.level(level)))
    for node, c in zip(run, found, strict=True):
        if c.level != level or tuple(c.values.shape) != expected:
            raise ShapeError(
                f"{node.name}: compute should return a Component of level `{level}` with values {list(expected)}, "
                f"got level `{c.level}` with {list(c.values.shape)}."
            )


def _refused(run: list[Component], check_bounds: bool) -> list[Component]:
    """Components with infinite values, and a leaf's values outside its bounds, turned into errors of their units."""
    limits = [_limits(c.bounds) if check_bounds else (-math.inf, math.inf) for c in run]
    sides = [side for x in aligning.stacked([c.values for c in run]) for side in _sides(x)]
    return [
        c if low <= least and most <= high and math.isfinite(least) and math.isfinite(most) else _searched(c, low, high)
        for c, (low, high), (least, most) in zip(run, limits, sides, strict=True)
    ]


def _limits(bounds: Bounds) -> tuple[float, float]:
    return bounds.low - ROUNDING * max(1.0, abs(bounds.low)), bounds.high + ROUNDING * max(1.0, abs(bounds.high))


def _sides(x: Tensor) -> Iterable[tuple[float, float]]:
    """The least and the greatest of each component's values in ``x`` [D, N, K], NaN taken for 0."""
    flat = x.detach().nan_to_num(0.0, math.inf, -math.inf).flatten(1)
    return zip(flat.amin(1).tolist(), flat.amax(1).tolist(), strict=True) if flat.shape[1] else [(0.0, 0.0)] * len(flat)


def _searched(c: Component, low: float, high: float) -> Component:
    wrong: Tensor = c.ok & (torch.isinf(c.values) | (c.values < low) | (c.values > high))
    if not wrong.any():
        return c
    reasons = dict(c.reasons)
    for n, k in wrong.nonzero().tolist():
        value = c.values[n, k].item()
        inside = f"outside its bounds [{c.bounds.low:g}, {c.bounds.high:g}]"
        reasons[n, k] = f"value {value:g} is {'not finite' if math.isinf(value) else inside}"
    status = torch.where(wrong, int(Status.ERROR), c.status).to(torch.int8)
    return c.replace(values=torch.where(wrong, torch.nan, c.values), status=status, reasons=reasons)
