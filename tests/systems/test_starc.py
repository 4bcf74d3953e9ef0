# SPDX-License-Identifier: Apache-2.0
"""STARC's experiment: tables and rewards as they should be, the lead and its interval, and that a wrong form loses it."""

from __future__ import annotations

import pytest
import torch

from guerdon.audit.distances import starc
from guerdon.audit.distances.equivalence import expected
from guerdon.systems.specify import starc as system
from guerdon.systems.specify.starc import correlation_lead, environment, random_reward, random_transition


def test_random_tables_are_sparse_and_rewards_of_every_kind() -> None:
    g = torch.Generator().manual_seed(0)
    transition = random_transition(g)
    assert torch.allclose(transition.sum(-1), torch.ones(32, 4, dtype=torch.float64))
    likely = (transition > 1e-3).double().mean()
    assert 0.1 < likely < 0.22  # a Gaussian number is above 1 one time in six
    plain = [random_reward(transition, False, g) for _ in range(60)]
    sparse = sum(float((r == r.flatten()[0]).double().mean()) > 0.5 for r in plain)
    assert 2 <= sparse <= 20 and len({round(float(r.std()), 1) for r in plain}) > 30


def test_redistribution_moves_no_expectation() -> None:
    transition = random_transition(torch.Generator().manual_seed(0))
    moved = 0
    for seed in range(10):  # draws the same reward twice, the second time to be redistributed half of the time
        found = [random_reward(transition, yes, torch.Generator().manual_seed(seed)) for yes in (False, True)]
        moved += not torch.allclose(*found)
        assert torch.allclose(*(expected(r, transition) for r in found), atol=1e-10, rtol=0)
    assert 2 <= moved <= 8


def test_the_distances_along_a_line_and_what_going_by_them_costs() -> None:
    (apart, epic), cost = environment(("starc", "epic"), True, torch.Generator().manual_seed(0))
    assert apart.shape == epic.shape == cost.shape == (8 * 16,)
    along = apart.view(8, 16)
    assert (along.diff() > -1e-12).all()  # interpolation only goes away
    assert (cost >= 0).all() and (cost <= 1).all() and cost.view(8, 16)[:, -1].mean() > 0.3
    assert along[:, 0].mean() < 0.2 * along[:, -1].mean() and (epic >= 0).all()


def test_a_lead_by_hand_and_its_interval() -> None:
    g = torch.Generator().manual_seed(0)
    cost = torch.rand(10, 20, generator=g, dtype=torch.float64)
    noise = torch.rand(10, 20, generator=g, dtype=torch.float64)
    lead = correlation_lead(cost**3, noise, cost)
    assert lead.value > 0.8 and 0.5 < lead.low < lead.value < lead.high
    assert correlation_lead(noise + cost, noise + cost, cost).value == 0


def test_with_a_wrong_form_the_claims_do_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """What STARC forgets is what carries the claim: without it there is no zero, and no distance between opposites."""
    for name in ("starc", "starc-minimal"):
        monkeypatch.setitem(system.DISTANCES, name, lambda a, b, transition, gamma: starc(a, b, transition, gamma, form="none"))
    assert all(found > 0.1 for found, _ in system.zeros().values())
    monkeypatch.setattr(system, "starc", system.DISTANCES["starc"])
    assert system.constructed()["starc"][0] < 1e-6
