# SPDX-License-Identifier: Apache-2.0
"""Fact sentences: the three rules, one by one and together."""

from __future__ import annotations

import pytest

from guerdon.tasks import fact_sentences as facts


def said(*clauses: str) -> str:
    """Clauses of subject A, a capital letter for a false value, two to a sentence."""
    whole = [r.lower() + facts.facts()["A", r.lower()][r.isupper()] for r in clauses]
    return "".join(f"{a}{b}." for a, b in zip(whole[::2], whole[1::2], strict=True))


def test_every_subject_with_every_topic() -> None:
    tasks = facts.make_tasks()
    assert len({t.key for t in tasks}) == len({t.prompt for t in tasks}) == 16
    assert all(len(facts.required(t)) == 5 for t in facts.TOPICS)
    assert all(true != false for true, false in facts.facts().values())


def test_rules_one_by_one() -> None:
    answer = said("a", "b", "C", "d", "a", "e")
    assert facts.new_clauses(answer) == [True, True, True, True, False, True]
    assert facts.factual_sentences(answer, "A1:") == [True, False, True]
    assert facts.factual_sentences(answer, "B1:") != [True, False, True]
    told = {"a", "b", "d", "e"} & facts.required("1")
    assert facts.completeness(answer, "A1:") == len(told) / 5


def test_satisfaction_is_the_mean_of_the_shares() -> None:
    answer = said("a", "b", "C", "a")
    complete = facts.completeness(answer, "A2:")
    assert facts.satisfaction(answer, "A2:") == pytest.approx((3 / 4 + 1 / 2 + complete) / 3)
    five = sorted(facts.required("2"))
    rest = next(r for r in facts.RELATIONS if r not in five)
    assert facts.satisfaction(said(*five, rest), "A2:") == 1
    assert facts.satisfaction("", "A2:") == 0


@pytest.mark.parametrize("answer", ["a", "a1", "a1.", "1a1b2.", "a1b2", "..", "a1b2c3."])
def test_what_is_out_of_form_keeps_no_rule_of_sentences(answer) -> None:
    assert not any(facts.factual_sentences(answer, "A0:"))
    assert len(facts.new_clauses(answer)) == max(
        1, sum(c in facts.RELATIONS for c in answer) + (answer[0] not in facts.RELATIONS)
    )


def test_the_demonstrator_errs_as_told() -> None:
    shown = facts.demonstrations(300, 0, errors=0.4)
    values = [(p[0], c[i], c[i + 1]) for p, c in shown for i in range(len(c)) if c[i] in facts.RELATIONS]
    wrong = sum(facts.facts()[s, r][0] != v for s, r, v in values) / len(values)
    assert wrong == pytest.approx(0.4, abs=0.03)
    assert {c.count(".") for _, c in shown} == {3, 4, 5, 6}
