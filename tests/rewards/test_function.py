# SPDX-License-Identifier: Apache-2.0
"""@reward: arguments by name, one value per unit, and what user code raises is an error of its unit and never a 0."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from guerdon.errors import ExpressionError, InputError
from guerdon.rewards.function import FunctionReward, path_reference, reward, run_items, source_version
from guerdon.rewards.parse import parse
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Status
from tests.rewards.data import misbehaving, my_rewards

FILE = "tests/rewards/data/my_rewards.py"


def total(r, **fields):
    return r(**fields).total


def rollouts(completions, **fields):
    return Rollouts.from_text([""] * len(completions), completions, **fields)


def test_arguments_come_from_fields_by_name():
    seen = []

    @reward
    def check(completion, answer, prompt, hint="none", **fields):
        seen.append((completion, answer, prompt, hint, sorted(fields)))
        return 1.0

    check(completions=["a", "b"], prompts=["p", "q"], answer=["x", "y"], colour=["red", "blue"])
    assert seen == [("a", "x", "p", "none", ["colour"]), ("b", "y", "q", "none", ["colour"])]
    check(completions=["a"], prompts=["p"], answer=["x"], hint=["h"])
    assert seen[-1] == ("a", "x", "p", "h", [])


def test_an_argument_may_have_another_name_than_its_column():
    @reward(reads={"gold": "solution"})
    def check(completion, gold, **others):
        return completion == gold and "solution" not in others

    assert check.needs == {"completion", "solution"}
    assert total(check, completions=["4", "5"], solution=["4", "4"]).values.tolist() == [[1.0], [0.0]]
    with pytest.raises(ExpressionError, match="`reads` should name arguments of the function"):
        reward(reads={"golden": "solution"})(lambda completion: 1.0)


def test_a_missing_field_names_function_argument_and_what_there_is():
    with pytest.raises(
        InputError, match=r"correct: reads `answer`, which these rollouts do not have.*prompt, completion, offset"
    ):
        my_rewards.correct(completions=["4"])


def test_it_stays_a_function():
    assert my_rewards.correct(completion="4", answer="4") is True
    assert my_rewards.correct("4", "5") is False
    assert my_rewards.shouts.__doc__ == "How loud a line is."


@pytest.mark.parametrize("budget", [None, 20.0])
def test_what_becomes_of_what_it_returns_or_raises(budget):
    check = replace(reward(misbehaving.misbehave), reads={"deed": "deed"}, budget=budget, needs=frozenset({"deed"}))
    got = total(check, completions=[""] * 7, deed=[0.5, True, "none", "nan", "inf", "text", "raise"])
    assert got.status[:, 0].tolist() == [0, 0, Status.ABSTAIN, *[Status.ERROR] * 4]
    assert got.values[:2, 0].tolist() == [0.5, 1.0]
    assert torch.isnan(got.values[2:]).all()
    assert "ValueError: could not convert string to float" in got.reasons[6, 0]
    assert "misbehaving.py" in got.reasons[6, 0]


def test_in_process_an_interrupt_is_no_result():
    with pytest.raises(KeyboardInterrupt):
        run_items(misbehaving.misbehave, [{"deed": "interrupt"}])


def test_the_reason_shows_the_users_line_below_a_librarys():
    @reward
    def check(completion):
        return int(completion, base=99)  # raises inside int

    @reward
    def deeper(completion):
        return math.fsum(torch.empty(int(completion)))

    assert "test_function.py" in total(check, completions=["4"]).reasons[0, 0]
    assert "in deeper" in total(deeper, completions=["x"]).reasons[0, 0]


def test_batched_functions_take_lists_and_lose_only_what_raises():
    calls = []

    @reward(batched=True)
    def check(completion, answer):
        calls.append(len(completion))
        return [float(a) * len(c) for c, a in zip(completion, answer, strict=True)]

    got = total(check, completions=["ab", "abc", "abcd"], answer=["1", "x", "2"])
    assert got.status[:, 0].tolist() == [Status.OK, Status.ERROR, Status.OK]
    assert got.values[::2, 0].tolist() == [2.0, 8.0]
    assert calls == [3, 1, 1, 1]


def test_batched_in_the_pool_says_the_same():
    assert total(my_rewards.lengths, completions=["a", "bb", "ccc"]).values.tolist() == [[1.0], [2.0], [3.0]]


def test_bounds_are_kept():
    @reward(bounds=(0, 1))
    def check(completion):
        return float(completion)

    got = total(check, completions=["0.5", "1.5"])
    assert check.bounds == Bounds(0, 1)
    assert got.status[:, 0].tolist() == [Status.OK, Status.ERROR]
    assert "outside its bounds" in got.reasons[1, 0]


# ---- levels


def test_a_value_per_turn_and_per_step():
    two_turns = rollouts(["abcd"], steps="characters").with_level("turn", torch.tensor([[0, 0, 1, 1]]))
    two_turns = two_turns.with_field("said", "turn", [["ab", "cd"]])

    @reward(level="turn")
    def turns(said, completion, index):
        return len(said) + len(completion) + 100 * index

    @reward(level="step")
    def steps(offset):
        return float(offset[0])

    assert turns.score(two_turns).total.values.tolist() == [[6.0, 106.0]]
    assert steps.score(two_turns).total.values.tolist() == [[0.0, 1.0, 2.0, 3.0]]


def test_a_unit_in_which_the_policy_took_no_step_is_not_scored():
    calls = []

    @reward(level="turn")
    def check(index, step_count):
        calls.append((index, step_count))
        return 1.0

    rows = rollouts(["abcd"], steps="characters").with_level("turn", torch.tensor([[0, 1, 1, 2]]))
    rows = rows.replace(mask=torch.tensor([[True, False, False, True]]))
    got = check.score(rows).total
    assert got.status.tolist() == [[Status.OK, Status.NONE, Status.OK]]
    assert calls == [(0, 1), (2, 1)]


def test_a_splitter_of_its_own():
    got = my_rewards.shouts(completions=["Ab\nCD\ne", "x"]).components["shouts"]
    assert got.level == "segment"
    assert got.values[0].tolist() == [1.0, 12.0, 20.0]
    assert got.values[1, 0] == 0.0
    assert got.status[1].tolist() == [Status.OK, Status.NONE, Status.NONE]


# ---- identity


def test_version_follows_the_source():
    def one(completion):
        return 1.0

    first = source_version(one)

    def one(completion):
        return 2.0

    assert source_version(one) != first
    assert len(first) == 8
    assert reward(version="7")(one).version == "7"
    assert source_version(math.sqrt) == source_version(math.sqrt)


def test_two_closures_of_the_same_text_differ():
    def made(k):
        @reward
        def check(completion):
            return k

        return check

    assert made(1.0) != made(2.0)
    both = made(1.0) + made(2.0)
    assert total(both, completions=["x"]).values.tolist() == [[3.0]]


def test_the_text_of_a_users_reward_reads_back(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    assert path_reference(my_rewards.correct.function) == f"{FILE}:correct"
    assert str(my_rewards.correct + 0.5 * my_rewards.lengths) == f"{FILE}:correct + 0.5 * {FILE}:lengths"
    again = parse(str(my_rewards.correct))
    assert isinstance(again, FunctionReward)
    assert again == my_rewards.correct
    assert total(again, completions=["4"], answer=["4"]).values.item() == 1.0
    assert total(parse(f"{FILE}:lengths"), completions=["four"]).values.item() == 4.0  # through the pool, by its file
    assert parse(f"steps('{FILE}:plain')")(completions=["ab\ncde"]).components["steps"].values.tolist() == [[3.0, 3.0]]


def test_a_name_can_be_given():
    assert reward(name="tidy")(lambda completion: 1.0).name == "tidy"
    assert list(reward(name="tidy")(lambda completion: 1.0)(completions=["a"]).components) == ["tidy"]


# ---- mistakes while building


@pytest.mark.parametrize("budget", [0, -1, math.inf, "1"])
def test_a_budget_is_seconds(budget):
    with pytest.raises(ExpressionError, match="`budget` should be seconds above 0"):
        reward(budget=budget)(lambda completion: 1.0)


def test_arguments_need_names():
    with pytest.raises(ExpressionError, match="`args` can only be passed by position"):
        reward(lambda *args: 1.0)


def test_a_local_function_with_a_budget_says_what_to_do():
    @reward(budget=1.0)
    def local(completion):
        return 1.0

    with pytest.raises(InputError, match="leave the budget away"):
        local(completions=["a"])


def test_scores_are_as_precise_as_the_policy_that_was_sampled() -> None:
    @reward
    def tenth(completion):
        return 0.1

    text = Rollouts.from_text(["q"], ["a"])
    double = text.replace(log_prob=torch.zeros(1, 1, dtype=torch.float64))
    assert tenth.score(double).reward().item() == 0.1
    assert tenth.score(text).reward().dtype == torch.float32
