# SPDX-License-Identifier: Apache-2.0
"""Parts that learn while in use: told once a step, their state is in the checkpoint, the probe is the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guerdon.credit import group_relative, weighted_sum
from guerdon.errors import InputError
from guerdon.objectives import clipped_surrogate, token_mean
from guerdon.protocols import Sampling
from guerdon.rewards import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Component, component
from guerdon.training import checkpoint
from guerdon.training.binding import bind
from guerdon.training.evolving import Told
from guerdon.training.loop import train
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Prompts
from tests.training.data.letters import CONTEXTS, begins_right, mostly
from tests.training.table import Table, TableUpdater


@dataclass
class Weights:
    """Weights of the components, moved a little each time."""

    before: bool = True
    number: Tensor = field(default_factory=lambda: torch.ones(()))
    told: list[Told] = field(default_factory=list)

    def __call__(self, step: int) -> Tensor:
        return self.number

    def update(self, told: Told) -> Mapping[str, float]:
        self.told.append(told)
        self.number = self.number + 0.25
        return {"weight": self.number.item()}

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.number = state["number"]


def scaled_sum(advantages: Mapping[str, Tensor], weights: Mapping[str, float], *, scale: Tensor) -> Tensor:
    return scale * weighted_sum(advantages, weights)


class Keeping(TableUpdater):
    """Gives away what it has accumulated."""

    def take_gradient(self) -> Tensor:
        parts = self._parameters()
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parts])
        for p in parts:
            p.grad = None
        return flat


class KeptTable(Table):
    def updater(self, **settings: Any) -> Keeping:
        self.made = Keeping(self, **settings)
        return self.made


def stage(part: Any, steps: int = 4, wanted: Any = None, **settings: Any) -> Stage:
    combine = bind(scaled_sum, scale=part) if isinstance(part, Weights) else None
    given = {"combine": combine, "evolving": [part] if part else [], "lr": 1.0, "credit": group_relative, **settings}
    terms = [Term(1.0, clipped_surrogate, token_mean)]
    return Stage("train", steps, Prompts(CONTEXTS, 2, 6, Sampling(4)), terms, wanted or begins_right + 0.5 * mostly, **given)


def run(directory: Path, one: Stage, policy: Table | None = None, **settings: Any) -> Table:
    made = policy or KeptTable("pqr")
    train(Recipe("test", lambda: made, [one], **{"save_rollouts_every": 0, "checkpoint_every": 2, **settings}), directory)
    return made


@pytest.mark.parametrize("before", [True, False])
def test_a_part_is_told_each_step_before_the_credit_or_after_the_update(tmp_path: Path, before: bool) -> None:
    part = Weights(before)
    policy = run(tmp_path, stage(part))
    assert [t.step for t in part.told] == [0, 1, 2, 3]
    assert all(("advantage" in t.ingredients) is not before for t in part.told)
    # the first batch's credit is by the weight after its update only if that came before it
    first = Weights()
    plain = stage(first, combine=bind(scaled_sum, scale=torch.tensor(1.25 if before else 1.0)), evolving=[])
    other = run(tmp_path / "other", plain)
    assert torch.allclose(policy.made.seen[0], other.made.seen[0], rtol=1e-12)
    assert not torch.allclose(policy.made.seen[1], other.made.seen[1])


def test_the_probe_is_the_gradient_that_the_update_takes(tmp_path: Path) -> None:
    part = Weights(before=False)
    seen = dict[str, Tensor]()

    @dataclass
    class Probe(Weights):
        def update(self, told: Told) -> Mapping[str, float]:
            apart = told.advantages()
            seen["both"] = told.gradient(apart["begins_right"] + 0.5 * apart["mostly"])
            seen["one"], seen["other"] = told.gradient(apart["begins_right"]), told.gradient(0.5 * apart["mostly"])
            return {}

    policy = run(tmp_path, stage(Probe(before=True), steps=1))
    assert torch.allclose(seen["both"], policy.made.seen[0], rtol=1e-12)
    assert torch.allclose(seen["one"] + seen["other"], seen["both"], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(seen["one"], seen["both"]) and len(policy.made.seen) == 1
    assert part.told == []


def test_a_resumed_run_goes_on_with_the_state_of_its_parts(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", stage(Weights(), steps=6))
    run(tmp_path / "cut", stage(Weights(), steps=4))
    saved = checkpoint.latest(tmp_path / "cut")
    assert saved is not None and [v["number"].item() for v in saved["parts"].values()] == [2.0]
    part = Weights()
    resumed = run(tmp_path / "cut", stage(part, steps=6), KeptTable("pqr"))
    assert part.number.item() == 2.5
    assert torch.equal(resumed.logits, whole.logits)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Fading(Reward):
    """A reward that says less the more it is used."""

    name: str = "fading"
    evolves: bool = True
    before: bool = False
    memory: dict[str, float] = field(default_factory=lambda: {"uses": 0.0})

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        return component(self.name, "episode", torch.full((len(rollouts), 1), 1 / (1 + self.memory["uses"])))

    def update(self, told: Told) -> Mapping[str, float]:
        self.memory["uses"] += 1
        return {"uses": self.memory["uses"]}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.memory.update(state)


def test_a_reward_inside_an_expression_evolves_without_being_listed(tmp_path: Path) -> None:
    inside = Fading()
    run(tmp_path, stage(None, steps=3, wanted=begins_right + 0.1 * inside.clip(0, 1)))
    assert inside.memory == {"uses": 3.0}
    again = Fading()
    run(tmp_path, stage(None, steps=5, wanted=begins_right + 0.1 * again.clip(0, 1)))
    assert again.memory == {"uses": 5.0}


def test_advantages_of_components_need_a_reward(tmp_path: Path) -> None:
    class Asking(Weights):
        def update(self, told: Told) -> Mapping[str, float]:
            told.advantages()
            return {}

    imitating = replace(stage(Asking()), reward=None, credit=None, combine=None)
    with pytest.raises(InputError, match="need a reward and a credit"):
        run(tmp_path, imitating)
