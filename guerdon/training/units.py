# SPDX-License-Identifier: Apache-2.0
"""What minibatches are cut from: rows, or the pairs that were judged, and the rows these stand on."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from guerdon.comparisons import Comparisons

Units = Tensor | range
Rows = Tensor | slice
"""Neighbours are a range or a slice, so that they are cut out without a copy."""


def parts(units: Units, count: int) -> list[Units]:
    """Neighbours in ``count`` parts, of which the first are larger by one where they can't all be of one size."""
    size, larger = divmod(len(units), count)
    ends = [i * size + min(i, larger) for i in range(count + 1)]
    return [units[a:b] for a, b in pairwise(ends)]


def renumbered(c: Comparisons | None, units: Units, rows: Rows) -> Comparisons | None:
    """Some of the pairs, with their rows counted in ``rows``, which are in order."""
    if c is None or isinstance(rows, slice):
        return None

    def moved(x: Tensor) -> Tensor:
        return torch.stack([torch.searchsorted(rows, x[units, 0].cpu().contiguous()), x[units, 1].cpu()], -1)

    return Comparisons(moved(c.first), moved(c.second), c.target[units], c.level, c.weight[units], status=c.status[units])
