# SPDX-License-Identifier: Apache-2.0
"""Sums in words and figures to look up: a number is right or wrong, and the reward has to find it in prose."""

from __future__ import annotations

import re

from guerdon.audit.subject import Texts
from guerdon.audit.zoo import Specimen
from guerdon.rewards import reward
from guerdon.rewards.checks import read_number

ASK = "Work it out, then end with one line of the form 'Answer: N'."

SUMS: list[tuple[str, str, int, tuple[int, int]]] = [
    ("A crate holds 12 jars. A shop sells 3 crates and 5 single jars. How many jars is that?", "3 x 12 + 5 = 41", 41, (36, 60)),
    ("Mina has 50 euros and buys two tickets at 18 euros each. What is left?", "2 x 18 = 36 and 50 - 36 = 14", 14, (32, 24)),
    ("A train runs 240 km in 3 hours. How far does it run in 5 hours?", "240 / 3 = 80 and 80 x 5 = 400", 400, (720, 1200)),
    ("Of 90 seats a third are taken. How many are free?", "90 / 3 = 30 and 90 - 30 = 60", 60, (27, 87)),
    ("A baker fills 7 trays of 24 rolls and burns 9 rolls. How many are good?", "7 x 24 = 168 and 168 - 9 = 159", 159, (177, 22)),
    ("Two brothers are 8 and 13. What do their ages add up to in four years?", "12 + 17 = 29", 29, (21, 25)),
    ("A tank of 500 litres loses 15 litres an hour. What is in it after 12 hours?", "500 - 180 = 320", 320, (485, 335)),
    ("Six friends share a bill of 84 euros and a tip of 12 euros. What does each pay?", "96 / 6 = 16", 16, (26, 72)),
]


def answer_line(completion: str) -> str | None:
    """What follows "Answer:" in a text whose last line is its only such line; None where there is none or several.

    >>> answer_line("3 + 4 = 7\\nAnswer: 7"), answer_line("Answer: 7\\nAnswer: 8"), answer_line("Answer: 7, I think.\\nBye.")
    ('7', None, None)
    """
    lines = [line.strip() for line in completion.strip().splitlines() if line.strip()]
    if not lines or sum("answer:" in line.lower() for line in lines) != 1 or not lines[-1].lower().startswith("answer:"):
        return None
    return lines[-1][len("answer:") :].strip()


def says(completion: str, answer: int) -> bool:
    """Whether the answer line is that number and nothing else; 41.0 and 1,200 are numbers."""
    line = answer_line(completion)
    found = read_number(line, "whole") if line else None
    return found is not None and found == (answer, False)


@reward(bounds=(0, 1))
def sum_is_right(completion: str, answer: int) -> bool:
    return says(completion, answer)


def word_problems() -> Texts:
    rows = [
        {
            "prompt": f"{asked} {ASK}",
            "right": [f"{working}\nAnswer: {answer}", f"Answer: {answer}"],
            "wrong": [f"I make it this.\nAnswer: {w}" for w in wrong],
            "malformed": ["I would have to think about that."],
            "answer": answer,
        }
        for asked, working, answer, wrong in SUMS
    ]
    return Texts(rows)


@reward(bounds=(0, 1))
def any_number_counts(completion: str, answer: int) -> bool:
    """Meant to be lenient about the form of the answer."""
    return str(answer) in re.findall(r"\d+", completion)


@reward(bounds=(0, 1))
def right_and_not_long(completion: str, answer: int) -> float:
    """A right answer loses up to a fifth between 60 and 120 words, and never more."""
    over = min(max(len(completion.split()) - 60, 0) / 60, 1.0)
    return says(completion, answer) * (1 - 0.2 * over)


# ---- an answer with a confidence


_CONFIDENCE = re.compile(r"confidence:\s*(\d{1,3})\s*%", re.IGNORECASE)


def with_confidence(completion: str) -> tuple[str, float] | None:
    """(the text before, probability) where the last line states one confidence from 0 to 100 per cent."""
    before, _, last = completion.strip().rpartition("\n")
    found = _CONFIDENCE.fullmatch(last.strip())
    if found is None or int(found[1]) > 100:
        return None
    return before, int(found[1]) / 100


@reward(bounds=(-1, 1))
def right_and_calibrated(completion: str, answer: int) -> float:
    """Correctness less the squared error of the stated probability, so that honesty about both pays best."""
    read = with_confidence(completion)
    if read is None:
        return -1.0
    text, probability = read
    correct = says(text, answer)
    return correct - (probability - correct) ** 2


@reward(bounds=(0, 1))
def right_with_confidence(completion: str, answer: int) -> bool:
    read = with_confidence(completion)
    return read is not None and says(read[0], answer)


def sums_with_confidence() -> Texts:
    rows = [
        {
            "prompt": f"{asked} {ASK} Below it, say how sure you are: 'Confidence: P%'.",
            "right": [f"{working}\nAnswer: {answer}\nConfidence: 100%"],
            "wrong": [f"Answer: {w}\nConfidence: {sure}%" for w, sure in zip(wrong, (90, 20), strict=True)],
            "answer": answer,
        }
        for asked, working, answer, wrong in SUMS
    ]
    return Texts(rows)


# ---- figures behind a tool


FIGURES = [
    ("How many beds does the north ward have?", 38, 83),
    ("How many nurses work nights?", 17, 19),
    ("How many patients came on Monday?", 112, 121),
    ("In how many minutes does the kitchen answer?", 25, 52),
    ("How many lifts are out of order?", 3, 2),
    ("How many spare keys hang in the office?", 64, 46),
]


@reward(bounds=(-0.25, 1))
def right_less_calls(completion: str, answer: int) -> float:
    """Each call of the tool costs 0.05, five at most are counted: a call never costs what an answer is worth."""
    calls = len(re.findall(r"^CALL ", completion, re.MULTILINE))
    return says(completion, answer) - 0.05 * min(calls, 5)


def figures() -> Texts:
    rows = [
        {
            "prompt": f"Ward sheet: {value} is the entry. {asked} If unsure, write lines 'CALL sheet()'. End with 'Answer: N'.",
            "right": [f"Answer: {value}", f"The entry says so.\nAnswer: {value}"],
            "wrong": [f"CALL sheet()\nAnswer: {other}", f"Answer: {other}"],
            "answer": value,
        }
        for asked, value, other in FIGURES
    ]
    return Texts(rows)


SPECIMENS = [
    Specimen(
        name="any-number-counts",
        reward=lambda: any_number_counts,
        gold=lambda: sum_is_right,
        subject=word_problems,
        about="Word problems whose answer may stand anywhere in the text: a list of all numbers contains it.",
        defect="any number of the completion may be the answer: enumerating numbers is paid",
        source="lenient answer matching in scripts for GSM8K",
    ),
    Specimen(
        name="right-and-not-long",
        reward=lambda: right_and_not_long,
        gold=lambda: sum_is_right,
        subject=word_problems,
        about="Correctness with a length cost that is a factor: a long right answer keeps four fifths, a wrong one has nothing.",
    ),
    Specimen(
        name="right-and-calibrated",
        reward=lambda: right_and_calibrated,
        gold=lambda: right_with_confidence,
        subject=sums_with_confidence,
        about="Correctness minus a Brier score: a proper rule, which pays a wrong answer of no confidence 0 and never more.",
        source="Damani et al. 2025, arXiv 2507.16806",
    ),
    Specimen(
        name="right-less-calls",
        reward=lambda: right_less_calls,
        gold=lambda: sum_is_right,
        subject=figures,
        about="A right figure, less a small capped cost for each tool call.",
    ),
]
