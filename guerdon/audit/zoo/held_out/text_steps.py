# SPDX-License-Identifier: Apache-2.0
"""Worked solutions: boxed answers, chains of sums, and reasoning between tags."""

from __future__ import annotations

import re

from guerdon.audit.subject import Texts
from guerdon.audit.zoo import Specimen
from guerdon.audit.zoo.held_out.text_sums import says
from guerdon.rewards import checkers, reward
from guerdon.rewards.checks import boxed, read_number

# ---- boxed answers, compared with the box of a model solution


BOXED = [
    ("Solve 3x - 7 = 14.", r"3x = 21, so \boxed{7}.", 7, (21, 3)),
    ("What is the remainder of 100 divided by 7?", r"7 \cdot 14 = 98, which leaves \boxed{2}.", 2, (14, 4)),
    ("How many diagonals has a hexagon?", "6 (6 - 3) / 2 = 9. The answer is 9.", 9, (6, 15)),
    ("What is the least common multiple of 6 and 8?", r"24 = 3 \cdot 8 = 4 \cdot 6: \boxed{24}", 24, (48, 2)),
    ("What is 15 % of 80?", "A tenth is 8 and half of that 4, together 12. The answer is 12.", 12, (15, 65)),
    ("How many primes lie below 20?", r"2, 3, 5, 7, 11, 13, 17, 19: \boxed{8}", 8, (7, 10)),
    (
        "What is the sum of the angles of a pentagon, in degrees?",
        "3 triangles of 180 are 540. The answer is 540.",
        540,
        (360, 72),
    ),
    ("What is 2 to the power of 9?", r"Doubling nine times gives \boxed{512}.", 512, (18, 256)),
]


@reward(bounds=(0, 1))
def same_box(completion: str, solution: str) -> bool:
    return boxed(completion) == boxed(solution)


@reward(bounds=(0, 1))
def one_right_box(completion: str, answer: int) -> bool:
    content = boxed(completion)
    if content is None or completion.count("\\boxed") != 1:
        return False
    found = read_number(content, "whole")
    return found is not None and found == (answer, False)


def boxed_problems() -> Texts:
    rows = [
        {
            "prompt": f"{asked} Put the final answer in \\boxed{{}}.",
            "right": [f"It comes to \\boxed{{{answer}}}.", f"\\boxed{{{answer}}}"],
            "wrong": [f"It comes to \\boxed{{{w}}}." for w in wrong],
            "solution": solution,
            "answer": answer,
        }
        for asked, solution, answer, wrong in BOXED
    ]
    return Texts(rows)


# ---- chains of sums


CHAINS = [((4, 9, 6), 18), ((12, 7, 21), 45), ((30, 14, 2), 47), ((8, 8, 15), 30), ((19, 6, 40), 66), ((25, 25, 11), 62)]
_EQUATION = re.compile(r"\s*(\d{1,6}) \+ (\d{1,6}) = (\d{1,7})\s*")


@reward(bounds=(0, 1))
def sum_holds(segment: str) -> bool:
    found = _EQUATION.fullmatch(segment)
    return found is not None and int(found[1]) + int(found[2]) == int(found[3])


@reward(bounds=(0, 1), name="correct")
def chain_is_right(completion: str, total: int) -> bool:
    return says(completion, total)


@reward(bounds=(0, 1))
def chain_is_worked(completion: str, numbers: tuple[int, ...], total: int) -> bool:
    """The right total, by no more steps than the chain has, all of which hold."""
    *steps, _ = completion.strip().splitlines() or [""]
    return says(completion, total) and len(steps) < len(numbers) and all(sum_holds(segment=s) for s in steps)


def chains() -> Texts:
    rows = []
    for numbers, slip in CHAINS:
        a, b, c = numbers
        rows.append(
            {
                "prompt": f"Add {a}, {b} and {c}, one sum a line, and end with 'Answer: N'.",
                "right": [f"{a} + {b} = {a + b}\n{a + b} + {c} = {a + b + c}\nAnswer: {a + b + c}"],
                "wrong": [f"{a} + {b} = {a + b}\n{a + b} + {c} = {slip}\nAnswer: {slip}", f"Answer: {a + b}"],
                "malformed": ["Adding is easy."],
                "numbers": numbers,
                "total": a + b + c,
            }
        )
    return Texts(rows)


# ---- reasoning between tags


TAGGED = [
    ("A square has a perimeter of 36. What is its area?", "36 / 4 = 9, squared", 81, (36, 9)),
    ("Which number is halfway between 18 and 40?", "(18 + 40) / 2", 29, (22, 58)),
    ("A clock loses 4 minutes a day. How many does it lose in two weeks?", "14 days of 4 minutes", 56, (8, 28)),
    ("What is the next number after 2, 6, 18, 54?", "each is three times the last", 162, (108, 90)),
    ("How many edges has a cube?", "4 at the top, 4 at the bottom, 4 between", 12, (8, 6)),
    ("What is minus 8 plus 3?", "3 up from minus 8", -5, (5, -11)),
]
LAYOUT = r"\s*<think>[^<>]*</think>\s*<answer>\s*-?\d[\d,]*(\.\d+)?\s*</answer>\s*"


@reward(bounds=(0, 1))
def tagged_and_right(completion: str, answer: int) -> bool:
    thought, opened, rest = completion.strip().partition("<answer>")
    inside, closed, after = rest.partition("</answer>")
    thought = thought.strip()
    framed = thought.startswith("<think>") and thought.endswith("</think>") and thought.count("<") == 2 == thought.count(">")
    found = read_number(inside.strip(), "whole")
    return bool(opened and closed and framed and not after.strip() and found == (answer, False))


def tagged() -> Texts:
    rows = [
        {
            "prompt": f"{asked} Think between <think> tags, then give the number between <answer> tags.",
            "right": [f"<think>{thought}</think>\n<answer>{n}</answer>", f"<think>{thought}</think> <answer> {n} </answer>"],
            "wrong": [f"<think>{thought}</think>\n<answer>{w}</answer>" for w in wrong],
            "malformed": [f"The answer is {n}.", f"<answer>{n}</answer>"],
            "answer": n,
        }
        for asked, thought, n, wrong in TAGGED
    ]
    return Texts(rows)


SPECIMENS = [
    Specimen(
        name="same-box",
        reward=lambda: same_box,
        gold=lambda: one_right_box,
        subject=boxed_problems,
        about="The boxed answer against the box of the model solution; some solutions have none, and then no box is a match.",
        defect="None equals None: where the gold answer cannot be read, a completion without an answer is paid",
        source="is_equiv(None, None) in the answer check of the MATH data set, copied by several trainers",
    ),
    Specimen(
        name="true-steps-summed",
        reward=lambda: chain_is_right + 0.25 * checkers.steps(sum_holds),
        gold=lambda: chain_is_worked,
        subject=chains,
        about="Every line that is a true sum earns a quarter, whatever it has to do with the task.",
        defect="step rewards are summed without limit: true lines that lead nowhere are paid one by one",
        source="Cheng et al. 2025, arXiv 2504.15275: process rewards that are summed are hacked by more steps",
    ),
    Specimen(
        name="number-in-its-tags",
        reward=lambda: checkers.numeric().gate(on=checkers.format(LAYOUT)),
        gold=lambda: tagged_and_right,
        subject=tagged,
        about="The last number counts, but only in a text that is as a whole one thought and one answer.",
    ),
]
