# SPDX-License-Identifier: Apache-2.0
"""Constrained PPO in the loop: held at its points, its search resumed, its judges as they are meant."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from guerdon.credit.lagrangian import Multipliers
from guerdon.scores import component
from guerdon.systems.model.constrained_rlhf import FLUENT, HELPFUL, PEAK, ThresholdSearch, constrained, gold, nelder_mead
from guerdon.training.loop import train


def test_the_gold_score_peaks_inside_both_judges() -> None:
    assert torch.corrcoef(torch.stack([FLUENT, HELPFUL]))[0, 1] > 0.5
    rows = SimpleNamespace(action=torch.cartesian_prod(*[torch.arange(6)] * 4))
    best = rows.action[gold(rows).argmax()]
    for table, name in ((FLUENT, "fluent"), (HELPFUL, "helpful")):
        assert 10 * table[best].mean() == pytest.approx(PEAK[name], abs=0.6)
    assert gold(rows).max() <= 1 and gold(SimpleNamespace(action=torch.full((1, 4), 5))) < -5


def told(evaluation: dict[str, float], **returns: float) -> SimpleNamespace:
    parts = {k: component(k, "episode", torch.tensor([[x]])) for k, x in returns.items()}
    return SimpleNamespace(scores=SimpleNamespace(components=parts), evaluation=evaluation)


def searching() -> ThresholdSearch:
    return ThresholdSearch(Multipliers({"a": 1.0}, "equal"), [[2.0], [3.0]], "eval/gold", patience=3)


def test_a_proposal_is_tried_until_it_is_reached_or_patience_ends() -> None:
    search = searching()
    assert search.update(told({}, a=2.0))["target/a"] == 2.0 and search.search.values == []  # no evaluation yet
    search.update(told({"eval/gold": 0.5}, a=2.05))
    assert search.search.values == [-0.5]
    for _ in range(2):
        search.update(told({"eval/gold": 0.9}, a=0.0))
    assert search.search.values == [-0.5]
    search.update(told({"eval/gold": 0.7}, a=0.0))
    assert search.search.values == [-0.5, -0.7] and search.update(told({}, a=0.0))["target/a"] == 4.0  # reflected
    again = searching()
    again.load_state_dict(search.state_dict())
    assert again.update(told({}, a=0.0)) == search.update(told({}, a=0.0))


def shortened(recipe, steps: int):
    return dataclasses.replace(recipe, stages=[dataclasses.replace(recipe.stages[0], steps=steps)], checkpoint_every=5)


def test_it_trains_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    for make in (constrained, nelder_mead):
        whole = train(shortened(make(0, lr=0.1), 10), tmp_path / make.__name__)
        train(shortened(make(0, lr=0.1), 5), tmp_path / f"{make.__name__}-part")
        resumed = train(shortened(make(0, lr=0.1), 10), tmp_path / f"{make.__name__}-part")
        assert resumed["eval/gold"] == whole["eval/gold"] and whole["eval/gold"] > whole["eval/gold_start"]
