# SPDX-License-Identifier: Apache-2.0
"""Chained addition: what is right, what succeeds, and how often the demonstrator errs and idles."""

from __future__ import annotations

import pytest

from guerdon.tasks import chained_addition as chain
from guerdon.tasks.running_digits import is_held_out


@pytest.mark.parametrize(
    ("said", "right", "succeeds"),
    [
        ("+5=5+8=3+4=7#7", [True] * 4, True),
        ("+5=5;=5;=5+8=3+4=7;=7#7", [True] * 7, True),
        ("+5=5+8=4+4=8#8", [True, False, True, True], False),
        ("+5=6+8=3+4=7#7", [False, False, True, True], True),  # two mistakes cancel: the outcome sees the answer
        ("+5=5+8=3#3", [True, True, False], False),  # an answer too soon
        ("+5=5+8=3+4=7;=7;=7", [True] * 5, False),  # no answer
        ("+5=5+8=3+4=7#7#7", [True] * 5, False),
        ("+5=5+4=9+8=7#7", [True, False, False, True], False),  # in another order
        ("+5=5+8=3+4=7+0=7#7", [True, True, True, False, False], False),
        (";=1+5=6+8=4+4=8#8", [False, True, True, True, True], False),
        ("+5=5=5+8", [False, False], False),
        ("", [], False),
    ],
)
def test_steps_and_success(said, right, succeeds) -> None:
    assert chain.step_is_right(said, "5+8+4:") == right
    assert chain.success(said, "5+8+4:") is succeeds


def test_the_demonstrator_errs_and_idles_as_told() -> None:
    shown = chain.demonstrations(400, 5, 3, errors=0.3, idle=0.25)
    ticks = [t for p, c in shown for t in chain.step_is_right(c, p)]
    idle = [x for _, c in shown for x in chain.is_idle(c)]
    additions = sum(not x for x in idle) - 400
    assert additions == 2000
    assert (len(ticks) - sum(ticks)) / additions == pytest.approx(0.3, abs=0.04)
    assert sum(idle) / 2400 == pytest.approx(0.25, abs=0.03)
    assert not any(is_held_out(p) for p, _ in shown)


def test_without_errors_every_demonstration_succeeds() -> None:
    assert all(chain.success(c, p) for p, c in chain.demonstrations(50, 4, 1, errors=0.0, idle=0.5))


def test_errors_are_the_same_for_a_pair_of_total_and_digit() -> None:
    """So that they can be learnt, and unlearnt."""
    seen: dict[tuple[int, str], set[str]] = {}
    for _, said in chain.demonstrations(300, 4, 5, errors=0.5):
        total = "0"
        for step in chain.written_steps(said)[:-1]:
            seen.setdefault((int(total), step[1]), set()).add(step[3])
            total = step[3]
    assert {len(x) for x in seen.values()} == {1, 2}
