# SPDX-License-Identifier: Apache-2.0
"""Unit tests of programs: what goes into the sandbox, and what is compared outside of it.

A test is {"input": text, "output": text}: the program reads standard input and writes standard output; or
{"call": "f(1, [2])", "result": 3}: a function of the program is called. What is expected never enters the sandbox, so there is
nothing in there to find, to forge or to replace: a program passes by giving the right answer and in no other way.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from guerdon.errors import InputError
from guerdon.sandbox.box import Sandbox
from guerdon.sandbox.jobs import Call, Calls, Fate, Outcome, Scripts
from guerdon.sandbox.values import equal

_FORM = 'a test should be {"input": text, "output": text} or {"call": "f(1, 2)", "result": 3}'


class UnitTest(NamedTuple):
    """What a program is given (a text for standard input, or a call), and what is expected of it."""

    given: str | Call
    expected: Any


class Verdict(NamedTuple):
    """Whether a test passed, None where the sandbox broke down; ``reason`` says why not."""

    passed: bool | None
    reason: str = ""


def read_tests(tests: Any) -> list[UnitTest]:
    """Tests from a list of dicts, or from its JSON; InputError for anything else.

    >>> read_tests([{"input": "2", "output": "4"}, {"call": "f(1, b=[2])", "result": 3}])[1].given
    Call(name='f', arguments=(1,), keywords={'b': [2]})
    """
    if isinstance(tests, str):
        try:
            tests = json.loads(tests)
        except ValueError as error:
            raise InputError(f"tests: should be a list or the JSON of one: {error}.") from error
    if not isinstance(tests, Sequence) or not tests:
        raise InputError(f"tests: should be a list of at least one test, got {tests!r:.80}.")
    return [_read_test(t) for t in tests]


def _read_test(test: Any) -> UnitTest:
    keys = set(test) if isinstance(test, Mapping) else set()
    if keys == {"input", "output"} and isinstance(test["input"], str) and isinstance(test["output"], str):
        return UnitTest(test["input"], test["output"])
    if keys == {"call", "result"} and isinstance(test["call"], str):
        return UnitTest(read_call(test["call"]), test["result"])
    raise InputError(f"tests: {_FORM}, got {test!r:.120}.")


def read_call(text: str) -> Call:
    """The Call that ``text`` writes: a (dotted) name of the program and literal arguments, nothing else.

    >>> read_call("f(1) == 2")
    Traceback (most recent call last):
    ...
    guerdon.errors.InputError: tests: a call should be a name with literal arguments, such as f(1, [2]), got 'f(1) == 2'. What is
    computed around it would be computed by the program it tests; say what should come out as `result`.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if isinstance(tree, ast.Call):
            arguments = tuple(ast.literal_eval(a) for a in tree.args)
            keywords = {str(k.arg): ast.literal_eval(k.value) for k in tree.keywords if k.arg is not None}
            name = ast.unparse(tree.func)
            if len(keywords) == len(tree.keywords) and all(part.isidentifier() for part in name.split(".")):
                return Call(name, arguments, keywords)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass
    raise InputError(
        f"tests: a call should be a name with literal arguments, such as f(1, [2]), got {text!r:.80}. What is computed around it "
        "would be computed by the program it tests; say what should come out as `result`."
    )


def run_tests(
    box: Sandbox,
    programs: Sequence[tuple[str, Sequence[UnitTest]]],
    *,
    seconds: float = 5.0,
    memory: int = 512,
    tolerance: float = 0.0,
) -> list[list[Verdict]]:
    """A Verdict for each test of each program, in order; ``seconds`` and ``memory`` (MiB) are a test's own.

    A test with an input has a process of its own. Calls of one program are made in order in one process as long as it lives.
    """
    jobs: list[Scripts | Calls] = []
    places: list[tuple[int, list[int]]] = []
    for at, (program, tests) in enumerate(programs):
        texts = {i: t.given for i, t in enumerate(tests) if isinstance(t.given, str)}
        calls = {i: t.given for i, t in enumerate(tests) if isinstance(t.given, Call)}
        for job, chosen in ((Scripts(program, list(texts.values())), texts), (Calls(program, list(calls.values())), calls)):
            if chosen:
                jobs.append(job)
                places.append((at, list(chosen)))
    found = [[Verdict(None)] * len(tests) for _, tests in programs]
    for (at, chosen_places), outcomes in zip(places, box.evaluate(jobs, seconds=seconds, memory=memory), strict=True):
        for i, outcome in zip(chosen_places, outcomes, strict=True):
            found[at][i] = compared(programs[at][1][i], outcome, tolerance)
    return found


def compared(test: UnitTest, outcome: Outcome, tolerance: float = 0.0) -> Verdict:
    """Whether what came out is what is expected. All that a program does but answer right is a failed test.

    >>> compared(UnitTest("", "4 5\\n"), Outcome(Fate.OK, "4 5  \\n\\n"))
    Verdict(passed=True, reason='')
    >>> compared(UnitTest("", ""), Outcome(Fate.DIED, None, "died with signal 9"))
    Verdict(passed=False, reason='died: died with signal 9')
    """
    if outcome.fate is Fate.BROKEN:
        return Verdict(None, outcome.reason)
    if outcome.fate is not Fate.OK:
        return Verdict(False, f"{outcome.fate}: {outcome.reason}")
    if isinstance(test.given, str):
        right = same_output(outcome.value, test.expected)
    else:
        right = equal(outcome.value, test.expected, tolerance)
    return Verdict(right, "" if right else f"expected {test.expected!r:.60}, got {outcome.value!r:.60}")


def same_output(printed: str, expected: str) -> bool:
    """Whether two texts are the same but for spaces at the ends of lines and empty lines at the end."""
    return _lines(printed) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]
