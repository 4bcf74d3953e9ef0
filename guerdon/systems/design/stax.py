# SPDX-License-Identifier: Apache-2.0
"""STAX: a sparse reward found and climbed in a behaviour space that is learned on the way.

Nobody says what a behaviour is: an autoencoder codes pictures of what a policy did. Exploring, the search keeps what is novel in
that code or what the autoencoder knows badly; exploiting, emitters climb whatever was paid. The two take turns.

    code       b = (E(o_1), ..., E(o_n))          of n frames of an episode
    surprise   s = sum_t mean (o_t - D(E(o_t)))^2
    novelty    eta = mean distance to the 15 nearest codes of population, children, archive and rewarded
    turns      explore 1000 evaluations, exploit 1000, explore 1000, ...; each generation ranks by eta or s, a coin decides
    E, D       are trained after explore turns 1, 3, 6, 10, ... on all pictures kept; then everything is coded anew
    emitters   as in SERENE: see ``learners.sparse_search``

E, D ``code``: an autoencoder; ``turns(n)``: what the n-th turn does; TAXONS is the same with exploring alone.

Paolo et al. 2021, arXiv:2111.01919; the search's numbers from the authors' code.
Departures:
1. The autoencoder is a small perceptron, not a convolution over 64 x 64 pictures in colour: 16 x 16 spots need no more.
2. A stored emitter's rewards are compared by their mean over a step; the code means over steps as well, which is the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.learners.evolution import Fitness, PerceptronGenome, play
from guerdon.learners.image_code import ImageCode
from guerdon.learners.novelty import Pool
from guerdon.learners.sparse_search import SparseSearch
from guerdon.rewards import Reward
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.systems.system import Comparison, Metric, Start, System
from guerdon.training.recipe import Learning
from guerdon.worlds.point_maze import PointMaze, drawn

Array = np.ndarray


def retrains(explored: int) -> bool:
    """Whether the autoencoder is trained after this many explore turns: after 1, then 2 more, then 3 more, ...

    >>> [n for n in range(1, 25) if retrains(n)]
    [1, 3, 6, 10, 15, 21]
    """
    root = int(((8 * explored + 1) ** 0.5 - 1) / 2)
    return explored > 0 and root * (root + 1) // 2 == explored


def alternating(turn: int) -> str:
    """
    >>> [alternating(n) for n in range(4)]
    ['explore', 'exploit', 'explore', 'exploit']
    """
    return "exploit" if turn % 2 else "explore"


def exploring(turn: int) -> str:
    """What TAXONS does at every turn."""
    return "explore"


@dataclass
class Stax:
    """``search`` in turns, in the space of ``code``, which reads the pool's ``image``; ``trained``: whether it learns at all."""

    search: SparseSearch
    code: ImageCode
    turns: Callable[[int], str] = alternating
    trained: bool = True
    turn: int = field(default=0, init=False)
    explored: int = field(default=0, init=False)

    def take_turn(self) -> str:
        what = self.turns(self.turn)
        self.turn += 1
        if what == "exploit":
            self.search.exploit()
            return what
        self.search.explore()
        self.explored += 1
        if self.trained and retrains(self.explored):
            s = self.search
            kept = Pool.join([p for p in (s.archive, s.parents, s.children, s.rewarded) if p.count])
            self.code.fit(kept["image"], s.rng)
            s.recode()
        return what


def stax(
    evaluate: Callable[[Array], Pool],
    genome_size: int,
    pixels: int,
    rng: np.random.Generator,
    *,
    population: int = 10,  # the code's default; the paper's experiments vary it
    sigma: float = 0.05,  # code
    neighbours: int = 15,  # paper
    archived: int = 5,  # paper
    chunk: int = 1000,  # paper
    width: int = 10,  # paper, of the code of a frame
    turns: Callable[[int], str] = alternating,
    trained: bool = True,
    encode: Callable[[Pool], tuple[Array, Array]] | None = None,
) -> Stax:
    """``evaluate(genomes)`` -> a Pool with ``genome``, ``fitness`` and ``image``; ``encode``: a given behaviour space instead."""
    code = ImageCode(pixels, width, seed=int(rng.integers(2**31)))
    learned = encode is None
    search = SparseSearch(
        evaluate,
        encode or (lambda pool: code.describe(pool["image"])),
        genome_size,
        rng,
        criteria=("novelty", "surprise") if learned and trained else ("novelty",),
        population=population,
        sigma=sigma,
        archived=archived,
        neighbours=neighbours,
        chunk=chunk,
    )
    return Stax(search, code, turns, trained and learned)


