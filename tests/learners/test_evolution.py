# SPDX-License-Identifier: Apache-2.0
"""Ask and tell: genomes act, a reward is their fitness, archives keep; and the parts of a search for sparse rewards."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from ribs.archives import GridArchive
from ribs.emitters import EvolutionStrategyEmitter, GaussianEmitter
from torch import Tensor

from guerdon.errors import GuerdonError, InputError, RewardFailure
from guerdon.learners.evolution import Evolution, Fitness, PerceptronGenome, load_archive, play, save_archive
from guerdon.learners.image_code import ImageCode
from guerdon.learners.novelty import ElitistEmitter, Pool, improvement, mutated, novelty
from guerdon.learners.sparse_search import SparseSearch
from guerdon.rewards import reward
from guerdon.rewards.fields import environment
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.worlds.point_maze import START, PointMaze, drawn, in_wall

GENOME = PerceptronGenome((2, 3, 2))
PLAY = partial(play, PointMaze, GENOME.act, steps=12)


def last(rollouts: Rollouts) -> np.ndarray:
    return rollouts.field("next_observation").values[:, -1].double().numpy()


@tensor_reward(needs=("next_observation",))
def height(rollouts: Rollouts) -> Tensor:
    return rollouts.field("next_observation").values[:, -1, 1].double()


def archive() -> GridArchive:
    return GridArchive(solution_dim=GENOME.size, dims=[10, 10], ranges=[(-1, 1), (-1, 1)], seed=0, qd_score_offset=-1.0)


def test_a_genome_is_a_perceptron() -> None:
    genomes = np.random.default_rng(0).normal(size=(2, GENOME.size))
    x = np.array([[0.3, -0.2], [0.5, 0.9]])
    for b in range(2):
        w, c, v, d = np.split(genomes[b], [6, 9, 15])
        expected = np.tanh(np.tanh(x[b] @ w.reshape(2, 3) + c) @ v.reshape(3, 2) + d)
        np.testing.assert_allclose(GENOME.act(genomes, x)[b], expected)


def test_play_makes_a_row_of_each_genome() -> None:
    genomes = np.random.default_rng(0).normal(size=(5, GENOME.size))
    rollouts = PLAY(genomes)
    assert rollouts.action.shape == (5, 12, 2) and rollouts.mask.all() and len(set(rollouts.source)) == 5
    seen, after = (rollouts.field(k).values for k in ("observation", "next_observation"))
    assert torch.equal(seen[:, 1:], after[:, :-1]) and torch.allclose(seen[:, 0], torch.tensor(START).float())
    alone = PLAY(genomes[3:4])
    assert torch.allclose(alone.field("next_observation").values[0], after[3], atol=1e-6)


def test_play_stops_where_an_episode_ends() -> None:
    def vector(count: int) -> gymnasium.vector.VectorEnv:
        kwargs = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
        return gymnasium.make_vec("CartPole-v1", num_envs=count, vectorization_mode="sync", vector_kwargs=kwargs)

    rollouts = play(vector, lambda genomes, seen: genomes[:, 0].astype(int), np.array([[0.0], [1.0]]), steps=30)
    assert rollouts.mask.sum(1).tolist() == rollouts.length.tolist() and (rollouts.length < 15).all()
    assert environment().score(rollouts).reward()[rollouts.mask].sum() == rollouts.mask.sum()
    n, t = 0, int(rollouts.length[0]) - 1
    assert (
        rollouts.terminated[n, t] and rollouts.field("next_observation").values[n, t, 2].abs() > 0.2
    )  # the fallen pole, not a new one


def test_any_reward_is_a_fitness() -> None:
    judged = Fitness(PLAY, 2 * height + environment())(np.random.default_rng(1).normal(size=(6, GENOME.size)))
    np.testing.assert_allclose(judged.fitness, 2 * last(judged.rollouts)[:, 1], rtol=1e-6)
    np.testing.assert_allclose(sum(judged.components.values()), judged.fitness)


def test_evolution_climbs_and_fills_the_archive() -> None:
    kept, fitness = archive(), Fitness(PLAY, height)
    emitters = [EvolutionStrategyEmitter(kept, x0=np.zeros(GENOME.size), sigma0=0.5, es="openai_es", batch_size=20, seed=0)]
    emitters += [GaussianEmitter(kept, sigma=0.3, x0=np.zeros(GENOME.size), batch_size=20, seed=1)]
    lines = list(Evolution(kept, emitters, fitness, lambda judged: last(judged.rollouts)).lines(12, every=6))
    assert lines[-1]["samples"] == fitness.evaluations == 480
    assert lines[-1]["eval/best"] > lines[0]["eval/best"] - 1e-9 and lines[-1]["eval/best"] > 0
    assert lines[-1]["eval/coverage"] > lines[0]["eval/coverage"] > 0.02


class Asked:
    """An emitter that proposes what it was given and notes what it is told."""

    def __init__(self, genomes: np.ndarray) -> None:
        self.genomes, self.told = genomes, dict[str, np.ndarray]()

    def ask(self) -> np.ndarray:
        return self.genomes

    def tell(self, solution: np.ndarray, objective: np.ndarray, measures: np.ndarray, add_info: dict[str, np.ndarray]) -> None:
        self.told = {"solution": solution, "objective": objective, "status": add_info["status"]}


def test_a_genome_that_cannot_be_judged_is_not_kept_and_is_no_zero() -> None:
    @tensor_reward(needs=("next_observation",))
    def partly(rollouts: Rollouts) -> Tensor:
        found = 5 + rollouts.field("next_observation").values[:, -1, 1].double()
        return torch.where(torch.arange(len(found)) == 1, torch.nan, found)

    emitter, kept = Asked(np.random.default_rng(0).normal(size=(4, GENOME.size))), archive()
    run = Evolution(kept, [emitter], Fitness(PLAY, partly), lambda judged: last(judged.rollouts))
    assert run.generation()["failed"] == 1
    told = emitter.told["objective"]
    assert told[1] == np.delete(told, 1).min() > 3 and emitter.told["status"][1] == 0
    assert kept.stats.obj_max > 3 and not any(np.allclose(x, emitter.genomes[1]) for x in kept.data("solution"))

    @tensor_reward()
    def never(rollouts: Rollouts) -> Tensor:
        return torch.full((len(rollouts),), torch.nan)

    with pytest.raises(GuerdonError, match="none of 4"):
        Evolution(archive(), [emitter], Fitness(PLAY, never), lambda judged: last(judged.rollouts)).generation()


def test_a_reward_that_raises_stops_the_run() -> None:
    @reward(level="episode")
    def broken(step_count: int) -> float:
        raise ValueError("no")

    with pytest.raises(RewardFailure, match="broken"):
        Fitness(PLAY, broken)(np.zeros((3, GENOME.size)))


def test_an_archive_is_saved_and_loaded(tmp_path: Path) -> None:
    kept = archive()
    genomes = np.random.default_rng(0).normal(size=(30, GENOME.size))
    judged = Fitness(PLAY, height)(genomes)
    kept.add(genomes, judged.fitness, last(judged.rollouts))
    save_archive(kept, tmp_path / "archive.safetensors")
    again = archive()
    load_archive(again, tmp_path / "archive.safetensors")
    mine, theirs = (x.data(return_type="dict") for x in (kept, again))
    for name in ("solution", "objective", "measures"):
        order = [np.argsort(x["index"]) for x in (mine, theirs)]
        np.testing.assert_array_equal(mine[name][order[0]], theirs[name][order[1]])


# ---- the maze


def test_walls_stop_and_limits_cut() -> None:
    world = PointMaze(2, limit=40)
    world.reset()
    for step in range(1, 41):
        place, _, terminated, cut, info = world.step(np.array([[0.0, 1.0], [1.0, 0.0]]))
        assert not in_wall(world.place).any() and cut.all() == (step == 40) and not terminated.any()
    np.testing.assert_allclose(place, np.tile(START, (2, 1)), atol=1e-6)  # begun again
    up, right = info["final_obs"]
    assert up[1] < -0.2 and up[0] == pytest.approx(START[0])  # below the upper U
    assert right[0] == pytest.approx(1.0)  # under the lower U, to the edge


def test_the_picture_shows_the_place() -> None:
    image = drawn(np.array([[0.0, 0.0], [0.9, -0.9]]))
    assert image.shape == (2, 16, 16) and np.unravel_index(image[1].argmax(), (16, 16)) == (15, 15)
    np.testing.assert_allclose(image[0], image[0][::-1, ::-1], atol=1e-6)


# ---- the parts of the search


def test_novelty_by_hand_and_against_scikit_learn() -> None:
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    points, reference = rng.normal(size=(20, 3)), rng.normal(size=(50, 3))
    known = NearestNeighbors(n_neighbors=7).fit(reference).kneighbors(points)[0].mean(1)
    np.testing.assert_allclose(novelty(points, reference, 7), known)
    own = NearestNeighbors(n_neighbors=8).fit(points).kneighbors(points)[0][:, 1:].mean(1)
    np.testing.assert_allclose(novelty(points, points, 7, skip=1), own, atol=1e-7)
    with pytest.raises(InputError, match="more than 1"):
        novelty(points[:1], points[:1], 7, skip=1)


def test_mutation_stays_in_bounds() -> None:
    rng = np.random.default_rng(0)
    children = mutated(np.array([[4.9, 0.0], [-4.9, 1.0]]), 0.5, rng)
    assert children.shape == (4, 2) and np.abs(children).max() == 5 and np.abs(children[:2, 1]).max() < 2


def pool(fitness: list[float]) -> Pool:
    n = len(fitness)
    code = np.arange(n, dtype=float)[:, None]
    return Pool(genome=np.zeros((n, 2)), fitness=np.array(fitness), code=code, novelty=code[:, 0].copy(), surprise=np.zeros(n))


def test_an_emitter_keeps_the_best_and_passes_on_what_beats_all() -> None:
    emitter = ElitistEmitter(pool([0.1]), 0.1, np.random.default_rng(0), size=3)
    assert emitter.ask().shape == (3, 2)
    assert emitter.tell(pool([0.0, 0.0, 0.0])).count == 0
    assert emitter.tell(pool([0.2, 0.5, 0.3]))["fitness"].tolist() == [0.5]
    assert emitter.parents["fitness"].tolist() == [0.5, 0.3, 0.2] and emitter.ask().shape == (6, 2)
    assert emitter.tell(pool([0.4, 0.5, 0.6]))["fitness"].tolist() == [0.6]
    assert emitter.tell(pool([0.1]))["fitness"].tolist() == []
    gain = np.mean(emitter.values[-3:]) - np.mean(emitter.values[:3])
    assert gain > 0 and improvement(emitter.values) == pytest.approx(gain) and improvement(emitter.values[::-1]) == 0


def test_an_emitter_stagnates_when_nothing_rises() -> None:
    emitter = ElitistEmitter(pool([0.1]), 0.1, np.random.default_rng(0), size=40)
    window = int(20 * 2 / 40 + 120)
    emitter.values = [np.full(40, i / 200) for i in range(window)]
    assert not emitter.stagnates()
    emitter.values.append(np.full(40, 1.0))
    assert not emitter.stagnates()
    emitter.values = [np.ones(40)] * (window + 1)
    assert emitter.stagnates()


def test_a_code_is_learned_and_makes_the_known_unsurprising() -> None:
    rng = np.random.default_rng(0)
    shown = drawn(rng.uniform(-1, 0, (400, 2)))[:, None]
    code = ImageCode(256, 4, seed=0)
    before = code.describe(shown)[1].mean()
    assert code.fit(shown, rng, epochs=100) > 5
    known, unknown = code.describe(shown)[1].mean(), code.describe(drawn(rng.uniform(0.4, 1, (50, 2)))[:, None])[1].mean()
    assert known < before / 3 and unknown > 1.5 * known
    assert code.describe(np.repeat(shown, 3, 1))[0].shape == (400, 12)


def search(seed: int = 0) -> SparseSearch:
    """Genomes are points of the plane; those beyond 1.5 are paid."""

    def evaluate(genomes: np.ndarray) -> Pool:
        return Pool(genome=genomes, fitness=np.maximum(0, np.linalg.norm(genomes, axis=1) - 1.5))

    return SparseSearch(
        evaluate, lambda p: (p["genome"], np.zeros(p.count)), 2, np.random.default_rng(seed), sigma=0.3, chunk=300
    )


def test_exploring_spreads_and_finds_the_reward() -> None:
    it = search()
    it.chunk = 1000
    it.explore()
    assert it.evaluations >= 1000 and it.parents.count == 10
    assert np.linalg.norm(it.parents["genome"], axis=1).max() > 2.5  # novelty drove it outwards from about 1
    assert len(np.unique(it.rewarded["genome"], axis=0)) > 0.99 * it.rewarded.count  # each is paid and opens an emitter once
    assert it.rewarded.count == len(it.candidates)
    assert it.candidates and (it.rewarded["fitness"] > 0).all() and it.archive.count == 5 * ((it.evaluations - 10) // 20)


def test_exploiting_climbs_within_its_chunk() -> None:
    it = search()
    it.explore()
    best, before = it.rewarded["fitness"].max(), it.evaluations
    it.exploit()
    assert before < it.evaluations <= before + 300 + 12
    assert it.rewarded["fitness"].max() > best + 0.1


def test_a_new_space_codes_everything_anew() -> None:
    it = search()
    it.explore()
    it.exploit()
    it.encode = lambda p: (np.full((p.count, 3), 7.0), np.full(p.count, 2.0))
    it.recode()
    assert all((p["code"] == 7).all() and (p["surprise"] == 2).all() for p in it.stored()) and len(it.stored()) > 4
    it.explore()
