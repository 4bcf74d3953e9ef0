# SPDX-License-Identifier: Apache-2.0
"""Several objectives at once: what is dominated, and how much a set of points dominates. Higher is better in every objective."""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.errors import check_shape


def non_dominated(points: Tensor) -> Tensor:
    """[M] True where no other point is at least as good in every objective and better in one. ``points`` [M, D].

    >>> non_dominated(torch.tensor([[1., 0.], [0., 1.], [0., 0.5], [1., 0.]])).tolist()
    [True, True, False, True]
    """
    check_shape("non_dominated", "points", points, (None, None), "one point where a set belongs")
    as_good = (points[:, None] >= points[None]).all(-1)
    better = (points[:, None] > points[None]).any(-1)
    return ~(as_good & better).any(0)


def hypervolume(points: Tensor, reference: Tensor) -> Tensor:
    """The volume of what is better than ``reference`` [D] and no better than one of ``points`` [M, D]; a scalar.

    HV = vol( U_m [reference, points_m] ), by slicing along the last objective: between two successive values z of it lies a slab
    whose base is the hypervolume, in the other objectives, of the points at or above it. Exact; O(M^D).

    In the product of the objectives' units, so objectives of very different scales should be brought to one first. A point that
    is not better than the reference in every objective adds nothing.

    >>> points = torch.tensor([[0.5, 1.], [1., 0.5], [0.25, 0.25]])
    >>> hypervolume(points, torch.zeros(2)).item(), hypervolume(points, torch.tensor([0.25, 0.])).item()
    (0.75, 0.5)
    """
    check_shape("hypervolume", "points", points, (None, None), "one point where a set belongs")
    check_shape("hypervolume", "reference", reference, (points.shape[1],), "the reference of other objectives")
    above = points[(points > reference).all(1)] - reference
    return _volume(above[non_dominated(above)])


def _volume(above: Tensor) -> Tensor:
    """Of points above 0."""
    if above.shape[1] == 1:
        return torch.cat([above[:, 0], above.new_zeros(1)]).amax()
    above = above[above[:, -1].argsort(descending=True)]
    thickness = above[:, -1] - torch.cat([above[1:, -1], above.new_zeros(1)])
    slabs = [d * _volume(above[: i + 1, :-1]) for i, d in enumerate(thickness) if d > 0]
    return torch.stack([*slabs, above.new_zeros(())]).sum()
