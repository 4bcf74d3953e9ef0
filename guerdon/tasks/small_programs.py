# SPDX-License-Identifier: Apache-2.0
"""Small programs: a function of one number in a few lines of Python, with special cases that are easily forgotten.

    prompt      below 1 say 2, above 10 say 0, at 4 say 1, double, add 3:
    completion  def f(x):
                    if x < 1: return 2
                    if x > 10: return 0
                    if x == 4: return 1
                    x *= 2
                    x += 3
                    return x

A line is a token. Each task has twelve unit tests: nine on usual inputs, which the arithmetic decides, and one for each of the
three special cases, which its line decides. Without these lines a program passes nine of twelve. A special case that looks the
wrong way catches the usual inputs.

The tests are in the form of ``guerdon.rewards.code``. ``run`` does in microseconds what Python does with any sequence of `LINES`,
so that `Interpreted` stands in for ``code`` where many programs are to be judged.

The demonstrator leaves a stated share of the special cases out and errs on a stated share of the lines, in a way that depends on
what is asked for alone, so that it can be learnt and unlearnt: its special case looks the wrong way or says the next number, and
its arithmetic does what the next phrase asks for.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product, starmap
from random import Random
from typing import Any

import torch

from guerdon.errors import InputError
from guerdon.rewards import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, component
from guerdon.tasks.task import Task, task_key

HEAD, END = "def f(x):\n", "    return x\n"
ARITHMETIC = {
    "add 1": "    x += 1\n",
    "add 2": "    x += 2\n",
    "add 3": "    x += 3\n",
    "take 1": "    x -= 1\n",
    "take 2": "    x -= 2\n",
    "take 3": "    x -= 3\n",
    "double": "    x *= 2\n",
    "triple": "    x *= 3\n",
    "square": "    x *= x\n",
    "negate": "    x = -x\n",
}
LOW, HIGH, PLACES, SAID = 1, 10, (4, 7), range(3)
SIGNS = {"below": ("<", ">"), "above": (">", "<"), "at": ("==", "!=")}
"""Of each special case: how it is written, and how when it looks the wrong way."""

_WHERE = [("below", LOW), ("above", HIGH), *(("at", place) for place in PLACES)]
LINES = (
    HEAD,
    *(f"    if x {sign} {at}: return {n}\n" for kind, at in _WHERE for sign in SIGNS[kind] for n in SAID),
    *ARITHMETIC.values(),
    END,
)
"""The lines a program is made of."""

TOKENS = (*LINES, *(f"{kind} {at} say {n}, " for kind, at in _WHERE for n in SAID), *ARITHMETIC, ", ", ":")
"""The pieces a prompt and a completion are made of."""

USUAL, SPECIAL = 9, 3
"""Tests of each kind, in this order."""

_PROMPT = re.compile(rf"below {LOW} say (\d), above {HIGH} say (\d), at (\d) say (\d), (\w+(?: \d)?(?:, \w+(?: \d)?)*):")
_CASE, _CHANGE = re.compile(r"    if x (\S+) (\d+): return (\d)\n"), re.compile(r"    x (\S)?= (-?)(x|\d)\n")
_HOLDS: dict[str, Callable[[int, int], bool]] = {
    "<": lambda x, y: x < y,
    ">": lambda x, y: x > y,
    "==": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
}

Asked = tuple[int, int, int, int, Sequence[str]]
"""What to say below and above, where a number is special, what to say there, and the phrases of arithmetic."""


def make_tasks(n: int, steps: int, seed: int) -> list[Task]:
    """``n`` different tasks of ``steps`` lines of arithmetic, none of them held out; the field ``tests`` has their tests.

    >>> task = make_tasks(1, steps=2, seed=0)[0]
    >>> task.prompt, task.fields["tests"][0], task.fields["tests"][-1]
    ('below 1 say 1, above 10 say 1, at 7 say 1, negate, square:', {'call': 'f(1)', 'result': 1}, {'call': 'f(7)', 'result': 1})
    """
    return _tasks(n, steps, Random(f"small programs {seed}"), lambda p: not is_held_out(p))


def held_out_tasks(n: int, steps: int, seed: int) -> list[Task]:
    """``n`` different tasks that no training set or demonstration holds."""
    return _tasks(n, steps, Random(f"small programs, held out {seed}"), is_held_out)


def is_held_out(prompt: str) -> bool:
    """One prompt in five, by its checksum."""
    return zlib.crc32(prompt.encode()) % 5 == 0


def solution(prompt: str) -> str:
    """The program that a prompt asks for.

    >>> print(solution("below 1 say 2, above 10 say 0, at 4 say 1, double:"), end="")
    def f(x):
        if x < 1: return 2
        if x > 10: return 0
        if x == 4: return 1
        x *= 2
        return x
    """
    below, above, place, there, phrases = _read(prompt)
    said = {"below": (LOW, below), "above": (HIGH, above), "at": (place, there)}
    cases = [f"    if x {SIGNS[kind][0]} {at}: return {n}\n" for kind, (at, n) in said.items()]
    return "".join([HEAD, *cases, *(ARITHMETIC[p] for p in phrases), END])


def unit_tests(prompt: str) -> list[dict[str, Any]]:
    """Nine tests on the usual inputs, then one below, one above and one at the special number."""
    place = _read(prompt)[2]
    inputs = [x for x in range(LOW, HIGH + 1) if x != place] + [LOW - 2, HIGH + 2, place]
    program = solution(prompt)
    return [{"call": f"f({x})", "result": run(program, x)} for x in inputs]


def demonstrations(
    n: int, steps: int, seed: int, *, errors: float, attempted: float, looks_wrong: float, says_wrong: float
) -> list[tuple[str, str]]:
    """``n`` (prompt, completion) on prompts that aren't held out.

    ``errors`` share of wrong lines of arithmetic; ``attempted`` share of special cases with a line, of which ``looks_wrong`` look
    the wrong way and ``says_wrong`` say the wrong number.

    >>> prompt, program = demonstrations(1, 1, seed=0, errors=0.0, attempted=1.0, looks_wrong=1.0, says_wrong=0.0)[0]
    >>> prompt, program.splitlines()[2:4]
    ('below 1 say 0, above 10 say 0, at 7 say 2, double:', ['    if x < 10: return 0', '    if x != 7: return 2'])
    """
    random, names = Random(f"small programs, shown {seed}"), list(ARITHMETIC)
    shown: list[tuple[str, str]] = []
    while len(shown) < n:
        below, above, there = random.choices(SAID, k=3)
        place, phrases = random.choice(PLACES), random.choices(names, k=steps)
        prompt = _prompt(below, above, (place, there), phrases)
        if is_held_out(prompt):
            continue
        written = HEAD
        for kind, at, said in (("below", LOW, below), ("above", HIGH, above), ("at", place, there)):
            sign = SIGNS[kind][random.random() < looks_wrong]
            number = (said + (random.random() < says_wrong)) % len(SAID)
            written += f"    if x {sign} {at}: return {number}\n" * (random.random() < attempted)
        for p in phrases:
            written += ARITHMETIC[names[(names.index(p) + (random.random() < errors)) % len(names)]]
        shown.append((prompt, written + END))
    return shown


def run(program: str, x: int) -> int | None:
    """f(x) of a program made of `LINES`; None where Python would not load it, or f returns nothing.

    >>> program = solution("below 1 say 2, above 10 say 0, at 4 say 1, double, add 3:")
    >>> [run(program, x) for x in (5, 0, 12, 4)], run("", 5), run(program.removesuffix(END), 5)
    ([13, 2, 0, 1], None, None)
    """
    for line in _body(program):
        if line == END:
            return x
        if case := _CASE.fullmatch(line):
            if _HOLDS[case[1]](x, int(case[2])):
                return int(case[3])
        elif change := _CHANGE.fullmatch(line):
            x = _changed(x, *change.groups())
    return None


@lru_cache(maxsize=1 << 16)
def passes(completion: str, prompt: str) -> tuple[bool, ...]:
    """Which of the prompt's tests the program passes.

    >>> prompt = "below 1 say 2, above 10 say 0, at 4 say 1, double:"
    >>> [int(p) for p in passes(solution(prompt).replace("    if x < 1: return 2\\n", ""), prompt)]
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1]
    """
    return tuple(run(completion, x) == expected for x, expected in _expected(prompt))


@lru_cache(maxsize=1 << 13)
def _expected(prompt: str) -> list[tuple[int, int]]:
    return [(int(t["call"][2:-1]), t["result"]) for t in unit_tests(prompt)]


def verdicts(rollouts: Rollouts) -> list[tuple[bool, ...]]:
    """Of each row, which tests its program passes."""
    said, asked = (rollouts.values_at(name, "episode") for name in ("completion", "prompt"))
    return [passes(c, p) for c, p in zip(said, asked, strict=True)]


def shares(rollouts: Rollouts) -> dict[str, float]:
    """Of programs that pass all tests (``success``), and of the ``usual`` and the ``special`` tests that are passed."""
    passed = torch.tensor(verdicts(rollouts)).double()
    usual, special = passed.split([USUAL, SPECIAL], 1)
    return {"success": passed.amin(1).mean().item(), "usual": usual.mean().item(), "special": special.mean().item()}


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Interpreted(Reward):
    """Share of the tests that the program passes, by ``run``; the reasons say which, as those of ``code`` do."""

    name: str = "tests"
    bounds: Bounds = Bounds(0, 1)
    needs: frozenset[str] = frozenset({"completion", "prompt"})

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        passed = [[int(p) for p in row] for row in verdicts(rollouts)]
        reasons = {(n, 0): json.dumps({"passed": row}) for n, row in enumerate(passed)}
        share = torch.tensor(passed, dtype=torch.get_default_dtype()).mean(1, keepdim=True)
        return component(self.name, "episode", share, reasons=reasons)


def _body(program: str) -> Sequence[str]:
    """The lines of the last function; none where some function is empty or a line is in none, which Python refuses."""
    before, *bodies = program.split(HEAD)
    return bodies[-1].splitlines(keepends=True) if bodies and not before and all(bodies) else ()


def _changed(x: int, sign: str | None, minus: str, operand: str) -> int:
    by = x if operand == "x" else int(operand)
    by = -by if minus else by
    return {None: by, "+": x + by, "-": x - by, "*": x * by}[sign]


def _tasks(n: int, steps: int, random: Random, belongs: Callable[[str], bool]) -> list[Task]:
    every = product(SAID, SAID, product(PLACES, SAID), product(ARITHMETIC, repeat=steps))
    prompts = [p for p in starmap(_prompt, every) if belongs(p)]
    if steps < 1 or not 0 <= n <= len(prompts):
        raise InputError(
            f"small_programs: expected steps ≥ 1 and 0 ≤ n ≤ {len(prompts)}, as many prompts as there are of this kind, got "
            f"steps = {steps} and n = {n}. Usual cause: more tasks than such short programs have."
        )
    random.shuffle(prompts)
    return [Task(task_key(p), p, {"tests": unit_tests(p)}) for p in prompts[:n]]


def _prompt(below: int, above: int, at: tuple[int, int], phrases: Sequence[str]) -> str:
    cases = f"below {LOW} say {below}, above {HIGH} say {above}, at {at[0]} say {at[1]}, "
    return cases + ", ".join(phrases) + ":"


def _read(prompt: str) -> Asked:
    read = _PROMPT.fullmatch(prompt)
    if read is None:
        raise InputError(
            "small_programs: expected a prompt like 'below 1 say 2, above 10 say 0, at 4 say 1, double, add 3:', got "
            f"{prompt!r}. Usual cause: the prompt of another task, or prompt and completion exchanged."
        )
    return int(read[1]), int(read[2]), int(read[3]), int(read[4]), read[5].split(", ")
