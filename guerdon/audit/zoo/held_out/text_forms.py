# SPDX-License-Identifier: Apache-2.0
"""Answers of a fixed form: choices, records, orders, one of many, and rewards that look at more than one of them."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

from guerdon.audit.subject import Texts
from guerdon.audit.zoo import Specimen
from guerdon.rewards import checkers, reward

# ---- one of many answers


OPEN = [
    ("a prime number between 20 and 50", ["23", "29", "31", "37", "41", "43", "47"], ["27", "39"]),
    ("a month with 31 days", ["January", "March", "May", "July", "August", "October", "December"], ["June", "April"]),
    ("a country that borders Germany", ["France", "Poland", "Austria", "Denmark", "Belgium"], ["Italy", "Spain"]),
    ("a multiple of 7 below 50", ["7", "14", "21", "28", "35", "42", "49"], ["27", "48"]),
    ("a chess piece", ["king", "queen", "rook", "bishop", "knight", "pawn"], ["ace", "joker"]),
    ("a vowel", ["a", "e", "i", "o", "u"], ["b", "z"]),
]


@reward(bounds=(0, 1), batched=True)
def first_to_say_it(completion: list[str], accepted: list[list[str]]) -> list[float]:
    """Right, and not said before: meant to keep samples varied."""
    said: set[str] = set()
    values = []
    for text, right in zip(completion, accepted, strict=True):
        answer = text.strip()
        values.append(float(answer in right and answer not in said))
        said.add(answer)
    return values


@reward(bounds=(0, 1))
def accepted_answer(completion: str, accepted: list[str]) -> bool:
    return completion.strip() in accepted


def open_questions() -> Texts:
    rows = [
        {"prompt": f"Name {what}. One word or number.", "right": right[:3], "wrong": list(wrong), "accepted": list(right)}
        for what, right, wrong in OPEN
    ]
    return Texts(rows)


# ---- choices


CHOICES = [
    ("Which of these is a fruit?", ["stone", "pear", "brick", "rope"], 1),
    ("Which is the largest?", ["mouse", "cat", "whale", "horse"], 2),
    ("Which floats on water?", ["cork", "lead", "granite", "steel"], 0),
    ("Which is a colour?", ["table", "spoon", "lamp", "blue"], 3),
    ("Which is a verb?", ["house", "to run", "green", "under"], 1),
    ("Which is frozen water?", ["steam", "fog", "ice", "dew"], 2),
]


_CHOICE = re.compile(r"(?:[^\n]*\n)?Choice: ([A-D])")


def choice_of(completion: str) -> str | None:
    """The letter of the line 'Choice: X' that ends the text, after one line of thought at most; None where there is none.

    >>> choice_of("It grows on trees.\\nChoice: B"), choice_of("Choice: A\\nChoice: B"), choice_of("B")
    ('B', None, None)
    """
    found = _CHOICE.fullmatch(completion.strip())
    return found[1] if found and completion.count("Choice:") == 1 else None


class FormBonusFades:
    """1 for the right letter, and a bonus for the form: a half at first, less by a twentieth with every call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, completion: list[str], letter: list[str]) -> list[float]:
        bonus = 0.5 * 0.95**self.calls
        self.calls += 1
        chosen = [choice_of(text) for text in completion]
        return [bonus * (c is not None) + (c == right) for c, right in zip(chosen, letter, strict=True)]


@reward(bounds=(0, 1))
def right_letter(completion: str, letter: str) -> bool:
    return choice_of(completion) == letter


def choices() -> Texts:
    rows = []
    for asked, options, at in CHOICES:
        shown = " ".join(f"{x}) {option}" for x, option in zip("ABCD", options, strict=True))
        letter = "ABCD"[at]
        rows.append(
            {
                "prompt": f"{asked} {shown} Think for one line at most, then end with a line 'Choice: X'.",
                "right": [f"Choice: {letter}", f"The others are not.\nChoice: {letter}"],
                "wrong": [f"Choice: {x}" for x in "ABCD" if x != letter],
                "malformed": ["Choice: E", "I choose both."],
                "letter": letter,
            }
        )
    return Texts(rows)


# ---- records


RECORDS: list[tuple[str, dict[str, Any]]] = [
    ("Anna Berg, born 1984, lives in Turku.", {"name": "Anna Berg", "born": 1984, "city": "Turku"}),
    ("Invoice 7731: 12 lamps, 340 euros in all, paid.", {"invoice": 7731, "lamps": 12, "paid": True}),
    ("Flight KL 204 to Oslo is 35 minutes late.", {"flight": "KL 204", "to": "Oslo", "late": 35}),
    ("The novel has 412 pages; no translation exists.", {"pages": 412, "translated": False}),
    ("Room 12 is free from 3 to 5 June.", {"room": 12, "from": "3 June", "to": "5 June"}),
    ("Two adults and a child, dinner at 19:30.", {"adults": 2, "children": 1, "time": "19:30"}),
]


