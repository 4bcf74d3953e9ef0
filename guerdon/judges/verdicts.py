# SPDX-License-Identifier: Apache-2.0
"""Reading verdicts out of a reply: JSON objects, matched to the items by their ids and by nothing else.

    a verdict ...                               its item
    ------------------------------------------  -------------------------------------------------------
    is there, in any order or wrapping          has it
    is there twice and says the same            has it
    is there twice and says different things    abstains
    has no value, or one out of range           abstains
    is missing (cut off, forgotten)             abstains
    has an id that nobody asked about           is of no item; it is counted as invented

An id is made of the item's content by a hash, so an answer that is being judged can't hold a verdict for itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

LONGEST = 100_000
"""Characters of a reply that are read at most."""

Read = Callable[[dict[str, Any]], Any]
"""What a verdict says: a value, or None for an object that is no verdict. Raises ValueError where it says nothing usable."""


@dataclass
class Matched:
    """``said``: id -> (value, why); ``reasons``: id -> why there is none; ``invented``: verdicts with other ids."""

    said: dict[str, tuple[Any, str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    invented: int = 0


def match(text: str, ids: Sequence[str], read: Read) -> Matched:
    """The verdicts of a reply by id; every id is in ``said`` or in ``reasons``.

    >>> def score(found): return found.get("score")
    >>> text = 'Sure! {"verdicts": [{"id": "b", "score": 2}, {"id": "a", "score": 1}, {"id": "z", "score": 9}, {"id": "c", "sc'
    >>> m = match(text, ["a", "b", "c"], score)
    >>> m.said, m.reasons, m.invented
    ({'b': (2, ''), 'a': (1, '')}, {'c': 'no verdict for it in the reply'}, 1)
    """
    found, wrong = Matched(), {}
    asked = set(ids)
    for verdict in objects(spoken(text)):
        try:
            value = read(verdict)
        except ValueError as error:
            value, complaint = None, str(error)
        else:
            complaint = ""
        if value is None and not complaint:
            continue
        name = verdict.get("id")
        name = name.strip() if isinstance(name, str) else name
        if name not in asked:
            found.invented += 1
        elif complaint:
            wrong[name] = complaint
        elif name in found.said and found.said[name][0] != value:
            wrong[name] = f"two verdicts, {found.said[name][0]} and {value}"
        else:
            found.said.setdefault(name, (value, _why(verdict)))
    for name in ids:
        if name in wrong:
            found.said.pop(name, None)
        if name not in found.said:
            found.reasons[name] = wrong.get(name, "no verdict for it in the reply")
    return found


def spoken(text: str) -> str:
    """The reply without what was thought aloud before it; drafts of verdicts stand there."""
    return text[:LONGEST].rpartition("</think>")[2].partition("<think>")[0]


def objects(text: str) -> Iterator[dict[str, Any]]:
    """Every JSON object with an ``id`` in the text, also where what is around it is no JSON or was cut off."""
    decode, at = json.JSONDecoder().raw_decode, text.find("{")
    while at >= 0:
        try:
            found, end = decode(text, at)
        except (ValueError, RecursionError):
            found, end = None, at + 1
        yield from _with_id(found)
        at = text.find("{", end)


def _with_id(found: Any) -> Iterator[dict[str, Any]]:
    """The outermost objects that have an ``id``."""
    if isinstance(found, dict) and "id" in found:
        yield found
    elif isinstance(found, dict | list):
        for part in found.values() if isinstance(found, dict) else found:
            yield from _with_id(part)


def _why(verdict: dict[str, Any]) -> str:
    why = verdict.get("why")
    return why.strip()[:500] if isinstance(why, str) else ""


def read_score(verdict: dict[str, Any], low: float, high: float) -> float | None:
    """The ``score`` of a verdict, a number from ``low`` to ``high``.

    >>> read_score({"score": "7"}, 1, 10), read_score({"prompt": "no verdict"}, 1, 10)
    (7.0, None)
    """
    if "score" not in verdict:
        return None
    said = verdict["score"]
    if isinstance(said, bool) or not isinstance(said, int | float | str):
        raise ValueError(f"the score is {said!r:.40}, expected a number from {low:g} to {high:g}")
    try:
        score = float(said)
    except (ValueError, OverflowError):
        raise ValueError(f"the score is {said!r:.40}, expected a number from {low:g} to {high:g}") from None
    if not low <= score <= high:
        raise ValueError(f"the score {score:g} is not between {low:g} and {high:g}")
    return score


BETTER = {"first": 1.0, "tie": 0.5, "second": 0.0}
"""What a verdict on a pair may say, as the probability that the first is better."""


def read_better(verdict: dict[str, Any]) -> float | None:
    """The ``better`` of a verdict on a pair, as the probability that the first is better.

    >>> read_better({"better": "First"}), read_better({"better": "tie"})
    (1.0, 0.5)
    """
    if "better" not in verdict:
        return None
    said = verdict["better"]
    word = said.strip().lower() if isinstance(said, str) else ""
    if word not in BETTER:
        raise ValueError(f"`better` is {said!r:.40}, expected first, second or tie")
    return BETTER[word]
