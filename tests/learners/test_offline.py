# SPDX-License-Identifier: Apache-2.0
"""The offline skeleton: it goes to the fixed points that exact methods find, and to a better policy than the data's."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from guerdon.errors import GuerdonError
from guerdon.learners.offline import ActionValue, OfflineLearner, Perceptrons, StateValue
from guerdon.objectives.value_regression import expectile_loss, gumbel_loss
from guerdon.policies.action_distribution import Categorical
from guerdon.policies.actor_critic import ActorCritic
from guerdon.rollouts import Field, Rollouts
from guerdon.worlds.tables import Table, grid_table, policy_evaluation, q_values, value_iteration

STATES, ACTIONS = 4, 4
UNIFORM = torch.full((STATES, ACTIONS), 0.25, dtype=torch.float64)


def corridor() -> Table:
    return grid_table("S..G", gamma=0.8)


def every_step(table: Table) -> Rollouts:
    """Each action in each open state once: what uniform behaviour sees, one-hot, in float64."""
    pairs = [(s, a) for s in range(table.states - 1) for a in range(table.actions)]
    after = [int(table.transition[s, a].argmax()) for s, a in pairs]
    hot = torch.eye(table.states, dtype=torch.float64)
    fields = {
        "observation": hot[[s for s, _ in pairs]][:, None],
        "next_observation": hot[after][:, None],
        "reward": torch.tensor([[float(table.terminal[n])] for n in after], dtype=torch.float64),
    }
    return Rollouts(
        action=torch.tensor([[a] for _, a in pairs]),
        mask=torch.ones(len(pairs), 1, dtype=torch.bool),
        task=["corridor"] * len(pairs),
        terminated=table.terminal[torch.tensor(after)][:, None],
        fields={k: Field("step", v) for k, v in fields.items()},
    )


def learner(loss: object, **settings: object) -> OfflineLearner:
    """Without hidden layers on one-hot observations networks are tables."""
    actor = ActorCritic(STATES, Categorical(ACTIONS), hidden=(), dtype=torch.float64)
    critic = ActionValue(STATES, ACTIONS, discrete=True, hidden=()).double()
    value = StateValue(STATES, hidden=()).double()
    return OfflineLearner(actor, critic, value, loss, gamma=0.8, polyak=1.0, lr=0.05, **settings)  # type: ignore[arg-type]


def learned(loss: object, updates: int = 1000) -> tuple[Tensor, Tensor, OfflineLearner]:
    """(Q [2, S - 1, A], V [S - 1], learner) after updates on all steps at once."""
    torch.manual_seed(0)
    it, data = learner(loss), every_step(corridor())
    for i in range(updates):
        if i == updates * 2 // 3:
            for optimiser in (it.critic_optimiser, it.value_optimiser):
                optimiser.param_groups[0]["lr"] = 0.01
        it.update(data)
    seen, action = data.field("observation").values[:, 0], data.action[:, 0]
    with torch.no_grad():
        return it.critic(seen, action).reshape(2, STATES - 1, ACTIONS), it.value(torch.eye(STATES).double())[:-1], it


def test_the_mean_gives_the_value_of_the_behaviour() -> None:
    """tau = 1/2: V is the mean of Q over the data's actions, so Q and V are those of uniform behaviour."""
    table = corridor()
    q, value, _ = learned(partial(expectile_loss, tau=0.5))
    exact = policy_evaluation(table, UNIFORM)
    torch.testing.assert_close(value, exact[:-1], atol=1e-3, rtol=0)
    torch.testing.assert_close(q[0], q_values(table, exact)[:-1], atol=1e-3, rtol=0)
    torch.testing.assert_close(q[1], q[0], atol=1e-3, rtol=0)


def expectile(x: np.ndarray, tau: float) -> float:
    """The e at which (1 - tau) mean (e - x)+ = tau mean (x - e)+."""
    return brentq(
        lambda e: (1 - tau) * np.maximum(e - x, 0).mean() - tau * np.maximum(x - e, 0).mean(), x.min(), x.max(), xtol=1e-12
    )


def test_a_great_expectile_gives_its_own_fixed_point_near_the_best_value() -> None:
    """V = the expectile of Q over the data's actions, by iteration; between the mean's value and the best."""
    table, value = corridor(), torch.zeros(STATES, dtype=torch.float64)
    for _ in range(100):
        q = q_values(table, value).numpy()
        value = torch.tensor([expectile(x, 0.95) if np.ptp(x) else 0.0 for x in q], dtype=torch.float64)
    _, found, it = learned(partial(expectile_loss, tau=0.95))
    torch.testing.assert_close(found, value[:-1], atol=5e-3, rtol=0)
    assert (policy_evaluation(table, UNIFORM)[:-1] + 0.1 < found).all() and (found < value_iteration(table)[:-1]).all()
    assert it.largest_value >= found.max()


