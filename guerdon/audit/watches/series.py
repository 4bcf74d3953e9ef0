# SPDX-License-Identifier: Apache-2.0
"""What a watch remembers of one quantity: its mean at each step, the reference's units and the newest ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.audit.watches.statistics import Sample, rank_correlation

Array = np.ndarray


def _none() -> Array:
    return np.zeros(0)


@dataclass
class Units:
    """Units by the batch: values, clusters, and what the reward paid for each (NaN where it could not say)."""

    values: Array = field(default_factory=_none)
    cluster: Array = field(default_factory=_none)
    paid: Array = field(default_factory=_none)

    def with_batch(self, values: Array, cluster: Array, paid: Array) -> Units:
        kept = np.isfinite(values)
        more = (values[kept], cluster[kept], paid[kept])
        mine = (self.values, self.cluster, self.paid)
        return Units(*(np.concatenate([a, b]) for a, b in zip(mine, more, strict=True)))

    def without_oldest(self) -> Units:
        """But for the oldest batch; a cluster's whole part is its batch's number."""
        batch = np.floor(self.cluster)
        kept = batch > batch[0]
        return Units(self.values[kept], self.cluster[kept], self.paid[kept])

    def __len__(self) -> int:
        return len(self.values)

    @property
    def sample(self) -> Sample:
        return Sample(self.values, self.cluster)


@dataclass
class Series:
    """The first ``least`` units, in whole batches, are the reference; as many of the newest are what it is compared with."""

    least: int
    means: list[float] = field(default_factory=list)
    reference: Units = field(default_factory=Units)
    given: bool = False
    newest: Units = field(default_factory=Units)
    tied: float | None = None

    @property
    def ready(self) -> bool:
        return self.given or len(self.reference) >= self.least

    def add(self, values: Array, cluster: Array, paid: Array) -> None:
        """One batch: [U] values (NaN where there is none), clusters within the batch, what was paid."""
        finite = values[np.isfinite(values)]
        self.means.append(float(finite.mean()) if len(finite) else np.nan)
        number = len(self.means) + _within(cluster)
        if not self.ready:
            self.reference = self.reference.with_batch(values, number, paid)
        elif self.tied is None:
            self.tied = rank_correlation(self.reference.values, self.reference.paid)
        self.newest = self.newest.with_batch(values, number, paid)
        while len(self.newest) and len(shorter := self.newest.without_oldest()) >= self.least:
            self.newest = shorter

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"means": torch.tensor(self.means, dtype=torch.float64), "given": self.given}
        state |= {"tied": float("nan") if self.tied is None else self.tied}
        return state | {k: _tensors(getattr(self, k)) for k in ("reference", "newest")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.means, self.given = state["means"].tolist(), bool(state["given"])
        self.tied = None if np.isnan(state["tied"]) else float(state["tied"])
        self.reference, self.newest = (Units(*(state[k][i].numpy() for i in range(3))) for k in ("reference", "newest"))


def _within(cluster: Array) -> Array:
    """Clusters of a batch as different numbers in [0, 1)."""
    _, at = np.unique(cluster, return_inverse=True)
    return at / (at.max() + 1) if len(at) else at.astype(float)


def _tensors(units: Units) -> Tensor:
    return torch.from_numpy(np.stack([units.values, units.cluster, units.paid]).astype(np.float64))
