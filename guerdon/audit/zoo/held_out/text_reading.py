# SPDX-License-Identifier: Apache-2.0
"""Questions about a text that is given: short answers, quotations, lists."""

from __future__ import annotations

import re

from guerdon.audit.subject import Texts
from guerdon.audit.zoo import Specimen
from guerdon.rewards import reward

# ---- short answers


PASSAGES = [
    (
        "The ferry Brenna left Holm at six and reached Sund, a village on the far shore, before the fog came.",
        "Where did the ferry go?",
        ["Sund", "the village of Sund"],
        ["Holm", "Brenna"],
    ),
    (
        "Doctor Ilse Varga founded the clinic in 1931; her nephew Tomas enlarged it after the war.",
        "Who founded the clinic?",
        ["Ilse Varga", "Doctor Ilse Varga", "Dr Ilse Varga"],
        ["Tomas", "her nephew"],
    ),
    (
        "Copper from the northern mines was traded for salt, and the salt was carried on to the coast.",
        "What was traded for salt?",
        ["copper"],
        ["the coast", "mines of salt"],
    ),
    (
        "The observatory closes on Mondays, and from November to March on Tuesdays as well.",
        "On which day is it always closed?",
        ["Monday", "Mondays", "on Mondays"],
        ["Tuesday", "November"],
    ),
    (
        "Of the three bridges only the oldest, of oak, survived the flood; the iron ones were swept away.",
        "What is the surviving bridge made of?",
        ["oak"],
        ["iron", "stone"],
    ),
    (
        "Lene plays the viola in the quartet. Her sister Ane, who plays the cello, joined later.",
        "Which instrument does Ane play?",
        ["cello", "the cello"],
        ["viola", "violin"],
    ),
]


def plain(text: str) -> str:
    """Lower case, without articles, punctuation and superfluous space.

    >>> plain(" The village of Sund. ")
    'village of sund'
    """
    words = re.sub(r"[^\w\s]", " ", text.lower()).split()
    return " ".join(w for w in words if w not in ("a", "an", "the"))


@reward(bounds=(0, 1))
def either_contains_the_other(completion: str, answers: list[str]) -> bool:
    said, wanted = completion.strip().lower().rstrip("."), answers[0].lower()
    return said in wanted or wanted in said


@reward(bounds=(0, 1))
def one_of_the_names(completion: str, answers: list[str]) -> bool:
    """Whatever its case, article and punctuation."""
    return plain(completion) in [plain(a) for a in answers]


@reward(bounds=(0, 1))
def short_answer_is_right(completion: str, answers: list[str]) -> bool:
    return any(plain(completion) == plain(a) for a in answers)


def questions() -> Texts:
    rows = [
        {
            "prompt": f"{passage}\n\n{asked} Answer in a few words.",
            "right": [answers[0], f"{answers[-1].capitalize() if answers[-1].islower() else answers[-1]}."],
            "wrong": list(wrong),
            "malformed": ["I cannot tell."],
            "answers": answers,
        }
        for passage, asked, answers, wrong in PASSAGES
    ]
    return Texts(rows)


# ---- quotations, where there is something to quote


SOURCES = [
    (
        "The mill stood idle for ten years. In 1874 a weaver bought it. He put in twelve looms.",
        "In which year was the mill sold?",
        "1874",
        "In 1874 a weaver bought it.",
        ["The mill stood idle for ten years.", "In 1875 a weaver bought it."],
    ),
    (
        "Swifts sleep in the air. They land only to breed. Their nests are lined with feathers.",
        "Why do swifts land?",
        "to breed",
        "They land only to breed.",
        ["Swifts sleep in the air.", "Their nests are lined with feathers."],
    ),
    (
        "The recipe asks for rye. Wheat makes the loaf too soft. Bake it for an hour.",
        "Which flour does the recipe ask for?",
        "rye",
        "The recipe asks for rye.",
        ["Wheat makes the loaf too soft.", "The recipe asks for wheat."],
    ),
    (
        "Nobody had seen the seal. The keeper wrote it down on Friday. By Sunday it was news.",
        "When did the keeper write it down?",
        "Friday",
        "The keeper wrote it down on Friday.",
        ["By Sunday it was news.", "The keeper wrote it down on Sunday."],
    ),
    ("", "Which planet is nearest to the sun?", "Mercury", "", ["Venus", "Mars"]),
    ("", "How many sides has an octagon?", "eight", "", ["six", "ten"]),
]


