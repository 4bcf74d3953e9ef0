# SPDX-License-Identifier: Apache-2.0
"""Asking a comparator in both orders: what it says in both counts, and how much it likes a place is measured."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.errors import InputError
from guerdon.protocols import Comparator
from guerdon.rollouts import Rollouts
from guerdon.scores import Status

RULES = ("tie", "abstain")
NAMED = {1.0: "the first", 0.0: "the second", 0.5: "neither"}
DISAGREE = "the two orders disagree: {} when asked one way, {} the other"

_LOCK = threading.Lock()


@dataclass
class Orders:
    """Of the pairs with a judgement in both orders: what was preferred, by place.

    first, second, tied   judgements (two a pair) for the completion shown first, shown second, and for neither
    agree                 pairs of which both orders say the same; a pair in which the same *place* wins twice does not agree
    first_twice, second_twice  pairs in which it does
    pairs                 all of them
    """

    first: int = 0
    second: int = 0
    tied: int = 0
    agree: int = 0
    first_twice: int = 0
    second_twice: int = 0
    pairs: int = 0

    def add(self, forward: Tensor, backward: Tensor) -> None:
        """Count pairs [P] of judgements in {0, 1/2, 1}: 1 is the one shown first, in either order."""
        both = torch.cat([forward, backward])
        with _LOCK:
            self.first += int((both == 1).sum())
            self.second += int((both == 0).sum())
            self.tied += int((both == 0.5).sum())
            self.agree += int((forward == 1 - backward).sum())
            self.first_twice += int(((forward == 1) & (backward == 1)).sum())
            self.second_twice += int(((forward == 0) & (backward == 0)).sum())
            self.pairs += len(forward)

    @property
    def first_share(self) -> float | None:
        """Share of the decided judgements that go to the completion shown first; 1/2 without a position bias."""
        decided = self.first + self.second
        return self.first / decided if decided else None

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "first_share": self.first_share}


@dataclass(frozen=True, eq=False)
class BothAgree:
    """A comparator that asks another in both orders and believes what both orders say.

    A judgement is for the first (target above 1/2), for the second (below) or for neither. Both orders agree where both are for
    the same completion, or both for neither; the target is then 1, 0 or 1/2. Everything else is a disagreement: a tie (target
    1/2, ``disagreement="tie"``) or no judgement (status abstain, ``"abstain"``). A pair that was not judged in one of the orders
    is not judged; it has the worse status of the two. ``orders`` counts what was preferred by place.
    """

    comparator: Comparator
    disagreement: str = "tie"
    orders: Orders = field(default_factory=Orders)

    def __post_init__(self) -> None:
        if self.disagreement not in RULES:
            raise InputError(f"BothAgree: `disagreement` should be one of {', '.join(RULES)}, got {self.disagreement!r}.")

    def __call__(self, rollouts: Rollouts, pairs: Tensor) -> Comparisons:
        both = self.comparator(rollouts, torch.cat([pairs, pairs.flip(1)]))
        p = len(pairs)
        said = torch.where(both.target > 0.5, 1.0, torch.where(both.target < 0.5, 0.0, 0.5)).to(both.target.dtype)
        forward, backward = said[:p], said[p:]
        status = torch.maximum(both.status[:p], both.status[p:]).clone()
        judged = status == Status.OK
        self.orders.add(forward[judged], backward[judged])
        differ = judged & (forward != 1 - backward)
        target = torch.where(judged, torch.where(differ, 0.5, forward), torch.nan)
        worse_last = sorted(both.reasons.items(), key=lambda r: int(both.status[r[0]]))
        reasons = {i % p: text for i, text in worse_last}
        for i in differ.nonzero()[:, 0].tolist():
            reasons[i] = DISAGREE.format(NAMED[float(forward[i])], NAMED[1 - float(backward[i])])
        if self.disagreement == "abstain":
            status[differ] = int(Status.ABSTAIN)
            target = torch.where(differ, torch.nan, target)
        return Comparisons(
            pairs[:, 0],
            pairs[:, 1],
            target,
            component=both.component,
            annotator=both.annotator[:p],
            status=status,
            reasons=reasons,
        )
