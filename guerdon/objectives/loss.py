# SPDX-License-Identifier: Apache-2.0
"""What an objective returns: a loss per unit, which units count, and metrics as sums and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from guerdon.errors import ShapeError, check_shape

UNITS = {"step": 2, "row": 1, "pair": 1}
"""unit -> dimensions of a loss per such unit: [N, T], [N] and [P]."""

Metrics = dict[str, tuple[Tensor, Tensor]]
"""name -> (sum, count), scalars without gradient. Sums and counts of micro-batches add; their ratio is the mean."""

Objective = TypeVar("Objective", bound=Callable[..., Any])


def writes_slope(*names: str) -> Callable[[Objective], Objective]:
    """Says of an objective that its `Loss` has a ``slope`` for the inputs ``names`` wherever its value needs no graph."""

    def marked(objective: Objective) -> Objective:
        objective.slopes = frozenset(names)  # type: ignore[attr-defined]
        return objective

    return marked


@dataclass(frozen=True)
class Loss:
    """A loss per unit, not yet reduced: lower is better.

    ``value``    [N, T] per step, [N] per row or [P] per pair; 0 where ``mask`` is False
    ``unit``     "step", "row" or "pair"
    ``mask``     bool, of value's shape: which units count
    ``metrics``  name -> (sum, count)
    ``slope``    input's name -> [N, T] derivative of the sum of its row's values, of losses per step; None: not written out
    """

    value: Tensor
    unit: str
    mask: Tensor
    metrics: Metrics = field(default_factory=dict)
    slope: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ShapeError(f"Loss: `unit` should be one of {', '.join(UNITS)}, got {self.unit!r}.")
        if self.value.dim() != UNITS[self.unit]:
            raise ShapeError(
                f"Loss: a value per {self.unit} should have {UNITS[self.unit]} dimensions, got shape {list(self.value.shape)}. "
                "Usual cause: a loss that is already reduced."
            )
        check_shape("Loss", "mask", self.mask, tuple(self.value.shape), "the mask of another unit")
        if self.mask.dtype != torch.bool:
            raise ShapeError(f"Loss: `mask` should be bool, got {self.mask.dtype}. Usual cause: a 0/1 tensor, use `mask.bool()`.")


def mean_parts(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(sum, count) of ``x`` where ``mask``, without gradient.

    >>> mean_parts(torch.tensor([1., 2., torch.nan]), torch.tensor([True, True, False]))
    (tensor(3.), tensor(2))
    """
    return masked(x.detach(), mask).sum(), mask.sum()


def means_parts(mask: Tensor, **quantities: Tensor) -> Metrics:
    """``mean_parts`` of several quantities of one shape, by name.

    >>> means_parts(torch.tensor([True, False]), a=torch.tensor([1., 5.]), b=torch.tensor([2., torch.nan]))
    {'a': (tensor(1.), tensor(1)), 'b': (tensor(2.), tensor(1))}
    """
    count, every = mask.count_nonzero(), mask.device.type == "cpu" and mask.all()
    return {k: ((x if every else torch.where(mask, x, 0)).detach().sum(), count) for k, x in quantities.items()}


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """``x`` with 0 where ``mask`` is False; ``x`` itself where nothing is masked, as far as a look at the mask is cheap."""
    return x if mask.device.type == "cpu" and mask.all() else torch.where(mask, x, 0)


def counted_only(whose: str, mask: Tensor, **tensors: Tensor) -> list[Tensor]:
    """Each tensor with 0 where ``mask`` is False, so that nothing there reaches a value or a gradient. Checks shapes."""
    if mask.dtype != torch.bool:
        raise ShapeError(f"{whose}: `mask` should be bool, got {mask.dtype}. Usual cause: a 0/1 tensor, use `mask.bool()`.")
    check_shape(whose, "mask", mask, (None, None), "a mask per row instead of per step")
    for name, x in tensors.items():
        check_shape(whose, name, x, tuple(mask.shape), f"a {name} per row instead of per step, or of other rows")
    if mask.device.type == "cpu" and mask.all():
        return list(tensors.values())
    return [torch.where(mask, x, 0) for x in tensors.values()]
