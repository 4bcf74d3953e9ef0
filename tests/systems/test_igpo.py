# SPDX-License-Identifier: Apache-2.0
"""IGPO's advantage by hand and by loops, and the system through the loop."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from guerdon.policies.language import LanguagePolicy
from guerdon.policies.tokenizer import word_tokenizer
from guerdon.rollouts import Rollouts
from guerdon.systems.dense import igpo
from guerdon.tasks import lookup
from guerdon.training.loop import train
from guerdon.training.observers import Jsonl
from guerdon.training.sources import Prompts, contexts_of

torch.set_num_threads(1)


def by_loops(reward, mask, group, level, gamma):
    """The equation, turn by turn, in plain numbers."""
    n, t = reward.shape
    turns = [{} for _ in range(n)]
    for i in range(n):
        for j in range(t):
            if mask[i, j] and level[i, j] >= 0:
                turns[i][int(level[i, j])] = turns[i].get(int(level[i, j]), 0.0) + float(reward[i, j])
    out = torch.zeros(n, t, dtype=reward.dtype)
    for i in range(n):
        pooled = [x for k in range(n) if group[k] == group[i] for x in turns[k].values()]
        mean = sum(pooled) / len(pooled)
        std = math.sqrt(sum((x - mean) ** 2 for x in pooled) / (len(pooled) - 1))
        for j in range(t):
            if mask[i, j] and level[i, j] >= 0:
                here = int(level[i, j])
                later = sorted(k for k in turns[i] if k >= here)
                out[i, j] = sum(gamma**p * (turns[i][k] - mean) / std for p, k in enumerate(later))
    return out


@pytest.mark.parametrize("gamma", [1.0, 0.7, 0.0])
def test_equal_to_the_equation_by_loops(gamma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    turn = torch.tensor([0, 0, -1, 1, 1, 2, 2, -1, 3]).repeat(6, 1)
    turn[1, 5:] = turn[4, 3:] = -1
    mask = (turn >= 0) & (torch.rand(6, 9, generator=generator) > 0.2)
    group = torch.tensor([3, 3, 7, 3, 7, 7])
    found = igpo.gained_advantage(reward.where(mask, torch.nan), mask, group, turn.clamp(max=0), gamma=gamma, level=turn)
    assert torch.allclose(found, by_loops(reward, mask, group, turn, gamma), rtol=1e-10, atol=1e-12)


def test_a_further_turn_without_gain_costs_the_mean() -> None:
    """Two rows with the same answer and the same gains; one has looked up something useless before."""
    reward = torch.tensor([[0.0, 0.5, 1.0], [0.5, 1.0, 0.0]], dtype=torch.float64)
    turn = torch.tensor([[0, 1, 2], [0, 1, -1]])
    found = igpo.gained_advantage(reward, turn >= 0, torch.zeros(2).long(), turn.clamp(max=0), level=turn)
    values = torch.tensor([0.0, 0.5, 1.0, 0.5, 1.0], dtype=torch.float64)
    assert (found[1, 0] - found[0, 0]).item() == pytest.approx((values.mean() / values.std()).item())
    assert found[0, 1].item() == pytest.approx(found[1, 0].item())


def test_a_failed_turn_leaves_the_statistics_and_reaches_earlier_turns() -> None:
    reward = torch.tensor([[0.1, torch.nan, 1.0], [0.2, 0.3, 0.0]], dtype=torch.float64)
    turn = torch.arange(3).repeat(2, 1)
    yes, group = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2).long()
    found = igpo.gained_advantage(reward, yes, group, torch.zeros(2, 3).long(), level=turn)
    assert found.isnan().tolist() == [[True, True, False], [False, False, False]]
    known = torch.tensor([0.1, 1.0, 0.2, 0.3, 0.0], dtype=torch.float64)
    assert found[0, 2].item() == pytest.approx(((1.0 - known.mean()) / known.std()).item())


def test_gains_add_up_to_what_was_learnt_and_the_answer_is_paid_last() -> None:
    turn = torch.tensor([[0, 0, 1, 1, 2]])
    rollouts = Rollouts(action=torch.zeros(1, 5), mask=torch.ones(1, 5, dtype=torch.bool), task=["q"], levels={"turn": turn})
    rollouts = rollouts.with_field("belief_before", "turn", [[0.2, 0.5, 0.4]]).with_field("belief", "turn", [[0.5, 0.4, 0.4]])
    rollouts = rollouts.with_field("answer", "task", ["c1"]).with_field("completion", "episode", [["?a0\n?b1\n=c1"]])
    scores = (igpo.answered() + igpo.information_gain).score(rollouts)
    assert scores.reward()[0].tolist() == pytest.approx([0, 0.3, 0, -0.1, 1.0])
    assert scores.components["information_gain"].values.sum().item() == pytest.approx(0.4 - 0.2)


@pytest.mark.parametrize(("said", "paid"), [("=c1", 1.0), ("=c2", 0.0), ("?c1", -2.0), ("c1", -2.0)])
def test_an_agent_that_never_answers_pays(said: str, paid: float) -> None:
    assert igpo.answered()(completion=f"?a0\n{said}", answer="c1") == paid


@pytest.mark.parametrize("make", [igpo.igpo, igpo.outcome_only])
def test_it_trains(make, tmp_path: Path) -> None:
    tokenizer = word_tokenizer(lookup.TOKENS, chat_template=lookup.TEMPLATE)
    fresh = partial(LanguagePolicy.tiny, tokenizer, width=16, heads=2, max_length=32, reference="copy")
    source = Prompts(contexts_of(lookup.make_tasks(8, [2], 0)), 2, 4, igpo.MESSAGE, igpo.sample)
    recipe = replace(igpo.arm(make, 0, tmp_path, lr=1e-2), policy=fresh, stages=[make(source, 2, lr=1e-2)])
    train(recipe, tmp_path / "run", [Jsonl()])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 2 and all(line["dropped"] == 0 for line in steps)
    assert all(line["grad_norm"] > 0 for line in steps) or make is igpo.outcome_only  # which is silent where nobody is right
    assert {"eval/success", "eval/success/4", "eval/useful"} <= lines[-1].keys()
