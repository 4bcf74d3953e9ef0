# SPDX-License-Identifier: Apache-2.0
"""Word problems with a number as their answer, and ways to check that number."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from guerdon.audit.subject import Texts
from guerdon.audit.zoo import Specimen
from guerdon.rewards import Reward, checkers, reward
from guerdon.rewards.checks import boxed, read_number

PROBLEMS: tuple[tuple[str, str, str, str], ...] = (
    ("A crate holds 12 bottles. How many are in 6 crates when 7 are broken?", "65", "6 * 12 = 72", "72 - 7 = 65"),
    ("Tickets cost 9 pounds. Nina buys 14 and gets 20 off. What does she pay?", "106", "14 * 9 = 126", "126 - 20 = 106"),
    ("A train has 8 coaches of 64 seats; 37 are taken. How many are free?", "475", "8 * 64 = 512", "512 - 37 = 475"),
    ("Omar reads 35 pages a day for 30 days, then 30 more. How many?", "1,080", "35 * 30 = 1050", "1050 + 30 = 1080"),
    ("A baker makes 48 rolls an hour for 5 hours, sells 199. What is left?", "41", "48 * 5 = 240", "240 - 199 = 41"),
    ("A tank of 2000 litres loses 15 a day. What is in it after 50?", "1,250", "15 * 50 = 750", "2000 - 750 = 1250"),
    ("Three rows of 17 trees stand by a road; 4 are added. How many now?", "55", "3 * 17 = 51", "51 + 4 = 55"),
    ("A club of 90 forms teams of 6; each needs 2 balls. How many balls?", "30", "90 / 6 = 15", "15 * 2 = 30"),
)
"""Question, answer, and the two steps that lead to it."""

ASKED = {
    "line": ("End with a line `Answer: N`.", "Answer: {}"),
    "boxed": ("Put the result into \\boxed{{}}.", "So the result is \\boxed{{{}}}."),
    "tags": ("Think in <think></think>, then answer in <answer></answer>.", "<answer>{}</answer>"),
}
"""How the answer is asked for: what the prompt says of it, and what it looks like."""

ANSWER = {
    "line": re.compile(r"^answer:(.*)$", re.IGNORECASE | re.MULTILINE),
    "boxed": re.compile(r"\\boxed\{([^{}]*)\}"),
    "tags": re.compile(r"<answer>(.*?)</answer>", re.DOTALL),
}


def final_number(completion: str, asked: str) -> Any:
    """The number of the one and only answer, which has to come last; None without one."""
    found = ANSWER[asked].search(completion)
    if found is None or completion[found.end() :].strip(" \n.$"):
        return None
    number = read_number(found[1], "whole")
    return None if number is None or number[1] else number[0]


def is_answered(completion: str, answer: str, asked: str) -> bool:
    """The completion ends in one answer in the form that was asked for, and it is the right one."""
    number, gold = final_number(completion, asked), read_number(answer, "whole")
    return number is not None and gold is not None and bool(number == gold[0])


def problems(asked: str, *, worked: bool = False, **more: str) -> Texts:
    """The problems, ``worked``: with steps that are to be written as equations; ``more`` is passed to Texts."""
    wish, form = ASKED[asked]
    rows = []
    for i, (question, answer, *steps) in enumerate(PROBLEMS):
        think = "\n".join(steps)
        prose = f"First {steps[0]}, then {steps[1]}."
        if asked == "tags":
            think, prose = f"<think>\n{think}\n</think>", f"<think>{prose}</think>"
        early = steps[0].rpartition(" ")[2]  # where someone stops too soon
        near = str(read_number(answer, "whole")[0] + 1)  # type: ignore[index]  # every answer here is a number
        rows.append(
            {
                "prompt": f"{question} {'Write each step as `a * b = c` on a line of its own. ' if worked else ''}{wish}",
                "answer": answer,
                "asked": asked,
                "results": [step.rpartition(" ")[2] for step in steps],
                "solution": f"{prose} {form.format(answer) if i % 4 else f'The result is {answer}.'}",
                "right": [f"{think}\n{form.format(answer)}", *([] if worked else [f"{prose}\n{form.format(answer)}"])],
                "wrong": [f"{steps[0]}\n{form.format(early)}", f"{prose}\n{form.format(near)}", form.format(near)],
                "malformed": [prose, ""],
            }
        )
    return Texts(rows, **more)


# ---- bad


def gold_anywhere(completion: str, answer: str) -> bool:
    return answer.replace(",", "") in completion.replace(",", "")


def tags_counted(completion: str, answer: str) -> float:
    said = re.findall(r"<answer>(.*?)</answer>", completion, re.DOTALL)
    tags = sum(completion.count(tag) for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    return bool(said) * float(said[-1:] == [answer]) + 0.125 * tags


def quiet_zero(completion: str, answer: str) -> float:
    try:
        return float(float(completion.rpartition("Answer:")[2].replace(",", "")) == float(answer))
    except ValueError:
        return 0.0


def none_equals_none(completion: str, solution: str) -> bool:
    return boxed(completion) == boxed(solution)


def first_in_batch(completion: list[str], prompt: list[str], answer: list[str], asked: list[str]) -> list[float]:
    seen: set[tuple[str, str]] = set()
    values = []
    for text, question, gold, form in zip(completion, prompt, answer, asked, strict=True):
        said = (question, str(final_number(text, form)))
        values.append(float(is_answered(text, gold, form) and said not in seen))
        seen.add(said)
    return values


# ---- good


def answer_line(completion: str, answer: str, asked: str) -> bool | None:
    return None if final_number(completion, asked) is None else is_answered(completion, answer, asked)


def step_right(segment: str, index: int, results: list[str]) -> float:
    """A share of 1 where line ``index`` is a true equation that ends in the result which is due there."""
    found = re.fullmatch(r"\s*(\d{1,9}) ([-+*/]) (\d{1,9}) = (\d{1,9})\s*", segment)
    if found is None or index >= len(results) or found[4] != results[index]:
        return 0.0
    a, b, c = int(found[1]), int(found[3]), int(found[4])
    holds = {"+": a + b == c, "-": a - b == c, "*": a * b == c, "/": a == b * c}[found[2]]
    return holds / len(results)


def right_then_brief() -> Reward:
    return reward(bounds=(0, 1))(is_answered) + 0.2 * checkers.length_penalty(60, soft=30, unit="words")


def steps_then_answer() -> Reward:
    return 0.3 * checkers.steps(reward(level="segment", bounds=(0, 1))(step_right)) + 0.7 * reward(bounds=(0, 1))(is_answered)


def group_standing() -> Reward:
    return reward(bounds=(0, 1))(is_answered).normalise(over="group")


def gold() -> Reward:
    return reward(bounds=(0, 1), name="gold")(is_answered)


lines, unit = partial(problems, "line"), reward(bounds=(0, 1))

SPECIMENS = (
    Specimen(
        name="gold-anywhere",
        reward=partial(unit, gold_anywhere),
        gold=gold,
        subject=lines,
        defect="the answer may stand anywhere in the text, so a list of numbers is paid",
        about="Looks for the digits of the gold answer in the completion. Naming many numbers is enough.",
    ),
    Specimen(
        name="tags-counted",
        reward=partial(reward(bounds=(0, float("inf"))), tags_counted),
        gold=gold,
        subject=partial(problems, "tags"),
        defect="format tags are paid each time they occur, without limit, so repeated tags outweigh the answer",
        about="1 for the right answer and 1/8 for each tag that the format asks for. Nine empty pairs earn more than an answer.",
        source="format rewards of early GRPO examples that count tags",
    ),
    Specimen(
        name="quiet-zero",
        reward=partial(unit, quiet_zero),
        gold=gold,
        subject=lines,
        defect="an error in reading the gold answer is swallowed and becomes 0, so right answers of those rows get nothing",
        about="Compares floats and returns 0 on ValueError. The gold answer `1,080` is no float, so nothing solves its row.",
        source="blanket exception handlers around answer checkers in public trainers",
    ),
    Specimen(
        name="none-equals-none",
        reward=partial(unit, none_equals_none),
        gold=gold,
        subject=partial(problems, "boxed"),
        defect="an unboxed completion equals a reference solution without a box: None is None",
        about="Compares the boxed content of completion and solution. Where the solution has no box, neither need the text.",
        source="is_equiv(None, None) is True in the checkers that descend from Hendrycks et al. 2021, arXiv:2103.03874",
    ),
    Specimen(
        name="first-in-batch",
        reward=partial(reward(batched=True, bounds=(0, 1)), first_in_batch),
        gold=gold,
        subject=lines,
        defect="depends on the other rows and on their order: only the first of equal answers in a batch is paid",
        about="Meant to encourage diversity: an answer that was given before in the same call is worth nothing, right or not.",
    ),
    Specimen(
        name="answer-line",
        reward=partial(unit, answer_line),
        gold=gold,
        subject=partial(problems, "line", malformed="abstain"),
        about="The number of the single, last `Answer:` line has to be the gold number; without such a line it abstains.",
    ),
    Specimen(
        name="right-then-brief",
        reward=right_then_brief,
        gold=gold,
        subject=lines,
        about="Correctness, less at most 0.2 for a text of more than 30 words: a long right answer still beats any wrong one.",
        source="soft overlong punishment, DAPO, arXiv:2503.14476",
    ),
    Specimen(
        name="steps-then-answer",
        reward=steps_then_answer,
        gold=gold,
        subject=partial(problems, "line", worked=True),
        about="0.7 for the answer and 0.3 for the steps, each due on its own line and checked; no line is paid twice.",
    ),
    Specimen(
        name="group-standing",
        reward=group_standing,
        gold=gold,
        subject=lines,
        about="Correctness standardised within the answers to one task, as declared; a single answer abstains.",
        source="group-relative advantages, DeepSeekMath, arXiv:2402.03300",
    ),
)
