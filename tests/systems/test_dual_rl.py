# SPDX-License-Identifier: Apache-2.0
"""f-DVL's losses against the conjugates they come from, ReCOIL against linear algebra and the maze's exact values."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from guerdon.learners.offline_table import cloned, counts, discriminated, weighted_policy
from guerdon.systems.control.dual_rl_fdvl_recoil import LOSSES, chi_square, dual_loss, recoil, recoil_loss, total_variation
from guerdon.tasks import maze_imitation as mazes
from guerdon.tasks import offline_cartpole as cartpole

X = torch.linspace(-8, 8, 33, dtype=torch.float64)


@pytest.mark.parametrize(
    ("function", "f", "limits"),
    [(chi_square, lambda w: (w - 1) ** 2, (0, 20)), (total_variation, lambda w: abs(w - 1) / 2, (0, 1))],
)
def test_the_pull_is_the_conjugate_over_densities(function: Any, f: Any, limits: tuple[float, float]) -> None:
    """With weight 1 and x > 0 the loss is max over w >= 0 of w x - f(w).

    chi2: f(w) = (w - 1)^2, conjugate x + x^2 / 4. TV: f(w) = |w - 1| / 2, conjugate x up to 1/2; f-DVL goes on in line.
    """
    largest = 8 if function is chi_square else 0.5
    inner = X[(X > 0) & (largest >= X)]
    for x in inner.tolist():
        best = minimize_scalar(lambda w, x=x: f(w) - w * x, bounds=limits, method="bounded", options={"xatol": 1e-10})
        assert function(torch.tensor(x, dtype=torch.float64), weight=1.0).item() == pytest.approx(-best.fun, abs=1e-6)


def test_total_variation_finds_a_quantile() -> None:
    """The minimiser over V of samples 0..99 with weight 0.8 is their (2 - 1 / 0.8) = 0.75-quantile."""
    samples = torch.arange(100, dtype=torch.float64)
    losses = torch.stack([total_variation(samples - v, weight=0.8).mean() for v in samples])
    least = losses.min()
    assert (losses - least < 1e-9).nonzero()[:, 0].tolist() == [74, 75]  # any number between the two is one


def test_chi_square_with_weight_one_stops_between_the_maximum_and_four_above() -> None:
    v = torch.tensor([2.9, 3.1, 6.9, 7.1], requires_grad=True)
    chi_square(torch.tensor(3.0) - v, weight=1.0).sum().backward()
    assert v.grad is not None and (v.grad.sign() == torch.tensor([-1.0, 0.0, 0.0, 1.0])).all()


def test_dual_loss_is_masked() -> None:
    given = torch.tensor([[1.0, torch.nan]]), torch.tensor([[3.0, torch.nan]]), torch.tensor([[True, False]])
    assert dual_loss(*given, dual=total_variation, weight=0.8).value[0].tolist() == pytest.approx([1.2, 0.0])


@pytest.mark.parametrize("name", LOSSES)
def test_a_small_temperature_asks_for_the_maximum(name: str) -> None:
    """Every arm's loss has its minimum nearer to the largest of the targets for t = 0.05 than for t = 0.4."""
    targets = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    grid = torch.linspace(-1, 8, 901, dtype=torch.float64)
    value, yes = grid[:, None].expand(-1, 4), torch.ones(901, 4, dtype=torch.bool)

    def least(t: float) -> float:
        # one row a candidate, so that the rescaling by a batch's maximum is the same as for a batch of its own
        rows = [LOSSES[name](t)(value[i : i + 1], targets[None], yes[:1]).value.mean() for i in range(901)]
        if name == "xql":  # its minimum is that of the gradient, since the factor exp(-m) moves with V
            leaf = grid.clone().requires_grad_()
            for i in range(901):
                LOSSES[name](t)(leaf[i : i + 1, None].expand(1, 4), targets[None], yes[:1]).value.mean().backward()
            assert leaf.grad is not None
            return float(grid[int((leaf.grad < 0).nonzero().max())])
        return float(grid[int(torch.stack(rows).argmin())])

    assert abs(least(0.05) - 3) < 0.5 and least(0.4) < least(0.05) + 1e-9


# ---- ReCOIL


