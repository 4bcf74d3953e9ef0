# SPDX-License-Identifier: Apache-2.0
"""AdaStop against a program that walks through every relabelling, values computed by hand, and its own promise."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from guerdon.errors import InputError
from guerdon.systems.evidence.adastop import Outcome, adastop, paths, splits


def by_hand(scores: list[list[list[float]]], alpha: float, interims: int) -> tuple[dict[tuple[int, int], str], list[float]]:
    """Decisions and every boundary, by lists and loops alone, all relabellings enumerated."""
    pairs = list(itertools.combinations(range(len(scores)), 2))
    decided: dict[tuple[int, int], str] = {}
    blocks, n = len(scores[0]), len(scores[0][0])
    halves = [(set(h), set(range(2 * n)) - set(h)) for h in itertools.combinations(range(2 * n), n)]

    def difference(pair: tuple[int, int], block: int, half: tuple[set[int], set[int]]) -> float:
        both = scores[pair[0]][block] + scores[pair[1]][block]
        return sum(both[i] for i in half[0]) / n - sum(both[i] for i in half[1]) / n

    def statistic(pair: tuple[int, int], path: tuple[tuple[set[int], set[int]], ...]) -> float:
        return abs(sum(difference(pair, block, half) for block, half in enumerate(path)))

    spent, ends, boundaries = 0.0, list[tuple[list[tuple[int, int]], float]](), list[float]()
    for k in range(1, blocks + 1):
        every = list(itertools.product(halves, repeat=k))
        alive = [
            p for p in every if all(max(statistic(c, p[: i + 1]) for c in left) <= b + 1e-9 for i, (left, b) in enumerate(ends))
        ]
        while True:
            left = [c for c in pairs if c not in decided]
            if not left:
                return decided, boundaries
            largest = [max(statistic(c, p) for c in left) for p in alive]
            share = {v: sum(x > v + 1e-9 for x in largest) / len(every) for v in largest}
            fitting = [v for v in share if spent + share[v] < alpha * k / interims]
            bound = min(fitting, default=math.inf)
            boundaries.append(bound)
            observed = {c: statistic(c, (halves[0],) * k) for c in left}
            top = max(observed, key=lambda c: observed[c])
            if observed[top] <= bound + 1e-9:
                break
            i, j = (sum(sum(block) for block in scores[a][:k]) for a in top)
            decided[top] = "larger" if i > j else "smaller"
        spent += share.get(bound, 0.0)
        ends.append((left, bound))
    return {c: decided.get(c, "equal" if blocks == interims else "open") for c in pairs}, boundaries


def random_scores(seed: int, shape: tuple[int, int, int], apart: float = 0.0, tied: bool = False) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x += apart * torch.arange(shape[0], dtype=torch.float64)[:, None, None]
    return 0.1 * x.round() if tied else x  # tenths: sums that are equal differ by rounding


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("shape", "apart"), [((2, 3, 2), 0.0), ((2, 3, 2), 3.0), ((2, 2, 3), 1.5), ((3, 2, 3), 2.0), ((4, 2, 2), 6.0)]
)
def test_decisions_and_boundaries_are_those_of_enumeration_by_hand(shape: tuple[int, int, int], apart: float, tied: bool) -> None:
    decisions = []
    for seed in range(4):
        x = random_scores(seed, shape, apart, tied)
        found = adastop(x, interims=3, alpha=0.3)
        known, boundaries = by_hand(x.tolist(), 0.3, 3)
        assert {c: found.decisions[c] for c in known} == known
        assert [look.boundary for look in found.looks] == pytest.approx(boundaries, abs=1e-9)
        decisions += found.decisions.values()
    assert apart == 0 or tied or {"smaller"} <= set(decisions)  # the cases do reach a decision


def test_five_seeds_that_do_not_overlap_decide_at_the_first_of_five_looks_at_5_percent_but_not_at_1() -> None:
    """2 of the 252 relabellings are as extreme: 0.0079, to be below 0.05 / 5 = 0.01 and 0.01 / 5 = 0.002."""
    scores = torch.tensor([[[6.0, 7.0, 8.0, 9.0, 10.0]], [[1.0, 2.0, 3.0, 4.0, 5.0]]])
    (look,) = adastop(scores, alpha=0.05).looks
    assert (look.statistic, look.boundary, look.declared) == (5.0, pytest.approx(23 / 5), "larger")  # 5 and 6 change places
    assert adastop(scores, alpha=0.01).decisions == {(0, 1): "open"}


@pytest.mark.parametrize("tied", [False, True])
def test_of_all_relabellings_exactly_the_level_that_was_spent_is_declared(tied: bool) -> None:
    """The promise for two agents: whatever the scores, chance relabels them into a claim with probability spent < alpha."""
    alpha, x = 0.1, random_scores(0, (2, 3, 2), tied=tied)
    outcomes: list[Outcome] = []
    for path in itertools.product(splits(2), repeat=3):
        both = torch.cat([x[0], x[1]], -1)
        halves = [
            torch.stack([both[i][s > 0] for i, s in enumerate(path)]),
            torch.stack([both[i][s < 0] for i, s in enumerate(path)]),
        ]
        outcomes.append(adastop(torch.stack(halves), interims=3, alpha=alpha))
    declared = sum(o.decisions[0, 1] != "equal" for o in outcomes) / len(outcomes)
    assert 0.0 < declared < alpha
    never = next(o for o in outcomes if o.decisions[0, 1] == "equal")  # it went to the end, and spent at every look
    assert declared == pytest.approx(never.spent, abs=1e-12)


def test_a_pair_that_is_decided_needs_no_more_blocks_of_an_agent() -> None:
    x = random_scores(3, (3, 3, 5))
    x[2] += 20
    x[2, 1:] = math.nan  # both of its pairs end at the first look
    outcome = adastop(x, interims=3, alpha=0.05)
    assert outcome.decisions[0, 2] == outcome.decisions[1, 2] == "smaller" and outcome.decisions[0, 1] == "equal"
    assert [look.block for look in outcome.looks] == [1, 1, 1, 2, 3]


def test_signs_turn_with_the_agents_and_units_do_not_matter() -> None:
    x = random_scores(1, (2, 2, 5), apart=2.0)
    one = adastop(x, interims=3, alpha=0.05)
    turned = adastop(x.flip(0), interims=3, alpha=0.05)
    scaled = adastop(1000 * x - 7, interims=3, alpha=0.05)
    assert one.decisions == {(0, 1): "smaller"} == scaled.decisions and turned.decisions == {(0, 1): "larger"}
    assert scaled.looks[-1].boundary == pytest.approx(1000 * one.looks[-1].boundary)


def test_paths_are_drawn_where_there_are_too_many_the_observed_labels_first() -> None:
    assert len(paths(5, 1, 252)) == 252 and len(paths(5, 2, 63_504)) == 63_504
    drawn = paths(5, 2, 1000)
    assert drawn.shape == (1000, 2) and drawn[0].tolist() == [0, 0] and drawn.max() < 252
    assert torch.equal(drawn, paths.__wrapped__(5, 2, 1000)) and not torch.equal(drawn, paths(5, 2, 1000, seed=1))
    assert torch.equal(drawn, paths(5, 4, 1000)[:, :2])  # the same relabellings at every look
    assert splits(5)[0].tolist() == [1.0] * 5 + [-1.0] * 5


def test_sampled_boundaries_come_near_the_enumerated_ones() -> None:
    x = random_scores(2, (2, 2, 5))
    every, some = (adastop(x, interims=5, alpha=0.05, draws=draws).looks[-1].boundary for draws in (63_504, 20_000))
    assert some == pytest.approx(every, rel=0.03)


def test_more_looks_than_there_are_and_large_blocks_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"at most 2 blocks, got 1 and 3\. Usual cause: seeds that were added after the last look"
    ):
        adastop(torch.zeros(2, 3, 4), interims=2)
    with pytest.raises(InputError, match="blocks of 1 to 10 seeds, whose splits are enumerated, got 12"):
        adastop(torch.zeros(2, 1, 12))


def test_equal_scores_are_never_told_apart() -> None:
    assert adastop(torch.ones(2, 3, 5), interims=3, alpha=0.05).decisions == {(0, 1): "equal"}
