# SPDX-License-Identifier: Apache-2.0
"""Clip and Delta by hand, and what each pays for padding."""

from __future__ import annotations

import math

import pytest

from guerdon.rewards import parse, reward
from guerdon.scores import Bounds
from guerdon.systems.dense.prm_clip_delta import clip_delta, clipped, delta, looks_right
from guerdon.tasks import chained_addition as chain


@reward(level="segment", split=r"(?=\+)", bounds=(0, 1))
def digit(segment: str) -> float:
    """+7 scores 0.7."""
    return int(segment[1]) / 10


def values(of, text: str) -> list[float]:
    return of(completions=[text]).total.values[0].tolist()


def test_clip_by_hand() -> None:
    assert values(clipped(digit, 0.6), "+9+6+2") == pytest.approx([0, 0, -0.4])


def test_delta_by_hand() -> None:
    """p = 0.9, 0.6, 0.2, 0.5: the last is dropped, the one before it keeps its own."""
    assert values(delta(digit), "+9+6+2+5") == pytest.approx([0.3, 0.4, 0.2, 0])
    assert values(delta(digit), "+9") == [0]
    assert values(clip_delta(digit, 0.6), "+9+1+2+5") == pytest.approx([0.5, -0.1, -0.4, 0])


@pytest.mark.parametrize("steps", [2, 3, 10])
def test_what_padding_earns(steps: int) -> None:
    """A solution of one bad step and many good ones: the raw total grows with them, Delta's is the first step's score."""
    text = "+2" + "+9" * steps
    assert sum(values(digit, text)) == pytest.approx(0.2 + 0.9 * steps)
    assert sum(values(clipped(digit, 0.6), text)) == pytest.approx(-0.4)
    assert sum(values(delta(digit), text)) == pytest.approx(0.2)
    assert sum(values(clip_delta(digit, 0.6), text)) == pytest.approx(-0.4)


def test_the_tree_shows_the_bounds_that_the_paper_promises() -> None:
    assert looks_right.total_bounds() == Bounds(0, math.inf)
    assert delta(looks_right).total_bounds() == Bounds(0, 1)
    assert clipped(looks_right, 0.7).total_bounds().high == 0
    both = clip_delta(looks_right, 0.7).total_bounds()
    assert (both.low, both.high) == pytest.approx((-0.7, 0))


def test_expressions_are_read_back() -> None:
    table = {"digit": lambda: digit}
    for made in (clipped(digit, 0.6), delta(digit), clip_delta(digit, 0.6)):
        assert parse(str(made), table) == made


def test_the_process_model_tells_right_from_wrong() -> None:
    said = [c for _, c in chain.demonstrations(50, 4, 0, errors=0.3, idle=0.3)]
    asked = [p for p, _ in chain.demonstrations(50, 4, 0, errors=0.3, idle=0.3)]
    scores = looks_right(completions=said, prompts=asked).total
    for n, (c, p) in enumerate(zip(said, asked, strict=True)):
        for k, right in enumerate(chain.step_is_right(c, p)):
            assert (scores.values[n, k] >= 0.6) == right
