# SPDX-License-Identifier: Apache-2.0
"""Evolution by ask and tell: genomes act in a batched world, a Reward scores their rollouts, and archives keep what was found.

So every reward is a fitness. Archives and emitters are pyribs' (Tjanaka et al. 2023, arXiv:2303.00191) or follow its two verbs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from guerdon.errors import GuerdonError, InputError, RewardFailure
from guerdon.protocols import Scorer
from guerdon.rewards.oracle import refuse_oracles
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Status

Array = np.ndarray


@dataclass(frozen=True)
class PerceptronGenome:
    """A perceptron as one vector of numbers, acting by tanh: ``sizes`` from observation to action.

    A genome is, layer by layer, the weights [in, out] and one bias per unit.

    >>> PerceptronGenome((2, 5, 5, 2)).size
    57
    """

    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum((i + 1) * o for i, o in zip(self.sizes, self.sizes[1:], strict=False))

    def act(self, genomes: Array, observation: Array) -> Array:
        """[B, actions] in [-1, 1]: genome b [B, size] acts on observation b [B, in]."""
        x, at = observation, 0
        for i, o in zip(self.sizes, self.sizes[1:], strict=False):
            weight, bias = genomes[:, at : at + i * o].reshape(-1, i, o), genomes[:, at + i * o : at + (i + 1) * o]
            x = np.tanh(np.einsum("bi,bio->bo", x, weight) + bias)
            at += (i + 1) * o
        return x


def play(make: Callable[[int], Any], act: Callable[[Array, Array], Array], genomes: Array, steps: int, seed: int = 0) -> Rollouts:
    """One episode, of at most ``steps`` steps, of each genome in its own copy of a world: row b is that of genome b.

    ``make(B)`` gives a Gymnasium vector environment that begins a world again in the step that ends it. Step fields:
    ``observation``, ``next_observation``, ``environment_reward``.
    """
    world = make(len(genomes))
    seen, _ = world.reset(seed=seed)
    going, kept = np.ones(len(genomes), dtype=bool), []
    for _ in range(steps):
        action = act(genomes, seen)
        after, reward, terminated, truncated, info = world.step(action)
        ended = terminated | truncated
        led_to = after.copy()
        for i in np.flatnonzero(ended):
            led_to[i] = info["final_obs"][i]
        kept.append((seen, action, reward, led_to, going & terminated, going & truncated, going))
        seen, going = after, going & ~ended
        if not going.any():
            break
    world.close()
    observation, done, paid, next_observation, terminated, truncated, mask = (
        torch.from_numpy(np.stack(x, 1)) for x in zip(*kept, strict=True)
    )
    return Rollouts(
        action=done,
        mask=mask,
        task=["episode"] * len(genomes),
        terminated=terminated,
        truncated=truncated,
        length=mask.sum(1),
        source=[f"individual {i}" for i in range(len(genomes))],
        fields={
            "observation": Field("step", observation),
            "next_observation": Field("step", next_observation),
            "environment_reward": Field("step", paid),
        },
    )


@dataclass(frozen=True)
class Judged:
    """Genomes, what they did, what it is worth: ``fitness`` [B], NaN where the reward is not ok; ``components`` name -> [B]."""

    genomes: Array
    rollouts: Rollouts
    fitness: Array
    components: dict[str, Array]


@dataclass
class Fitness:
    """The reward as a fitness: ``play(genomes)`` makes rollouts, a row for each; ``reward``'s episode total is its fitness.

    Raises where more than ``max_failed`` of a batch time out or raise. ``evaluations`` counts the genomes.
    """

    play: Callable[[Array], Rollouts]
    reward: Scorer
    max_failed: float = 0.1
    evaluations: int = 0

    def __post_init__(self) -> None:
        refuse_oracles(self.reward, "fitness")

    def __call__(self, genomes: Array) -> Judged:
        rollouts = self.play(genomes)
        if len(rollouts) != len(genomes):
            raise InputError(f"fitness: expected a row for each of {len(genomes)} genomes, got {len(rollouts)}.")
        scores = self.reward.score(rollouts)
        for name, c in scores.components.items():
            there, failed = int((c.status != Status.NONE).sum()), int((c.status >= Status.TIMEOUT).sum())
            if failed > self.max_failed * there:
                first = next(iter(c.reasons.values()), "no reason given")
                raise RewardFailure(
                    f"reward term `{name}`: at most {self.max_failed:.1%} of its units may time out or raise, {failed} of "
                    f"{there} did. The first: {first}."
                )
        self.evaluations += len(genomes)
        # NaN where a counted step's reward isn't ok: a genome that could not be judged has no fitness
        by_row = {k: torch.where(rollouts.mask, x, 0).sum(1).double().numpy() for k, x in scores.rewards().items()}
        total = torch.where(rollouts.mask, scores.reward(), 0).sum(1).double().numpy()
        return Judged(genomes, rollouts, total, by_row)


class Emitter(Protocol):
    """pyribs' interface: what proposes genomes and learns how they did."""

    def ask(self) -> Array: ...

    def tell(self, solution: Any, objective: Any, measures: Any, add_info: Any) -> None: ...


