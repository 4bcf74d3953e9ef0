# SPDX-License-Identifier: Apache-2.0
"""Whether two rewards say the same of the same rows: correlations with intervals, and pairs that they rank differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from guerdon.errors import InputError, check_shape


class Estimate(NamedTuple):
    """A figure with the ends of its interval."""

    value: float
    low: float
    high: float


def ranks(x: Tensor) -> Tensor:
    """[N] ranks from 0, equal values with the mean of theirs.

    >>> ranks(torch.tensor([5.0, 1.0, 5.0, 7.0])).tolist()
    [1.5, 0.0, 1.5, 3.0]
    """
    ordered, order = x.sort()
    _, place, count = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
    middle = count.cumsum(0) - (count + 1) / 2
    return torch.empty(len(x), dtype=torch.float64).index_copy_(0, order, middle.double()[place])


def pearson_correlation(x: Tensor, y: Tensor) -> float:
    """ρ of two [N]; NaN where one of them is constant.

    >>> round(pearson_correlation(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([3.0, 1.0, -1.0])), 9)
    -1.0
    """
    x, y = (v.double() - v.double().mean() for v in (x, y))
    scale = x.norm() * y.norm()
    return float((x @ y / scale).clamp(-1, 1)) if scale > 0 else float("nan")


def spearman_correlation(x: Tensor, y: Tensor) -> float:
    """ρ of the ranks of two [N].

    >>> round(spearman_correlation(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 1.0, 100.0])), 9)
    1.0
    """
    return pearson_correlation(ranks(x), ranks(y))


def bootstrapped(
    statistic: Callable[[Tensor], float], cluster: Tensor, *, draws: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """``statistic`` of all rows, and the quantiles of it over resampled clusters. ``statistic`` takes row numbers [M].

    ``cluster`` [N] int64: rows of one number come and go together. Draws whose statistic is NaN are left out; of one cluster, or
    where half the draws are NaN, there is no interval, and its ends are NaN.

    >>> x = torch.arange(8.0)
    >>> bootstrapped(lambda rows: float(x[rows].mean()), torch.arange(8) // 2)
    Estimate(value=3.5, low=1.5, high=5.5)
    """
    check_shape("bootstrapped", "cluster", cluster, (None,))
    value = statistic(torch.arange(len(cluster)))
    order = cluster.argsort(stable=True)
    parts = order.split(torch.unique(cluster, return_counts=True)[1].tolist()) if len(cluster) else ()
    if len(parts) < 2:
        return Estimate(value, float("nan"), float("nan"))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(parts), (draws, len(parts)), generator=generator).tolist()
    found = torch.tensor([statistic(torch.cat([parts[i] for i in row])) for row in chosen], dtype=torch.float64)
    kept = found[~found.isnan()]
    if len(kept) < draws / 2:
        return Estimate(value, float("nan"), float("nan"))
    tail = (1 - confidence) / 2
    low, high = torch.quantile(kept, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Estimate(value, low, high)


class Pairs(NamedTuple):
    """Pairs of rows of one group: how many two rewards rank alike, the other way round, and where one of them or both see no
    difference."""

    same: int
    opposite: int
    tied_first: int
    tied_second: int
    tied_both: int

    @property
    def disagreement(self) -> float:
        """Share of opposite pairs among those that both rank; NaN without any."""
        ranked = self.same + self.opposite
        return self.opposite / ranked if ranked else float("nan")


def pairs_within(first: Tensor, second: Tensor, group: Tensor) -> Pairs:
    """Pairs counted in each group. ``first``, ``second`` [N], no NaN; ``group`` [N] int64.

    >>> pairs_within(torch.tensor([0.0, 1.0, 1.0, 5.0]), torch.tensor([2.0, 3.0, 1.0, 0.0]), torch.tensor([0, 0, 0, 1]))
    Pairs(same=1, opposite=1, tied_first=1, tied_second=0, tied_both=0)
    """
    check_shape("pairs_within", "second", second, tuple(first.shape))
    check_shape("pairs_within", "group", group, tuple(first.shape))
    if bool(first.isnan().any() or second.isnan().any()):
        raise InputError("pairs_within: values should be numbers, got NaN. Usual cause: rows that are not ok; leave them out.")
    counts = torch.zeros(5, dtype=torch.long)
    order = group.argsort(stable=True)
    for rows in order.split(torch.unique(group, return_counts=True)[1].tolist()) if len(group) else ():
        i, j = torch.triu_indices(len(rows), len(rows), 1)
        a, b = ((v[rows][i] - v[rows][j]).sign() for v in (first, second))
        kinds = (a * b > 0, a * b < 0, (a == 0) & (b != 0), (a != 0) & (b == 0), (a == 0) & (b == 0))
        counts += torch.stack([k.sum() for k in kinds])
    return Pairs(*counts.tolist())