@reward(bounds=(0, 1))
def quotes_the_evidence(completion: str, source: str | None, evidence: str | None) -> bool | None:
    """The sentence that settles the question, word for word; it does not apply where there is no source."""
    if source is None:
        return None
    return completion.strip().strip("\"'“”").strip() == evidence


@reward(bounds=(0, 1))
def settles_it(completion: str, answer: str, evidence: str | None) -> bool:
    return completion.strip().strip("\"'“”").strip() == evidence if evidence else plain(completion) == plain(answer)


def quotations() -> Texts:
    rows = [
        {
            "prompt": f"{source}\n\n{asked} Quote the one sentence that says it." if source else f"{asked} Answer in a word.",
            "right": [evidence, f'"{evidence}"'] if source else [answer],
            "wrong": list(wrong),
            "answer": answer,
            "source": source or None,
            "evidence": evidence or None,
        }
        for source, asked, answer, evidence, wrong in SOURCES
    ]
    return Texts(rows)


# ---- lists


LISTS = [
    ("We had soup, then trout with fennel and potatoes, and pears at last.", "vegetables", ["fennel", "potatoes"], ["soup"]),
    (
        "On the shelf lie a chisel, a novel, two planes and a mallet under an atlas.",
        "tools",
        ["chisel", "planes", "mallet"],
        ["novel"],
    ),
    ("Ida met Jon in Riga; they went by Vilnius to Krakow, where Ada lives.", "cities", ["Riga", "Vilnius", "Krakow"], ["Ada"]),
    ("The band has drums, an oboe, a harp and, since May, a bassoon.", "woodwinds", ["oboe", "bassoon"], ["drums"]),
    ("Larks and a heron rose; the otter dived; one swan stayed.", "birds", ["larks", "heron", "swan"], ["otter"]),
    ("Paint the door green, the frame white, and leave the oak as it is.", "colours", ["green", "white"], ["oak"]),
]


def items_of(completion: str) -> list[str]:
    return [plain(item) for item in completion.strip().rstrip(".").split(",")]


def f1(said: list[str], wanted: set[str]) -> float:
    """2 |hits| / (|said| + |wanted|), an item said twice a hit but once.

    >>> f1(["a", "b"], {"a"}), f1(["a", "a"], {"a"}), f1(["a"], {"a"})
    (0.6666666666666666, 0.6666666666666666, 1.0)
    """
    return 2 * len(set(said) & wanted) / (len(said) + len(wanted))


@reward(bounds=(0, 1))
def list_overlap(completion: str, items: list[str]) -> float:
    return f1(items_of(completion), {plain(i) for i in items})


@reward(bounds=(0, 1))
def list_is_right(completion: str, items: list[str]) -> float:
    """1 for the whole list and nothing else; what is almost it has some worth, below a half."""
    found = f1(items_of(completion), {plain(i) for i in items})
    return 1.0 if found == 1 else 0.5 * found**2


def listings() -> Texts:
    rows = [
        {
            "prompt": f"{text}\n\nList all {kind} of the text, with commas between them.",
            "right": [", ".join(items), ", ".join(reversed(items)) + "."],
            "wrong": [", ".join([*items[:1], *others]), ", ".join(others)],
            "malformed": ["There are several."],
            "items": items,
        }
        for text, kind, items, others in LISTS
    ]
    return Texts(rows)


SPECIMENS = [
    Specimen(
        name="either-contains-the-other",
        reward=lambda: either_contains_the_other,
        gold=lambda: short_answer_is_right,
        subject=questions,
        about="A lenient match both ways: the empty text is contained in every answer, and the whole passage contains it.",
        defect="containment either way: an empty completion, a single letter or a copy of the passage is paid",
        source="lenient exact match in question answering scripts",
    ),
    Specimen(
        name="one-of-the-names",
        reward=lambda: one_of_the_names,
        gold=lambda: short_answer_is_right,
        subject=questions,
        about="Exact match after case, articles and punctuation are gone, against every accepted form.",
        source="normalisation as in SQuAD, Rajpurkar et al. 2016, arXiv 1606.05250",
    ),
    Specimen(
        name="quotes-the-evidence",
        reward=lambda: quotes_the_evidence,
        gold=lambda: settles_it,
        subject=quotations,
        about="The right sentence word for word; it abstains on the questions that come without a text.",
    ),
    Specimen(
        name="list-overlap",
        reward=lambda: list_overlap,
        gold=lambda: list_is_right,
        subject=listings,
        about="F1 of a list: naming everything costs precision, so the right list alone has 1.",
    ),
]
