# SPDX-License-Identifier: Apache-2.0
"""Which rewards can be paid while an episode goes on: those whose value at a step depends on steps up to it.

``reasons_against`` names every node that is none of these, and ``memory`` says how many earlier steps the others look back on.
Both speak of environments, where every field belongs to a step; in text a function of a step may read the whole answer.
"""

from __future__ import annotations

from dataclasses import replace

from guerdon.errors import ExpressionError
from guerdon.rewards import FunctionReward, Reward
from guerdon.rewards.algebra import Clip, Extreme, Gate, Otherwise, Product, Scale, Sum
from guerdon.rewards.building import Named, Watch
from guerdon.rewards.differencing import Difference
from guerdon.rewards.fields import FieldReward
from guerdon.rewards.moving import At
from guerdon.rewards.relating import Shuffled

POINTWISE = (Sum, Scale, Product, Extreme, Clip, Gate, Otherwise, Watch, Named, At)
"""Nodes whose value at a step is made of their parts' values at that step."""


def reasons_against(reward: Reward) -> dict[Reward, str]:
    """The nodes that cannot be paid as the episode goes on, each with the reason; those built on one are not named.

    >>> from guerdon import parse
    >>> [(str(node), why) for node, why in reasons_against(parse("environment.gain() + environment.drop()")).items()]
    [('environment.drop()', 'reads later steps')]
    """
    found: dict[Reward, str] = {}
    tainted: set[Reward] = set()
    for node in reward.nodes():
        if tainted.intersection(node.parts):
            tainted.add(node)
        elif why := _reason(node):
            found[node] = why
            tainted.add(node)
    return found


def _reason(node: Reward) -> str:
    if node.level != "step":
        return f"has one value per {node.level}, known when the {node.level} is over"
    if node.relation in ("group", "batch") or isinstance(node, Shuffled):
        return f"depends on the rest of the {'row' if node.relation == 'self' else node.relation}"
    if node.parts:
        return "" if _causal_by_itself(node) else "reads later steps"
    if node.causal or (isinstance(node, FunctionReward) and node.arguments is None and not node.split):
        return ""
    return "does not say that it is causal, so it may read later steps"


def _causal_by_itself(node: Reward) -> bool:
    """Whether it would be causal if its parts were; a node says so of itself and its parts together only."""
    parts = tuple(Reward(name=p.name, level=p.level, causal=True) for p in node.parts)
    return replace(node, parts=parts).causal


def refuse_non_causal(reward: Reward, whose: str) -> None:
    if found := reasons_against(reward):
        told = "; ".join(f"`{node}` {why}" for node, why in found.items())
        raise ExpressionError(
            f"{whose}: expected a reward that is known at every step from the steps so far, got `{reward}`: {told}. "
            "Usual cause: a reward of whole episodes; where rollouts are scored as a whole (guerdon train --env, "
            "guerdon.integrations.sb3) it can be used as it is."
        )


def memory(reward: Reward) -> int | None:
    """How many steps before it the value at a step depends on; None: all of its episode.

    >>> from guerdon import parse
    >>> memory(parse("environment")), memory(parse("0.5*environment.gain().gain() + environment"))
    (0, 2)
    """
    reach: dict[Reward, int | None] = {}
    for node in reward.nodes():
        below = [reach[p] for p in node.parts]
        if isinstance(node, FieldReward) or (isinstance(node, FunctionReward) and node.arguments is None):
            reach[node] = 0
        elif isinstance(node, (*POINTWISE, Difference)) and None not in below:
            reach[node] = max(x for x in below if x is not None) + isinstance(node, Difference)
        else:
            reach[node] = None
    return reach[reward]
