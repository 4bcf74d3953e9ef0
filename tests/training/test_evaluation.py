# SPDX-License-Identifier: Apache-2.0
"""Held-out evaluation: figures that can be checked by hand, what could not be judged, the same random numbers each time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import InputError
from guerdon.protocols import Context, Sampling
from guerdon.rewards import reward
from guerdon.rollouts import Rollouts
from guerdon.training.evaluation import Evaluation, evaluate, pass_at_k
from tests.training.table import Table

TASKS = [Context(p, p, {"answer": "a"}) for p in "pqr"]


@reward(bounds=(0, 1))
def is_a(completion: str, answer: str) -> bool:
    return completion == answer


@reward(bounds=(0, 1))
def unsure(completion: str) -> bool | None:
    return None if completion == "c" else completion == "a"


def written(texts: dict[str, list[str]], greedy: dict[str, str]):
    """A stand-in for sampling: sample ``index`` of a prompt is given, and so is what it writes at temperature 0."""

    def sample(policy: Any, contexts: Sequence[Context], sampling: Sampling, seed: int) -> Rollouts:
        said = [greedy[c.prompt] if sampling.temperature == 0 else texts[c.prompt][c.index] for c in contexts]
        return policy.rows(contexts, policy.encode([c.prompt for c in contexts], said).action, None)

    return sample


TEXTS = {"p": ["a", "b", "aa", "a"], "q": ["b", "c", "b", "b"], "r": ["b", "b", "b", "a"]}
GREEDY = {"p": "a", "q": "c", "r": "b"}


def figures(success: Any, texts=TEXTS, said=GREEDY) -> dict[str, float]:
    return evaluate(Table("pqr"), Evaluation(TASKS, success, 1, sample=written(texts, said)), 0)


def test_the_figures_by_hand() -> None:
    found = figures(is_a)
    assert found == {
        "eval/success": pytest.approx(3 / 12),
        "eval/greedy": pytest.approx(1 / 3),
        "eval/pass@4": pytest.approx(2 / 3),
        "eval/not_ok": 0.0,
        "eval/length": pytest.approx(25 / 12),  # each with the end; one has two letters
    }


def test_what_could_not_be_judged_is_neither_right_nor_wrong() -> None:
    found = figures(unsure)
    assert found["eval/not_ok"] == pytest.approx(1 / 12) and found["eval/success"] == pytest.approx(3 / 11)
    assert found["eval/pass@4"] == 1.0 and found["eval/greedy"] == pytest.approx(1 / 2)  # q is left out of both


def test_nothing_judged_is_nan_and_not_zero() -> None:
    found = figures(unsure, {p: ["c"] * 4 for p in "pqr"}, dict.fromkeys("pqr", "c"))
    assert found["eval/not_ok"] == 1.0
    assert all(math.isnan(found[k]) for k in ("eval/success", "eval/greedy", "eval/pass@4"))


def test_one_sample_has_no_pass_at_k_and_greedy_can_be_left_away() -> None:
    found = evaluate(Table("pqr"), Evaluation(TASKS, is_a, 1, samples=1, greedy=False, sample=written(TEXTS, {})), 0)
    assert found.keys() == {"eval/success", "eval/not_ok", "eval/length"}


def test_each_time_the_same_random_numbers() -> None:
    table = Table("pqr")
    evaluation = Evaluation(TASKS, is_a, 1, samples=16, sampling=Sampling(4))
    before = {k: v.clone() for k, v in table.state_dict().items()}
    assert evaluate(table, evaluation, 0) == evaluate(table, evaluation, 7)
    assert evaluate(table, evaluation, 0) != evaluate(Table("pqr", seed=1), evaluation, 0)
    assert all(torch.equal(v, before[k]) for k, v in table.state_dict().items())


def test_success_is_one_value_a_completion() -> None:
    @reward(level="turn", bounds=(0, 1))
    def per_turn(completion: str) -> float:
        return 1.0

    with pytest.raises(InputError, match=r"one value per completion.*level `turn`.*pool"):
        figures(per_turn)


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_correct_one(samples: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    draws = list(itertools.combinations([i < correct for i in range(samples)], k))
    assert pass_at_k(correct, samples, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(("correct", "samples", "k"), [(3, 2, 1), (-1, 2, 1), (1, 2, 0), (1, 2, 3)])
def test_impossible_counts_are_refused(correct: int, samples: int, k: int) -> None:
    with pytest.raises(InputError, match=f"correct={correct}, samples={samples}, k={k}"):
        pass_at_k(correct, samples, k)
