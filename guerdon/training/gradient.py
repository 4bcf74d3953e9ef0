# SPDX-License-Identifier: Apache-2.0
"""The gradient of weighted, reduced losses with respect to a policy's outputs: as the objectives write it, or by autograd."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from guerdon.errors import InputError
from guerdon.objectives.loss import Loss
from guerdon.training.binding import function_in, name_of, needs_of
from guerdon.training.recipe import Term


class Gradient:
    """Of the sum of what is added, one ``Loss`` for each of ``terms``, which are functions of ``leaves``.

    leaves    the policy's ``outputs`` apart from its graph
    written   every term's slope is written out, by all that it reads of the policy: no graph has to be made
    """

    def __init__(self, outputs: Mapping[str, Tensor], terms: Iterable[Term]) -> None:
        self.trained = [k for k, v in outputs.items() if v.requires_grad]
        self.written = all(_writes(term) >= needs_of(term.objective).intersection(self.trained) for term in terms)
        self.leaves = {k: v.detach().requires_grad_(not self.written and k in self.trained) for k, v in outputs.items()}
        self.weighted: list[Tensor] = []
        self.found: dict[str, Tensor] = {}

    def add(self, term: Term, loss: Loss, count: float, weight: float) -> float:
        """Add ``weight`` x the reduced loss; the reduced loss."""
        value = term.reduction(loss, count)
        if self.written and needs_of(term.objective).intersection(self.trained):
            for name, slope in _slope(term, loss).items():
                part = term.reduction.slope(slope, loss.mask) * (weight / count)
                self.found[name] = self.found[name] + part if name in self.found else part
        elif value.requires_grad:
            self.weighted.append(weight * value)
        return value.item()

    def by_output(self) -> dict[str, Tensor]:
        """Of each output that depends on the policy's parameters and that the losses depend on."""
        if self.weighted:
            whole, leaves = functools.reduce(torch.add, self.weighted), [self.leaves[k] for k in self.trained]
            each = torch.autograd.grad(whole, leaves, allow_unused=True)
            return {k: g for k, g in zip(self.trained, each, strict=True) if g is not None}
        return {k: self.found[k] for k in self.trained if k in self.found}


def _writes(term: Term) -> frozenset[str]:
    """The inputs by which the term's slope is written out; none where the reduction's is not."""
    return getattr(function_in(term.objective), "slopes", frozenset()) if term.reduction.slope is not None else frozenset()


def _slope(term: Term, loss: Loss) -> Mapping[str, Tensor]:
    if loss.slope is None:
        raise InputError(
            f"{name_of(term.objective)}: expected a loss with a `slope`, which it says it writes, got none. "
            "Usual cause: `writes_slope` on an objective of which one branch gives none."
        )
    return loss.slope