def test_the_gradient_of_recoil_is_that_of_its_equation() -> None:
    """Against finite differences, in float64."""
    rng = torch.Generator().manual_seed(0)
    q = torch.randn(4, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    policy = torch.rand(4, 3, generator=rng, dtype=torch.float64)
    value = torch.randn(4, generator=rng, dtype=torch.float64)
    expert, others = (torch.randint(0, 3, (n, 3), generator=rng) for n in (5, 20))
    loss = partial(recoil_loss, policy=policy / policy.sum(-1, keepdim=True), value=value, expert=expert, others=others)
    assert torch.autograd.gradcheck(lambda q: loss(q, gamma=0.9, beta=0.3), (q,))


def test_recoil_with_one_pair_has_its_minimum_where_the_equation_says() -> None:
    """E takes one action, S and pi the other: d/dQ = 0 at Q_E = gamma V + 2 and Q_S = gamma V - 2 beta / (1 - beta)."""
    q = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    policy, value = torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    expert, others = torch.tensor([[0, 0, 0]]), torch.tensor([[0, 1, 0]])
    optimiser = torch.optim.SGD([q], lr=0.5)
    for _ in range(500):
        optimiser.zero_grad()
        recoil_loss(q, policy, value, expert, others, gamma=0.5, beta=0.25).backward()
        optimiser.step()
    assert q.detach()[0].tolist() == pytest.approx([0.5 + 2, 0.5 - 2 / 3], abs=1e-6)


def test_in_the_maze_recoil_is_above_both_clones_and_below_the_best() -> None:
    table = mazes.maze()
    expert, others = mazes.dataset(table, seed=3)
    *_, found = recoil(expert, others, table.states, table.actions, updates=400)
    clone = next(cloned(expert, others, table.states, table.actions))
    *_, judged = islice(discriminated(partial(total_variation, weight=0.8), expert, others, table.states, table.actions), 300)
    mine, theirs, third = (mazes.measured(table, p)["eval/return"] for p in (found, clone, judged))
    assert theirs + 0.1 < mine < 1 and 0 < third < 1
    assert torch.allclose(found.sum(-1), torch.ones(table.states, dtype=torch.float64))


def test_the_expert_stays_at_the_goal_and_random_steps_follow_one_another() -> None:
    table = mazes.maze()
    expert, others = mazes.dataset(table, seed=0)
    assert len(expert) == 60 and len(others) == 2000
    assert table.terminal[expert[-1, 0]] and expert[-1, 2] == expert[-1, 0]
    chained = (others[1:, 0] == others[:-1, 2]) | table.terminal[others[:-1, 0]]
    assert chained.all() and counts(others, table.states, 4).sum() == pytest.approx(1)


def test_weighted_policy_is_capped() -> None:
    share, q = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 50.0]])
    assert weighted_policy(q, torch.zeros(1), share, 1.0)[0].tolist() == pytest.approx([1 / 101, 100 / 101])


# ---- CartPole's data


def test_the_data_hold_what_they_say() -> None:
    data = cartpole.dataset(0)
    assert len(data) == 8000 and data.source.count("skilled") == 2000
    again = cartpole.dataset(0)
    assert torch.equal(data.action, again.action) and not torch.equal(data.action, cartpole.dataset(1).action)
    fallen = data.terminated[:, 0]
    share = [float(fallen[[s == name for s in data.source]].double().mean()) for name in ("at_random", "naive", "skilled")]
    assert share[0] > share[1] > share[2] and share[0] == pytest.approx(1 / 22, rel=0.3)
    after = data.field("next_observation").values[fallen][:, 0]
    assert ((after[:, 2].abs() > 0.2094) | (after[:, 0].abs() > 2.4)).all()  # where the pole fell, not where the next one stands


def test_measured_is_normalised() -> None:
    class Fixed:
        def __init__(self, behaviour: cartpole.Behaviour) -> None:
            self.behaviour, self.rng = behaviour, np.random.default_rng(0)

        def act(self, observation: np.ndarray, noise: np.ndarray, greedy: bool) -> object:
            from guerdon.policies.acting import Acted

            return Acted(self.behaviour(observation, self.rng), noise)

    assert cartpole.measured(Fixed(cartpole.at_random), 64)["eval/return"] == pytest.approx(0, abs=0.02)
    assert cartpole.measured(Fixed(cartpole.skilled), 8)["eval/return"] > 0.8
