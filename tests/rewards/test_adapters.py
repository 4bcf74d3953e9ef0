# SPDX-License-Identifier: Apache-2.0
"""Reward functions of TRL (its own, really run) and of verl (by its documented signature), unchanged."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from guerdon.errors import ExpressionError, InputError
from guerdon.rewards.adapters import from_trl, from_verl, trl_columns
from guerdon.rollouts import Rollouts
from guerdon.scores import Status
from tests.rewards.data import misbehaving

trl_rewards = pytest.importorskip("trl.rewards")


def chat(*texts):
    return [[{"role": "assistant", "content": t}] for t in texts]


def total(r, **fields):
    return r(**fields).total


# ---- TRL


@pytest.mark.parametrize("budget", [None, 100.0])
def test_think_format_reward(budget):
    texts = ["<think>\nso\n</think>\n4", "4", "<think>never closed"]
    r = from_trl(trl_rewards.think_format_reward, budget=budget)
    assert total(r, completions=chat(*texts)).values[:, 0].tolist() == trl_rewards.think_format_reward(completions=chat(*texts))
    assert total(r, completions=chat(*texts)).values[:, 0].tolist() == [1.0, 0.0, 0.0]


def test_accuracy_reward_abstains_where_trl_returns_none():
    texts = [r"\boxed{\frac{1}{3}}", r"\boxed{\frac{1}{2}}", r"\boxed{4}"]
    solutions = [r"$\frac{1}{3}$", r"$\frac{1}{3}$", ""]
    got = total(from_trl(trl_rewards.accuracy_reward), completions=chat(*texts), solution=solutions)
    assert trl_rewards.accuracy_reward(completions=chat(*texts), solution=solutions) == [1.0, 0.0, None]
    assert got.status[:, 0].tolist() == [Status.OK, Status.OK, Status.ABSTAIN]
    assert got.values[:2, 0].tolist() == [1.0, 0.0]
    assert "gold_parsed=" in got.reasons[0, 0]  # what it gave to log_extra


def test_reasoning_accuracy_reward():
    texts = ["<think> hm </think> \\boxed{7}", "<think> hm </think> \\boxed{8}"]
    given = {"completions": chat(*texts), "solution": ["$7$", "$7$"]}
    assert total(from_trl(trl_rewards.reasoning_accuracy_reward), **given).values[:, 0].tolist() == [1.0, 0.0]


def _tokens(rows, completions):
    """Rollouts with token ids, as a language policy makes them."""
    t = max(map(len, rows))
    action = torch.tensor([[*row, *[0] * (t - len(row))] for row in rows])
    length = torch.tensor([len(row) for row in rows])
    made = Rollouts(action=action, mask=torch.arange(t) < length[:, None], task=["t"] * len(rows), length=length)
    made = made.with_field("prompt", "task", ["p"] * len(rows)).with_field("context_ids", "task", [[1]] * len(rows))
    return made.with_field("completion", "episode", [[c] for c in completions])


def test_functions_of_token_ids():
    rows = [[1, 2, 3, 4], [5, 5, 5, 5, 5], [1]]
    repetition = trl_rewards.get_repetition_penalty_reward(ngram_size=2, max_penalty=-1.0)
    got = from_trl(repetition).score(_tokens(rows, ["a", "b", "c"])).total
    assert got.values[:, 0].tolist() == repetition(completion_ids=rows) == [0.0, -0.75, 0.0]
    overlong = trl_rewards.get_soft_overlong_punishment(5, 4)
    pooled = from_trl(overlong, budget=100.0).score(_tokens(rows, ["a", "b", "c"])).total
    assert pooled.values[:, 0].tolist() == overlong(completion_ids=rows)
    cosine = from_trl(trl_rewards.get_cosine_scaled_reward(max_len=8), chat=True)
    solved = _tokens(rows[:2], [r"\boxed{3}", r"\boxed{4}"]).with_field("solution", "task", ["$3$", "$3$"])
    expected = trl_rewards.get_cosine_scaled_reward(max_len=8)(chat(r"\boxed{3}", r"\boxed{4}"), ["$3$", "$3$"], rows[:2])
    assert cosine.score(solved).total.values[:, 0].tolist() == pytest.approx(expected)


def test_a_function_that_needs_token_ids_is_not_given_made_up_ones():
    with pytest.raises(InputError, match="`context_ids`"):
        from_trl(trl_rewards.get_repetition_penalty_reward())(completions=["a a a"])


def test_it_is_called_as_trl_calls_it():
    calls = []

    def check(prompts, completions, colour, trainer_state, log_extra, log_metric, **kwargs):
        calls.append((prompts, completions, colour, trainer_state, sorted(kwargs)))
        log_metric("m", 1.0)
        log_extra("note", ["x", "y"])
        return [0.5, None]

    got = total(from_trl(check), prompts=["p", "q"], completions=["a", "b"], colour=["red", "blue"])
    assert calls == [(["p", "q"], ["a", "b"], ["red", "blue"], None, [])]
    assert got.status[:, 0].tolist() == [Status.OK, Status.ABSTAIN]
    assert got.reasons == {(0, 0): "note='x'", (1, 0): "note='y'"}


def test_conversations_come_without_their_prompt():
    prompts = [[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]]
    said = [[{"role": "assistant", "content": "a"}, {"role": "tool", "content": "4"}, {"role": "assistant", "content": "b"}]]
    columns = trl_columns(Rollouts.from_text(prompts, said))
    assert columns == {"prompts": prompts, "completions": said}
    assert trl_columns(Rollouts.from_text(["u"], ["a"])) == {"prompts": ["u"], "completions": ["a"]}
    assert trl_columns(Rollouts.from_text(["u"], ["a"]), chat=True)["completions"] == chat("a")


@pytest.mark.parametrize("budget", [None, 100.0])
def test_none_abstains_nan_and_exceptions_are_errors(budget):
    got = total(from_trl(misbehaving.trl_style, budget=budget), completions=["4", "5", "6"], answer=["4", None, "4"])
    assert got.status[:, 0].tolist() == [Status.OK, Status.ABSTAIN, Status.OK]
    assert got.values[::2, 0].tolist() == [1.0, 0.0]

    def broken(completions, **kwargs):
        return [math.nan if c == "nan" else 1 / len(c) for c in completions]

    got = total(from_trl(broken), completions=["nan", "ab", ""])
    assert got.status[:, 0].tolist() == [Status.ERROR, Status.OK, Status.ERROR]
    assert "ZeroDivisionError: division by zero (test_adapters.py" in got.reasons[2, 0]


@pytest.mark.parametrize("budget", [None, 100.0])
def test_coroutines_are_awaited(budget):
    assert total(from_trl(misbehaving.trl_async, budget=budget), completions=["a", "bbb"]).values[:, 0].tolist() == [1.0, 3.0]


def test_coroutines_are_awaited_inside_a_running_loop():
    import asyncio

    async def notebook():
        return total(from_trl(misbehaving.trl_async), completions=["abcd"]).values.item()

    assert asyncio.run(notebook()) == 4.0


def test_a_missing_column_is_named():
    with pytest.raises(InputError, match="accuracy_reward: reads `solution`"):
        from_trl(trl_rewards.accuracy_reward)(completions=chat("4"))


def test_a_model_is_no_function():
    with pytest.raises(ExpressionError, match="from_trl: expected a function, got Linear"):
        from_trl(torch.nn.Linear(1, 1))


def test_a_partial_and_an_object_are_functions():
    assert (
        total(from_trl(functools.partial(misbehaving.trl_style), name="p"), completions=["4"], answer=["4"]).values.item() == 1.0
    )


def test_it_composes():
    r = from_trl(misbehaving.trl_style) + 0.5 * from_trl(trl_rewards.think_format_reward, chat=True)
    assert total(r, completions=["<think>a</think>4"], answer=["<think>a</think>4"]).values.item() == 1.5


# ---- verl


@pytest.mark.parametrize("budget", [None, 100.0])
def test_verl(budget):
    r = from_verl(misbehaving.verl_style, budget=budget, kwargs={"bonus": 0.25})
    got = total(r, completions=["4", "5"], ground_truth=["4", "4"], data_source=["gsm8k", "gsm8k"])
    assert got.values[:, 0].tolist() == [1.25, 0.25]
    assert got.reasons == {(0, 0): "acc=True, pred='4'", (1, 0): "acc=False, pred='5'"}


def test_verl_receives_its_four_arguments():
    calls = []

    def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
        calls.append((data_source, solution_str, ground_truth, extra_info, kwargs))
        return 1.0

    r = from_verl(compute_score, ground_truth="answer", kwargs={"strict": True})
    total(r, completions=["a"], answer=["b"])
    total(r, completions=["a"], answer=["b"], data_source=["d"], extra_info=[{"index": 3}])
    assert calls == [("", "a", "b", {}, {"strict": True}), ("d", "a", "b", {"index": 3}, {"strict": True})]


def test_verl_dict_without_a_score_is_an_error():
    def compute_score(data_source, solution_str, ground_truth, extra_info):
        return {"acc": 1.0}

    got = total(from_verl(compute_score), completions=["a"], ground_truth=["b"])
    assert got.status.item() == Status.ERROR
    assert "a dict with `score`, got the keys ['acc']" in got.reasons[0, 0]


def test_verl_coroutine_and_missing_ground_truth():
    async def compute_score(data_source, solution_str, ground_truth, extra_info):
        return {"score": 0.5}

    assert total(from_verl(compute_score), completions=["a"], ground_truth=["b"]).values.item() == 0.5
    with pytest.raises(InputError, match="compute_score: reads `ground_truth`"):
        from_verl(compute_score)(completions=["a"])
