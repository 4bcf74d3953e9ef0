# SPDX-License-Identifier: Apache-2.0
"""The gate's rule: at its threshold, over several priorities, on episodes of the editing task; and the trap it is for."""

import itertools
import math

import pytest
import torch

from guerdon.rewards.fields import field
from guerdon.rollouts import Rollouts
from guerdon.scores import Status
from guerdon.systems.dense import gated_reward_accum as gra

HIGH, MIDDLE, LOW = field("high"), field("middle"), field("low")


def rollouts(**fields: list[list[float]]) -> Rollouts:
    values = {k: torch.tensor(v) for k, v in fields.items()}
    n, t = next(iter(values.values())).shape
    made = Rollouts(action=torch.zeros(n, t), mask=torch.ones(n, t, dtype=torch.bool), task=["a"] * n)
    for name, x in values.items():
        made = made.with_field(name, "step", x)
    return made


def test_an_episode_at_the_threshold_is_shut() -> None:
    made = rollouts(high=[[0.0, 0.5], [0.25, 0.5]], low=[[1.0, 2.0], [1.0, 2.0]])
    found = gra.gated_accumulation(HIGH, LOW, above=0.5).score(made).reward()
    assert found.tolist() == [[0.0, 0.5], [1.25, 2.5]]  # the steps of the open episode stay where they were paid


def test_three_priorities_are_the_papers_rule() -> None:
    """Every combination of totals on either side of two thresholds, against the rule written out."""
    cases = [list(x) for x in itertools.product([0.0, 1.0], [0.0, 1.0], [0.0, 3.0])]
    made = rollouts(**{k: [[0.0, c[i]] for c in cases] for i, k in enumerate(("high", "middle", "low"))})
    reward = gra.gated_accumulation(HIGH, gra.gated_accumulation(MIDDLE, LOW, above=0.5), above=0.5)
    expected = [h + (m if h > 0.5 else 0) + (low if h > 0.5 and m > 0.5 else 0) for h, m, low in cases]
    assert reward.score(made).reward().sum(1).tolist() == expected
    assert sorted(set(expected)) == [0, 1, 2, 5]


def test_an_outcome_that_failed_is_no_shut_gate() -> None:
    made = rollouts(high=[[0.0, math.nan]], low=[[1.0, 2.0]])
    total = gra.gated_accumulation(HIGH, LOW, above=0.5).score(made).total
    assert (total.status == Status.ERROR).all()


EPISODES = {  # what each step was worth: valid, and how far the last one got
    "never submitted": ([1, 1, 1, 1], 0),
    "submitted nothing": ([1, 1, 0, 1], 1),
    "submitted an edit": ([1, 0, 0, 1], 2),
    "resolved": ([1, 1, 0, 1], 3),
}
PAID = {
    "outcome": [0, 0, 0, 1],
    "direct": [0.4, 0.3, 0.2, 1.3],
    "submitted": [0, 0.3, 0.2, 1.3],
    "edited": [0, 0, 0.2, 1.3],
    "resolved": [0, 0, 0, 1.3],
}


@pytest.mark.parametrize("name", PAID)
def test_what_each_arm_pays(name: str) -> None:
    valid = [v for v, _ in EPISODES.values()]
    progress = [[0, 0, 0, p] for _, p in EPISODES.values()]
    made = rollouts(valid=valid, progress=progress, resolved=[[0, 0, 0, int(p == 3)] for _, p in EPISODES.values()])
    assert gra.ARMS[name].score(made).reward().sum(1).tolist() == pytest.approx(PAID[name])


def test_episodes_of_a_batch_are_groups_of_the_same_bug() -> None:
    pytest.importorskip("gymnasium")
    policy = gra.fresh()
    first, again = (gra.Episodes(2, 3).batch(4, policy, seed=9).rollouts for _ in range(2))
    assert first.group.tolist() == [0, 0, 0, 1, 1, 1] and torch.equal(first.action, again.action)
    other = gra.Episodes(2, 3).batch(5, policy, seed=9).rollouts
    assert first.action.shape != other.action.shape or not torch.equal(first.action, other.action)


def test_figures_read_taken_steps_only() -> None:
    """Random commands: 18 in 20 a step are none of SUBMIT's, so nearly all figures are known in advance."""
    pytest.importorskip("gymnasium")
    torch.manual_seed(0)
    found = gra.figures(gra.fresh(), 0)
    assert found["eval/resolution"] <= found["eval/modification"] <= found["eval/completion"] <= 1
    assert found["eval/completion"] == pytest.approx(1 - (11 / 12) ** 20, abs=0.08)
    assert found["eval/resolution"] < 0.3
    assert found["eval/steps"] == pytest.approx(0.1 * found["eval/length"] * 10 / 12, abs=0.05)
