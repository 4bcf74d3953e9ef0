# SPDX-License-Identifier: Apache-2.0
"""Rewards go to other processes, decorated functions and expressions of them included."""

from __future__ import annotations

import pickle

import pytest
import torch

from guerdon.rewards import Reward, checkers, reward
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts


@reward
def long(completion: str) -> bool:
    """Decorated without arguments."""
    return len(completion) > 3


@reward(bounds=(0, 1), level="segment", split=r"\w+")
def vowels(segment: str) -> float:
    return sum(c in "aeiou" for c in segment) / len(segment)


@tensor_reward(bounds=(0, 1))
def odd(rollouts: Rollouts) -> torch.Tensor:
    return (torch.tensor([len(c[0]) for c in rollouts.field("completion").values]) % 2).double()


EXPRESSIONS = {
    "decorated": long,
    "decorated with arguments": vowels,
    "of tensors": odd,
    "renamed, with a budget": long.named("other").with_budget(5.0),
    "an expression": 0.5 * long.gate(on=checkers.length(), above=1.0) + odd,
    "a checker with arguments": checkers.numeric(0.1),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_reward_comes_back_from_pickle_as_it_was(name: str) -> None:
    before = EXPRESSIONS[name]
    after = pickle.loads(pickle.dumps(before))
    assert after == before and hash(after) == hash(before) and str(after) == str(before)
    given = {"completions": ["four", "no"], "answer": ["1", "2"]}
    a, b = (Reward.__call__(r, **given).total for r in (before, after))
    assert torch.equal(a.values.nan_to_num(nan=-1), b.values.nan_to_num(nan=-1)) and torch.equal(a.status, b.status)
    assert after.__doc__ == before.__doc__


def test_a_function_that_is_nowhere_to_be_found_is_still_refused() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(reward(lambda completion: 1.0))
