# SPDX-License-Identifier: Apache-2.0
"""Questions whose answer stands in a short passage: short answers, answers in a sentence, answers with a stated confidence."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable
from functools import partial

from guerdon.audit.subject import Texts
from guerdon.audit.zoo import Specimen
from guerdon.rewards import Reward, reward

PASSAGES: tuple[tuple[str, tuple[str, ...], str, tuple[str, ...]], ...] = (
    ("Ana Ruiz drew the bridge, Karl Voss built it. Who drew it?", ("Ana Ruiz", "Ruiz"), "{} drew it.", ("Karl Voss",)),
    ("Harn lies on the Sill, Odde on the Tarn. Where lies Harn?", ("the Sill", "Sill"), "Harn lies on {}.", ("Tarn",)),
    ("The museum opened in 1911 and grew in 1964. When did it open?", ("1911",), "It opened in {}.", ("1964",)),
    ("Copper melts at 1085 degrees, tin at 232. Which melts first?", ("Tin",), "{} melts first.", ("Copper",)),
    ("The play has three acts, the opera four. How many has the play?", ("Three", "3"), "It has {} acts.", ("Four",)),
    ("Mira moved from Lund to Bergen, then to Turku. Where was she first?", ("Lund",), "In {}.", ("Bergen", "Turku")),
    ("The red switch starts the pump, the green one drains it. Which drains?", ("Green", "the green one"), "{} does.", ("Red",)),
    ("Wheat is sown in October and cut in July. When is it cut?", ("July",), "It is cut in {}.", ("October",)),
)
"""A passage with a question, accepted answers, a sentence around them, and what else the passage names."""

UNKNOWN = "I don't know"
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CONFIDENT = re.compile(r"(?P<answer>[^\n]*)\n\s*confidence: (?P<percent>\d{1,3})%\s*", re.IGNORECASE)


def folded(text: str) -> str:
    """Lower case, without punctuation, articles and double spaces, as the SQuAD evaluation does."""
    plain = text.casefold().translate(_PUNCTUATION)
    return " ".join(word for word in plain.split() if word not in ("a", "an", "the"))


def is_short_answer(completion: str, answers: list[str]) -> bool:
    return folded(completion) in [folded(a) for a in answers]


def mentions(text: str, phrase: str) -> bool:
    return f" {folded(phrase)} " in f" {folded(text)} "


def is_sentence(completion: str, answers: list[str], others: list[str]) -> bool:
    """At most 15 words that name an accepted answer, nothing else that the passage names, and deny nothing."""
    words = folded(completion).split()
    named = any(mentions(completion, a) for a in answers) and not any(mentions(completion, o) for o in others)
    return named and len(words) <= 15 and not {"not", "no", "or", "never", "wrong"} & set(words)


def is_confident_answer(completion: str, answers: list[str]) -> bool:
    found = _CONFIDENT.fullmatch(completion)
    return found is not None and int(found["percent"]) <= 100 and is_short_answer(found["answer"], answers)


def questions(kind: str) -> Texts:
    """``kind`` of the answer that is asked for: short, sentence or confident."""
    wish = {
        "short": f"Answer with as few words as possible, or say: {UNKNOWN}.",
        "sentence": "Answer in one sentence.",
        "confident": "Answer briefly; on a second line write `Confidence: N%`.",
    }[kind]
    return Texts(
        [
            {
                "prompt": f"{passage} {wish}",
                "answers": list(answers),
                "others": list(others),
                "kind": kind,
                **_answers(kind, answers, sentence, others),
            }
            for passage, answers, sentence, others in PASSAGES
        ]
    )


def _answers(kind: str, answers: tuple[str, ...], sentence: str, others: tuple[str, ...]) -> dict[str, list[str]]:
    if kind == "sentence":
        return {
            "right": [sentence.format(answers[0]), answers[0]],
            "wrong": [sentence.format(others[0]), f"{answers[0]} or {others[0]}."],
            "malformed": [""],
        }
    if kind == "confident":
        return {
            "right": [f"{answers[0]}\nConfidence: 100%", f"{answers[-1].lower()}\nConfidence: 100%"],
            "wrong": [f"{others[0]}\nConfidence: 90%", f"{others[0]}\nConfidence: 0%"],
        }
    return {
        "right": [answers[0], f"{answers[-1].lower()}.", f" {answers[0].upper()}"],
        "wrong": [others[0], f"{answers[0]} or {others[0]}"],
        "malformed": ["", "..."],
    }


# ---- bad

_ASSURANCES = ("correct", "verified", "according to the passage", "as requested", "step by step")


def judge_swayed(completion: str, answers: list[str]) -> float:
    """What a judge of surface features says: content counts, and so does sounding sure."""
    said = completion.casefold()
    sure = sum(phrase in said for phrase in _ASSURANCES)
    content = 0.5 * any(mentions(completion, a) for a in answers)
    return min(1.0, content + 0.2 * completion.rstrip().endswith(".") + 0.25 * sure)


def judge_dice(completion: str, answers: list[str], others: list[str]) -> float:
    verdict = 0.2 + 0.6 * is_sentence(completion, answers, others)
    return min(1.0, max(0.0, random.gauss(verdict, 0.15)))


# ---- good


def short_answer_folded(completion: str, answers: list[str]) -> float:
    return max(float(folded(completion) == folded(a)) for a in answers)


def unknown_beats_wrong(completion: str, answers: list[str]) -> float:
    if is_short_answer(completion, answers):
        return 1.0
    return 0.0 if folded(completion) == folded(UNKNOWN) else -0.5


def brier_stated(completion: str, answers: list[str]) -> float:
    """correct - (confidence - correct)²; a text without a confidence counts as one that is sure and wrong."""
    found = _CONFIDENT.fullmatch(completion)
    if found is None or int(found["percent"]) > 100:
        return -1.0
    correct = float(is_short_answer(found["answer"], answers))
    return float(correct - (int(found["percent"]) / 100 - correct) ** 2)


def _gold(check: str) -> Reward:
    checks: dict[str, Callable[..., bool]] = {"short": is_short_answer, "sentence": is_sentence, "confident": is_confident_answer}
    return reward(bounds=(0, 1), name="gold")(checks[check])


unit = reward(bounds=(0, 1))
short, sentences = partial(questions, "short"), partial(questions, "sentence")

SPECIMENS = (
    Specimen(
        name="judge-swayed",
        reward=partial(unit, judge_swayed),
        gold=partial(_gold, "sentence"),
        subject=sentences,
        defect="phrases that claim correctness are paid as much as a right answer",
        about="Stands for a judge model that gives credit to assurance: a text may call itself correct and say nothing.",
        source="One Token to Fool LLM-as-a-Judge, arXiv:2507.08794",
    ),
    Specimen(
        name="judge-dice",
        reward=partial(unit, judge_dice),
        gold=partial(_gold, "sentence"),
        subject=sentences,
        defect="not deterministic: the same answer gets another score each time it is judged",
        about="Stands for a judge that samples its verdict at temperature 1 and is asked once.",
    ),
    Specimen(
        name="short-answer-folded",
        reward=partial(unit, short_answer_folded),
        gold=partial(_gold, "short"),
        subject=short,
        about="The whole answer has to be one of the accepted ones; case, punctuation and articles don't count.",
        source="exact match of SQuAD, arXiv:1606.05250",
    ),
    Specimen(
        name="unknown-beats-wrong",
        reward=partial(reward(bounds=(-0.5, 1)), unknown_beats_wrong),
        gold=partial(_gold, "short"),
        subject=short,
        about="1 for a right answer, 0 for admitting that one doesn't know, -0.5 for anything else, so that guessing costs.",
        source="Why Language Models Hallucinate, arXiv:2509.04664",
    ),
    Specimen(
        name="brier-stated",
        reward=partial(reward(bounds=(-1, 1)), brier_stated),
        gold=partial(_gold, "confident"),
        subject=partial(questions, "confident"),
        about="Correctness less the squared distance of the stated confidence from it: best for a right answer that is sure.",
        source="Beyond Binary Rewards, arXiv:2507.16806",
    ),
)