def record_of(completion: str) -> dict[str, Any] | None:
    """The JSON object that the text is, no key of it twice; None where it is none."""
    try:
        found = json.loads(completion, object_pairs_hook=lambda pairs: pairs, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    pairs = found if isinstance(found, list) and all(isinstance(p, tuple) for p in found) else []
    return dict(pairs) if pairs and len(dict(pairs)) == len(pairs) else None


@reward(bounds=(0, 1))
def record_fields(completion: str, record: dict[str, Any]) -> float:
    """1 for the record; else half the share of its fields that are right, less a tenth for each field that isn't its own."""
    found = record_of(completion)
    if found is None:
        return 0.0
    right = sum(type(found.get(k)) is type(v) and found[k] == v for k, v in record.items())
    extra = len(set(found) - set(record))
    return 1.0 if right == len(record) and not extra else max(0.5 * right / len(record) - 0.1 * extra, 0.0)


@reward(bounds=(0, 1))
def record_is_right(completion: str, record: dict[str, Any]) -> bool:
    return json.dumps(record_of(completion), sort_keys=True) == json.dumps(record, sort_keys=True)


def records() -> Texts:
    rows = []
    for text, record in RECORDS:
        last = list(record)[-1]
        rows.append(
            {
                "prompt": f"{text}\nGive it as JSON with the keys {', '.join(record)} and nothing else.",
                "right": [json.dumps(record), json.dumps(record, indent=2)],
                "wrong": [json.dumps({**record, last: "unknown"}), json.dumps(dict.fromkeys(record))],
                "malformed": ["{", f"The record: {', '.join(record)}"],
                "record": record,
            }
        )
    return Texts(rows)


# ---- orders


ORDERS = [
    ("from small to large", ["ant", "mouse", "dog", "horse", "whale"]),
    ("from early to late", ["Monday", "Tuesday", "Thursday", "Saturday", "Sunday"]),
    ("from cold to hot", ["ice", "bath", "tea", "oven", "lava"]),
    ("from short to long", ["second", "minute", "hour", "week", "year"]),
    ("from slow to fast", ["snail", "walker", "bicycle", "train", "aeroplane"]),
    ("from low to high", ["bass", "baritone", "tenor", "alto", "soprano"]),
]


def order_agreement(said: list[str], wanted: list[str]) -> float:
    """Kendall's tau of two orders of the same things; -1 where they are not the same things.

    >>> order_agreement(["b", "a", "c"], ["a", "b", "c"]), order_agreement(["a"], ["a", "b"])
    (0.3333333333333333, -1.0)
    """
    if sorted(said) != sorted(wanted):
        return -1.0
    pairs = list(combinations([wanted.index(x) for x in said], 2))
    return sum(1 if a < b else -1 for a, b in pairs) / len(pairs)


def listed(completion: str) -> list[str]:
    return [x.strip().lower() for x in completion.strip().rstrip(".").split(",")]


@reward(bounds=(0, 1))
def pairs_in_order(completion: str, order: list[str]) -> float:
    """The square of the orders' agreement where that is positive."""
    return max(order_agreement(listed(completion), [x.lower() for x in order]), 0.0) ** 2


@reward(bounds=(0, 1))
def order_is_right(completion: str, order: list[str]) -> float:
    agreement = order_agreement(listed(completion), [x.lower() for x in order])
    return 1.0 if agreement == 1 else 0.5 * max(agreement, 0.0) ** 2


def orders() -> Texts:
    rows = []
    for how, order in ORDERS:
        a, b, c, d, e = order
        rows.append(
            {
                "prompt": f"Put these in order {how}, with commas between them: {', '.join(sorted(order))}.",
                "right": [", ".join(order), ",".join(order) + "."],
                "wrong": [", ".join([c, d, e, a, b]), ", ".join(reversed(order))],
                "malformed": [", ".join(order[:3]), "They are in order."],
                "order": order,
            }
        )
    return Texts(rows)


# ---- facts, compared within a group


FACTS = [
    ("Which is the chemical symbol of sodium?", "Na", ["So", "S"]),
    ("Which planet has the largest rings?", "Saturn", ["Mars", "Venus"]),
    ("Which number is its own square root, besides 0?", "1", ["2", "4"]),
    ("Who wrote Hamlet?", "Shakespeare", ["Marlowe", "Goethe"]),
    ("In which city is the Prado?", "Madrid", ["Lisbon", "Paris"]),
    ("Which season follows winter?", "spring", ["autumn", "summer"]),
]


def facts() -> Texts:
    rows = [
        {"prompt": f"{asked} One word.", "right": [answer, f" {answer}\n"], "wrong": list(wrong), "answer": answer}
        for asked, answer, wrong in FACTS
    ]
    return Texts(rows)


SPECIMENS = [
    Specimen(
        name="first-to-say-it",
        reward=lambda: first_to_say_it,
        gold=lambda: accepted_answer,
        subject=open_questions,
        about="Only the first of equal right answers is paid: which one that is depends on the order of the rows.",
        defect="the value depends on the other rows and their order, though it is declared of each by itself",
        source="diversity bonuses computed while walking over a batch",
    ),
    Specimen(
        name="form-bonus-fades",
        reward=lambda: reward(bounds=(0, 1.5), batched=True, name="form_bonus_fades")(FormBonusFades()),
        gold=lambda: right_letter,
        subject=choices,
        about="A bonus for the form fades by the reward's own count of calls, which evaluation or a second worker moves as well.",
        defect="keeps state between calls: it counts them, and scoring the same answer again gives another value",
        source="schedules kept inside of reward functions that are given no training step",
    ),
    Specimen(
        name="record-fields",
        reward=lambda: record_fields,
        gold=lambda: record_is_right,
        subject=records,
        about="Partial credit for the fields of a record, at most half of what the whole record is paid.",
    ),
    Specimen(
        name="pairs-in-order",
        reward=lambda: pairs_in_order,
        gold=lambda: order_is_right,
        subject=orders,
        about="Rank agreement with the right order, and nothing for what is no order of the things given.",
    ),
    Specimen(
        name="fact-against-its-group",
        reward=lambda: checkers.exact(case=False).normalise(over="group", scale=False),
        gold=lambda: checkers.exact(case=False),
        subject=facts,
        about="Exact match minus the mean of its group, as declared: it abstains for an answer that is alone.",
    ),
]
