# SPDX-License-Identifier: Apache-2.0
"""Running digits: add a row of digits one at a time, writing the last digit of each running total.

    prompt      5+8+4+7:
    completion  +5=5+8=3+4=7+7=4

A step repeats the digit to add and writes the new total: two tokens, so that a completion of K steps is 2K tokens of
`TOKENS`. The total starts at 0; a prompt of K digits asks for K steps.

**Which step is right.** Step k is right if it adds the k-th digit asked for to the total *written* just before it:

    digit_k = asked_k   and   total_k = (total_{k-1} + digit_k) mod 10,   total_0 = 0.

Judged against the written total and not the true one, a mistake is charged once, to the step that made it, and the steps
after it can still be right. By induction all steps asked for are right if and only if the whole chain is; a right chain
has the right last digit. A right last digit alone proves less: two mistakes can cancel.

**The demonstrator.** Each of the 100 pairs (total, digit) has one fixed wrong answer, which the demonstrator gives half the
time, and it goes on from the total it wrote, right or wrong. So each step is a function of the two tokens it can see, the
written total and the digit, and a small model learns it quickly: half its steps are right and a chain of K is with
probability 2⁻ᴷ. Going on from the true total instead would make the written one useless half the time, and the step a
sum modulo 10 of the whole row, which a small model does not learn from a few thousand examples.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from random import Random

from guerdon.errors import InputError
from guerdon.tasks.task import Task, task_key

TOKENS = (*"0123456789", *(f"+{d}" for d in range(10)), *(f"={d}" for d in range(10)), ":")
"""The pieces a prompt and a completion are made of; a longer piece goes before a shorter one."""

_PROMPT = re.compile(r"[0-9](\+[0-9])*:")
_STEP = re.compile(r"\+[0-9]=[0-9]")
_TOTAL = re.compile(r"=([0-9])")


def make_tasks(n: int, steps: int, seed: int) -> list[Task]:
    """`n` different training tasks of `steps` additions; the first tasks of a larger `n` are the same.

    Fields: `answer`, the last digit, and `steps`, the right chain cut into steps. No prompt is ever a held-out one.

    >>> task = make_tasks(1, steps=3, seed=0)[0]
    >>> task.prompt, task.fields["steps"], task.fields["answer"]
    ('8+7+5:', ['+8=8', '+7=5', '+5=0'], '0')
    """
    return [_task(digits) for digits in _digits(n, steps, Random(f"tasks {seed}"), lambda p: not is_held_out(p))]


def held_out_tasks(n: int, steps: int, seed: int) -> list[Task]:
    """`n` different tasks that no training set or demonstration holds, whatever its seed and size."""
    return [_task(digits) for digits in _digits(n, steps, Random(f"held out {seed}"), is_held_out)]


def is_held_out(prompt: str) -> bool:
    """One prompt in five, by its checksum: which part a prompt belongs to depends on nothing but itself."""
    return zlib.crc32(prompt.encode()) % 5 == 0


def demonstrations(n: int, steps: int, seed: int) -> list[tuple[str, str]]:
    """`n` (prompt, completion) on training prompts by a demonstrator that errs on half its steps; see the module.

    >>> demonstrations(1, steps=4, seed=0)
    [('4+8+9+9:', '+4=4+8=3+9=7+9=2')]
    """
    table, random = wrong_table(seed), Random(f"demonstrations {seed}")
    shown = []
    for digits in _digits(n, steps, random, lambda p: not is_held_out(p)):
        total, written = 0, ""
        for digit in digits:
            total = table[total][digit] if random.random() < 0.5 else (total + digit) % 10
            written += f"+{digit}={total}"
        shown.append((_prompt(digits), written))
    return shown


def wrong_table(seed: int) -> list[list[int]]:
    """``[total][digit]`` -> the demonstrator's one wrong answer to total + digit, never the right one."""
    random = Random(f"wrong table {seed}")
    return [[(total + digit + random.randint(1, 9)) % 10 for digit in range(10)] for total in range(10)]


def written_steps(completion: str) -> list[str]:
    """A completion cut before each ``+``; the pieces joined are the completion again, whatever it is.

    >>> written_steps("+8=3+4=7"), written_steps("=3+8+4=7:")
    (['+8=3', '+4=7'], ['=3', '+8', '+4=7:'])
    """
    return [piece for piece in re.split(r"(?=\+)", completion) if piece]


def step_is_right(completion: str, prompt: str) -> list[bool]:
    """Whether each written step is right, by the module's definition, in order.

    A garbled step is wrong, and so is one beyond those the prompt asks for. A step after a garbled one goes on from the
    last total that can be read. A step that is missing has no entry: `success` is what notices.

    >>> step_is_right("+8=8+4=3+7=0", "8+4+7:")  # 8 + 4 ends in 2, but 3 + 7 does end in 0
    [True, False, True]
    >>> step_is_right("+8=8+4+7=5", "8+4+7:"), step_is_right("", "8:"), step_is_right("+8=8+4=2", "8:")
    ([True, False, True], [], [True, False])
    """
    asked, total = _read(prompt), 0
    right = []
    for k, step in enumerate(written_steps(completion)):
        in_form = _STEP.fullmatch(step) is not None and k < len(asked)
        right.append(in_form and int(step[1]) == asked[k] and int(step[3]) == (total + asked[k]) % 10)
        readable = _TOTAL.findall(step)
        total = int(readable[-1]) if readable else total
    return right


def success(completion: str, prompt: str) -> bool:
    """Whether the whole chain is there and right.

    >>> success("+5=5+8=3+4=7+7=4", "5+8+4+7:"), success("+5=5+8=3+4=7", "5+8+4+7:")
    (True, False)
    """
    return completion == "".join(_chain(_read(prompt)))


def _digits(n: int, steps: int, random: Random, belongs: Callable[[str], bool]) -> list[list[int]]:
    """`n` different rows of `steps` digits whose prompts belong to one part, drawn uniformly from it."""
    if steps < 1 or n < 0 or n > 10 ** (steps - 1):
        raise InputError(
            f"running_digits: expected steps ≥ 1 and 0 ≤ n ≤ 10^(steps - 1), so that n different prompts are quickly found; "
            f"got steps = {steps} and n = {n}. Usual cause: more tasks than so short a chain has."
        )
    rows: dict[str, list[int]] = {}
    while len(rows) < n:
        digits = random.choices(range(10), k=steps)
        prompt = _prompt(digits)
        if belongs(prompt):
            rows.setdefault(prompt, digits)
    return list(rows.values())


def _prompt(digits: list[int]) -> str:
    return "+".join(map(str, digits)) + ":"


def _read(prompt: str) -> list[int]:
    """The digits of a prompt."""
    if not _PROMPT.fullmatch(prompt):
        raise InputError(
            f"running_digits: expected a prompt like '5+8+4+7:', got {prompt!r}. "
            "Usual cause: the prompt of another task, or prompt and completion exchanged."
        )
    return [int(digit) for digit in prompt[:-1].split("+")]


def _chain(digits: list[int]) -> list[str]:
    """The right steps."""
    total, steps = 0, []
    for digit in digits:
        total = (total + digit) % 10
        steps.append(f"+{digit}={total}")
    return steps


def _task(digits: list[int]) -> Task:
    prompt, steps = _prompt(digits), _chain(digits)
    return Task(task_key(prompt, steps[-1][-1]), prompt, {"answer": steps[-1][-1], "steps": steps})
