# SPDX-License-Identifier: Apache-2.0
"""Trees are trained by the loop that trains networks: through the gradient with respect to their outputs, and they learn."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from guerdon.credit import gae, whiten
from guerdon.errors import GuerdonError, InputError
from guerdon.objectives import clipped_surrogate, token_mean, value_loss
from guerdon.policies.action_distribution import Categorical
from guerdon.policies.boosted import BoostedTrees
from guerdon.protocols import Context, Sampling
from guerdon.rewards.fields import environment
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Field, Rollouts
from guerdon.sampling.environments import Environments, episodes
from guerdon.training.binding import bind
from guerdon.training.loop import train
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Prompts

OUTPUTS = frozenset({"log_prob", "entropy", "value"})


def policy(**settings: int) -> BoostedTrees:
    return BoostedTrees(2, Categorical(3), **settings)


def steps(count: int = 4) -> Rollouts:
    """The corners of a square, so that two cuts tell them apart."""
    seen = torch.stack([torch.arange(count) % 2, torch.arange(count) // 2], -1).float()
    return Rollouts(
        action=(torch.arange(count) % 3)[:, None],
        mask=torch.ones(count, 1, dtype=torch.bool),
        task=["a"] * count,
        fields={"observation": Field("step", seen[:, None]), "next_observation": Field("step", seen[:, None] + 1)},
    )


def fit(p: BoostedTrees, rollouts: Rollouts, gradient: dict[str, Tensor], lr: float) -> dict[str, float]:
    """One tree by ``gradient`` with respect to the outputs."""
    updater = p.updater()
    updater.accumulate(p.evaluate(rollouts, OUTPUTS), gradient)
    return updater.step(lr=lr)


def test_a_deep_tree_moves_each_output_by_its_own_gradient() -> None:
    p, rollouts = policy(depth=3), steps()
    gradient = torch.arange(4.0)[:, None] - 1
    fit(p, rollouts, {"value": gradient / 4}, lr=0.5)
    moved = p.evaluate(rollouts, frozenset({"value"}))["value"]
    torch.testing.assert_close(moved, -0.5 * gradient, atol=1e-5, rtol=0)


def test_the_gradient_of_log_prob_reaches_the_logits() -> None:
    """d log_prob(a) / d logit_b = 1[a = b] - 1/3 for equal logits; depth 3 is enough for a leaf to hold one observation."""
    p, rollouts = policy(depth=3), steps()
    fit(p, rollouts, {"log_prob": torch.full((4, 1), -1 / 4)}, lr=1.0)
    logits = np.eye(3)[rollouts.action[:, 0]] - 1 / 3
    weight = np.exp(logits)
    expected = np.log((weight / weight.sum(1, keepdims=True))[np.arange(4), rollouts.action[:, 0]])
    found = p.evaluate(rollouts, frozenset({"log_prob"}))["log_prob"][:, 0]
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)


def test_micro_batches_add_up() -> None:
    whole, parts, rollouts = policy(depth=2), policy(depth=2), steps()
    gradient = torch.linspace(-1, 1, 4)[:, None]
    fit(whole, rollouts, {"value": gradient}, lr=0.1)
    updater = parts.updater()
    for rows in (torch.arange(1), torch.arange(1, 4)):
        some = rollouts.rows(rows)
        parts.evaluate(some, OUTPUTS)  # looked at, but without a gradient
        updater.accumulate(parts.evaluate(some, OUTPUTS), {"value": gradient[rows]})
    updater.step(lr=0.1)
    want = frozenset({"value"})
    torch.testing.assert_close(parts.evaluate(rollouts, want), whole.evaluate(rollouts, want))
    assert whole.evaluate(rollouts, want)["value"].abs().max() > 0


def test_masked_steps_are_neither_read_nor_fitted() -> None:
    p, rollouts = policy(depth=3), steps(2)
    seen = torch.tensor([[[0.0, 0.0], [math.nan, math.nan]], [[1.0, 0.0], [1.0, 1.0]]])
    mask = torch.tensor([[True, False], [True, True]])
    wide = Rollouts(torch.zeros(2, 2, dtype=torch.long), mask, ["a", "b"], fields={"observation": Field("step", seen)})
    out = p.evaluate(wide, OUTPUTS)
    assert out["log_prob"][0, 1] == 0 and out["log_prob"][0, 0].item() == pytest.approx(-math.log(3))
    updater = p.updater()
    updater.accumulate(out, {"value": torch.full((2, 2), 1 / 3)})
    updater.step(lr=1.0)
    assert p.evaluate(rollouts, frozenset({"value"}))["value"][:, 0].tolist() == pytest.approx([-1, -1])


def test_a_gradient_that_is_not_finite_adds_no_tree() -> None:
    p, rollouts = policy(depth=2), steps()
    with pytest.raises(GuerdonError, match="finite gradient"):
        fit(p, rollouts, {"value": torch.full((4, 1), math.nan)}, lr=0.1)
    assert p.trees["value"].get_num_trees() == 0


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    p, rollouts = policy(depth=2), steps()
    fit(p, rollouts, {"value": torch.linspace(-1, 1, 4)[:, None], "log_prob": torch.linspace(-1, 1, 4)[:, None]}, lr=0.3)
    expected = p.evaluate(rollouts, OUTPUTS)
    p.save(tmp_path / "policy")
    torch.testing.assert_close(BoostedTrees.load(tmp_path / "policy").evaluate(rollouts, OUTPUTS), expected)
    other, state = policy(depth=2), copy.deepcopy(p.state_dict())
    fit(p, rollouts, {"value": torch.ones(4, 1)}, lr=1.0)
    other.load_state_dict(state)
    torch.testing.assert_close(other.evaluate(rollouts, OUTPUTS), expected)
    fresh = policy(depth=2)
    fresh.save(tmp_path / "fresh")  # no tree yet
    assert BoostedTrees.load(tmp_path / "fresh").evaluate(rollouts, OUTPUTS)["value"].abs().max() == 0


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(InputError, match="no output hidden"):
        policy(depth=2).evaluate(steps(), frozenset({"hidden"}))


# ---- learning


@tensor_reward(bounds=(0, 1), needs=("observation",))
def right(rollouts: Rollouts) -> Tensor:
    """1 for the action that the observation calls for: a quadrant rule that no linear policy can follow."""
    x, y = rollouts.field("observation").values[:, 0].unbind(-1)
    return (rollouts.action[:, 0] == torch.where(x * y > 0, 0, torch.where(x > 0, 1, 2))).double()


def bandit(trained: BoostedTrees, seed: int) -> Recipe:
    drawn = np.random.default_rng(seed).uniform(-1, 1, (512, 2))
    contexts = [Context(str(i), x) for i, x in enumerate(drawn)]
    stage = Stage(
        "bandit",
        25,
        Prompts(contexts, prompts=256, samples=1, sampling=Sampling()),
        [Term(1.0, clipped_surrogate, token_mean), Term(0.5, value_loss, token_mean)],
        reward=right,
        credit=bind(gae, gamma=1.0, lam=1.0),
        rounds=2,
        lr=2.0,
        micro_rows=100,
    )
    return Recipe("bandit", lambda: trained, [stage], seed=seed, save_rollouts_every=0, checkpoint_every=1000)


def greedy(p: BoostedTrees) -> float:
    contexts = [Context(str(i), x) for i, x in enumerate(np.random.default_rng(99).uniform(-1, 1, (400, 2)))]
    return right.score(p.sample(contexts, Sampling(temperature=0.0), 0)).total.values.mean().item()


def test_trees_learn_a_bandit_in_the_loop(tmp_path: Path) -> None:
    p = policy(depth=3)
    before = greedy(p)
    train(bandit(p, seed=0), tmp_path / "run")
    assert before < 0.6 and greedy(p) > 0.93


def test_trees_learn_cartpole_by_the_parts_that_text_is_trained_with(tmp_path: Path) -> None:
    p = BoostedTrees(4, Categorical(2), depth=3)
    stage = Stage(
        "ppo",
        25,
        Environments("CartPole-v1", environments=16, steps=32),
        [Term(1.0, clipped_surrogate, token_mean), Term(0.5, value_loss, token_mean)],
        reward=environment(),
        credit=bind(gae, "next_value", gamma=0.98, lam=0.9),
        transforms=[whiten],
        rounds=2,
        lr=0.5,
        by="step",
    )
    train(Recipe("trees", lambda: p, [stage], save_rollouts_every=0, checkpoint_every=1000), tmp_path / "run")
    played = episodes(p, "CartPole-v1", 10, seed=1, greedy=True)
    assert played.mask.sum(1).float().mean() > 100  # random actions last 22 steps
