# SPDX-License-Identifier: Apache-2.0
"""The tree and the explanation, to the letter."""

from __future__ import annotations

import pytest

from guerdon.errors import InputError
from guerdon.rewards import linear, min_of
from guerdon.scores import Status
from tests.rewards.leaves import LINE2, A, B, rollouts, told

OK, TIMEOUT, ERROR = Status.OK, Status.TIMEOUT, Status.ERROR
REWARD = A + 0.5 * LINE2.gate(on=B).clip(0, 1) + linear(0, 1, 10) * LINE2.pool("mean").normalise().named("relative") - B.watch()


def test_tree_fits_in_100_columns_and_says_what_it_should() -> None:
    text = REWARD.tree()
    assert max(map(len, text.splitlines())) <= 100
    rows = {line.split("  ")[0].strip("│├└─ "): line for line in text.splitlines()}
    assert rows["sum"].split()[1:] == ["line", "group", "(-inf,", "inf)", "(-inf,", "inf)"]
    assert "[0, 0.5]" in rows["0.5 * clip(0, 1)"]
    assert "[0, inf)" in rows["0.5 * clip(0, 1)"]
    assert any(line.endswith("as above") and "line_b" in line for line in text.splitlines())
    assert any(line.startswith("└─ watch: -1 * b") for line in text.splitlines())


def test_tree_of_two() -> None:
    slow = told("slow", low=0, budget=2.5, evolves=True)
    assert min_of(A, 0.5 * slow).tree() == (
        "reward         level    relation  per unit   per episode\n"
        "min of         episode  self      [-1, 0.5]  [-1, 0.5]\n"
        "├─ a           episode  self      [-1, 1]    [-1, 1]\n"
        "└─ 0.5 * slow  episode  self      [0, 0.5]   [0, 0.5]     2.5 s each, evolves"
    )


def test_explain_shows_values_and_tells_each_reason_where_it_begins() -> None:
    r = rollouts(
        a=[[1.0], [0.25], [0.0], [(0, TIMEOUT)]],
        b=[[1.0], [1.0], [0.0], [1.0]],
        line_b=[[1.0, 0.5, 0.0], [0.25, (0, ERROR)], [], [0.0, (0, ERROR), (0, ERROR), 1.0]],
    )
    reward = A + 0.5 * LINE2.gate(on=B, above=0.5)
    assert reward.explain(r, 0) == (
        "row 0, task p, total 1.75\n"
        "reward                    level    values\n"
        "sum                       line     0.5 0.25 1\n"
        "├─ a                      episode  1\n"
        "└─ 0.5 * gate(above=0.5)  line     0.5 0.25 0 (of 1 0.5 0)\n"
        "   ├─ line_b              line     1 0.5 0\n"
        "   └─ on: b               episode  1"
    )
    assert reward.explain(r, 3).splitlines() == [
        "row 3, task q, total not ok",
        "reward                    level    values",
        "sum                       line     0 – – –",
        "├─ a                      episode  –",
        "│       timeout: told timeout",
        "└─ 0.5 * gate(above=0.5)  line     0 – – 0.5 (of 0 – – 1)",
        "   ├─ line_b              line     0 – – 1",
        "   │       line 1-2 error: told error",
        "   └─ on: b               episode  1",
    ]
    assert "no units" in reward.explain(r, 2)
    with pytest.raises(InputError, match="0 to 3"):
        reward.explain(r, 4)


def test_explain_tells_what_begins_inside_the_tree() -> None:
    text = A.normalise().explain(rollouts(), -1)
    assert "abstain: no other episode of its group is ok" in text
    assert max(map(len, text.splitlines())) <= 100
