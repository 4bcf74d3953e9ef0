# SPDX-License-Identifier: Apache-2.0
"""Reductions: from a loss per unit to the scalar, divided by a count of the whole batch.

The count comes from masks alone, so it is known before the batch is cut into micro-batches; the reductions of the parts, each
divided by the whole batch's count, then add up to that of the whole, however unequal the parts are:

>>> import torch
>>> from guerdon.objectives.loss import Loss
>>> value, mask = torch.tensor([[1., 2.], [6., 0.]]), torch.tensor([[True, True], [True, False]])
>>> for reduce in (token_mean, sequence_mean, constant(4)):
...     count = reduce.count(mask)
...     parts = [reduce(Loss(value[i : i + 1], "step", mask[i : i + 1]), count).item() for i in (0, 1)]
...     print(reduce, count, parts, reduce(Loss(value, "step", mask), count).item())
token_mean 3.0 [1.0, 2.0] 3.0
sequence_mean 2.0 [0.75, 3.0] 3.75
constant(4) 8.0 [0.375, 0.75] 1.125
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.errors import ExpressionError, InputError
from guerdon.objectives.loss import Loss, masked


@dataclass(frozen=True, repr=False)
class Reduction:
    """total(loss) / count. ``units``: the losses it is for; ``total`` takes value and mask, ``number`` a mask alone.

    ``slope`` takes a `Loss`'s slope [N, T] and its mask, and gives the derivative of ``total`` [N, T]; None: not written out.
    """

    name: str
    units: tuple[str, ...]
    total: Callable[[Tensor, Tensor], Tensor]
    number: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor] | None = None

    def count(self, mask: Tensor) -> float:
        """The whole batch's divisor, from the mask of its loss."""
        return float(self.number(mask))

    def __call__(self, loss: Loss, count: float) -> Tensor:
        """The scalar: this part's total over the whole batch's ``count``."""
        if loss.unit not in self.units:
            raise ExpressionError(
                f"{self.name}: the loss should be per {' or '.join(self.units)}, got one per {loss.unit}. "
                "Usual cause: the reduction of another objective; `pair_mean` is for pairs, the others for steps."
            )
        if not count > 0:
            raise InputError(f"{self.name}: `count` should be positive, got {count}. Usual cause: nothing in the batch counts.")
        return self.total(masked(loss.value, loss.mask), loss.mask) / count

    def __repr__(self) -> str:
        return self.name


def _sum(value: Tensor, mask: Tensor) -> Tensor:
    return value.sum()


def _sum_of_row_means(value: Tensor, mask: Tensor) -> Tensor:
    return value.sum() if mask.dim() == 1 else (value.sum(1) / mask.sum(1).clamp(min=1)).sum()


def _slope_of_sum(slope: Tensor, mask: Tensor) -> Tensor:
    return slope


def _slope_of_row_means(slope: Tensor, mask: Tensor) -> Tensor:
    return slope / mask.sum(1, keepdim=True).clamp(min=1)


def _rows(mask: Tensor) -> Tensor:
    """Rows with a step that counts."""
    return mask.sum() if mask.dim() == 1 else mask.any(1).sum()


token_mean = Reduction("token_mean", ("step",), _sum, torch.sum, _slope_of_sum)
"""The mean over counted steps: a long row weighs more than a short one. DAPO, PPO."""

sequence_mean = Reduction("sequence_mean", ("step", "row"), _sum_of_row_means, _rows, _slope_of_row_means)
"""The mean over rows of the mean over a row's counted steps: each row weighs the same. GRPO. A row without any doesn't count."""

pair_mean = Reduction("pair_mean", ("pair",), _sum, torch.sum)
"""The mean over the pairs that count."""


def constant(length: float) -> Reduction:
    """The sum over counted steps, divided by ``length`` times the rows that have any, whatever their own lengths. Dr. GRPO."""
    if not length > 0:
        raise ExpressionError(f"constant: `length` should be a positive number of steps, got {length}.")
    return Reduction(f"constant({length})", ("step",), _sum, lambda mask: _rows(mask) * length, _slope_of_sum)
