# SPDX-License-Identifier: Apache-2.0
"""ReinFlow's stage on the point maze: chains of any length, learnt or fixed noise, and a Gaussian policy in the flow's place."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from guerdon.policies.action_distribution import Gaussian
from guerdon.policies.actor_critic import ActorCritic
from guerdon.policies.flow_actor import FlowActor, chain_log_prob
from guerdon.sampling.environments import Environments, episodes
from guerdon.systems.control.reinflow import maze, reinflow
from guerdon.training.loop import train
from guerdon.training.observers import Jsonl
from guerdon.training.recipe import Recipe

POLICIES: dict[str, Callable[[], Any]] = {
    "four steps": partial(FlowActor, 2, 2, width=16),
    "one step": partial(FlowActor, 2, 2, width=16, steps=1),
    "fixed noise": partial(FlowActor, 2, 2, width=16, sigma=(0.2, 0.2)),
    "gaussian": partial(ActorCritic, 2, Gaussian((-1.0, -1.0), (1.0, 1.0), (2,)), hidden=(16,)),
}


@pytest.mark.parametrize("kind", POLICIES)
def test_one_stage_trains_every_kind_of_policy(tmp_path: Path, kind: str) -> None:
    policy = POLICIES[kind]()
    before = policy.state_dict()
    stage = reinflow(Environments(maze, 4, 32), 2, minibatch=128, rounds=1, lr=1e-3)
    train(Recipe("reinflow", lambda: policy, [stage], save_rollouts_every=0), tmp_path, [Jsonl()])
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["ratio"] == pytest.approx(1, abs=1e-4)  # one update a batch: what was drawn is what is scored
    assert first["approx_kl"] == pytest.approx(0, abs=1e-6)
    moved = {k for k, v in policy.state_dict().items() if not torch.equal(v, before[k])}
    assert any(k.startswith("critic") for k in moved)
    if isinstance(policy, FlowActor):
        assert any(k.startswith("flow") for k in moved)
        assert any(k.startswith("spread") for k in moved) == (kind != "fixed noise")


def test_a_row_holds_chains_that_the_environment_saw_the_end_of() -> None:
    actor = FlowActor(2, 2, width=16, steps=3)
    rows = episodes(actor, maze, 3, seed=1)
    assert rows.action.shape[2:] == (4, 2)
    found = actor.evaluate(rows, frozenset({"log_prob"}))["log_prob"]
    torch.testing.assert_close(found, rows.log_prob, rtol=1e-4, atol=1e-4)
    taken = rows.mask[0]
    seen, after = (rows.field(k).values[0][taken] for k in ("observation", "next_observation"))
    last = rows.action[0, :, -1][taken].clamp(-1, 1)
    free = (seen[:, 0] < 0) == (after[:, 0] < 0)  # not through the wall's plane, and not at the edge of the square
    free &= (after.abs() < 1).all(1) & (seen[:, 0].abs() > 0.01) & (after[:, 0].abs() > 0.01)
    torch.testing.assert_close(after[free], (seen + 0.15 * last)[free], rtol=1e-4, atol=1e-5)


def test_the_density_integrates_to_one() -> None:
    """Of one link in one dimension, over a grid of starts and ends."""
    x = torch.linspace(-8, 8, 801, dtype=torch.float64)
    chain = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1)[..., None]
    mean, std = (0.3 * chain[..., :1, :]).clamp(-1, 1), torch.full((801, 801, 1, 1), 0.4, dtype=torch.float64)
    total = chain_log_prob(chain, mean, std).exp().sum() * 0.02**2
    assert total.item() == pytest.approx(1, abs=1e-6)
