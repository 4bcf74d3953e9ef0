# SPDX-License-Identifier: Apache-2.0
"""Several components' advantages as one, and each component's part in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from guerdon.errors import ExpressionError


def weighted_sum(advantages: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]) -> Tensor:
    """sum_k weights_k advantages_k, [N, T]; NaN where any component is, also one of weight 0.

    A weight is a number or a tensor that broadcasts to [N, T]. The names of both must be the same.

    >>> weighted_sum({"right": torch.tensor([[1., -1.]]), "short": torch.tensor([[2., 0.]])}, {"right": 1, "short": 0.5}).tolist()
    [[2.0, -1.0]]
    """
    if not advantages or advantages.keys() != weights.keys():
        raise ExpressionError(
            f"weighted_sum: the weights should be named as the advantages {sorted(advantages)}, got {sorted(weights)}. "
            "Usual cause: a component was renamed or is only watched."
        )
    terms = [torch.as_tensor(weights[name], dtype=x.dtype, device=x.device) * x for name, x in advantages.items()]
    return torch.stack(torch.broadcast_tensors(*terms)).sum(0)


def variance_shares(advantages_weighted: Mapping[str, Tensor], mask: Tensor) -> dict[str, float]:
    """How much of the advantage's variance each weighted component brings.

    share_k = Cov(A_k, A) / Var(A),   A = sum_k A_k, over the counted steps where A is finite

    The shares sum to 1. One is negative where a component works against the sum, and all are NaN where A does not vary.

    >>> right, short = torch.tensor([[2., -2., 0.]]), torch.tensor([[1., -1., 9.]])
    >>> shares = variance_shares({"right": right, "short": short}, torch.tensor([[True, True, False]]))
    >>> {name: round(share, 4) for name, share in shares.items()}
    {'right': 0.6667, 'short': 0.3333}
    """
    parts = torch.stack([x.detach().double() for x in advantages_weighted.values()])
    parts = parts[:, mask & parts.isfinite().all(0)]
    parts = parts - parts.mean(1, keepdim=True)
    total = parts.sum(0)
    variance = (total**2).sum()
    flat = variance <= torch.finfo(torch.double).eps ** 2 * (parts**2).sum() * parts.shape[1]
    shares = torch.where(flat, torch.nan, (parts * total).sum(1) / variance)
    return dict(zip(advantages_weighted, shares.tolist(), strict=True))