@dataclass
class Evolution:
    """``emitters`` propose, ``fitness`` judges, ``archive`` keeps: one generation asks each emitter once.

    ``describe(judged)`` -> [B, D] where each genome belongs in the archive. A genome that could not be judged is not kept; the
    emitter, which needs an order, is told that it did as badly as the worst of its batch, and it is counted in ``failed``.
    """

    archive: Any
    emitters: Sequence[Emitter]
    fitness: Fitness
    describe: Callable[[Judged], Array]
    failed: int = field(default=0, init=False)

    def generation(self) -> dict[str, float]:
        for emitter in self.emitters:
            genomes = emitter.ask()
            judged = self.fitness(genomes)
            ok, measures = np.isfinite(judged.fitness), self.describe(judged)
            self.failed += int((~ok).sum())
            if not ok.any():
                raise GuerdonError(f"evolution: expected a genome that can be judged, got none of {len(genomes)}.")
            told = np.where(ok, judged.fitness, judged.fitness[ok].min())
            added = self.archive.add(genomes[ok], judged.fitness[ok], measures[ok])
            info = {k: _spread(np.asarray(v), ok) for k, v in added.items()}
            emitter.tell(genomes, told, measures, info)
        stats = self.archive.stats
        return {
            "samples": self.fitness.evaluations,
            "failed": self.failed,
            "eval/best": float(stats.obj_max),
            "eval/coverage": float(stats.coverage),
            "eval/qd_score": float(stats.qd_score),
        }

    def lines(self, generations: int, every: int = 10) -> Iterator[dict[str, float]]:
        """Metrics after each ``every`` generations and the last."""
        for i in range(1, generations + 1):
            line = self.generation()
            if i % every == 0 or i == generations:
                yield {"generation": i, **line}


def _spread(x: Array, ok: Array) -> Array:
    """What ``archive.add`` said of those that are ``ok``; 0 (not added) for the others."""
    out = np.zeros((len(ok), *x.shape[1:]), dtype=x.dtype)
    out[ok] = x
    return out


def save_archive(archive: Any, path: Path) -> None:
    """What a pyribs archive holds, as safetensors: solution [M, G], objective [M], measures [M, D], index [M]."""
    from safetensors.numpy import save_file

    held = archive.data(return_type="dict")
    kept = {k: np.ascontiguousarray(held[k]) for k in ("solution", "objective", "measures", "index")}
    save_file(kept, path, metadata={"schema": "1", "archive": type(archive).__name__})


def load_archive(archive: Any, path: Path) -> None:
    """Add what `save_archive` wrote to an archive of the same grid."""
    from safetensors.numpy import load_file

    kept = load_file(path)
    archive.add(kept["solution"], kept["objective"], kept["measures"])
