# SPDX-License-Identifier: Apache-2.0
"""Search for novelty, and emitters that climb the rewards it finds: the two halves of SERENE, by ask and tell.

Paolo et al. 2021 (SERENE), arXiv:2102.03140; novelty search: Lehman and Stanley 2011, Abandoning objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from guerdon.errors import InputError

Array = np.ndarray

LOWEST, HIGHEST = -5.0, 5.0
"""Of every number in a genome."""


class Pool(dict[str, Array]):
    """Individuals as arrays [M, ...] by name, all with the same M."""

    @property
    def count(self) -> int:
        return len(next(iter(self.values()))) if self else 0

    def take(self, index: Array) -> Pool:
        return Pool({k: x[index] for k, x in self.items()})

    @staticmethod
    def join(pools: Sequence[Pool]) -> Pool:
        """Those of several pools in order; empty ones add nothing."""
        full = [p for p in pools if p.count]
        return Pool({k: np.concatenate([p[k] for p in full]) for k in full[0]}) if full else Pool()


def novelty(points: Array, reference: Array, k: int = 15, skip: int = 0) -> Array:
    """[M] eta_i = (1/k) sum over the k nearest of ``reference`` [R, D] of |points_i - reference_j|; ``points`` [M, D].

    ``skip``: how many of the nearest are left out, 1 where the points themselves are in the reference. Fewer than k: their mean.

    >>> novelty(np.array([[0.0], [4.0]]), np.array([[0.0], [1.0], [4.0]]), k=2, skip=1).tolist()
    [2.5, 3.5]
    """
    if len(reference) <= skip:
        raise InputError(f"novelty: expected more than {skip} reference points, got {len(reference)}.")
    square = (points**2).sum(1)[:, None] + (reference**2).sum(1) - 2 * points @ reference.T
    distance = np.sqrt(np.maximum(square, 0))
    last = min(k + skip, len(reference))
    return np.sort(np.partition(distance, last - 1, axis=1)[:, :last], axis=1)[:, skip:].mean(1)


def non_dominated(first: Array, second: Array) -> Array:
    """Indices of the points (first_i, second_i) that no other point reaches in both and exceeds in one; higher is better.

    >>> non_dominated(np.array([1.0, 2.0, 0.0]), np.array([3.0, 1.0, 1.0])).tolist()
    [0, 1]
    """
    a, b = np.asarray(first), np.asarray(second)
    reached = (a[None] >= a[:, None]) & (b[None] >= b[:, None])
    exceeded = (a[None] > a[:, None]) | (b[None] > b[:, None])
    return np.flatnonzero(~(reached & exceeded).any(1))


def mutated(genomes: Array, sigma: float, rng: np.random.Generator, children: int = 2) -> Array:
    """[children M, G]: each of ``genomes`` [M, G] plus Gaussian noise, in [LOWEST, HIGHEST]."""
    repeated = np.repeat(genomes, children, axis=0)
    return np.clip(repeated + sigma * rng.standard_normal(repeated.shape), LOWEST, HIGHEST)


def improvement(values: Sequence[Array]) -> float:
    """max(0, mean of the last 3 - mean of the first 3) of an emitter's rewards, one array for each step."""
    return max(0.0, float(np.mean(values[-3:]) - np.mean(values[:3])))


@dataclass(eq=False)
class ElitistEmitter:
    """Climbs the reward around an ancestor: ``size`` parents make two children each, the best ``size`` of all stay.

    ``ancestor``: a Pool of one, with ``genome``, ``fitness`` and ``code``. ``sigma``: of the mutation. The first ask gives the
    parents themselves, drawn around the ancestor.
    """

    ancestor: Pool
    sigma: float
    rng: np.random.Generator
    size: int = 6
    parents: Pool = field(default_factory=Pool)
    values: list[Array] = field(default_factory=list)
    best_archived: float = -np.inf
    most_novel: float = -np.inf
    candidates: list[Pool] = field(default_factory=list)

    def ask(self) -> Array:
        if not self.parents:
            return mutated(self.ancestor["genome"], self.sigma, self.rng, self.size)
        return mutated(self.parents["genome"], self.sigma, self.rng)

    def tell(self, told: Pool) -> Pool:
        """Keep the best; what belongs in the reward archive: the first to be paid, then what beats all that went there."""
        everyone = Pool.join([self.parents, told])
        self.parents = everyone.take(np.argsort(-everyone["fitness"], kind="stable")[: self.size])
        self.values.append(self.parents["fitness"].copy())
        self._note_novel(told)
        best = self.parents["fitness"]
        first = self.best_archived == -np.inf
        beats = np.flatnonzero(best > 0)[:1] if first else np.flatnonzero(best > self.best_archived)
        if len(beats):
            self.best_archived = float(best[beats].max())
        return self.parents.take(beats)

    def _note_novel(self, told: Pool) -> None:
        """Candidates for the novelty archive: more novel than every one before."""
        more = told["novelty"] > self.most_novel
        if more.any():
            self.candidates.append(told.take(np.flatnonzero(more)))
            self.most_novel = float(told["novelty"].max())

    def stagnates(self) -> bool:
        """Over the last 20 G / size + 120 steps neither the median nor the best of the last 20 is above that of the first 20."""
        window = int(20 * self.ancestor["genome"].shape[1] / self.size + 120)
        if len(self.values) <= window:
            return False
        first, last = self.values[-window:][:20], self.values[-20:]
        return bool(np.median(first) >= np.median(last) or np.max(first) >= np.max(last))
