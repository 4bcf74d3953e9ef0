# SPDX-License-Identifier: Apache-2.0
"""Shorter than usual: what the usual is, that scoring does not change it, and that it comes back from a state."""

from types import SimpleNamespace

import torch

from guerdon.protocols import Batch
from guerdon.rewards.conciseness import ShorterThanUsual
from guerdon.rollouts import Rollouts
from guerdon.scores import Status


def rows(*lengths: int) -> Rollouts:
    mask = torch.arange(10) < torch.tensor(lengths)[:, None]
    return Rollouts(action=torch.zeros(len(lengths), 10), mask=mask, task=["a"] * len(lengths))


def told(rollouts: Rollouts) -> SimpleNamespace:
    return SimpleNamespace(batch=Batch(rollouts))


def values(reward: ShorterThanUsual, *lengths: int) -> list[float]:
    return reward.score(rows(*lengths)).total.values[:, 0].tolist()


def test_the_first_batch_is_compared_with_its_own_mean() -> None:
    assert values(ShorterThanUsual(), 2, 4, 6) == [1, 0, 0]


def test_later_ones_with_the_mean_of_all_so_far() -> None:
    reward = ShorterThanUsual()
    assert reward.update(told(rows(2, 4, 6, 8))) == {"usual_length": 5.0}
    assert values(reward, 5, 6) == [1, 0]  # (20 + 11) / 6 is a little more than 5
    assert values(reward, 5, 6) == [1, 0]  # scoring changes nothing
    assert reward.update(told(rows(1, 1, 1, 1))) == {"usual_length": 3.0}
    assert values(reward, 3, 2) == [0, 1]


def test_a_row_without_a_step_has_no_length() -> None:
    reward = ShorterThanUsual()
    found = reward.score(rows(0, 2, 4)).total
    assert found.status[:, 0].tolist() == [Status.NONE, Status.OK, Status.OK]
    assert found.values[1:, 0].tolist() == [1, 0]
    assert reward.update(told(rows(0, 2, 4))) == {"usual_length": 3.0}


def test_state_comes_back() -> None:
    reward, other = ShorterThanUsual(), ShorterThanUsual()
    reward.update(told(rows(9, 9, 9)))
    other.load_state_dict(reward.state_dict())
    assert values(other, 5, 6) == values(reward, 5, 6) == [1, 1]
    assert values(ShorterThanUsual(), 5, 6) == [1, 0]
