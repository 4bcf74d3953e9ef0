# SPDX-License-Identifier: Apache-2.0
"""Records read out of a sentence, as JSON."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from guerdon.audit.subject import Texts
from guerdon.audit.zoo import Specimen
from guerdon.rewards import Reward, reward

SENTENCES: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("Lena Brandt, 34, works in Graz.", {"name": "Lena Brandt", "age": 34, "city": "Graz"}, {"age": 43}),
    ("The parcel of 12 kg goes to Porto on Friday.", {"weight": 12, "to": "Porto", "day": "Friday"}, {"day": "Monday"}),
    ("Invoice 881 over 250 euros is unpaid.", {"invoice": 881, "amount": 250, "paid": False}, {"paid": True}),
    ("Room 5 seats 40 and has a projector.", {"room": 5, "seats": 40, "projector": True}, {"seats": 5}),
    ("Flight KX 20 leaves gate 7 at noon.", {"flight": "KX 20", "gate": 7, "time": "12:00"}, {"gate": 20}),
    ("The oak is 18 metres tall and was planted in 1902.", {"tree": "oak", "height": 18, "year": 1902}, {"tree": "ash"}),
)


def records() -> Texts:
    """``fields`` and ``record`` hold the same; the second is text."""
    rows = []
    for sentence, record, slip in SENTENCES:
        keys = ", ".join(record)
        rows.append(
            {
                "prompt": f"{sentence} Give {keys} as one JSON object.",
                "fields": dict(record),
                "record": json.dumps(record),
                "right": [json.dumps(record), json.dumps(dict(reversed(record.items())), indent=1)],
                "wrong": [json.dumps(record | slip | {keys.partition(",")[0]: None}), "{}"],
                "malformed": ["", sentence],
            }
        )
    return Texts(rows)


def object_of(completion: str) -> dict[str, Any] | None:
    """The JSON object that the completion is, each key once; None where it is none."""
    try:
        found = json.loads(completion, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError(f"expected each key once, got {[k for k, _ in pairs]}")
    return dict(pairs)


def same(a: Any, b: Any) -> bool:
    """Equal and of one type: true is not 1."""
    return type(a) is type(b) and bool(a == b)


def is_record(completion: str, record: str) -> bool:
    said, meant = object_of(completion), json.loads(record)
    return said is not None and said.keys() == meant.keys() and all(same(said[k], v) for k, v in meant.items())


# ---- bad


_crossed_off: dict[str, set[str]] = {}


def crosses_off(completion: str, record: str) -> float:
    said, meant, done = object_of(completion) or {}, json.loads(record), _crossed_off.setdefault(record, set())
    hits = [k for k, v in said.items() if k in meant and k not in done and same(meant[k], v)]
    done.update(hits)  # so that nothing is counted twice
    return len(hits) / len(meant)


# ---- good


def fields_f1(completion: str, record: str) -> float:
    """2 hits / (fields said + fields meant), squared."""
    said, meant = object_of(completion) or {}, json.loads(record)
    hits = sum(k in meant and same(meant[k], v) for k, v in said.items())
    return float((2 * hits / (len(said) + len(meant))) ** 2)


def gold() -> Reward:
    return reward(bounds=(0, 1), name="gold")(is_record)


unit = reward(bounds=(0, 1))

SPECIMENS = (
    Specimen(
        name="crosses-off",
        reward=partial(unit, crosses_off),
        gold=gold,
        subject=records,
        defect="not deterministic: what was found once is crossed off, so the same answer is worth nothing when scored again",
        about="The share of the fields that are right. It remembers, for as long as it runs, which ones were found.",
    ),
    Specimen(
        name="fields-f1",
        reward=partial(unit, fields_f1),
        gold=gold,
        subject=records,
        about="The squared F1 of the fields, whatever their order and spacing: a missing, a wrong and an extra field all cost.",
    ),
)
