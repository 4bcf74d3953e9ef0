# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import InputError
from guerdon.tasks.running_digits import (
    TOKENS,
    demonstrations,
    held_out_tasks,
    is_held_out,
    make_tasks,
    step_is_right,
    success,
    written_steps,
    wrong_table,
)


def test_the_documented_example() -> None:
    assert success("+5=5+8=3+4=7+7=4", "5+8+4+7:")
    assert step_is_right("+5=5+8=3+4=7+7=4", "5+8+4+7:") == [True, True, True, True]


def test_tasks_hold_the_right_chain() -> None:
    for task in make_tasks(200, steps=14, seed=3):
        digits = [int(d) for d in task.prompt[:-1].split("+")]
        assert len(digits) == 14
        totals = [sum(digits[: k + 1]) % 10 for k in range(14)]
        assert task.fields["steps"] == [f"+{d}={total}" for d, total in zip(digits, totals, strict=True)]
        assert task.fields["answer"] == str(sum(digits) % 10)
        completion = "".join(task.fields["steps"])
        assert success(completion, task.prompt)
        assert step_is_right(completion, task.prompt) == [True] * 14


def test_digits_are_uniform() -> None:
    text = "".join(task.prompt for task in make_tasks(2000, steps=10, seed=0))
    shares = [text.count(str(d)) / 20_000 for d in range(10)]
    assert all(abs(share - 0.1) < 4.5 * (0.1 * 0.9 / 20_000) ** 0.5 for share in shares)


def test_tasks_depend_on_the_seed_alone() -> None:
    assert make_tasks(20, steps=5, seed=1) == make_tasks(50, steps=5, seed=1)[:20]
    assert make_tasks(20, steps=5, seed=1) != make_tasks(20, steps=5, seed=2)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_held_out_tasks_are_in_no_training_set(steps: int) -> None:
    n = 10 ** (steps - 1)
    held_out = {task.prompt for seed in range(5) for task in held_out_tasks(n, steps, seed)}
    trained_on = {task.prompt for seed in range(5) for task in make_tasks(n, steps, seed)}
    shown = {prompt for seed in range(5) for prompt, _ in demonstrations(n, steps, seed)}
    assert held_out.isdisjoint(trained_on | shown)
    assert len(make_tasks(n, steps, 0)) == len({task.key for task in make_tasks(n, steps, 0)}) == n


def test_a_fifth_is_held_out() -> None:
    prompts = ["+".join(digits) + ":" for digits in itertools.product("0123456789", repeat=4)]
    assert abs(sum(map(is_held_out, prompts)) / 10_000 - 0.2) < 0.02


def test_the_wrong_table_is_wrong_everywhere_and_fixed_by_the_seed() -> None:
    table = wrong_table(4)
    assert all(table[total][digit] != (total + digit) % 10 for total in range(10) for digit in range(10))
    assert {answer for row in table for answer in row} == set(range(10))
    assert table == wrong_table(4) != wrong_table(5)


def test_demonstrations_give_one_wrong_answer_half_the_time() -> None:
    """Each step is the right one or the table's, from the written total; 14 × 2000 fair coins, ± 4.5 standard errors."""
    table = wrong_table(9)
    right = []
    for prompt, completion in demonstrations(2000, steps=14, seed=9):
        total, digits = 0, [int(d) for d in prompt[:-1].split("+")]
        steps = written_steps(completion)
        assert len(steps) == 14
        for step, digit in zip(steps, digits, strict=True):
            sign, given_digit, equals, answer = step
            assert (sign, int(given_digit), equals) == ("+", digit, "=")
            assert int(answer) in ((total + digit) % 10, table[total][digit])
            right.append(int(answer) == (total + digit) % 10)
            total = int(answer)
        assert step_is_right(completion, prompt) == right[-14:]
    assert abs(sum(right) / len(right) - 0.5) < 4.5 * 0.5 / len(right) ** 0.5


