# SPDX-License-Identifier: Apache-2.0
"""Tournaments: fair brackets, the right number of matches, and matches that could not be judged."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.rewards import brackets
from guerdon.rewards.ranking import BothOrders, tournament, win_rate
from guerdon.rollouts import Rollouts
from guerdon.scores import Status

UNSEEDED = partial(brackets.single_elimination, seeded=False)
TOPOLOGIES = [
    brackets.anchor,
    brackets.round_robin,
    brackets.swiss,
    brackets.single_elimination,
    UNSEEDED,
    brackets.double_elimination,
]


def by_strength(strength: list[float]):
    return lambda pairs: [(strength[a], strength[b]) for a, b in pairs]


@given(st.permutations(range(7)), st.integers(2, 7))
def test_without_noise_the_best_wins_every_tournament(order: list[int], n: int) -> None:
    strength = [float(x) for x in order[:n]]
    for topology in TOPOLOGIES:
        places, _ = brackets.play(topology(n), by_strength(strength))
        assert places[strength.index(max(strength))] == 0 and len(places) == n and max(places) <= n - 1
    for exact in (brackets.anchor, brackets.round_robin):
        assert brackets.play(exact(n), by_strength(strength))[0] == [float(sum(y > x for y in strength)) for x in strength]


@pytest.mark.parametrize("n", [2, 3, 5, 8, 13, 16])
def test_tournaments_take_the_matches_they_say(n: int) -> None:
    judged = by_strength([float(i * 7 % n) for i in range(n)])
    found = {t: brackets.play(t(n), judged)[1] for t in TOPOLOGIES}
    assert found[brackets.anchor] == found[UNSEEDED] == n - 1 and found[brackets.single_elimination] == 2 * (n - 1)
    assert found[brackets.round_robin] == n * (n - 1) // 2
    assert found[brackets.swiss] == n // 2 * max(1, math.ceil(math.log2(n)))
    assert found[brackets.double_elimination] in (2 * n - 2, 2 * n - 1)


def test_the_best_seeds_meet_last() -> None:
    assert brackets.placement(4) == [0, 3, 1, 2]
    rounds = []

    def judged(pairs):
        rounds.append(pairs)
        return [(8.0 - a, 8.0 - b) for a, b in pairs]

    brackets.play(brackets.single_elimination(8), judged)
    assert rounds[1:] == [[(0, 7), (3, 4), (1, 6), (2, 5)], [(0, 3), (1, 2)], [(0, 1)]]


def test_a_match_that_was_not_judged_counts_for_nobody() -> None:
    def judged(pairs):
        return [(math.nan, math.nan) if 2 in p else (float(p[0]), float(p[1])) for p in pairs]

    for topology in TOPOLOGIES:
        places, _ = brackets.play(topology(4), judged)
        assert math.isnan(places[2]) and not any(math.isnan(places[i]) for i in (0, 1, 3)), topology
    assert brackets.play(brackets.round_robin(4), judged)[0][3] == 0.0


def rows(group: list[int]) -> Rollouts:
    n = len(group)
    mask = torch.ones(n, 1, dtype=torch.bool)
    return Rollouts(torch.arange(n)[:, None], mask, ["a"] * n, torch.zeros(n, 1), group=torch.tensor(group))


def comparator(rollouts: Rollouts, pairs: Tensor) -> Comparisons:
    """The higher action is better, by the difference; whatever has row 4 times out; the first named gets half a point."""
    a, b = rollouts.action[pairs[:, 0], 0], rollouts.action[pairs[:, 1], 0]
    bad = (pairs == 4).any(1)
    margin = torch.where(bad, torch.nan, (a - b) + 0.5)
    target = torch.where(bad, torch.nan, (margin > 0).float())
    status = torch.where(bad, int(Status.TIMEOUT), int(Status.OK)).to(torch.int8)
    return Comparisons(pairs[:, 0], pairs[:, 1], target, margin=margin, status=status)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_tournament_is_a_reward_for_each_group(topology) -> None:
    calls = []

    def counted(rollouts: Rollouts, pairs: Tensor) -> Comparisons:
        calls.append(len(pairs))
        return comparator(rollouts, pairs)

    scores = tournament(BothOrders(counted), topology).score(rows([0, 1, 0, 1, 0, 2]))
    values, status = scores.total.values[:, 0], scores.total.status[:, 0]
    assert values[1] == 0 and values[3] == 1 and values[2] == 1  # of groups {0, 2, 4} and {1, 3}
    assert status[4] == Status.TIMEOUT and status[5] == Status.ABSTAIN and "no other row" in scores.total.reasons[5, 0]
    assert len(calls) <= 4  # all groups' rounds together, both orders at once


def test_win_rate_is_the_mean_probability_against_the_others() -> None:
    preference = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])

    def says(rollouts: Rollouts, pairs: Tensor) -> Comparisons:
        return Comparisons(pairs[:, 0], pairs[:, 1], preference[pairs[:, 0], pairs[:, 1]])

    assert win_rate(says).score(rows([0, 0, 0])).total.values[:, 0].tolist() == pytest.approx([0.55, 0.4, 0.55])


def test_both_orders_cancel_the_favour_for_the_first() -> None:
    pairs = torch.tensor([[0, 1], [3, 2], [4, 0]])
    found = BothOrders(comparator)(rows([0] * 5), pairs)
    assert found.margin[:2].tolist() == [-1.0, 1.0] and found.target[:2].tolist() == [0.0, 1.0]
    assert found.status.tolist() == [Status.OK, Status.OK, Status.TIMEOUT]
