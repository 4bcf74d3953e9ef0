# SPDX-License-Identifier: Apache-2.0
"""Explore by novelty, exploit by emitters: evolution that first finds a sparse reward and then climbs it.

Exploring, every parent makes two children; all are ranked by novelty, or by another criterion, and the best make the next
population; some children are archived, and whoever is paid goes into the reward archive and may open an emitter. Exploiting,
each newcomer tries a small emitter; those that improved run on, one at a time, until they stagnate or the chunk of evaluations
is used up.

Paolo et al. 2021 (SERENE), arXiv:2102.03140.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from guerdon.learners.novelty import ElitistEmitter, Pool, improvement, mutated, non_dominated, novelty

Array = np.ndarray


@dataclass
class SparseSearch:
    """``evaluate(genomes)`` -> a Pool with ``genome``, ``fitness`` and whatever ``encode`` reads; ``encode(pool)`` -> (code
    [M, D], surprise [M]): where it lies in behaviour space.

    criteria    by which the next population is chosen, one at random each generation: novelty, surprise
    population  of parents                      children    of each parent
    sigma       of the mutation                 archived    children added to the archive each generation
    neighbours  that novelty looks at           chunk       evaluations of one turn of `explore` or `exploit`
    """

    evaluate: Callable[[Array], Pool]
    encode: Callable[[Pool], tuple[Array, Array]]
    genome_size: int
    rng: np.random.Generator
    criteria: Sequence[str] = ("novelty",)
    population: int = 10
    sigma: float = 0.05
    archived: int = 5
    neighbours: int = 15
    chunk: int = 1000
    trial: int = 5

    parents: Pool = field(default_factory=Pool, init=False)
    children: Pool = field(default_factory=Pool, init=False)
    archive: Pool = field(default_factory=Pool, init=False)
    rewarded: Pool = field(default_factory=Pool, init=False)
    candidates: list[ElitistEmitter] = field(default_factory=list, init=False)
    emitters: list[ElitistEmitter] = field(default_factory=list, init=False)
    evaluations: int = field(default=0, init=False)

    def judge(self, genomes: Array) -> Pool:
        """Evaluated and coded, novelty not yet known."""
        pool = self.evaluate(genomes)
        self.evaluations += len(genomes)
        pool["code"], pool["surprise"] = self.encode(pool)
        pool["novelty"], pool["opened"] = np.zeros(len(genomes)), np.zeros(len(genomes), dtype=bool)
        return pool

    def reference(self) -> Array:
        """[R, D] codes that novelty is measured against."""
        return Pool.join([self.parents, self.children, self.archive, self.rewarded])["code"]

    # ---- explore

    def explore(self) -> None:
        """One chunk of generations."""
        end = self.evaluations + self.chunk
        if not self.parents:
            self.parents = self.judge(self.rng.standard_normal((self.population, self.genome_size)))
        while self.evaluations < end:
            self.generation()

    def generation(self) -> None:
        self.children = self.judge(mutated(self.parents["genome"], self.sigma, self.rng))
        everyone = Pool.join([self.parents, self.children])
        everyone = self.open_emitters(everyone)
        self.parents, self.children = (
            everyone.take(np.arange(self.population)),
            everyone.take(np.arange(self.population, everyone.count)),
        )
        everyone["novelty"] = novelty(everyone["code"], self.reference(), self.neighbours, skip=1)
        chosen = self.rng.choice(self.children.count, min(self.archived, self.children.count), replace=False)
        self.archive = Pool.join([self.archive, everyone.take(self.population + chosen)])
        best = np.argsort(-everyone[self.rng.choice(self.criteria)], kind="stable")[: self.population]
        self.parents = everyone.take(best)

    def open_emitters(self, everyone: Pool) -> Pool:
        """Whoever is paid for the first time goes into the reward archive and becomes a candidate's ancestor."""
        new = np.flatnonzero((everyone["fitness"] > 0) & ~everyone["opened"])
        everyone["opened"][new] = True
        for i in new:
            near = np.linalg.norm(np.delete(everyone["genome"], i, axis=0) - everyone["genome"][i], axis=1).min() / 3
            self.candidates.append(ElitistEmitter(everyone.take(np.array([i])), near or self.sigma, self.rng))
        self.rewarded = Pool.join([self.rewarded, everyone.take(new)])
        return everyone

    # ---- exploit

    def exploit(self) -> None:
        """One chunk of emitter steps, or less where no emitter is left."""
        end, reference = self.evaluations + self.chunk, self.reference()
        for emitter in self.by_novelty(self.candidates):
            if end - self.evaluations <= self.chunk / 3:
                break
            for _ in range(1 + self.trial):
                self.step(emitter, reference)
            self.candidates.remove(emitter)
            if improvement(emitter.values) > 0:
                self.emitters.append(emitter)
        while self.emitters and self.evaluations < end:
            emitter = self.choose()
            while self.evaluations < end and emitter in self.emitters:
                self.step(emitter, reference)
                if emitter.stagnates():
                    self.close(emitter)

    def step(self, emitter: ElitistEmitter, reference: Array) -> None:
        told = self.judge(emitter.ask())
        told["novelty"] = novelty(told["code"], reference, self.neighbours)
        self.rewarded = Pool.join([self.rewarded, emitter.tell(told)])

    def by_novelty(self, emitters: Sequence[ElitistEmitter]) -> list[ElitistEmitter]:
        """The ancestor farthest from what was rewarded first."""
        if not emitters:
            return []
        return [emitters[i] for i in np.argsort(-self.ancestor_novelty(emitters), kind="stable")]

    def ancestor_novelty(self, emitters: Sequence[ElitistEmitter]) -> Array:
        return novelty(np.concatenate([e.ancestor["code"] for e in emitters]), self.rewarded["code"], self.neighbours)

    def choose(self) -> ElitistEmitter:
        """One at random of those that no other beats in both novelty of the ancestor and improvement."""
        front = non_dominated(self.ancestor_novelty(self.emitters), np.array([improvement(e.values) for e in self.emitters]))
        return self.emitters[self.rng.choice(front)]

    def close(self, emitter: ElitistEmitter) -> None:
        """Its ancestor stays in the reward archive; some of what it found on the way enters the archive."""
        self.emitters.remove(emitter)
        found = Pool.join(emitter.candidates)
        chosen = self.rng.permutation(found.count)[: self.archived]
        self.archive = Pool.join([self.archive, found.take(chosen)]) if found.count else self.archive
        self.rewarded = Pool.join([self.rewarded, emitter.ancestor])

    # ---- when the behaviour space changes

    def stored(self) -> list[Pool]:
        own = [self.parents, self.children, self.archive, self.rewarded]
        of_emitters = [p for e in (*self.candidates, *self.emitters) for p in (e.ancestor, e.parents, *e.candidates)]
        return [p for p in (*own, *of_emitters) if p.count]

    def recode(self) -> None:
        """Code everything that is stored anew."""
        for pool in self.stored():
            pool["code"], pool["surprise"] = self.encode(pool)
