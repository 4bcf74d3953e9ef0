# SPDX-License-Identifier: Apache-2.0
"""Code as a reward: values by hand, what is a failed test and what is an error."""

from __future__ import annotations

import json
import math

import pytest
import torch

from guerdon.errors import ExpressionError
from guerdon.rewards import code as module
from guerdon.rewards.checkers import length
from guerdon.rewards.code import code, passed, program_of
from guerdon.rewards.parse import parse
from guerdon.sandbox import Fate, Outcome, Sandbox, SandboxUnavailable
from guerdon.scores import Status

ADD = "```python\ndef f(a, b):\n    return a + b\n```"
TESTS = [{"call": "f(1, 2)", "result": 3}, {"call": "f(2, 2)", "result": 4}, {"call": "f('a', 'b')", "result": "ab"}]


@pytest.fixture(scope="module", autouse=True)
def _sandbox():
    try:
        with Sandbox(1) as box:
            box.layers()
    except SandboxUnavailable as error:
        pytest.skip(f"not run: {error}")


def test_the_share_of_tests_that_pass():
    times = "Multiply:\n```python\ndef f(a, b):\n    return a * b\n```"
    scores = code()(completions=[ADD, times, "no idea", "def f(a, b): return a + b"], tests=[TESTS] * 4)
    assert scores.total.values[:, 0].tolist() == pytest.approx([1.0, 1 / 3, 0.0, 1.0])
    assert code(every_test=True)(completions=[ADD, times], tests=[TESTS] * 2).total.values.tolist() == [[1.0], [0.0]]
    assert (code().bounds.low, code().bounds.high) == (0, 1)


def test_which_tests_pass_is_in_the_reasons_and_a_tensor():
    given = [TESTS, TESTS, [{"input": "2", "output": "4"}], None]
    fives = "def f(a, b):\n    return 4 if a == 2 else 1 / 0"
    component = code()(completions=[ADD, fives, "print(int(input()) * 2)", "x"], tests=given).trace["code"]
    nan = math.nan
    expected = torch.tensor([[1, 1, 1], [0, 1, 0], [1, nan, nan], [nan, nan, nan]])
    torch.testing.assert_close(passed(component), expected, equal_nan=True)
    assert json.loads(component.reasons[1, 0]) == {
        "passed": [0, 1, 0],
        "failed": {"0": f"raised: {DIVISION}", "2": f"raised: {DIVISION}"},
    }
    assert passed(code()(completions=["x"], tests=[None]).total).shape == (1, 0)


DIVISION = "ZeroDivisionError: division by zero (line 2)"


def test_a_program_that_hangs_has_failed_and_one_that_cannot_be_judged_has_not(monkeypatch):
    hangs = "def f(a, b):\n    while a == 2: pass\n    return a + b"
    scores = code(seconds=1.5)(completions=[hangs, ADD, ADD, ADD], tests=[TESTS, TESTS, None, [{"call": "f(1) == 2"}]])
    assert scores.total.status[:, 0].tolist() == [Status.OK, Status.OK, Status.ABSTAIN, Status.ERROR]
    assert scores.total.values[:2, 0].tolist() == pytest.approx([2 / 3, 1.0])
    assert json.loads(scores.total.reasons[0, 0])["failed"] == {"1": "timeout: took longer than 1.5 s"}
    assert scores.total.reasons[2, 0] == "has no tests"

    class Broken:
        def evaluate(self, jobs, **limits):
            return [[Outcome(Fate.OK, 3), Outcome(Fate.BROKEN, None, "broke"), Outcome(Fate.OK, "ab")] for _ in jobs]

    monkeypatch.setattr(module, "shared_box", Broken)
    scores = code()(completions=[ADD], tests=[TESTS])
    assert scores.total.status.tolist() == [[Status.ERROR]]
    assert math.isnan(scores.total.values.item())
    assert scores.total.reasons[0, 0] == "1 of 3 tests could not be run: broke"


def test_the_tests_may_be_json_under_another_name_and_have_a_tolerance():
    third = "def f():\n    return 0.1 + 0.2"
    cases = [json.dumps([{"call": "f()", "result": 0.3}])]
    assert code(tests="cases", tolerance=1e-9)(completions=[third], cases=cases).total.values.item() == 1.0
    assert code(tests="cases")(completions=[third], cases=cases).total.values.item() == 0.0


def test_the_text_reads_back():
    for r in (code(), code(every_test=True, seconds=1.0, memory=64, tolerance=0.1, tests="cases")):
        assert parse(str(r), {"code": code}) == r
        assert parse(str(r), {"code": code}).needs == r.needs
    assert str(code(seconds=1.0)) == "code(seconds=1.0)"
    assert code().with_budget(3.0).budget is None


def test_it_is_a_reward_among_others():
    r = parse("code + 0.01*length", {"code": code, "length": length})
    scores = r(completions=["def f(a, b): return a + b"], tests=[TESTS])
    assert scores.total.values.item() == pytest.approx(1.0 + 0.25)


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("x = 1", "x = 1"),
        ("a\n```\nx = 1\n```\nb", "x = 1\n"),
        ("```py\nx = 1\n```\n```json\n{}\n```", "x = 1\n"),
        ("```python\nx = 1\n```\n```python\nx = 2\n```", "x = 2\n"),
        ("```python title=a\nx = 1\n", "x = 1\n"),
        ("  ```Python\n  x = 1\n  ```", "  x = 1\n"),
        ("", ""),
    ],
)
def test_the_program_in_a_completion(completion, program):
    assert program_of(completion) == program


@pytest.mark.parametrize("settings", [{"seconds": 0}, {"memory": 0}, {"memory": 1.5}, {"tolerance": -1}, {"seconds": math.inf}])
def test_settings_are_checked(settings):
    with pytest.raises(ExpressionError, match=f"code: `{next(iter(settings))}` should be"):
        code(**settings)
