# SPDX-License-Identifier: Apache-2.0
"""Code as a reward: the completion holds a program, the field ``tests`` what it should do. The program runs in the sandbox.

    what became of a test                                     counts as
    --------------------------------------------------------  -----------------------------------------
    the program's answer is the expected one                  passed
    another answer, an error, an early end, more than its     failed: all that is the program's doing,
    memory, time or output                                    a hang included, since it has to answer in time
    the sandbox broke down                                    not judged: the completion's status is ERROR, never a 0

A completion without a program is judged as it is, so it fails. Tests that can't be read are an ERROR of their row; None abstains.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import ExpressionError, InputError
from guerdon.rewards.function import FunctionReward
from guerdon.rewards.pool import Outcome
from guerdon.rollouts import Rollouts
from guerdon.sandbox import UnitTest, Verdict, read_tests, run_tests, shared_box
from guerdon.sandbox import unit_tests as _unit_tests
from guerdon.scores import Bounds, Component, Status

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_PYTHON = ("python", "python3", "py")

_SOURCES = [Path(__file__), *(Path(_unit_tests.__file__).with_name(f"{name}.py") for name in ("harness", "unit_tests", "values"))]
_VERSION = hashlib.sha256(b"".join(p.read_bytes() for p in _SOURCES)).hexdigest()[:8]


def program_of(completion: str) -> str:
    """The program in a completion: the last block fenced as Python, else the last fenced at all, else the whole text.

    A block that is not closed reaches to the end.

    >>> program_of("So:\\n```python\\nx = 1\\n```\\nor\\n```\\nx = 2\\n```\\n")
    'x = 1\\n'
    >>> program_of("x = 3"), program_of("```\\nx = 4")
    ('x = 3', 'x = 4')
    """
    blocks = [(m[1].lower(), m[2]) for m in _FENCE.finditer(completion)]
    python = [text for language, text in blocks if language in _PYTHON]
    return (python or [text for _, text in blocks] or [completion])[-1]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class CodeReward(FunctionReward):
    """Unit tests of the program in the completion; see ``code``."""

    every_test: bool
    seconds: float
    memory: int
    tolerance: float

    def with_budget(self, seconds: float) -> CodeReward:
        return self  # each test has its own time, in the sandbox

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        units, items = self.items(rollouts)
        return self.scored(rollouts, units, self._judged([(x["completion"], x["tests"]) for x in items]))

    def _judged(self, items: Sequence[tuple[str, Any]]) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(items)
        programs: dict[int, tuple[str, list[UnitTest]]] = {}
        for i, (completion, tests) in enumerate(items):
            if tests is None:
                outcomes[i] = Outcome(Status.ABSTAIN, math.nan, "has no tests")
                continue
            try:
                programs[i] = (program_of(completion), read_tests(tests))
            except InputError as error:
                outcomes[i] = Outcome(Status.ERROR, math.nan, str(error))
        limits = {"seconds": self.seconds, "memory": self.memory, "tolerance": self.tolerance}
        verdicts = run_tests(shared_box(), list(programs.values()), **limits) if programs else []  # type: ignore[arg-type]
        for i, found in zip(programs, verdicts, strict=True):
            outcomes[i] = self._outcome(found)
        return [o for o in outcomes if o is not None]

    def _outcome(self, verdicts: Sequence[Verdict]) -> Outcome:
        if broken := [v.reason for v in verdicts if v.passed is None]:
            return Outcome(Status.ERROR, math.nan, f"{len(broken)} of {len(verdicts)} tests could not be run: {broken[0]}")
        passed = [bool(v.passed) for v in verdicts]
        value = float(all(passed)) if self.every_test else sum(passed) / len(passed)
        failed = {str(i): v.reason for i, v in enumerate(verdicts) if not v.passed}
        return Outcome(Status.OK, value, json.dumps({"passed": [int(p) for p in passed], "failed": failed}))


def code(
    *, every_test: bool = False, seconds: float = 5.0, memory: int = 512, tolerance: float = 0.0, tests: str = "tests"
) -> CodeReward:
    """Share of the unit tests that the program in the completion passes; with ``every_test``, 1 if it passes all, else 0.

    The field ``tests`` has for each row a list of {"input": text, "output": text} (standard input and output) or
    {"call": "f(1, 2)", "result": 3}. Programs run in the sandbox (Linux): nothing expected is in there with them.

    - seconds, memory: what one test may take, in wall time and in MiB. A program that takes longer has failed the test.
    - tolerance: bounds the absolute and the relative difference of floats in results.
    - tests: the field's name, where it is another.

    Which tests passed is in the reasons; ``passed`` makes a tensor of them.
    """
    if not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
        raise ExpressionError(f"code: `seconds` should be a number above 0, got {seconds!r}.")
    if isinstance(memory, bool) or not isinstance(memory, int) or memory < 1:
        raise ExpressionError(f"code: `memory` should be a whole number of MiB, got {memory!r}.")
    if not (isinstance(tolerance, int | float) and 0 <= tolerance < math.inf):
        raise ExpressionError(f"code: `tolerance` should be a number of at least 0, got {tolerance!r}.")
    given = {"every_test": every_test, "seconds": seconds, "memory": memory, "tolerance": tolerance, "tests": tests}
    said = [f"{name}={value!r}" for name, value in given.items() if value != (code.__kwdefaults__ or {})[name]]
    return CodeReward(
        name="code",
        bounds=Bounds(0, 1),
        needs=frozenset({"completion", tests}),
        version=_VERSION,
        function=program_of,
        reads={"completion": "completion", "tests": tests},
        written=f"code({', '.join(said)})" if said else "code",
        every_test=every_test,
        seconds=seconds,
        memory=memory,
        tolerance=tolerance,
    )


def passed(component: Component) -> Tensor:
    """[N, M] of the component of a ``code`` reward: 1 where row n passed its test m, 0 where not, NaN where it has none or was
    not judged. M is the largest number of tests that a row has.
    """
    rows: list[list[float]] = [[] for _ in range(component.values.shape[0])]
    for (n, k), reason in component.reasons.items():
        if component.ok[n, k]:
            rows[n] = [float(p) for p in json.loads(reason)["passed"]]
    most = max(map(len, rows), default=0)
    return torch.tensor([row + [math.nan] * (most - len(row)) for row in rows]).reshape(len(rows), most)
