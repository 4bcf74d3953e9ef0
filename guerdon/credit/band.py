# SPDX-License-Identifier: Apache-2.0
"""Which groups are worth learning from."""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.errors import check_shape


def accuracy_band(outcome: Tensor, group: Tensor, *, low: float = 0.2, high: float = 0.8) -> Tensor:
    """Whether the mean outcome of each row's group lies in [low, high], [N] bool: neither too hard nor too easy a task.

    ``outcome`` [N], in [0, 1]; ``group`` [N] int64. A row whose outcome is not finite is not in the mean; it is as its group is.

    >>> outcome, group = torch.tensor([1., 0., 0., 1., 1., torch.nan]), torch.tensor([7, 7, 3, 2, 2, 7])
    >>> accuracy_band(outcome, group).tolist()
    [True, True, False, False, False, True]
    """
    check_shape("accuracy_band", "outcome", outcome, (None,), "outcomes per step instead of per row")
    check_shape("accuracy_band", "group", group, tuple(outcome.shape), "groups of another batch")
    ids, index = group.unique(return_inverse=True)
    known = outcome.isfinite()

    def over(x: Tensor) -> Tensor:
        return torch.zeros(len(ids), dtype=torch.float64, device=x.device).index_add(0, index, x.double())

    mean = (over(torch.where(known, outcome, 0)) / over(known))[index]  # 0 / 0 lies in no band
    return (mean >= low) & (mean <= high)
