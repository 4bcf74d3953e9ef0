# SPDX-License-Identifier: Apache-2.0
"""Texts that are compared with a model text, or held against rules of form."""

from __future__ import annotations

import re
from collections import Counter

from guerdon.audit.subject import Texts
from guerdon.audit.zoo import Specimen
from guerdon.rewards import reward


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


# ---- summaries


SUMMARIES = [
    (
        (
            "After four hours of debate in a crowded hall the council approved the cycle lane on Mill Street. Shop owners had "
            "asked for more parking. Work begins in May, and the lane is to open before the school year."
        ),
        "The council approved the cycle lane. Work begins in May.",
        [r"the council (has )?approved the (new )?cycle lane( on mill street)?", r"(the )?work (begins|starts) in may"],
        ["The council rejected the cycle lane. Work begins in June.", "Shop owners had asked for more parking."],
    ),
    (
        (
            "The museum has found the stolen globe in a cellar two streets away. It is scratched but whole. A guard who left in "
            "March was questioned. The globe goes back on show on Friday."
        ),
        "The museum has found the stolen globe. It goes back on show on Friday.",
        [r"the museum (has )?found the stolen globe( in a cellar)?", r"(it|the globe) (goes|will go) back on show on friday"],
        ["The museum has sold the globe. It goes to a collector.", "A guard was questioned."],
    ),
    (
        (
            "Heavy rain closed the pass for the third time this spring. Drivers waited for nine hours, some without water. The "
            "road opened again at noon, with one lane only."
        ),
        "Rain closed the pass. The road opened again at noon.",
        [r"(heavy )?rain closed the pass", r"the road (opened again|reopened) at noon( with one lane)?"],
        ["Snow closed the pass. It is still shut.", "Drivers waited for nine hours."],
    ),
    (
        (
            "The company lost 40 million in the last quarter, more than analysts had feared. Its chief, who came two years ago, "
            "stays. Shares fell by a tenth before recovering a little."
        ),
        "The company lost 40 million. Shares fell by a tenth.",
        [r"the company lost 40 million( in the last quarter)?", r"(its |the )?shares fell by a tenth"],
        ["The company gained 40 million. Shares rose by a tenth.", "The chief came two years ago."],
    ),
    (
        (
            "A beaver dam has turned the lower meadow into a pond. The farmer asks for help, since hay is lost. Biologists want "
            "to keep the dam, which filters the brook."
        ),
        "A beaver dam has turned the meadow into a pond. Biologists want to keep the dam.",
        [r"a beaver dam (has )?turned the (lower )?meadow into a pond", r"biologists want to keep (the dam|it)"],
        ["Biologists want to remove the dam.", "The farmer asks for help."],
    ),
    (
        (
            "The choir of Aldby, forty voices in all, won the festival with a piece in an old dialect. It had lost three times. "
            "The prize is a journey to Lisbon in autumn."
        ),
        "The choir of Aldby won the festival. The prize is a journey to Lisbon.",
        [r"the choir of aldby won the festival", r"the prize is a (journey|trip) to lisbon( in autumn)?"],
        ["The choir lost the festival again.", "It had lost three times."],
    ),
]


@reward(bounds=(0, 1))
def reference_recall(completion: str, reference: str) -> float:
    """Share of the reference's words that the summary has: ROUGE-1 recall."""
    wanted, said = Counter(words_of(reference)), Counter(words_of(completion))
    return sum((wanted & said).values()) / sum(wanted.values())


@reward(bounds=(0, 1))
def two_true_sentences(completion: str, facts: list[str]) -> bool:
    """Every sentence says one of the facts, and each is said once."""
    sentences = [" ".join(words_of(s)) for s in re.split(r"[.!?;\n]", completion) if words_of(s)]
    return len(sentences) == len(facts) and all(any(re.fullmatch(f, s) for s in sentences) for f in facts)


def summaries() -> Texts:
    rows = [
        {
            "prompt": f"Say in two sentences of ten words at most what matters here.\n\n{source}",
            "right": [reference, reference.replace(". ", ".\n")],
            "wrong": list(wrong),
            "malformed": ["Here is a summary:"],
            "reference": reference,
            "facts": facts,
        }
        for source, reference, facts, wrong in SUMMARIES
    ]
    return Texts(rows)


# ---- translations


TRANSLATIONS = [
    (
        "El gato duerme en la silla.",
        "the cat sleeps on the chair",
        ["the cat is sleeping on the chair"],
        "a dog sits under a table",
    ),
    ("Mi hermana vive en una casa roja.", "my sister lives in a red house", [], "his brother had two white boats"),
    ("Llueve desde ayer por la tarde.", "it has been raining since yesterday afternoon", [], "sun shines again this morning"),
    ("No quiero vender el libro.", "i do not want to sell the book", ["i don't want to sell the book"], "we must buy some paper"),
    ("Los niños juegan cerca del río.", "the children are playing near the river", [], "old men sit by a wall"),
    ("¿Dónde está la estación?", "where is the station", ["where's the station"], "when does my bus leave"),
    ("Comemos pan con queso.", "we are eating bread with cheese", ["we eat bread with cheese"], "they drink wine without water"),
]


