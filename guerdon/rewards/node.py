# SPDX-License-Identifier: Apache-2.0
"""Reward: what one composes. A node of an immutable expression tree that turns Rollouts into Scores.

A reward answers four questions about itself: how often it speaks (``level``), compared with what (``relation``), about how many
things (its named components) and whether it learns (``evolves``). Leaves measure; the nodes of ``algebra`` and its neighbours
combine.

Writing a leaf: a dataclass with one method, ``compute``.

>>> import torch
>>> from dataclasses import dataclass, replace
>>> from guerdon.rollouts import Rollouts
>>> from guerdon.scores import Bounds, Component, component
>>> @dataclass(frozen=True, eq=False, kw_only=True, repr=False)
... class Long(Reward):
...     name: str = "long"
...     bounds: Bounds = Bounds(0, 1)
...     def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
...         texts = rollouts.values_at("completion", "episode")
...         return component(self.name, "episode", torch.tensor([[float(len(t) > 3)] for t in texts]))
>>> reward = 0.5 * Long().named("a_start") - Long()
>>> print(reward)
0.5 * long.named('a_start') - long
>>> reward(completions=["short", "no"]).total.values.tolist()
[[-0.5], [0.0]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar

from guerdon.errors import ExpressionError
from guerdon.levels import INVERSE, is_finer
from guerdon.rewards import pickling
from guerdon.rewards.schedule import Linear
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Scores

RELATIONS = ("self", "reference", "former self", "group", "batch")
"""What a value is compared with, from the narrowest to the widest."""

MAX_DEPTH = 100
MAX_SIZE = 2000

SUM, PRODUCT, ATOM = 0, 1, 2  # how tightly an expression's text binds


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Reward:
    """A node of a reward expression. Subclasses implement ``compute``; everything else is declared.

    name            how people call it; a leaf's is its component's name
    level           the units it scores
    relation        what a value is compared with: self, reference, former self, group, batch
    bounds          closed interval every unit's value lies in (a leaf's value outside it is an error of that unit)
    spread          where a unit's value falls on finer levels: last, first, uniform, copy
    parts           the rewards it reads
    needs           fields of Rollouts (or tensors such as ``ref_log_prob``) it reads; those of the parts are added
    evolves         it learns while in use
    causal          the value at a step depends on steps up to it only
    differentiable  gradients pass from its values to what it reads
    budget          seconds one item may take in the worker pool; None: computed in this process
    version         changes when its values would
    identity        what tells it from another of the same text (a user's function); None: the text says everything
    reference       ``path.py:name`` where ``parse`` finds it; "": its name is a built-in one
    """

    name: str
    level: str = "episode"
    relation: str = "self"
    bounds: Bounds = Bounds()
    spread: str = "last"
    parts: tuple[Reward, ...] = ()
    needs: frozenset[str] = frozenset()
    evolves: bool = False
    causal: bool = False
    differentiable: bool = False
    budget: float | None = None
    version: str = ""
    identity: Any = None
    reference: str = ""

    binds: ClassVar[int] = ATOM

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            raise ExpressionError(f"{self.name}: `relation` should be one of {', '.join(RELATIONS)}, got {self.relation!r}.")
        if self.spread not in INVERSE or self.spread == "weights":
            raise ExpressionError(f"{self.name}: `spread` should be one of last, first, uniform, copy, got {self.spread!r}.")
        if not self.bounds.low <= self.bounds.high:
            raise ExpressionError(f"{self.name}: `bounds` should be (low, high) with low <= high, got {self.bounds}.")
        object.__setattr__(self, "needs", frozenset(self.needs).union(*(p.needs for p in self.parts)))
        if self.parts:
            widest = max([self.relation, *(p.relation for p in self.parts)], key=RELATIONS.index)
            object.__setattr__(self, "relation", widest)
            object.__setattr__(self, "evolves", self.evolves or any(p.evolves for p in self.parts))
            object.__setattr__(self, "causal", all(p.causal for p in self.parts))
            object.__setattr__(self, "differentiable", all(p.differentiable for p in self.parts))
        if self.depth > MAX_DEPTH or self.size > MAX_SIZE:
            raise ExpressionError(
                f"reward: an expression may have {MAX_SIZE} nodes, {MAX_DEPTH} deep; this one has {self.size}, "
                f"{self.depth} deep. Usual cause: a loop that wraps or doubles the same reward."
            )

    # ---- what a subclass says

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        """Its values, given those of its parts (one Component each, in order)."""
        raise NotImplementedError(f"{type(self).__name__} should implement compute(rollouts, parts, step)")

    @classmethod
    def together(cls, nodes: Sequence[Any], rollouts: Rollouts, parts: Sequence[list[Component]], step: int) -> list[Component]:
        """``compute`` of several nodes of this class and of one level, for what is cheaper done once for all."""
        return [node.compute(rollouts, some, step) for node, some in zip(nodes, parts, strict=True)]

    def prepare(self, rollouts: Rollouts) -> Rollouts:
        """The rollouts with the levels or fields it brings (splitters); called once before any ``compute``."""
        return rollouts

    def expression(self) -> str:
        """Its text in the expression language."""
        return self.name

    def total_bounds(self) -> Bounds:
        """Interval its sum over an episode lies in; a sum over an unknown number of units is unbounded."""
        return self.bounds.of_total("step" if self.spread == "copy" else self.level)

    def label(self) -> str:
        """One line for the tree: what this node does, without its parts."""
        return str(self) if not self.parts else self.name

    # ---- as a value

    @cached_property
    def text(self) -> str:
        found = self.reference or self.expression()
        plain = not self.reference or _is_plain_path(found)
        return found if plain else repr(found)

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """Two rewards are equal when their keys are: same text, same user functions."""
        if not self.parts:
            return (self.text, self.identity)
        return (self.text, *(part.key[1:] for part in self.parts))

    @cached_property
    def plan(self) -> evaluating.Plan:
        """In which order its nodes are computed, and their names."""
        return evaluating.planned(self)

    @cached_property
    def _nodes(self) -> list[Reward]:
        return evaluating.distinct(self)

    @cached_property
    def depth(self) -> int:
        return 1 + max((p.depth for p in self.parts), default=0)

    @cached_property
    def size(self) -> int:
        return 1 + sum(p.size for p in self.parts)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.text}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reward) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __getstate__(self) -> dict[str, Any]:
        """Its fields; what is derived from them is derived again, and a decorated function is found by its name."""
        own = [f.name for f in fields(self)] + ["__doc__"] * ("__doc__" in vars(self))
        return {name: pickling.stored(getattr(self, name)) for name in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({k: pickling.restored(v) for k, v in state.items()})

    # ---- using it

    def score(self, rollouts: Rollouts, *, step: int = 0) -> Scores:
        """What it says of the rollouts; ``step`` is the training step, for schedules."""
        return evaluating.score(self, evaluating.evaluate(self, rollouts, step))

    @property
    def begins(self) -> bool:
        """Whether it has anything to gain from being told rows before all are drawn."""
        return any(leaf.begins for leaf in self._leaves())

    def begin(self, rollouts: Rollouts) -> None:
        """Start, in the background, on rows that will be scored soon, while the rest of their batch is drawn."""
        for leaf in self._leaves():
            leaf.begin(rollouts)

    def _leaves(self) -> list[Reward]:
        return [node for node in self.nodes() if node is not self and not node.parts]

    def __call__(self, *, completions: Sequence[Any], prompts: Sequence[Any] | None = None, **fields: Sequence[Any]) -> Scores:
        """Score plain strings or chat messages; each field is one value per completion."""
        asked = list(prompts) if prompts is not None else [""] * len(completions)
        return self.score(Rollouts.from_text(asked, completions, steps=self._granularity(), **fields))

    def _granularity(self) -> str:
        """Whether text must be cut into characters for every level to have steps to stand on."""
        return "characters" if any(is_finer(p.level, "turn") for p in evaluating.distinct(self)) else "text"

    def tree(self) -> str:
        """The expression as a tree: level, relation, bounds per unit and per episode, budget, what evolves or is watched."""
        return show.tree(self)

    def explain(self, rollouts: Rollouts, row: int, *, step: int = 0) -> str:
        """The tree with the values, statuses and reasons of one row."""
        return show.explain(self, rollouts, row, step)

    # ---- the algebra

    def __add__(self, other: Reward | int) -> Reward:
        if isinstance(other, int | float) and other == 0:  # the start of sum([...])
            return self
        return algebra.plus(self, _reward(other, "+"))

    def __radd__(self, other: Reward | int) -> Reward:
        return self + other

    def __sub__(self, other: Reward) -> Reward:
        return algebra.plus(self, -_reward(other, "-"))

    def __rsub__(self, other: object) -> Reward:
        return _reward(other, "-") - self

    def __neg__(self) -> Reward:
        return algebra.scaled(self, -1.0)

    def __mul__(self, other: Reward | float | Linear) -> Reward:
        if isinstance(other, Reward):
            return algebra.times(self, other)
        return algebra.scaled(self, other)

    def __rmul__(self, other: float | Linear) -> Reward:
        return algebra.scaled(self, other)

    def __truediv__(self, number: float) -> Reward:
        if isinstance(number, bool) or not isinstance(number, int | float) or number == 0:
            raise ExpressionError(f"/: a reward is divided by a number other than 0, got {number!r}.")
        return algebra.scaled(self, 1 / number)

    def clip(self, low: float | None = None, high: float | None = None) -> Reward:
        """Values below ``low`` become ``low``, above ``high`` become ``high``; None leaves a side open."""
        return algebra.clip(self, low, high)

    def gate(self, *, on: Reward, above: float = 0.5, softness: float | None = None) -> Reward:
        """Its value where ``on`` is above ``above``, else 0; with ``softness`` s, times sigmoid((on - above) / s).

        A closed gate is a real 0. Where the condition failed, the unit is not ok.
        """
        return algebra.gate(self, _reward(on, "gate(on=...)"), above, softness)

    def otherwise(self, other: Reward) -> Reward:
        """Its value where it is ok, else that of ``other``."""
        return algebra.otherwise(self, _reward(other, "otherwise"))

    def at(self, level: str, how: str | None = None) -> Reward:
        """At a finer level: ``how`` (copy, last, first, uniform; default: its own rule) says where a unit's value goes.

        At its own level this only sets the rule.
        """
        return moving.at(self, level, how)

    def pool(self, how: str, level: str = "episode") -> Reward:
        """At a coarser level: the sum, mean, last, first, min or max of the units within each."""
        return moving.pool(self, how, level)

    def gain(self, start: float = 0.0) -> Reward:
        """Each unit's value minus that of the unit before it in its episode; of the first, minus ``start``."""
        return differencing.gain(self, start)

    def drop(self, end: float = 0.0) -> Reward:
        """Each unit's value minus that of the unit after it in its episode; of the last, minus ``end``."""
        return differencing.drop(self, end)

    def normalise(self, over: str = "group", scale: bool = True) -> Reward:
        """Minus the mean of its group or batch and, with ``scale``, divided by the standard deviation (n - 1)."""
        return relating.normalise(self, over, scale)

    def watch(self) -> Reward:
        """Evaluated and shown, never in the total; its failures stay its own."""
        return building.watch(self)

    def named(self, name: str) -> Reward:
        """The same under another name: a part of its own in tables and curves."""
        return building.named(self, name)

    def shuffled(self, seed: int = 0, over: str = "group") -> Reward:
        """A control: the same values dealt to other units of the row, the group or the batch."""
        return relating.shuffled(self, seed, over)

    # ---- the tree itself

    def nodes(self) -> list[Reward]:
        """Every distinct node, parts before what they are parts of."""
        return list(self._nodes)

    def with_budget(self, seconds: float) -> Reward:
        """The same with a time budget for every function in it that has none, so that they run in the worker pool."""
        if self.parts:
            return replace(self, parts=tuple(p.with_budget(seconds) for p in self.parts))
        return self


def _reward(x: object, whose: str) -> Reward:
    if isinstance(x, Reward):
        return x
    numeric = isinstance(x, int | float)
    hint = "A number has no units to stand on: multiply by it, or clip at it" if numeric else "Wrap a function with @reward"
    raise ExpressionError(f"{whose}: expected a reward, got {x!r:.80}. {hint}.")


def _is_plain_path(reference: str) -> bool:
    from guerdon.rewards.parse import PATH  # parse builds rewards, so it can't be imported before them

    return PATH.fullmatch(reference) is not None


# The operators build nodes of the algebra, and those are Rewards: the circle is closed here, once.
from guerdon.rewards import algebra, building, differencing, evaluating, moving, relating, show  # noqa: E402
