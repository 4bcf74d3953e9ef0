# SPDX-License-Identifier: Apache-2.0
"""The update: losses of one batch, differentiated with respect to the policy's outputs, micro-batch by micro-batch.

Every reduction divides by a count taken over its whole minibatch before the first forward pass, so that how the minibatch is cut
into micro-batches changes nothing but rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.errors import GuerdonError, InputError
from guerdon.protocols import Policy, Updater
from guerdon.scores import Scores, Status
from guerdon.training.binding import REFERENCE, Ingredients, at, names_of, needs_of_all
from guerdon.training.gradient import Gradient
from guerdon.training.recipe import Batch, Stage, Term
from guerdon.training.units import Rows, Units, parts, renumbered


class Means(dict[str, tuple[float, float]]):
    """name -> (sum, count): means that are added up piece by piece."""

    def add(self, name: str, total: float, count: float = 1.0) -> None:
        s, c = self.get(name, (0.0, 0.0))
        self[name] = s + total, c + count

    def values_by_name(self) -> dict[str, float]:
        return {k: s / c if c else math.nan for k, (s, c) in self.items()}


@dataclass(frozen=True)
class CountedTerm:
    """A term with the units of the batch that count for it: ``mask`` [P] of pairs, or [N, T]."""

    term: Term
    name: str
    mask: Tensor
    of_pairs: bool

    def count(self, units: Units, rows: Rows) -> float:
        """The reduction's divisor for a minibatch."""
        return self.term.reduction.count(self.mask[units if self.of_pairs else rows])


