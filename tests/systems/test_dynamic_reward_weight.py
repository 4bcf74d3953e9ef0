# SPDX-License-Identifier: Apache-2.0
"""Multiplier, influence and mirror step in closed form; both guides through the loop."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from guerdon.credit import group_relative, weighted_sum
from guerdon.policies.language import LanguagePolicy
from guerdon.protocols import Sampling
from guerdon.systems.policy import dynamic_reward_weight as drw
from guerdon.tasks import brief_sums
from guerdon.training.binding import bind
from guerdon.training.loop import train
from guerdon.training.observers import Jsonl
from guerdon.training.recipe import Recipe
from guerdon.training.sources import Prompts, contexts_of

torch.set_num_threads(1)
EQUAL = {"correct": 1 / 3, "brief": 1 / 3, "clear": 1 / 3}


def test_the_multiplier_runs_from_a_half_to_two() -> None:
    gains = torch.tensor([-5.0, 0.0, 0.3, 50.0], dtype=torch.float64)
    assert drw.boost(gains).tolist() == pytest.approx([0.5, 0.5, 0.5 + 1.5 * math.tanh(0.3), 2.0])


def test_influence_is_how_fast_all_objectives_rise_along_one_gradient() -> None:
    """d/ds sum_j f_j(x + s g_i) at 0, by finite differences on quadratics."""
    generator = torch.Generator().manual_seed(0)
    centres, x = torch.randn(3, 4, generator=generator, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)

    def total(at: torch.Tensor) -> float:
        return -((at - centres) ** 2).sum().item() / 2

    gradients, h = centres - x, 1e-5
    found = [(total(x + h * g) - total(x - h * g)) / (2 * h) for g in gradients]
    assert drw.influence(gradients).tolist() == pytest.approx(found, rel=1e-6)


def test_the_mirror_step_minimises_its_objective() -> None:
    """w' = argmax rate <I, w> - KL(w || w_before): nothing near it is better."""
    before, influence = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    after = drw.mirror_step(before, influence, rate=0.7)

    def value(w: torch.Tensor) -> float:
        return (0.7 * (influence * w).sum() - (w * (w / before).log()).sum()).item()

    assert after.sum().item() == pytest.approx(1.0) and after.argmax() == 0 and after[1] < before[1]
    for direction in ([1, -1, 0], [0, 1, -1], [1, 0, -1]):
        for size in (1e-3, -1e-3):
            assert value(after) > value(after + size * torch.tensor(direction, dtype=torch.float64))


def test_the_guide_by_hand() -> None:
    guide = drw.HypervolumeGuide(dict)
    found = []
    for point in ([0.2, 0.2], [0.4, 0.6], [0.3, 0.5], [0.6, 0.4]):
        guide.see(torch.tensor(point, dtype=torch.float64))
        found.append(guide.multiplier)
    # above the first point: 0.2 x 0.4, nothing new, then 0.4 x 0.2 of which 0.2 x 0.2 is known
    assert found == pytest.approx([1.0, 0.5 + 1.5 * math.tanh(0.08), 0.5, 0.5 + 1.5 * math.tanh(0.04)])
    assert len(guide.archive) == 3
    other = drw.HypervolumeGuide(dict)
    other.load_state_dict(guide.state_dict())
    other.see(torch.tensor([1.0, 0.2], dtype=torch.float64))
    assert other.multiplier == 0.5 and guide.multiplier != 0.5


def test_weights_move_by_the_gradients_that_are_told() -> None:
    gradients = {"correct": [1.0, 0.0], "brief": [-1.0, 0.0], "clear": [1.0, 1.0]}
    mirror = drw.MirrorWeights(EQUAL, rate=0.5)
    told = SimpleNamespace(advantages=lambda: {k: torch.tensor(v) for k, v in gradients.items()}, gradient=lambda a: 2 * a)
    metrics = mirror.update(told)
    assert [metrics[f"influence/{k}"] for k in gradients] == [4, -4, 8]
    weights = torch.softmax(torch.tensor([2.0, -2.0, 4.0], dtype=torch.float64), 0).tolist()
    assert list(mirror(7).values()) == pytest.approx(weights) and list(mirror(7)) == list(EQUAL)
    other = drw.MirrorWeights(EQUAL, rate=0.5)
    other.load_state_dict(mirror.state_dict())
    assert other(0) == mirror(0)