# ---- the claim

AREAS, RADIUS, STEPS, BUDGET = {"inside": (-0.4, 0.3), "corner": (0.6, 0.6)}, 0.25, 50, 8000


def near(name: str) -> Reward:
    """An area pays each step: 1 at its middle, falling to 0 at its edge; divided by the steps of an episode."""

    def function(rollouts: Rollouts) -> Tensor:
        place = rollouts.field("next_observation").values.double()
        distance = (place - torch.tensor(AREAS[name], dtype=torch.float64)).norm(dim=-1)
        return (1 - distance / RADIUS).clamp(min=0) / STEPS

    return tensor_reward(level="step", bounds=(0, 1 / STEPS), needs=("next_observation",), name=name)(function)


@dataclass
class Visits:
    """Evaluates genomes in the maze and remembers the best in each area and where episodes ended, 50 x 50 bins."""

    fitness: Fitness
    best: dict[str, float] = field(default_factory=lambda: dict.fromkeys(AREAS, 0.0))
    seen: Array = field(default_factory=lambda: np.zeros((50, 50), dtype=bool))

    def __call__(self, genomes: Array) -> Pool:
        judged = self.fitness(genomes)
        place = judged.rollouts.field("next_observation").values[:, -1].double().numpy()
        for name, found in judged.components.items():
            self.best[name] = max(self.best[name], float(found.max()))
        x, y = np.clip(((place + 1) * 25).astype(int), 0, 49).T
        self.seen[x, y] = True
        return Pool(genome=genomes, fitness=judged.fitness, place=place, image=drawn(place)[:, None])

    def line(self) -> dict[str, float]:
        free = float(self.seen.mean())
        return {f"eval/{k}": v for k, v in self.best.items()} | {
            "eval/reward": sum(self.best.values()) / len(self.best),
            "eval/coverage": free,
        }


def truth(pool: Pool) -> tuple[Array, Array]:
    """The true place as the behaviour space."""
    return pool["place"], np.zeros(pool.count)


def arm(settings: Mapping[str, Any], seed: int, start: Start) -> Learning:
    """A search of the maze, with ``settings`` of `stax`."""

    def lines() -> Iterator[dict[str, float]]:
        controller = PerceptronGenome((2, 5, 5, 2))
        reward = near("inside") + near("corner")
        visits = Visits(Fitness(partial(play, PointMaze, controller.act, steps=STEPS), reward))
        made = stax(visits, controller.size, 16 * 16, np.random.default_rng(seed), population=25, **settings)
        while made.search.evaluations < BUDGET:
            made.search.chunk = min(made.search.chunk, BUDGET - made.search.evaluations)
            made.take_turn()
            yield {"samples": made.search.evaluations, **visits.line()}

    return Learning("stax", lines, seed, total_steps=BUDGET // 1000)


ARMS = {
    "stax": partial(arm, {}),
    "taxons": partial(arm, {"turns": exploring}),
    "stax-nt": partial(arm, {"trained": False}),
    "ns on the true place": partial(arm, {"turns": exploring, "encode": truth}),
    "serene on the true place": partial(arm, {"encode": truth}),
}


SYSTEM = System(
    title="STAX",
    paper="Paolo 2021",
    arxiv="2111.01919",
    roles=("quality-diversity", "exploration", "evolution", "representation"),
    claims=(
        Comparison(
            "With pictures alone to see, STAX finds more reward than TAXONS, which never exploits, in as many evaluations",
            arms=ARMS,
            better="stax",
            than="taxons",
            metric=Metric("eval/reward"),
            budget=f"{BUDGET} episodes of {STEPS} steps",
            differences=(
                "The areas pay at each step spent in them: beyond coming to rest there, how soon one arrives is left to climb.",
                "A population of 25, of the 10 to 100 that are usual: a generation is one call of the batched maze.",
                "One frame an episode, the last: the default of the code.",
            ),
            tried=(
                "Paid only where an episode ends, the areas were found by both searches alike on development seeds. They were "
                "made larger and one wall shorter before any seed that decides was run."
            ),
        ),
    ),
    built_from=("SparseSearch", "ElitistEmitter", "ImageCode", "Fitness", "novelty"),
    extras=("control",),
    follows="code",
    exempt={"examples": "the search works on NumPy arrays, which no contract for tensors applies to"},
)