@dataclass
class Update:
    """One batch's optimiser steps: ``stage.rounds`` passes of ``stage.updates`` minibatches each.

    A batch's units are its rows, its taken steps (``stage.by``) or, where it has comparisons, the pairs that were judged.
    ``seed`` shuffles them.
    """

    stage: Stage
    batch: Batch
    scores: Scores | None
    ingredients: Ingredients
    policy: Policy
    updater: Updater
    step: int
    seed: int = 0

    def run(self) -> dict[str, float]:
        """Metrics: ``loss`` and ``loss/NAME`` of each term (not weighted), and the updater's, as means over minibatches; each
        objective's own over what it counted."""
        terms, means = self.terms(), Means()
        if self.stage.by == "step":
            return self.of_steps(terms)
        for i in range(self.stage.rounds):
            for units in parts(self.dealt(self.units(), i), self.stage.updates):
                self.minibatch(units, terms, means)
        return means.values_by_name()

    def of_steps(self, terms: list[CountedTerm]) -> dict[str, float]:
        """The same with every taken step as a row of its own; dealt out once a round, so that minibatches are neighbours."""
        taken, means = self.batch.rollouts.mask.nonzero(as_tuple=True), Means()
        for i in range(self.stage.rounds):
            at = self.dealt(range(len(taken[0])), i)
            rows, steps = taken if isinstance(at, range) else (x[at.to(x.device)] for x in taken)
            flat = replace(self, batch=Batch(self.batch.rollouts.steps(rows, steps)))
            flat.ingredients = self.ingredients.steps(rows, steps, self.needed)
            flat.row_weight = self.row_weight[rows]
            counted = [replace(t, mask=t.mask[rows, steps][:, None]) for t in terms]
            for units in parts(flat.units(), self.stage.updates):
                flat.minibatch(units, counted, means)
        return means.values_by_name()

    def gradient(self, advantage: Tensor) -> Tensor:
        """[P] the gradient of the whole batch's loss with respect to the policy's parameters, had the advantage been this."""
        usable = self.ingredients["mask"] & ~advantage.isnan()
        self.ingredients.update(advantage=torch.where(usable, advantage, 0), mask=usable)
        self.backward(self.units(), self.terms(), Means())
        return self.updater.take_gradient()

    def terms(self) -> list[CountedTerm]:
        names = names_of(t.objective for t in self.stage.terms)
        return [self.counted(t, name) for t, name in zip(self.stage.terms, names, strict=True)]

    # ---- what counts

    def dealt(self, units: Units, number: int) -> Units:
        """The units in the order of a round."""
        if not self.stage.shuffle:
            return units
        rng = np.random.default_rng([self.seed, self.step, number])
        order = torch.from_numpy(rng.permutation(len(units)))
        return order if isinstance(units, range) else units[order]

    def units(self) -> Units:
        c = self.batch.comparisons
        return range(len(self.batch.rollouts)) if c is None else (c.status.cpu() == Status.OK).nonzero()[:, 0]

    def counted(self, term: Term, name: str) -> CountedTerm:
        rows = self.row_weight > 0
        if term.rows is not None:
            rows = rows & term.rows(self.batch.rollouts, self.scores)
        if "pair" not in term.reduction.units:
            return CountedTerm(term, name, self.ingredients["mask"] & rows[:, None], of_pairs=False)
        c = self.batch.comparisons
        if c is None:
            raise InputError(f"{name}: a loss per pair needs comparisons, the source of stage `{self.stage.name}` gives none.")
        return CountedTerm(term, name, rows[c.first[:, 0]] & rows[c.second[:, 0]] & (c.weight > 0).to(rows.device), of_pairs=True)

    @cached_property
    def row_weight(self) -> Tensor:
        """[N]; 0 for rows that are left out, whose weight may be NaN."""
        weight = self.batch.rollouts.weight
        return torch.where(weight > 0, weight, 0)

    def weight(self, unit: str, units: Units, rows: Rows) -> Tensor:
        """Of each pair, row or (as [N, 1]) step."""
        c = self.batch.comparisons
        if unit == "pair" and c is not None:
            both = self.row_weight[c.first[units, 0]] * self.row_weight[c.second[units, 0]]
            return c.weight[units].to(both.device) * both
        return self.row_weight[rows] if unit == "row" else self.row_weight[rows, None]

    def rows_of(self, units: Units) -> Rows:
        """The rows that some units stand on, in order, each once."""
        c = self.batch.comparisons
        if isinstance(units, range):
            return slice(units.start, units.stop)
        return units if c is None else torch.cat([c.first[units, 0], c.second[units, 0]]).unique().cpu()

    # ---- the steps

    def minibatch(self, units: Units, terms: list[CountedTerm], means: Means) -> None:
        """One step of the optimiser; none where nothing counts."""
        if self.backward(units, terms, means):
            for name, value in self.updater.step(lr=at(self.stage.lr, self.step)).items():
                means.add(name, value)

    def backward(self, units: Units, terms: list[CountedTerm], means: Means) -> bool:
        """Hand the gradient of some units' loss to the updater; False where nothing counts."""
        rows = self.rows_of(units)
        counts = [t.count(units, rows) for t in terms]
        if not any(counts):
            return False
        losses = [0.0] * len(terms)
        several = self.batch.comparisons is not None  # a row that is in several pairs is counted with the first
        new = torch.ones(len(self.batch.rollouts) if several else 0, dtype=torch.bool)
        for i in range(0, len(units), self.stage.micro_rows):
            chunk = units[i : i + self.stage.micro_rows]
            rows = self.rows_of(chunk)
            found = self.microbatch(chunk, rows, new, terms, counts, means)
            losses = [a + b for a, b in zip(losses, found, strict=True)]
            if several:
                new[rows] = False
        for t, x, count in zip(terms, losses, counts, strict=True):
            if count:
                means.add(f"loss/{t.name}", x)
        means.add("loss", sum(at(t.term.weight, self.step) * x for t, x in zip(terms, losses, strict=True)))
        return True

    def microbatch(
        self, units: Units, rows: Rows, new: Tensor, terms: list[CountedTerm], counts: list[float], means: Means
    ) -> list[float]:
        """Hand the gradient of the losses with respect to the policy's outputs to the updater; each term's loss.

        Where every term's slope is written out, nothing here has a graph."""
        rollouts = self.batch.rollouts.rows(rows)
        here = self.ingredients.at(rows, renumbered(self.batch.comparisons, units, rows), self.needed)
        outputs = self.policy.evaluate(rollouts, self.wanted)
        gradient = Gradient(outputs, [t.term for t, count in zip(terms, counts, strict=True) if count])
        losses, total = [0.0] * len(terms), 0.0
        with torch.set_grad_enabled(not gradient.written):
            for i, (t, count) in enumerate(zip(terms, counts, strict=True)):
                if count:
                    loss, weight = self.loss(t, units, rows, new, here, gradient.leaves), at(t.term.weight, self.step)
                    losses[i] = gradient.add(t.term, loss, count, weight)
                    total += weight * losses[i]
                    for name, (s, c) in loss.metrics.items():
                        means.add(name, float(s), float(c))
        if not math.isfinite(total):
            raise GuerdonError(
                f"stage `{self.stage.name}`, step {self.step}: expected a finite loss, got {total}. "
                "Usual cause: a learning rate too high, or a log-probability of -inf."
            )
        if found := gradient.by_output():
            self.updater.accumulate(outputs, found)
        return losses

    @cached_property
    def unweighted(self) -> bool:
        return self.batch.comparisons is None and bool((self.row_weight == 1).all())

    @cached_property
    def needed(self) -> frozenset[str]:
        """What the losses read."""
        return needs_of_all(t.objective for t in self.stage.terms) | {"mask"}

    @cached_property
    def wanted(self) -> frozenset[str]:
        """What the losses need of the policy as it is now; the reference's part is already there."""
        there = {n for n in self.ingredients if n.startswith(REFERENCE)}
        return (self.needed & self.policy.outputs) - there

    def loss(self, t: CountedTerm, units: Units, rows: Rows, new: Tensor, here: Ingredients, leaves: dict[str, Tensor]) -> Any:
        """A term's loss per unit, times the units' weights."""
        mask = here["mask"] if t.of_pairs else t.mask[rows]
        if not t.of_pairs and self.batch.comparisons is not None:
            mask = mask & new[rows].to(mask.device)[:, None]
        loss = here.call(t.term.objective, self.step, **leaves, mask=mask)
        if loss.unit not in t.term.reduction.units or self.unweighted:
            return loss  # of a wrong unit, which the reduction refuses, or as it is
        counted = loss.mask & t.mask[units] if t.of_pairs else loss.mask
        weight = self.weight(loss.unit, units, rows)
        slope = None if loss.slope is None else {k: x * weight for k, x in loss.slope.items()}
        return replace(loss, value=loss.value * weight, mask=counted, slope=slope)
