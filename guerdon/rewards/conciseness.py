# SPDX-License-Identifier: Apache-2.0
"""Shorter than usual: a reward whose standard is what the policy has written so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from guerdon.rewards.node import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Status

TOTAL, COUNT = "total", "count"


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ShorterThanUsual(Reward):
    """1 for a row in which the policy took fewer steps than the mean of all rows so far, those of this batch included.

    It evolves: ``update`` adds the batch to the mean. A row of which the policy took no step has no length.
    """

    name: str = "shorter_than_usual"
    relation: str = "former self"
    bounds: Bounds = Bounds(0, 1)
    evolves: bool = True
    seen: dict[str, float] = field(default_factory=lambda: {TOTAL: 0.0, COUNT: 0.0})
    before: ClassVar[bool] = False

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        lengths = rollouts.mask.sum(1, keepdim=True)
        there = lengths > 0
        mean = (self.seen[TOTAL] + float(lengths.sum())) / max(self.seen[COUNT] + float(there.sum()), 1.0)
        dtype = torch.get_default_dtype() if rollouts.log_prob is None else rollouts.log_prob.dtype
        values = torch.where(there, (lengths < mean).to(dtype), torch.nan)
        status = torch.where(there, int(Status.OK), int(Status.NONE)).to(torch.int8)
        return Component(self.name, "episode", values, status, bounds=self.bounds)

    def update(self, told: Any) -> Mapping[str, float]:
        """Add the batch's lengths; ``usual_length`` is the mean they are compared with."""
        lengths = told.batch.rollouts.mask.sum(1)
        self.seen[TOTAL] += float(lengths.sum())
        self.seen[COUNT] += float((lengths > 0).sum())
        return {"usual_length": self.seen[TOTAL] / max(self.seen[COUNT], 1.0)}

    def state_dict(self) -> dict[str, float]:
        return dict(self.seen)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.seen.update({k: float(state[k]) for k in (TOTAL, COUNT)})