def test_the_gumbel_loss_gives_the_soft_value() -> None:
    """V = T log mean exp(Q / T) under the data's actions: the fixed point by iteration."""
    table, t = corridor(), 0.3
    value = torch.zeros(STATES, dtype=torch.float64)
    for _ in range(200):
        value = t * (torch.logsumexp(q_values(table, value) / t, -1) - np.log(ACTIONS)) * ~table.terminal
    _, found, _ = learned(partial(gumbel_loss, temperature=t))
    torch.testing.assert_close(found, value[:-1], atol=4e-3, rtol=0)


def test_the_actor_prefers_what_is_better() -> None:
    """The optimum of the weighted likelihood: pi(a|s) proportional to exp(beta (Q - V)) where every action is seen once."""
    table = corridor()
    q, value, it = learned(partial(expectile_loss, tau=0.9), updates=1000)
    data = every_step(table)
    log_prob = it.actor.evaluate(data, frozenset({"log_prob"}))["log_prob"].reshape(STATES - 1, ACTIONS)
    expected = (3 * (q.amin(0) - value[:, None])).log_softmax(-1)
    torch.testing.assert_close(log_prob.detach(), expected, atol=0.05, rtol=0)
    assert log_prob.argmax(-1).tolist() == [1, 1, 1]


def test_the_value_regresses_on_the_smaller_of_the_two() -> None:
    torch.manual_seed(1)
    it, data = learner(partial(expectile_loss, tau=0.5)), every_step(corridor())
    seen, action = data.field("observation").values[:, 0], data.action[:, 0]
    with torch.no_grad():
        one, two = it.target(seen, action)
        expected = 0.5 * ((torch.minimum(one, two) - it.value(seen)) ** 2).mean()
    assert it.update(data)["loss/value"] == pytest.approx(expected.item()) and (one < two).any() and (two < one).any()


def test_the_target_follows_by_its_share() -> None:
    it = learner(partial(expectile_loss, tau=0.7))
    it.polyak = 0.25
    before, after = (next(m.parameters()).detach().clone() for m in (it.target, it.critic))
    with torch.no_grad():
        next(it.critic.parameters()).add_(1.0)
    it.follow()
    torch.testing.assert_close(next(it.target.parameters()), before + 0.25 * (after + 1 - before))


def test_values_that_diverge_are_reported() -> None:
    data = every_step(corridor()).with_field("reward", "step", torch.full((12, 1), 1e6, dtype=torch.float64))
    it = learner(partial(gumbel_loss, temperature=1e-4))
    with pytest.raises(GuerdonError, match="finite loss"):
        list(it.lines(data, updates=50, size=12))


def test_perceptrons_side_by_side_are_those_alone() -> None:
    torch.manual_seed(0)
    both = Perceptrons([3, 5, 2], copies=2)
    x = torch.randn(7, 3)
    for k in range(2):
        hidden = (x @ both.weights[0][k] + both.biases[0][k]).relu()
        torch.testing.assert_close(both(x)[k], hidden @ both.weights[1][k] + both.biases[1][k])


def test_critics_read_discrete_and_continuous_actions() -> None:
    q = ActionValue(3, 2, discrete=True, hidden=(4,))
    x = torch.randn(5, 3)
    torch.testing.assert_close(q(x, torch.tensor([0, 1, 0, 1, 1]))[:, 1], q.body(x)[:, 1, 1])
    box = ActionValue(3, 2, discrete=False, hidden=(4,))
    action = torch.randn(5, 2, requires_grad=True)
    box(x, action).sum().backward()
    assert box(x, action).shape == (2, 5) and action.grad is not None and action.grad.abs().min() > 0


def test_lines_tell_every_so_often() -> None:
    it, data = learner(partial(expectile_loss, tau=0.7)), every_step(corridor())
    lines = list(it.lines(data, updates=5, size=4, every=2, evaluate=lambda actor: {"eval/x": 1.0}))
    assert [x["updates"] for x in lines] == [2, 4, 5] and lines[-1]["samples"] == 20 and lines[0]["eval/x"] == 1
    again = list(learner(partial(expectile_loss, tau=0.7)).lines(data, updates=1, size=4, every=1))
    assert {"loss/value", "loss/critic", "loss/actor", "weight", "largest_value"} <= again[0].keys()
