# SPDX-License-Identifier: Apache-2.0
"""Comparisons: which is better. Pairs of units of one level, with the probability that the first is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import InputError, ShapeError, check_shape
from guerdon.scores import Status


@dataclass(frozen=True, eq=False)
class Comparisons:
    """P pairs of units of one level.

    first, second  [P, 2] int64: (row, unit) in the Rollouts they refer to
    target         [P] probability that the first is better; 1/2 is a tie. Need not be transitive. NaN where the status isn't ok
    weight         [P] how much the pair counts (default 1)
    margin         [P] by how much the first is better, in the annotator's units, or None
    component      what was compared ("overall", "safety", ...)
    annotator      P strings: who judged
    status         [P] int8 (Status); reasons: pair -> text
    """

    first: Tensor
    second: Tensor
    target: Tensor
    level: str = "episode"
    weight: Tensor = None  # type: ignore[assignment]  # filled in below
    margin: Tensor | None = None
    component: str = "overall"
    annotator: Sequence[str] = ()
    status: Tensor = None  # type: ignore[assignment]
    reasons: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        p = self.target.shape[0]
        for name in ("first", "second"):
            x = getattr(self, name)
            if x.dim() == 1:  # rows alone: unit 0 of each
                object.__setattr__(self, name, torch.stack([x, torch.zeros_like(x)], -1))
            check_shape("Comparisons", name, getattr(self, name), (p, 2))
        if self.weight is None:
            object.__setattr__(self, "weight", torch.ones(p, dtype=self.target.dtype, device=self.target.device))
        if self.status is None:
            ok = torch.where(torch.isnan(self.target), int(Status.ABSTAIN), int(Status.OK))
            object.__setattr__(self, "status", ok.to(torch.int8))
        object.__setattr__(self, "annotator", list(self.annotator) or [""] * p)
        wrong = torch.isnan(self.target) == (self.status == Status.OK)
        if wrong.any():
            i = int(wrong.nonzero()[0, 0])
            raise ShapeError(
                f"Comparisons: `target` should be NaN exactly where the status is not ok; of pair {i} the target is "
                f"{self.target[i].item()} and the status {Status(int(self.status[i])).name.lower()}."
            )
        known = self.target[~torch.isnan(self.target)]
        if ((known < 0) | (known > 1)).any():
            raise InputError(
                f"Comparisons: `target` is the probability that the first is better, in [0, 1]; got {known.min().item()} to "
                f"{known.max().item()}. Usual cause: labels -1/+1, or scores instead of probabilities."
            )

    def __len__(self) -> int:
        return self.target.shape[0]

    def swapped(self) -> Comparisons:
        """The same judgements with first and second exchanged."""
        margin = None if self.margin is None else -self.margin
        return Comparisons(
            self.second,
            self.first,
            1 - self.target,
            self.level,
            self.weight,
            margin,
            self.component,
            self.annotator,
            self.status,
            self.reasons,
        )

    def save(self, path: Any) -> None:
        """Write a parquet file that pandas and datasets read; needs ``guerdon[data]``."""
        from guerdon.storage import save_comparisons

        save_comparisons(self, path)

    @staticmethod
    def load(path: Any) -> Comparisons:
        from guerdon.storage import load_comparisons

        return load_comparisons(path)
