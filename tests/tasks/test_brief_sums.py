# SPDX-License-Identifier: Apache-2.0
"""Brief sums: both kinds of answers, and how right the demonstrations are."""

import re

from guerdon.tasks import brief_sums


def test_answers_are_sums_and_the_parts_share_nothing() -> None:
    parts = [brief_sums.make_tasks(held_out=h) for h in (False, True)]
    prompts = [{t.prompt for t in part} for part in parts]
    assert not prompts[0] & prompts[1] and len(prompts[0] | prompts[1]) == 5**4
    for task in [t for part in parts for t in part]:
        assert task.fields["answer"] == f"#{sum(int(d) for d in task.prompt[:-1]) % 5}"


def test_demonstrations_without_errors_are_right() -> None:
    answers = {t.prompt: t.fields["answer"] for t in brief_sums.make_tasks(held_out=False)}
    shown = brief_sums.demonstrations(200, 0, steps_right=1.0, guess_right=1.0)
    assert all(brief_sums.correct(c, answers[p]) for p, c in shown)
    stepped = [(p, c) for p, c in shown if "+" in c]
    assert 70 < len(stepped) < 130
    for prompt, text in stepped:
        assert re.findall(r"\+(\d)", text) == list(prompt[1:-1]) and brief_sums.clear(text)


def test_errors_are_as_frequent_as_said() -> None:
    answers = {t.prompt: t.fields["answer"] for t in brief_sums.make_tasks(held_out=False)}
    shown = brief_sums.demonstrations(4000, 1, steps_right=0.5, guess_right=0.4)
    at_once = [brief_sums.correct(c, answers[p]) for p, c in shown if "+" not in c]
    assert abs(sum(at_once) / len(at_once) - (0.4 + 0.6 / 5)) < 0.04  # a wrong one is drawn at random and may be right
    first = [(int(p[0]) + int(p[1])) % 5 == int(c[3]) for p, c in shown if "+" in c]
    assert abs(sum(first) / len(first) - (0.5 + 0.5 / 5)) < 0.04
