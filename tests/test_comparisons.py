# SPDX-License-Identifier: Apache-2.0
"""Comparisons: defaults, the range of targets, and that exchanging a pair exchanges the judgement."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from guerdon.comparisons import Comparisons
from guerdon.errors import InputError, ShapeError
from guerdon.scores import Status

targets = st.lists(st.integers(0, 8).map(lambda k: k / 8) | st.just(math.nan), max_size=5)


def of(target: list[float], **extra) -> Comparisons:
    p = len(target)
    return Comparisons(torch.arange(p), torch.arange(p) + 1, torch.tensor(target, dtype=torch.float64), **extra)


def test_what_is_not_given_is_filled_in() -> None:
    c = of([1.0, math.nan])
    assert c.first.tolist() == [[0, 0], [1, 0]]  # rows alone are their first units
    assert c.second.tolist() == [[1, 0], [2, 0]]
    assert c.status.tolist() == [Status.OK, Status.ABSTAIN]
    assert c.status.dtype == torch.int8
    assert c.weight.tolist() == [1.0, 1.0]
    assert c.weight.dtype == torch.float64
    assert c.annotator == ["", ""]
    assert c.margin is None
    assert len(c) == 2


@given(targets)
def test_a_judgement_is_known_exactly_where_its_status_is_ok(target: list[float]) -> None:
    c = of(target)
    assert (c.status == Status.OK).equal(~torch.isnan(c.target))
    for wrong in (torch.full((len(c),), int(Status.OK)), torch.full((len(c),), int(Status.ERROR))):
        if (wrong == Status.OK).equal(~torch.isnan(c.target)):
            continue
        with pytest.raises(ShapeError, match="`target` should be NaN exactly where the status is not ok; of pair"):
            of(target, status=wrong)


@given(targets)
def test_swapped_twice_is_the_same(target: list[float]) -> None:
    p = len(target)
    status = torch.tensor([2 if math.isnan(t) else 0 for t in target], dtype=torch.int8)
    who, why = ["ann"] * p, {0: "why"}
    c = of(target, margin=torch.arange(p) * 1.0, status=status, annotator=who, level="line", reasons=why, component="safety")
    s = c.swapped()
    assert s.first.equal(c.second)
    assert s.second.equal(c.first)
    known = c.target[~torch.isnan(c.target)]
    assert s.target[~torch.isnan(s.target)].equal(1 - known)
    assert s.margin is not None
    assert s.margin.equal(-torch.arange(p) * 1.0)
    assert s.status.equal(status)  # a timeout stays a timeout
    assert (s.level, s.component, s.annotator, s.reasons) == ("line", "safety", ["ann"] * p, {0: "why"})
    back = s.swapped()
    assert back.first.equal(c.first)
    torch.testing.assert_close(back.target, c.target, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("target", [[-1.0, 1.0], [0.5, 1.5]])
def test_targets_are_probabilities(target: list[float]) -> None:
    with pytest.raises(InputError, match=rf"in \[0, 1\]; got {target[0]} to {target[1]}. Usual cause: labels -1/\+1"):
        of(target)


def test_pairs_have_a_row_and_a_unit() -> None:
    with pytest.raises(ShapeError, match=r"Comparisons: `second` should have shape \[2, 2\], got \[2, 3\]"):
        Comparisons(torch.zeros(2, 2), torch.zeros(2, 3), torch.ones(2))
    with pytest.raises(ShapeError, match=r"`first` should have shape \[2, 2\], got \[3, 2\]"):
        Comparisons(torch.zeros(3), torch.zeros(2), torch.ones(2))
