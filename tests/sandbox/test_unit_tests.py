# SPDX-License-Identifier: Apache-2.0
"""Unit tests: how they are read, and how what came out is compared."""

from __future__ import annotations

import pytest

from guerdon.errors import InputError
from guerdon.sandbox import Call, Fate, Outcome, Sandbox, SandboxUnavailable, UnitTest, Verdict, read_tests, run_tests
from guerdon.sandbox.unit_tests import compared, read_call, same_output


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("f()", Call("f")),
        ("f(1, -2.5, 'a', [1, (2,)], {'k': {3}}, None)", Call("f", (1, -2.5, "a", [1, (2,)], {"k": {3}}, None))),
        (" A.f(x=1) ", Call("A.f", (), {"x": 1})),
    ],
)
def test_a_call_is_a_name_and_literals(text, call):
    assert read_call(text) == call


@pytest.mark.parametrize(
    "text",
    ["f(1) == 2", "f", "f(g(1))", "f(x)", "f()()", "f(*[1])", "f(**{})", "A().f()", "[f(1)]", "f(1", "", "f(1), g(2)", "f[0](1)"],
)
def test_what_the_program_would_compute_itself_is_refused(text):
    with pytest.raises(InputError, match="a call should be a name with literal arguments"):
        read_call(text)


@pytest.mark.parametrize(
    "tests",
    [
        *(None, [], {}, "", "[", "3", [1], [{}], [{"input": "1"}], [{"input": 1, "output": "1"}], [{"call": 1, "result": 1}]),
        [{"call": "f()", "output": "1"}],
        [{"input": "", "output": "", "call": "f()", "result": 1}],
    ],
    ids=repr,
)
def test_other_tests_are_refused(tests):
    with pytest.raises(InputError, match="tests: "):
        read_tests(tests)


def test_tests_may_be_json():
    assert read_tests('[{"input": "1", "output": "2"}, {"call": "f(1)", "result": [1, null]}]') == [
        UnitTest("1", "2"),
        UnitTest(Call("f", (1,)), [1, None]),
    ]


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("4\n", "4", True),
        ("4 \r\n5\n\n\n", "4\n5", True),
        ("\n4", "4", False),
        (" 4", "4", False),
        ("4.0", "4", False),
        ("a\nb", "a b", False),
        ("", "\n", True),
        ("", "4", False),
    ],
)
def test_printed_texts_are_compared_line_by_line(printed, expected, same):
    assert same_output(printed, expected) is same


@pytest.mark.parametrize("fate", [f for f in Fate if f not in (Fate.OK, Fate.BROKEN)])
def test_whatever_a_program_does_but_answer_is_a_failed_test(fate):
    for test in (UnitTest("", ""), UnitTest(Call("f"), None)):
        assert compared(test, Outcome(fate, None, "why")) == Verdict(False, f"{fate}: why")


def test_a_breakdown_is_no_verdict():
    assert compared(UnitTest("", ""), Outcome(Fate.BROKEN, None, "why")) == Verdict(None, "why")


def test_many_programs_and_tests_of_both_kinds():
    def times(k):
        return f"def f(x):\n    return {k} * x\nif __name__ == '__main__':\n    print(f(int(input())))"

    tests = read_tests([{"input": "3", "output": "6"}, {"call": "f(4)", "result": 8}, {"input": "5", "output": "10"}])
    others = read_tests([{"call": "f([1])", "result": [1, 1, 1]}, {"call": "f(0.1)", "result": 0.3}])
    try:
        with Sandbox(2) as box:
            found = run_tests(box, [(times(2), tests), (times(3), tests), (times(3), others)], tolerance=1e-9)
            (exactly,) = run_tests(box, [(times(3), others)])
    except SandboxUnavailable as error:
        pytest.skip(f"not run: {error}")
    assert [[v.passed for v in verdicts] for verdicts in found] == [[True] * 3, [False] * 3, [True] * 2]
    assert found[1][1].reason == "expected 8, got 12"
    assert [v.passed for v in exactly] == [True, False]
