# SPDX-License-Identifier: Apache-2.0
"""The true goal, as a reward that no trainer takes: it may be scored, watched, audited and evaluated with, never learned from.

    oracle(reward)              the same values; what is trained on may not read them
    numeric + oracle(x).watch() fine: a watched part is in no total

What optimises a reward calls ``refuse_oracles`` when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from guerdon.errors import ExpressionError
from guerdon.rewards.building import Named, Watch, watch
from guerdon.rewards.evaluating import distinct, live_nodes
from guerdon.rewards.node import Reward


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Oracle(Named):
    """The same values, marked as the true goal."""

    def expression(self) -> str:
        return f"oracle({self.parts[0]})"

    def label(self) -> str:
        return "oracle"


def oracle(part: Reward) -> Reward:
    """``part`` as the true goal: a training stage whose reward reads it is refused.

    >>> from guerdon.rewards.checkers import exact, numeric
    >>> true = oracle(exact())
    >>> print(numeric() + true.watch(), true(completions=["4"], answer=["4"]).total.values.tolist())
    numeric + oracle(exact).watch() [[1.0]]
    """
    if not isinstance(part, Reward):
        raise ExpressionError(f"oracle: expected a reward, got {part!r:.80}. Wrap a function with @reward.")
    if isinstance(part, Oracle):
        return part
    if isinstance(part, Watch):
        return watch(oracle(part.parts[0]))
    return Oracle(name=part.name, level=part.level, spread=part.spread, bounds=part.bounds, parts=(part,))


def oracles(reward: Any) -> list[Reward]:
    """Every oracle in an expression, watched ones included; none in a scorer that is no expression."""
    return [node for node in distinct(reward) if isinstance(node, Oracle)] if isinstance(reward, Reward) else []


def refuse_oracles(reward: Any, whose: str) -> None:
    """Raise ExpressionError if what is trained on reads an oracle, naming it. A weight of 0 is no excuse: schedules change."""
    found = [node for node in oracles(reward) if node in live_nodes(reward)]
    if found:
        named = ", ".join(f"`{node}`" for node in found)
        raise ExpressionError(
            f"{whose}: expected a reward that does not read the true goal, got {named} in `{reward}`. A policy trained on it "
            "leaves nothing to judge it by. Watch it with .watch(), or evaluate with it; to train on it, take oracle(...) away."
        )
