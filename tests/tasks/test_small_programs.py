# SPDX-License-Identifier: Apache-2.0
"""Small programs: the tests of a task, the demonstrator, and an interpreter that says what Python says."""

from __future__ import annotations

from random import Random

import pytest

from guerdon.errors import InputError
from guerdon.rewards.code import code, passed
from guerdon.sandbox import SandboxUnavailable
from guerdon.tasks import small_programs as programs

PROMPT = "below 1 say 2, above 10 say 0, at 4 say 1, double, add 3:"
WHOLE = programs.solution(PROMPT)
BELOW, ABOVE, AT = ("    if x < 1: return 2\n", "    if x > 10: return 0\n", "    if x == 4: return 1\n")


def ticks(program: str, prompt: str = PROMPT) -> str:
    return "".join("01"[p] for p in programs.passes(program, prompt))


@pytest.mark.parametrize(
    ("program", "passes"),
    [
        (WHOLE, "111111111111"),
        (WHOLE.replace(BELOW, ""), "111111111011"),
        (WHOLE.replace(BELOW, "").replace(ABOVE, "").replace(AT, ""), "111111111000"),
        (WHOLE.replace("x += 3", "x += 2"), "000000000111"),  # the special cases don't need the arithmetic
        (WHOLE.replace(BELOW, BELOW.replace("<", ">")), "100000000000"),  # the wrong way: catches all usual inputs but 1
        (WHOLE.replace(AT, AT.replace("==", "!=")), "000000000110"),
        (WHOLE.replace(programs.END, ""), "000000000111"),  # the usual inputs meet no return
        (WHOLE.replace(programs.HEAD, ""), "000000000000"),
        (programs.HEAD + WHOLE, "000000000000"),  # a function without a body
        ("    return x\n" + WHOLE, "000000000000"),
        (programs.HEAD + programs.END + WHOLE, "111111111111"),  # the last definition counts
        ("", "000000000000"),
    ],
)
def test_what_a_program_passes(program: str, passes: str) -> None:
    assert ticks(program) == passes


def test_tests_are_those_of_the_description() -> None:
    """Written out: 2x + 3 on 1 to 10 but 4, then 2 below, 0 above and 1 at 4."""
    found = [(t["call"], t["result"]) for t in programs.unit_tests(PROMPT)]
    usual = [(f"f({x})", 2 * x + 3) for x in (1, 2, 3, 5, 6, 7, 8, 9, 10)]
    assert found == [*usual, ("f(-1)", 2), ("f(12)", 0), ("f(4)", 1)]


def test_tasks_are_different_and_held_out_ones_apart() -> None:
    shown = {p for p, _ in programs.demonstrations(500, 2, 1, errors=0.0, attempted=1.0, looks_wrong=0.0, says_wrong=0.0)}
    train = [str(t.prompt) for t in programs.make_tasks(600, 2, 1)]
    held = [str(t.prompt) for t in programs.held_out_tasks(200, 2, 0)]
    assert len(set(train)) == 600 and len(set(held)) == 200
    assert all(map(programs.is_held_out, held)) and not any(map(programs.is_held_out, [*train, *shown]))
    assert [t.prompt for t in programs.make_tasks(5, 2, 1)] == train[:5]
    with pytest.raises(InputError, match="as many prompts as there are"):
        programs.held_out_tasks(10**5, 2, 0)
    with pytest.raises(InputError, match="expected a prompt like"):
        programs.solution(WHOLE)


def test_the_demonstrator_errs_as_told() -> None:
    shares = {"errors": 0.3, "attempted": 0.4, "looks_wrong": 0.25, "says_wrong": 0.5}
    shown = programs.demonstrations(1500, 2, 3, **shares)
    cases = [line for _, program in shown for line in program.splitlines() if " if " in line]
    asked = {p: programs.solution(p) for p, _ in shown}
    wrong_way = sum(sign in line for line in cases for sign in ("x > 1:", "x < 10:", "!="))
    right = sum(f"{line}\n" in asked[p] for p, program in shown for line in program.splitlines() if " if " in line)
    last = sum(program.splitlines()[-2] == asked[p].splitlines()[-2] for p, program in shown)
    assert len(cases) / 4500 == pytest.approx(0.4, abs=0.03)
    assert wrong_way / len(cases) == pytest.approx(0.25, abs=0.03)
    assert right / len(cases) == pytest.approx(0.75 * 0.5, abs=0.04)
    assert last / 1500 == pytest.approx(0.7, abs=0.04)


def test_mistakes_are_the_same_for_the_same_phrase() -> None:
    shown = programs.demonstrations(400, 1, 5, errors=0.5, attempted=0.0, looks_wrong=0.0, says_wrong=0.0)
    written: dict[str, set[str]] = {}
    for prompt, program in shown:
        written.setdefault(prompt.split(", ")[-1], set()).add(program)
    assert len(written) == 10 and {len(x) for x in written.values()} == {2}


def sampled(count: int) -> list[tuple[str, str]]:
    """(program, prompt): any lines in any order, as an untrained policy writes them, and right programs with a line changed."""
    random, out = Random("sample"), []
    for i, task in enumerate(programs.make_tasks(count, 2, 7)):
        lines = programs.solution(str(task.prompt)).splitlines(keepends=True)
        if i % 2:
            lines = [programs.HEAD] * random.randint(0, 1) + random.choices(programs.LINES, k=random.randint(0, 7))
        else:
            at = random.randrange(len(lines))
            lines[at : at + random.randint(0, 1)] = random.choices(programs.LINES, k=random.randint(0, 1))
        out.append(("".join(lines), str(task.prompt)))
    return out


def test_the_interpreter_agrees_with_python_in_the_sandbox() -> None:
    """On every test of every sampled program."""
    said = sampled(200)
    tests = [programs.unit_tests(prompt) for _, prompt in said]
    try:
        found = code()(completions=[program for program, _ in said], tests=tests).total
    except SandboxUnavailable as missing:
        pytest.skip(str(missing))
    mine = [[float(p) for p in programs.passes(program, prompt)] for program, prompt in said]
    assert passed(found).tolist() == mine
    assert 0.1 < sum(map(sum, mine)) / (12 * len(mine)) < 0.9  # of both kinds there are many


def test_the_reward_says_what_code_says() -> None:
    reward = programs.Interpreted()
    scores = reward(completions=[WHOLE, WHOLE.replace(AT, "")], prompts=[PROMPT] * 2)
    assert passed(scores.total).tolist() == [[1.0] * 12, [1.0] * 11 + [0.0]]
    assert scores.total.values[:, 0].tolist() == pytest.approx([1.0, 11 / 12])