# ---- through the loop


def trained(make, out: Path, steps: int = 2) -> tuple[dict, list[dict]]:
    """The policy after ``steps`` plain gradient steps in float64, and the steps' metrics."""
    fresh = partial(
        LanguagePolicy.tiny, brief_sums.TOKENS, width=16, heads=2, max_length=24, dtype=torch.float64, reference="copy"
    )
    tasks = contexts_of(brief_sums.make_tasks(held_out=False))
    stage = make(Prompts(tasks, 4, 6, Sampling(max_new_tokens=6)), steps, drw.weighted(EQUAL), lr=1.0)
    stage = replace(stage, updater={"optimiser": "sgd"})
    policies = []
    recipe = Recipe("run", lambda: policies.append(fresh()) or policies[0], [stage], save_rollouts_every=0)
    train(recipe, out, [Jsonl()])
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return policies[0].state_dict(), lines


def guided(how):
    """A, whose multiplier goes 1, 2: the second measurement, made before the second batch is credited, is far better."""
    found = iter([[0.0, 0.0], [9.0, 9.0]])
    guide = drw.HypervolumeGuide(lambda policy: dict(enumerate(next(found))))
    return partial(_guided, guide=guide, how=how)


def _guided(source, steps, wanted, *, guide, how, **more):
    return drw.hypervolume_guided(source, steps, wanted, guide, advantage=how, **more)


def distance(a: dict, b: dict) -> float:
    return max((a[k] - b[k]).abs().max().item() for k in a)


def test_a_multiplier_trains_the_same_policy_under_std_and_another_without(tmp_path: Path) -> None:
    for name, how, same in (("std", drw.STD, True), ("mean", drw.MEAN_ONLY, False), ("rloo", drw.RLOO, False)):
        plain, _ = trained(partial(drw.fixed, credit=bind(group_relative, **how)), tmp_path / f"{name}-fixed")
        moved, lines = trained(guided(how), tmp_path / f"{name}-guided")
        assert [line["multiplier"] for line in lines] == pytest.approx([1, 2])
        assert (distance(plain, moved) < 1e-9) == same
        fresh, _ = trained(guided(how), tmp_path / f"{name}-none", steps=0)
        assert distance(fresh, moved) > 1e-4


def test_gradient_guidance_weighs_this_batch_by_what_it_learnt_from_it(tmp_path: Path) -> None:
    seen = []

    class Watching(drw.MirrorWeights):
        def update(self, told):
            metrics = super().update(told)
            own, weights = told.advantages(), self(0)
            whole = told.gradient(weighted_sum(own, weights))
            apart = sum(w * told.gradient(own[k]) for k, w in weights.items())
            seen.append((whole, apart, weights))  # the penalty is in each, and the weights sum to 1
            return metrics

    mirror = Watching(EQUAL, rate=50.0)
    make = partial(drw.fixed, combine=bind(weighted_sum, weights=mirror), evolving=[mirror])
    _, lines = trained(make, tmp_path / "run", steps=2)
    for whole, apart, _ in seen:
        assert torch.allclose(whole, apart, rtol=1e-5, atol=1e-7) and whole.norm() > 1e-4
    for line, (*_, weights) in zip(lines, seen, strict=True):
        assert [line[f"weight/{k}"] for k in EQUAL] == pytest.approx(list(weights.values()))
    assert max(abs(w - 1 / 3) for w in seen[-1][2].values()) > 1e-3
    fixed, _ = trained(drw.fixed, tmp_path / "fixed", steps=1)
    moved, _ = trained(partial(drw.gradient_guided, weights=EQUAL, rate=50.0), tmp_path / "moved", steps=1)
    still, _ = trained(partial(drw.gradient_guided, weights=EQUAL, rate=0.0), tmp_path / "still", steps=1)
    assert distance(fixed, still) < 1e-12 < 1e-9 < distance(fixed, moved)
