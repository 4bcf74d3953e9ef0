# SPDX-License-Identifier: Apache-2.0
"""Pairs asked in both orders: agreement, disagreement by rule, and the liking for a place."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from guerdon.errors import InputError
from guerdon.judges import BothAgree, judge_pairs, judge_wins
from guerdon.judges.orders import Orders
from guerdon.rewards.parse import parse
from guerdon.rewards.ranking import tournament
from guerdon.rollouts import Rollouts
from guerdon.scores import Status
from tests.judges.server import Say, serving, verdicts

PAIRS = torch.tensor([[0, 1], [1, 2], [0, 2]])


def longer(x: dict, favour: float = 0.0) -> str:
    a, b = len(x["first"]) + favour, len(x["second"])
    return "tie" if a == b else "first" if a > b else "second"


def rows(*completions: str, prompts: list[str] | None = None) -> Rollouts:
    n = len(completions)
    return Rollouts.from_text(prompts or ["p"] * n, list(completions), group=[0] * n)


def script(items: list[dict], _: int, favour: float = 0.0) -> str:
    return verdicts(items, better=partial(longer, favour=favour))


def test_each_pair_is_asked_in_both_orders() -> None:
    with serving(script) as server:
        compare = judge_pairs(server.url)
        found = compare(rows("aaa", "a", "b"), PAIRS)
    assert found.target.tolist() == [1.0, 0.5, 1.0] and found.status.tolist() == [0, 0, 0]
    asked = {(x["first"], x["second"]) for x in server.items()}
    assert len(server.requests) == 6 and asked == {(a, b) for a in ("aaa", "a", "b") for b in ("aaa", "a", "b") if a != b}
    assert vars(compare.orders) == {**vars(Orders()), "first": 2, "second": 2, "tied": 2, "agree": 3, "pairs": 3}


@pytest.mark.parametrize(("rule", "target", "status"), [("tie", 0.5, Status.OK), ("abstain", None, Status.ABSTAIN)])
def test_a_judge_that_likes_the_first_place_is_seen_and_not_believed(rule: str, target: float | None, status: Status) -> None:
    with serving(partial(script, favour=1.5)) as server:
        compare = judge_pairs(server.url, disagreement=rule)
        found = compare(rows("aaaa", "aaa", "a"), PAIRS)
    assert found.target[1:].tolist() == [1.0, 1.0]
    assert found.status.tolist() == [status, 0, 0] and (target is None) == bool(found.target[0].isnan())
    assert found.reasons[0] == "the two orders disagree: the first when asked one way, the second the other"
    o = compare.orders
    assert (o.first, o.second, o.first_twice, o.second_twice, o.agree) == (4, 2, 1, 0, 2) and o.first_share == pytest.approx(
        4 / 6
    )


def test_a_pair_judged_in_one_order_only_is_not_judged() -> None:
    def fails(items: list[dict], _: int) -> Say | str:
        return Say(code=400) if items[0]["first"] == "aaa" else script(items, _)

    with serving(fails) as server:
        found = judge_pairs(server.url)(rows("aaa", "a", "b"), PAIRS)
    assert found.status.tolist() == [Status.ERROR, Status.OK, Status.ERROR] and "HTTP 400" in found.reasons[0]


def test_rows_of_different_prompts_are_not_compared() -> None:
    with serving(script) as server:
        found = judge_pairs(server.url)(rows("aaa", "a", prompts=["p", "q"]), torch.tensor([[0, 1]]))
    assert found.status.tolist() == [Status.ABSTAIN] and "different prompts" in found.reasons[0] and not server.requests


def test_it_ranks_a_group_as_a_reward() -> None:
    with serving(script) as server:
        r = judge_wins(server.url, "longer", model="m", price=(0.0, 1.0))
        scores = r.score(rows("aaa", "aa", "a"))
        assert scores.total.values[:, 0].tolist() == [1.0, 0.5, 0.0]
        assert r.tally.requests == 6 and r.tally.cost == 6 * 2 / 1e6 and r.orders.agree == 3
        assert parse(str(r), {"judge_wins": judge_wins}) == r
        assert tournament(judge_pairs(server.url)).score(rows("aaa", "aa", "a")).total.values[:, 0].tolist() == [1.0, 0.5, 0.0]


def test_several_pairs_a_request_and_an_unknown_rule() -> None:
    with serving(lambda items, n: json.dumps(json.loads(script(items, n))["verdicts"][::-1])) as server:
        assert judge_pairs(server.url, together=4)(rows("aaa", "a", "b"), PAIRS).target.tolist() == [1.0, 0.5, 1.0]
        assert len(server.requests) == 2
    with pytest.raises(InputError, match="should be one of tie, abstain, got 'win'"):
        BothAgree(lambda rollouts, pairs: None, "win")
