# SPDX-License-Identifier: Apache-2.0
"""STAX's turns, when its autoencoder is trained, and what the maze pays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from guerdon.learners.evolution import Fitness
from guerdon.learners.novelty import Pool
from guerdon.rollouts import Field, Rollouts
from guerdon.systems.design.stax import AREAS, ARMS, STEPS, Stax, Visits, alternating, exploring, near, stax
from guerdon.worlds.point_maze import drawn, in_wall


def evaluate(genomes: np.ndarray) -> Pool:
    """A genome is where it goes, and no farther than the edge; the more to the right, the better."""
    place = np.clip(genomes[:, :2], -1, 1)
    return Pool(genome=genomes, fitness=np.maximum(0, genomes[:, 0] - 0.6), place=place, image=drawn(place)[:, None])


def made(seed: int = 0, **settings: Any) -> Stax:
    return stax(evaluate, 2, 256, np.random.default_rng(seed), chunk=200, **settings)


def test_turns_alternate_and_training_is_rarer_and_rarer() -> None:
    it, fits = made(), list[int]()
    it.code.fit = lambda images, rng: fits.append(len(images))
    turns = [it.take_turn() for _ in range(12)]
    assert turns == ["explore", "exploit"] * 6 and len(fits) == 3  # after explore turns 1, 3, 6
    assert fits[0] < fits[1] < fits[2]


def test_training_codes_everything_anew() -> None:
    it = made()
    it.take_turn()
    for pool in it.search.stored():
        code, surprise = it.code.describe(pool["image"])
        np.testing.assert_allclose(pool["code"], code)
        np.testing.assert_allclose(pool["surprise"], surprise)


def test_variants() -> None:
    untrained, plain = made(trained=False), made(turns=exploring)
    assert untrained.search.criteria == ("novelty",) and plain.search.criteria == ("novelty", "surprise")
    before = untrained.code.encoder[0].weight.clone()
    untrained.take_turn()
    assert torch.equal(before, untrained.code.encoder[0].weight)
    assert [plain.take_turn() for _ in range(3)] == ["explore"] * 3 and alternating(1) == "exploit"
    given = made(encode=lambda pool: (pool["place"], np.zeros(pool.count)))
    given.take_turn()
    assert given.search.archive["code"].shape[1] == 2 and not given.trained


def test_exploiting_finds_more_than_exploring_did() -> None:
    it = made()
    it.take_turn()
    before = it.search.rewarded["fitness"].max()
    it.take_turn()
    assert it.search.rewarded["fitness"].max() > before > 0


def at(*places: tuple[float, float]) -> Rollouts:
    """One row that visits ``places``, one a step."""
    x = torch.tensor([places])
    return Rollouts(
        torch.zeros_like(x), torch.ones(1, len(places), dtype=torch.bool), ["a"], fields={"next_observation": Field("step", x)}
    )


def test_areas_pay_each_step_near_their_middle() -> None:
    x, y = AREAS["inside"]
    scores = near("inside").score(at((x, y), (x + 0.125, y), (x + 0.3, y))).reward()[0] * STEPS
    assert scores.tolist() == pytest.approx([1.0, 0.5, 0.0], abs=1e-5)
    assert near("corner").score(at((x, y))).reward().item() == 0  # the areas are disjoint
    assert not in_wall(np.array(list(AREAS.values()))).any()


def test_visits_remember_the_best_of_each_area() -> None:
    rows = iter([at(AREAS["inside"], AREAS["inside"]), at(AREAS["corner"], (0.9, 0.9))])
    visits = Visits(Fitness(lambda genomes: next(rows), near("inside") + near("corner")))
    for _ in range(2):
        visits(np.zeros((1, 2)))
    line = visits.line()
    assert line["eval/inside"] == pytest.approx(2 / STEPS) and line["eval/corner"] == pytest.approx(1 / STEPS)
    assert line["eval/reward"] == pytest.approx(1.5 / STEPS) and line["eval/coverage"] == pytest.approx(2 / 2500)


def test_an_arm_uses_its_budget() -> None:
    import guerdon.systems.design.stax as module

    budget, module.BUDGET = module.BUDGET, 150
    try:
        lines = list(ARMS["stax"](0, None).lines())
    finally:
        module.BUDGET = budget
    assert 150 <= lines[-1]["samples"] < 200 and 0 < lines[-1]["eval/coverage"] < 1
