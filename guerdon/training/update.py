# SPDX-License-Identifier: Apache-2.0
"""The update: losses of one batch, differentiated with respect to the policy's outputs, micro-batch by micro-batch.

Every reduction divides by a count taken over its whole minibatch before the first forward pass, so that how the minibatch is cut
into micro-batches changes nothing but rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.errors import GuerdonError
from guerdon.protocols import Policy, Updater
from guerdon.scores import Scores, Status
from guerdon.training.binding import Ingredients, at, name_of, needs_of
from guerdon.training.recipe import Batch, Stage, Term

_OF_PAIRS = ("first", "second", "target")


@dataclass
class Update:
    """One batch's optimiser steps: ``stage.rounds`` passes of ``stage.updates`` minibatches each."""

    stage: Stage
    batch: Batch
    scores: Scores | None
    ingredients: Ingredients
    policy: Policy
    updater: Updater
    step: int

    def run(self) -> dict[str, float]:
        """Metrics: ``loss/NAME`` averaged over minibatches, each objective's own metrics over their counts, the last step's norms."""
        masks = [self.mask_of(t) for t in self.stage.terms]
        totals: dict[str, list[float]] = {}
        norms: dict[str, float] = {}
        for _ in range(self.stage.rounds):
            for part in self.units().tensor_split(self.stage.updates):
                counts = [t.reduction.count(self.counted(m, part)) for t, m in zip(self.stage.terms, masks, strict=True)]
                losses = [0.0] * len(counts)
                for chunk in part.split(self.stage.micro_rows):
                    for i, x in enumerate(self.accumulate(chunk, masks, counts, totals)):
                        losses[i] += x
                for term, x in zip(self.stage.terms, losses, strict=True):
                    _add(totals, f"loss/{name_of(term.objective)}", x, 1)
                norms = self.updater.step(lr=at(self.stage.lr, self.step))
        return norms | {k: s / c if c else math.nan for k, (s, c) in totals.items()}

    def units(self) -> Tensor:
        """What is dealt into minibatches: rows, or the pairs whose judgement is ok."""
        if self.batch.comparisons is None:
            return torch.arange(len(self.batch.rollouts))
        return (self.batch.comparisons.status == Status.OK).nonzero()[:, 0]

    def mask_of(self, term: Term) -> Tensor:
        """[N, T] the steps that count for a term."""
        mask = self.ingredients["mask"] & (self.batch.rollouts.weight > 0)[:, None]
        return mask if term.rows is None else mask & term.rows(self.batch.rollouts, self.scores)[:, None]

    def counted(self, mask: Tensor, part: Tensor) -> Tensor:
        """The mask that a term's reduction counts, within one minibatch."""
        if self.batch.comparisons is not None:
            return torch.ones(len(part), dtype=torch.bool)
        return mask[part]

    def accumulate(self, chunk: Tensor, masks: list[Tensor], counts: list[float], totals: dict[str, list[float]]) -> Iterator[float]:
        """Forward one micro-batch, hand the loss's gradient with respect to the policy's outputs to the updater; each term's share."""
        rows, comparisons = self.rows_of(chunk)
        rollouts = self.batch.rollouts.rows(rows)
        here = Ingredients(rollouts, comparisons)
        here.levels = {k: v[rows] for k, v in self.ingredients.levels.items()}
        here.update({k: v[rows] for k, v in self.ingredients.items() if k not in _OF_PAIRS})
        wanted = frozenset().union(*(needs_of(t.objective) for t in self.stage.terms)) - here.keys()
        outputs = self.policy.evaluate(rollouts, wanted & self.policy.outputs)
        leaves = {k: v.detach().requires_grad_(v.requires_grad) for k, v in outputs.items()}
        reduced = []
        for term, mask, count in zip(self.stage.terms, masks, counts, strict=True):
            loss = here.call(term.objective, self.step, **leaves, mask=mask[rows])
            if loss.unit != "pair":
                loss = replace(loss, value=loss.value * rollouts.weight.view(-1, *[1] * (loss.value.dim() - 1)))
            reduced.append(term.reduction(loss, count) if count else loss.value.new_zeros(()))
            for key, (s, c) in loss.metrics.items():
                _add(totals, key, float(s), float(c))
        total = torch.stack([at(t.weight, self.step) * x for t, x in zip(self.stage.terms, reduced, strict=True)]).sum()
        if not torch.isfinite(total):
            raise GuerdonError(
                f"loss of stage `{self.stage.name}` at step {self.step}: expected a finite number, got {total.item()}. "
                "Usual cause: a learning rate too high, or a log-probability of -inf."
            )
        if total.requires_grad:
            total.backward()
            self.updater.accumulate(outputs, {k: v.grad for k, v in leaves.items() if v.grad is not None})
        return iter([x.item() for x in reduced])

    def rows_of(self, chunk: Tensor) -> tuple[Tensor, Comparisons | None]:
        """The rows of a micro-batch and, where units are pairs, its comparisons counting those rows."""
        c = self.batch.comparisons
        if c is None:
            return chunk, None
        rows = torch.cat([c.first[chunk, 0], c.second[chunk, 0]]).unique()

        def moved(x: Tensor) -> Tensor:
            return torch.stack([torch.searchsorted(rows, x[chunk, 0].contiguous()), x[chunk, 1]], -1)

        margin = None if c.margin is None else c.margin[chunk]
        who = [c.annotator[i] for i in chunk.tolist()]
        return rows, Comparisons(
            moved(c.first), moved(c.second), c.target[chunk], c.level, c.weight[chunk], margin, c.component, who, c.status[chunk]
        )


def _add(totals: dict[str, list[float]], key: str, value: float, count: float) -> None:
    entry = totals.setdefault(key, [0.0, 0.0])
    entry[0] += value
    entry[1] += count
