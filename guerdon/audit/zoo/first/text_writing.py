# SPDX-License-Identifier: Apache-2.0
"""Summaries, translations from a toy language, and sentences written to order."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from guerdon.audit.subject import Texts
from guerdon.audit.zoo import Specimen
from guerdon.rewards import Reward, reward

NOTICES: tuple[tuple[str, str, str, str], ...] = (
    (
        "On Tuesday the council met. After two hours it voted to close the mill road until May. Residents had asked for repairs.",
        "The council voted to close the mill road until May.",
        "Until May the mill road is closed.",
        "The council voted to keep the mill road open.",
    ),
    (
        "The ferry usually runs every hour. Because of a broken shaft it runs every three hours this week, they say.",
        "The ferry runs every three hours this week.",
        "A broken shaft makes the ferry run every three hours this week.",
        "The ferry runs every hour this week.",
    ),
    (
        "Storks were counted for years. Pairs near wet meadows raise twice as many young. Drained fields lost most nests.",
        "Storks near wet meadows raise twice as many young.",
        "Pairs of storks near wet meadows raise twice as many young as others.",
        "Storks near drained fields raise twice as many young.",
    ),
    (
        "The bakery was sold. Its new owner keeps the bread but stops the cakes: the oven is small. It opens again in June.",
        "The bakery keeps the bread, stops the cakes and opens again in June.",
        "The bakery was sold, stops its cakes and opens again in June.",
        "The bakery was sold and keeps only cakes.",
    ),
    (
        "A storm took the roof of the gym on Sunday. Nobody was hurt. Gym lessons move to the church hall until it is mended.",
        "Gym lessons move to the church hall until the roof is mended.",
        "A storm took the roof of the gym; lessons move to the church hall.",
        "Gym lessons stop until the church roof is mended.",
    ),
    (
        "The observatory opens on clear nights in March. Entry is free with booking. Children under six may not climb the tower.",
        "The observatory opens on clear nights in March with booking.",
        "On clear nights in March the observatory opens to those who have booked.",
        "The observatory is closed in March.",
    ),
)
"""A notice, two fair summaries and a false one."""

TRANSLATED: tuple[tuple[str, tuple[str, str], str], ...] = (
    ("tova lem suri", ("the dog sleeps in the house", "the dog is asleep in the house"), "a cat eats under the table"),
    ("miko ral den", ("my sister buys two red apples", "my sister is buying two red apples"), "your brother sold one pear"),
    ("hal sen oru", ("the old man waits at the station", "an old man waits at the station"), "a young girl runs home quickly"),
    (
        "peta vin kol",
        ("we drink cold water in the morning", "in the morning we drink cold water"),
        "they ate warm bread at night",
    ),
    ("suna bri tak", ("the wind closed the kitchen door", "the wind shut the kitchen door"), "rain opened a window upstairs"),
    (
        "lora dan mis",
        ("she writes a letter to her teacher", "she is writing a letter to her teacher"),
        "he reads books for his son",
    ),
)
"""A sentence of the toy language, two translations, and what it doesn't say."""

ORDERS: tuple[tuple[int, str, str, str, str], ...] = (
    (7, "Today", "river", "Today the river is high and brown.", "The river is high today."),
    (6, "Our", "train", "Our train left the station late.", "Our bus was late."),
    (8, "Fresh", "bread", "Fresh bread tastes best when it is warm.", "Warm bread is best."),
    (5, "No", "rain", "No rain fell this week.", "It did not rain."),
    (9, "Behind", "garden", "Behind the house there is a garden with plums.", "A garden."),
    (6, "Her", "letter", "Her letter came after three weeks.", "His letter came."),
)
"""Number of words, first word, a word to use, a sentence that has all that and one that hasn't."""


def words_of(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.casefold())


def notices() -> Texts:
    return Texts(
        [
            {
                "prompt": f"Summarise in one sentence of at most 20 words: {source}",
                "notice": source,
                "reference": one,
                "fair": [one, other],
                "right": [one, other],
                "wrong": [false],
                "malformed": [""],
            }
            for source, one, other, false in NOTICES
        ]
    )


def is_fair(completion: str, fair: list[str]) -> bool:
    return words_of(completion) in [words_of(x) for x in fair]


def translations() -> Texts:
    return Texts(
        [
            {
                "prompt": f"Translate: {source}",
                "fair": list(fair),
                "right": list(fair),
                "wrong": [false, source],
                "malformed": [""],
            }
            for source, fair, false in TRANSLATED
        ]
    )


def orders() -> Texts:
    rows = []
    for count, first, within, good, bad in ORDERS:
        wish = f"with {count} different words, starting with `{first}`, with the word `{within}`, and ending in a full stop"
        rows.append(
            {
                "prompt": f"Write one sentence {wish}.",
                "asked": {"words": count, "starts": first, "contains": within},
                "right": [good],
                "wrong": [bad, good.replace(".", " indeed.")],
                "malformed": [""],
            }
        )
    return Texts(rows)


def met(completion: str, asked: dict[str, Any]) -> list[bool]:
    """Of each thing that was asked whether it is so."""
    words = words_of(completion)
    return [
        len(words) == asked["words"],
        completion.strip().startswith(f"{asked['starts']} "),
        words.count(asked["contains"]) == 1,
        bool(words) and completion.strip().endswith(".") and completion.count(".") == 1,
        bool(words) and len(set(words)) == len(words),
    ]


def all_met(completion: str, asked: dict[str, Any]) -> bool:
    return all(met(completion, asked))


# ---- bad


def reference_recalled(completion: str, reference: str) -> float:
    """The share of the reference's words that occur in the completion, as ROUGE-1 recall has it."""
    meant = set(words_of(reference))
    return len(meant & set(words_of(completion))) / len(meant)


# ---- good


def nearest_reference(completion: str, fair: list[str]) -> float:
    """(1 - word edits / words of the longer text)³ for the nearest reference."""
    said = words_of(completion)[:50]
    return max((1 - edits(said, words_of(x)) / max(len(said), len(words_of(x)))) ** 3 for x in fair)


def edits(a: list[str], b: list[str]) -> int:
    """Least number of words put in, taken out or replaced to make ``b`` of ``a``.

    >>> edits("the dog sleeps".split(), "a dog sleeps well".split())
    2
    """
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def constraints_met(completion: str, asked: dict[str, Any]) -> float:
    found = met(completion, asked)
    return (sum(found) / len(found)) ** 2


def _gold(check: Any) -> Reward:
    return reward(bounds=(0, 1), name="gold")(check)


unit = reward(bounds=(0, 1))

SPECIMENS = (
    Specimen(
        name="reference-recalled",
        reward=partial(unit, reference_recalled),
        gold=partial(_gold, is_fair),
        subject=notices,
        defect="recall without precision or length: copying the whole notice, or any bag of its words, is paid in full",
        about="The share of the reference summary's words that the summary has. The longer the text, the more of them it has.",
        source="ROUGE as a reward and what readers make of it, Paulus et al. 2017, arXiv:1705.04304",
    ),
    Specimen(
        name="nearest-reference",
        reward=partial(unit, nearest_reference),
        gold=partial(_gold, is_fair),
        subject=translations,
        about="Likeness to the nearer of two references by word edits, cubed: only a reference itself is paid in full.",
    ),
    Specimen(
        name="constraints-met",
        reward=partial(unit, constraints_met),
        gold=partial(_gold, all_met),
        subject=orders,
        about="The squared share of five checkable demands, which together are all that was asked.",
        source="verifiable instructions, IFEval, arXiv:2311.07911",
    ),
)