def test_demonstrated_chains_of_fourteen_are_never_right_and_short_ones_sometimes() -> None:
    assert not any(success(completion, prompt) for prompt, completion in demonstrations(500, steps=14, seed=0))
    share = sum(success(completion, prompt) for prompt, completion in demonstrations(900, steps=4, seed=0)) / 900
    assert abs(share - 1 / 16) < 4.5 * (1 / 16 * 15 / 16 / 900) ** 0.5


def test_a_mistake_is_charged_once() -> None:
    assert step_is_right("+8=9+4=3+7=0", "8+4+7:") == [False, True, True]
    assert not success("+8=9+4=3+7=0", "8+4+7:")


def test_two_mistakes_may_cancel_in_the_last_digit() -> None:
    completion = "+8=9+4=2+7=9"  # 0 + 8 is not 9, 9 + 4 does not end in 2, yet the last digit is the answer
    assert step_is_right(completion, "8+4+7:") == [False, False, True]
    assert not success(completion, "8+4+7:")


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("", []),
        ("+8=8", [True]),
        ("+4=4", [False]),  # 0 + 4 is 4, but 8 was asked for
        ("+4=8", [False]),  # the right total after another digit than it adds
        ("+8=8+4=2+7=9+1=0", [True, True, True, False]),
        ("+8=8+4=2+7=9:", [True, True, False]),
        ("8=8+4=2+7=9", [False, True, True]),
        ("+8+4=2+7=9", [False, False, True]),
        ("+8=8+", [True, False]),
        ("+8=8++7=5", [True, False, True]),
        ("+8=3=4+4=8", [False, True]),
        ("\x00é+8=8", [False, False]),
        ("+٨=٨", [False]),
        (" +8=8", [False, False]),
        ("+8=8\n", [False]),
    ],
)
def test_malformed_completions_are_wrong(completion: str, right: list[bool]) -> None:
    assert step_is_right(completion, "8+4+7:") == right
    assert not success(completion, "8+4+7:")


pieces = st.sampled_from(TOKENS)
digits = st.integers(0, 9)


@given(row=st.lists(digits, min_size=2, max_size=5), completion=st.lists(pieces, max_size=12).map("".join) | st.text())
def test_any_completion_is_judged(row: list[int], completion: str) -> None:
    prompt = "+".join(map(str, row)) + ":"
    right = step_is_right(completion, prompt)
    assert "".join(written_steps(completion)) == completion
    assert len(right) == len(written_steps(completion))
    assert success(completion, prompt) == (all(right) and len(right) == len(row))


@given(row=st.lists(digits, min_size=4, max_size=4), wrong=st.lists(st.sampled_from([0, 0, 0, 1, 9]), min_size=4, max_size=4))
def test_all_steps_right_if_and_only_if_the_chain_is(row: list[int], wrong: list[int]) -> None:
    """A well-formed completion that goes on from what it wrote: step k is right exactly where no error was put."""
    total, completion = 0, ""
    for digit, error in zip(row, wrong, strict=True):
        total = (total + digit + error) % 10
        completion += f"+{digit}={total}"
    prompt = "+".join(map(str, row)) + ":"
    assert step_is_right(completion, prompt) == [error == 0 for error in wrong]
    assert success(completion, prompt) == (not any(wrong))


def test_tokens_cut_prompts_and_completions() -> None:
    assert len(TOKENS) == len(set(TOKENS)) == 31
    assert {"+8", "=3", "5", ":"} <= set(TOKENS)


@pytest.mark.parametrize("prompt", ["", "+5:", "5+8+4", "5+8+4=", "5+-8:", "55+8:", "5+8:\n", "٥+8:"])
def test_a_prompt_of_another_task_is_an_error(prompt: str) -> None:
    for judge in (step_is_right, success):
        with pytest.raises(InputError, match=r"expected a prompt like '5\+8\+4\+7:', got "):
            judge("+8=3", prompt)


@pytest.mark.parametrize(("n", "steps"), [(2, 1), (1, 0), (-1, 3), (101, 3)])
def test_more_tasks_than_there_are_is_an_error(n: int, steps: int) -> None:
    for make in (make_tasks, held_out_tasks, demonstrations):
        with pytest.raises(InputError, match=f"got steps = {steps} and n = {n}"):
            make(n, steps, seed=0)