@reward(bounds=(0, 1))
def precision_alone(completion: str, reference: str) -> float:
    """Share of the words and word pairs of the translation that are in the reference: BLEU's precisions, up to pairs."""
    said, wanted = words_of(completion), words_of(reference)
    shares = []
    for n in (1, 2):
        mine, theirs = (Counter(zip(*(w[i:] for i in range(n)), strict=False)) for w in (said, wanted))
        if mine:
            shares.append(sum((mine & theirs).values()) / sum(mine.values()))
    return sum(shares) / len(shares) if shares else 0.0


@reward(bounds=(0, 1))
def translation_is_known(completion: str, accepted: list[str]) -> bool:
    return " ".join(words_of(completion)) in accepted


def translations() -> Texts:
    rows = [
        {
            "prompt": f"Translate into English: {spanish}",
            "right": [reference, reference.capitalize() + "."],
            "wrong": [wrong, wrong.capitalize() + "."],
            "malformed": ["¿?"],
            "reference": reference,
            "accepted": [reference, *more],
        }
        for spanish, reference, more, wrong in TRANSLATIONS
    ]
    return Texts(rows)


# ---- rules of form


FORMS = [
    ("three mammals", 3, ["otter", "whale", "horse", "mouse", "bear", "lynx"], ["trout", "eagle", "ant"]),
    ("two planets without moons", 2, ["mercury", "venus"], ["mars", "saturn"]),
    ("four metals", 4, ["iron", "zinc", "copper", "silver", "gold", "tin"], ["oak", "glass", "chalk", "clay"]),
    ("three rivers of europe", 3, ["rhine", "danube", "loire", "tagus", "vistula", "po"], ["nile", "ganges", "amazon"]),
    ("two instruments with strings", 2, ["violin", "harp", "lute", "cello", "guitar"], ["flute", "drum"]),
    ("three prime numbers below thirty", 3, ["2", "3", "5", "7", "11", "13", "17", "19", "23", "29"], ["4", "9", "15"]),
]


@reward(bounds=(0, 1))
def keeps_the_form(completion: str, count: int) -> float:
    """The rules that can be checked: so many bullets, nothing besides them, no capital letters."""
    lines = completion.strip().splitlines()
    bullets = [line for line in lines if line.startswith("- ")]
    return (float(len(bullets) == count) + float(len(bullets) == len(lines)) + float(completion == completion.lower())) / 3


@reward(bounds=(0, 1))
def form_and_content(completion: str, count: int, members: list[str]) -> bool:
    lines = completion.strip().splitlines()
    named = {line.removeprefix("- ").strip() for line in lines if line.startswith("- ")}
    return len(lines) == len(named) == count and named <= set(members)


def forms() -> Texts:
    rows = [
        {
            "prompt": f"Name {what}, each on a line of its own that begins with '- ', without capital letters. Nothing else.",
            "right": ["\n".join(f"- {m}" for m in members[:count]), "\n".join(f"- {m}" for m in members[-count:])],
            "wrong": ["Of course! " + ", ".join(m.upper() for m in others), "- " + " and ".join(others).capitalize()],
            "malformed": ["That depends on what you mean."],
            "count": count,
            "members": members,
        }
        for what, count, members, others in FORMS
    ]
    return Texts(rows)


SPECIMENS = [
    Specimen(
        name="reference-recall",
        reward=lambda: reference_recall,
        gold=lambda: two_true_sentences,
        subject=summaries,
        about="Recall of the reference summary's words: the source has them all, and so has any heap of them.",
        defect="recall without precision or length: copying the whole source, or a heap of its words, is paid",
        source="ROUGE as a reward, Paulus et al. 2017, arXiv 1705.04304",
    ),
    Specimen(
        name="precision-alone",
        reward=lambda: precision_alone,
        gold=lambda: translation_is_known,
        subject=translations,
        about="BLEU's precisions without its penalty for short texts: one safe word is a perfect translation.",
        defect="precision without a penalty for brevity: a single word of the reference is paid in full",
        source="the reason for the brevity penalty of BLEU, Papineni et al. 2002",
    ),
    Specimen(
        name="keeps-the-form",
        reward=lambda: keeps_the_form,
        gold=lambda: form_and_content,
        subject=forms,
        about="Only the verifiable rules of an instruction are checked, and no one looks at what was asked for.",
        defect="format without content: bullets that say nothing are paid in full",
        source="verifiable instructions as in IFEval, Zhou et al. 2023, arXiv 2311.07911, used alone as a reward",
    ),
]
