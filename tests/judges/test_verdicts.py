# SPDX-License-Identifier: Apache-2.0
"""Replies of every shape: a verdict goes to the item whose id it has, or to none."""

from __future__ import annotations

import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.judges.verdicts import match, read_better, read_score

IDS = ["aa11", "bb22", "cc33"]
SCORE = partial(read_score, low=1, high=10)
ALL = [{"id": "aa11", "score": 1}, {"id": "bb22", "score": 2}, {"id": "cc33", "score": 3}]
WHOLE = json.dumps({"verdicts": ALL})


def said(text: str) -> dict[str, float]:
    return {name: value for name, (value, _) in match(text, IDS, SCORE).said.items()}


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        json.dumps(ALL),
        json.dumps({"verdicts": ALL[::-1]}),
        f"Here you are:\n```json\n{WHOLE}\n```\nI hope {{this}} helps.",
        "\n".join(json.dumps(x) for x in ALL),
        json.dumps({"result": {"items": {"list": ALL}}}),
        f'<think>first I say {{"id": "aa11", "score": 9}}</think>{WHOLE}',
        WHOLE + WHOLE,
        json.dumps({"items": [{"id": "aa11", "answer": "the item, repeated"}], "verdicts": ALL}),
        json.dumps({"verdicts": [{**x, "score": str(x["score"]), "id": f" {x['id']} "} for x in ALL]}),
    ],
)
def test_verdicts_are_found_in_any_wrapping_and_order(text: str) -> None:
    assert said(text) == {"aa11": 1.0, "bb22": 2.0, "cc33": 3.0}


@given(st.integers(0, len(WHOLE)))
def test_a_reply_cut_anywhere_gives_the_verdicts_that_were_whole(cut: int) -> None:
    found = match(WHOLE[:cut], IDS, SCORE)
    whole = [x["id"] for x in ALL if WHOLE.find(json.dumps(x)) + len(json.dumps(x)) <= cut]
    assert list(found.said) == whole and set(found.reasons) == set(IDS) - set(whole)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no verdict"),
        ("The answer is 7 out of 10.", "no verdict"),
        ('{"score": 7}', "no verdict"),  # of which item it is isn't said
        ('{"id": "AA11", "score": 7}', "no verdict"),
        ('{"id": "aa11"}', "no verdict"),
        ('{"id": "aa11", "score": 11}', "not between 1 and 10"),
        ('{"id": "aa11", "score": NaN}', "not between 1 and 10"),
        ('{"id": "aa11", "score": true}', "expected a number"),
        ('{"id": "aa11", "score": "good"}', "expected a number"),
        ('{"id": "aa11", "score": null}', "expected a number"),
        ('{"id": "aa11", "score": 3} {"id": "aa11", "score": 4}', "two verdicts, 3.0 and 4.0"),
        ('{"id": "aa11", "score": 3} {"id": "aa11", "score": "?"}', "expected a number"),
        ('<think>it deserves {"id": "aa11", "score": 3}', "no verdict"),
    ],
)
def test_without_a_clear_verdict_an_item_has_a_reason(text: str, reason: str) -> None:
    found = match(text, IDS, SCORE)
    assert found.said == {} and reason in found.reasons["aa11"]


def test_invented_ids_are_counted_and_are_of_no_item() -> None:
    found = match('[{"id": "zz", "score": 1}, {"id": 7, "score": 1}, {"id": "bb22", "score": 5, "why": "fair"}]', IDS, SCORE)
    assert found.invented == 2 and found.said == {"bb22": (5.0, "fair")}


def test_a_pair_is_first_second_or_tie() -> None:
    text = '[{"id": "aa11", "better": " FIRST"}, {"id": "bb22", "better": "tie"}, {"id": "cc33", "better": "both"}]'
    found = match(text, IDS, read_better)
    assert {k: v for k, (v, _) in found.said.items()} == {"aa11": 1.0, "bb22": 0.5} and "'both'" in found.reasons["cc33"]


@given(st.text(alphabet='{}[]":,ids1a \\', max_size=80))
def test_no_reply_breaks_the_reader(text: str) -> None:
    match(text, IDS, SCORE)
    match('{"a":' * 300 + text, IDS, SCORE)
