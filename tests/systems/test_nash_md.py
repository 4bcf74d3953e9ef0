# SPDX-License-Identifier: Apache-2.0
"""Nash-MD's fixed point and rate, the sampled gradient against the exact one, and the mixture as opponent."""

from __future__ import annotations

import pytest
import torch

from guerdon.policies.table import TablePolicy
from guerdon.protocols import Context, Sampling
from guerdon.systems.preference.nash_md import (
    TAU,
    against_mixture,
    iterates,
    log_ratio,
    mixture,
    nash_md,
)
from guerdon.systems.preference.nash_md import _nash_md as step
from guerdon.tasks.preference_game import cyclic_game, equilibrium, exploitability


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_last_iterate_nears_the_equilibrium(seed: int) -> None:
    preference, mu = cyclic_game(seed)
    found = dict(iterates(seed, step, 1.0))
    assert exploitability(found[100], mu, preference, TAU) < 1e-3 < exploitability(mu, mu, preference, TAU)
    # the fixed point of a step is the equilibrium to first order in eta: its opponent is the mixture, not the policy itself
    best = equilibrium(mu, preference, TAU)
    moved = [(nash_md(best, mu, preference, eta=eta, tau=TAU) - best).abs().max().item() for eta in (1e-3, 1e-4)]
    assert moved[1] < 1.2e-2 * moved[0] + 1e-12


def test_the_opponent_is_the_normalised_geometric_mixture() -> None:
    policy = TablePolicy(["g"], 3, start=torch.tensor([0.0, 1.0, 2.0]), dtype=torch.float64)
    with torch.no_grad():
        policy.weight += torch.tensor([3.0, 0.0, -1.0])
    contexts = [Context("g", "g", index=i) for i in range(20_000)]
    rows = against_mixture(0.25, policy, contexts, Sampling(), 0)
    p, mu = policy.probabilities()[0, 0, 0], policy.start[0, 0, 0].softmax(-1)
    expected = p**0.75 * mu**0.25 / (p**0.75 * mu**0.25).sum()
    assert torch.allclose(mixture(p.log(), mu.log(), 0.25).exp(), expected)
    found = torch.bincount(rows.field("opponent").values[:, 0], minlength=3) / 20_000
    assert torch.allclose(found.double(), expected, atol=0.015)
    assert not torch.equal(rows.action, rows.field("opponent").values)


def test_the_sampled_gradient_is_that_of_the_regularised_game() -> None:
    preference, mu = cyclic_game(0)
    policy = TablePolicy(["g"], 4, start=mu, dtype=torch.float64)
    with torch.no_grad():
        policy.weight += torch.tensor([1.0, -0.5, 0.3, 0.0])
    rows = against_mixture(0.3, policy, [Context("g", "g", index=i) for i in range(40_000)], Sampling(), 0)
    out = policy.evaluate(rows, frozenset({"log_prob", "ref_log_prob"}))
    rows = rows.with_field("ref_log_prob", "step", out["ref_log_prob"])
    won = preference[rows.action[:, 0], rows.field("opponent").values[:, 0]] - 0.5
    score = won - TAU * log_ratio.function(rows)
    (sampled,) = torch.autograd.grad((score * out["log_prob"][:, 0]).mean(), policy.weight)
    now = policy.table()[0, 0, 0].log_softmax(-1)
    opponent = mixture(now.detach(), mu, 0.3).exp()
    game = now.exp() @ preference @ opponent - TAU * (now.exp() * (now - mu)).sum()
    (exact,) = torch.autograd.grad(game, policy.weight)
    assert torch.allclose(sampled, exact, atol=4e-3) and exact.abs().max() > 0.02
