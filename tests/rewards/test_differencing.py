# SPDX-License-Identifier: Apache-2.0
"""gain and drop: by hand, how they telescope, and where a neighbour failed or is of another episode."""

from __future__ import annotations

import math

import pytest
import torch

from guerdon.errors import ExpressionError
from guerdon.rewards import parse
from guerdon.rewards.differencing import neighbours
from guerdon.scores import Bounds, Status
from tests.rewards.leaves import LINE, LINE2, STEP, TABLE, TURN, A, rollouts

OK, NONE, ABSTAIN, TIMEOUT, ERROR = Status.OK, Status.NONE, Status.ABSTAIN, Status.TIMEOUT, Status.ERROR
R = rollouts(line_a=[[1.0, -1.0, 0.5], [0.25, 0.75], [], [0.0, 1.0, 0.0, 1.0]])


def units(reward, r=R):
    c = reward.score(r).total
    return [
        [v for v, s in zip(vs, ss, strict=True) if s != NONE] for vs, ss in zip(c.values.tolist(), c.status.tolist(), strict=True)
    ]


def test_by_hand() -> None:
    assert units(LINE.gain()) == [[1.0, -2.0, 1.5], [0.25, 0.5], [], [0.0, 1.0, -1.0, 1.0]]
    assert units(LINE.drop()) == [[2.0, -1.5, 0.5], [-0.5, 0.75], [], [-1.0, 1.0, -1.0, 1.0]]
    assert units(LINE.gain(0.5))[1] == [-0.25, 0.5]
    assert units(LINE.drop(0.5))[1] == [-0.5, 0.25]


def test_the_sums_telescope() -> None:
    """gain to the last value minus the start, drop to the first minus the end, drop from any unit on to its value."""
    assert LINE.gain(0.25).pool("sum").score(R).total.values[:, 0].tolist() == [0.25, 0.5, 0, 0.75]
    assert LINE.drop(0.25).pool("sum").score(R).total.values[:, 0].tolist() == [0.75, 0, 0, -0.25]
    dropped = torch.tensor(units(LINE.drop())[3])
    assert dropped.flip(0).cumsum(0).flip(0).tolist() == [0.0, 1.0, 0.0, 1.0]


def test_totals_are_bounded_however_many_units() -> None:
    assert LINE2.total_bounds() == Bounds(0, math.inf)
    assert LINE2.drop().bounds == Bounds(-1, 1)
    assert LINE2.drop().total_bounds() == Bounds(0, 1)
    assert LINE2.gain(start=1).total_bounds() == Bounds(-1, 0)
    assert LINE2.at("line", "copy").drop().total_bounds() == Bounds(-math.inf, math.inf)  # a copy on each of a unit's steps


def test_a_unit_is_ok_only_if_its_neighbour_is() -> None:
    failed = rollouts(line_a=[[1.0, (0, TIMEOUT), 0.5], [(0, ERROR), (0, ABSTAIN)], [], [0.0, 1.0, 0.0, 1.0]])
    gained, dropped = LINE.gain().score(failed).total, LINE.drop().score(failed).total
    assert gained.status[0].tolist() == [OK, TIMEOUT, TIMEOUT, NONE]
    assert dropped.status[0].tolist() == [TIMEOUT, TIMEOUT, OK, NONE]
    assert gained.reasons[0, 2] == "the line before it: line_a: told timeout"
    assert dropped.reasons[0, 0] == "the line after it: line_a: told timeout"
    assert gained.status[1, :2].tolist() == [ERROR, ERROR]
    assert gained.reasons[1, 1] == "line_a: told abstain; the line before it: line_a: told error"


def test_units_that_others_took_are_passed_over() -> None:
    """Step 2 of row 0 is a tool's: the step after it is compared with the one before it."""
    r = rollouts(step_a=[[0.5, 0.25, 0.75, 1.0, 0.0, 0.0, 0.0], [0.0] * 4, [0.0] * 2, [0.0] * 7])
    assert STEP.gain().score(r).reward()[0].tolist() == [0.5, -0.25, 0, 0.75, -1, 0, 0]
    assert STEP.drop().score(r).reward()[0].tolist() == [0.25, -0.75, 0, 1, 0, 0, 0]


def test_nothing_crosses_from_one_episode_to_another() -> None:
    two = R.with_level("episode", torch.tensor([[0, 0, 0, 1, 1, 1, 1]] + [[0] * 7] * 3))
    assert units(LINE.gain(), two)[0] == [1.0, -1.0, 1.5]
    assert units(LINE.drop(), two)[0] == [1.0, -1.5, 0.5]


def test_interleaved_episodes() -> None:
    used, episode = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[0, 1, 0, 1]])
    assert neighbours(used, episode, after=False).tolist() == [[-1, -1, 0, 1]]
    assert neighbours(used, episode, after=True).tolist() == [[2, 3, -1, -1]]
    assert neighbours(used[:, :0], episode[:, :0], after=True).shape == (1, 0)


@pytest.mark.parametrize(
    ("reward", "text"),
    [
        (LINE.gain(), "line_a.gain()"),
        (LINE.drop(end=0.5), "line_a.drop(end=0.5)"),
        (LINE.gain(-1), "line_a.gain(start=-1)"),
        ((LINE - 0.5 * LINE2).clip(high=0).drop(), "(line_a - 0.5 * line_b).clip(high=0).drop()"),
    ],
)
def test_text(reward, text) -> None:
    assert str(reward) == text
    assert parse(text, TABLE) == reward
    assert text.rpartition(".")[2] in reward.tree()


def test_drop_reads_what_comes_after_and_gain_does_not() -> None:
    from dataclasses import replace

    causal = replace(TURN, causal=True)
    assert causal.gain().causal
    assert not causal.drop().causal
    assert not causal.drop().clip(0, 1).causal


def test_one_value_an_episode_has_no_neighbour() -> None:
    with pytest.raises(ExpressionError, match=r"gain: expected a reward with several units an episode, got `a`.*pooled first"):
        A.gain()
    with pytest.raises(ExpressionError, match=r"drop: `end` should be a finite number, got nan"):
        LINE.drop(math.nan)
