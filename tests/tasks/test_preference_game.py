# SPDX-License-Identifier: Apache-2.0
"""Games by matrix: the equilibrium, exploitability against brute force, and Bradley-Terry where it holds."""

from __future__ import annotations

import pytest
import torch

from guerdon.tasks.preference_game import (
    bradley_terry_scores,
    cyclic_game,
    equilibrium,
    exploitability,
    kl,
    random_game,
    win_probability,
)


def value(log_policy, log_other, mu, preference, tau):
    won = win_probability(log_policy.exp(), log_other.exp(), preference)
    return won - tau * kl(log_policy, mu) + tau * kl(log_other, mu)


@pytest.mark.parametrize("tau", [0.02, 0.1, 1.0])
def test_nothing_gains_against_the_equilibrium(tau: float) -> None:
    g = torch.Generator().manual_seed(0)
    for seed in range(10):
        preference, mu = cyclic_game(seed, dominated=2)
        best = equilibrium(mu, preference, tau)
        assert exploitability(best, mu, preference, tau).abs() < 1e-10
        others = torch.randn(50, 5, generator=g, dtype=torch.float64).log_softmax(-1)
        assert all(value(x, best, mu, preference, tau) < 0.5 for x in others)


def test_exploitability_is_the_best_opponents_gain() -> None:
    preference, mu = cyclic_game(3)
    policy = mu.flip(0)
    opponent = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([opponent], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        search.zero_grad()
        lost = -value(opponent.log_softmax(-1), policy, mu, preference, 0.2)
        lost.backward()
        return lost

    search.step(loss)
    assert -loss().item() - 0.5 == pytest.approx(exploitability(policy, mu, preference, 0.2).item(), abs=1e-7)


def test_games_are_preferences_and_go_in_circles() -> None:
    for preference in (cyclic_game(1)[0], random_game(1, 7)):
        assert torch.allclose(preference + preference.T, torch.ones_like(preference))
    circle = cyclic_game(1)[0]
    assert circle[0, 1] > 0.5 and circle[1, 2] > 0.5 and circle[2, 0] > 0.5 and (circle[:3, 3] > 0.5).all()


def test_scores_are_recovered_where_there_are_any() -> None:
    preference = random_game(2, 6, cycle=0.0)
    scores = bradley_terry_scores(preference)
    assert torch.allclose((scores[:, None] - scores).sigmoid(), preference, atol=1e-8)
    assert (bradley_terry_scores(random_game(2, 6, cycle=2.0))[:, None] - 0).isfinite().all()
