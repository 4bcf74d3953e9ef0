# SPDX-License-Identifier: Apache-2.0
"""Scorers whose qualities are known, on lines made for them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from guerdon.audit.reward_bench import Line, evaluate, read_lines, write_page
from guerdon.audit.reward_bench.lines import line_of
from guerdon.comparisons import Comparisons
from guerdon.errors import InputError
from guerdon.rewards import checkers, reward
from guerdon.rewards.ranking import win_rate

GOOD = [Line(f"p{i}", ("right",), ("wrong", "worse"), ("a", "b")[i % 2]) for i in range(10)]


@reward(bounds=(0, 1))
def says_right(completion: str) -> bool:
    return "right" in completion


@reward
def likes_length(completion: str) -> float:
    return float(len(completion))


def of(reward, lines: list[Line], **more):
    return evaluate(reward, lines, replicates=20, **more)


def test_a_perfect_scorer() -> None:
    e = of(says_right, GOOD)
    assert (e.accuracy.judged.value, e.best.judged.value, e.equal.value, e.unjudged.value) == (1.0, 1.0, 0.0, 0.0)
    assert e.accuracy.judged.low == pytest.approx(10 / (10 + 1.959963984540054**2))  # Wilson, all of 10
    assert e.chance == pytest.approx(1 / 3) and [s.name for s in e.subsets] == ["a", "b"] and e.average == 1.0
    assert [c.name for c in e.calibration] == ["raw"]  # nothing is wrong, so no factor can be fitted
    assert e.scoring.statuses == {"ok": 30, "abstain": 0, "timeout": 0, "error": 0}


def test_a_scorer_that_knows_nothing_is_at_chance() -> None:
    @reward
    def flat(completion: str) -> float:
        return 1.0

    e = of(flat, GOOD)
    assert (e.accuracy.judged.value, e.strict.judged.value, e.equal.value) == (0.5, 0.0, 1.0)
    assert e.best.judged.value == pytest.approx(1 / 3) and e.calibration[0].brier.value == 0.25


def test_a_scorer_worse_than_chance_is_not_calibrated_away() -> None:
    @reward
    def mostly_wrong(prompt: str, completion: str) -> float:
        return float(("right" in completion) == (prompt in ("p0", "p1")))

    raw, rescaled = of(mostly_wrong, GOOD).calibration
    assert raw.ece_mass.value == pytest.approx(1 / (1 + 2.718281828**-1) - 0.2)
    assert rescaled.ece_mass.value == pytest.approx(0.5 - 0.2) and rescaled.brier.value == 0.25


def test_an_answer_that_fails_takes_its_line_out_and_both_conventions_are_given() -> None:
    @reward
    def fails(prompt: str, completion: str) -> float | None:
        if prompt == "p0" and completion == "worse":
            return None
        if prompt == "p1":
            raise ValueError("no idea")
        return float(completion == "right")

    e = of(fails, GOOD)
    assert e.accuracy.judged.value == 1.0 and e.accuracy.judged.n == 8
    assert e.accuracy.wrong.value == 0.8 and e.best.wrong.value == 0.8 and e.unjudged.value == 0.2
    assert e.scoring.statuses == {"ok": 26, "abstain": 1, "timeout": 0, "error": 3}
    assert [(status, count) for status, _, count in e.scoring.reasons] == [("error", 3), ("abstain", 1)]
    none = of(fails, GOOD[:2])
    assert none.accuracy.judged.n == 0 and none.accuracy.wrong.value == 0.0
    assert json.dumps(none.as_dict(), allow_nan=False)


def test_a_scorer_that_likes_length_is_seen() -> None:
    long = [Line(f"p{i}", ("right " * 9,), ("wrong",)) for i in range(20)]
    short = [Line(f"q{i}", ("right",), ("wrong " * 9,)) for i in range(20)]
    x = of(likes_length, long + short).leanings["length"]
    assert (x.more.value, x.less.value, x.gap.value) == (1.0, 0.0, 1.0) and x.gap.low > 0.7
    fair = of(says_right, long + short).leanings["length"]
    assert fair.gap.value == 0.0 and fair.gap.low < 0 < fair.gap.high


def test_the_ties_subset_has_its_own_score() -> None:
    tied = [Line(f"t{i}", ("right", "right!"), ("wrong",), "Ties", f"tied:{i}") for i in range(4)]
    ref = [Line(f"t{i}", ("right",), ("wrong",), "Ties", f"ref:{i}") for i in range(4)]
    e = of(says_right, tied + ref + GOOD)
    (ties,) = [s for s in e.subsets if s.name == "Ties"]
    assert ties.ties is not None and ties.ties.judged.value == pytest.approx(1.01)  # a spread of 0, and a gap
    assert ties.headline is ties.ties and e.average == pytest.approx((1.01 + 1 + 1) / 3)

    @reward
    def fails(completion: str) -> float | None:
        return None if completion == "right!" else float("right" in completion)

    (ties,) = of(fails, tied + ref).subsets
    assert ties.ties is not None and ties.ties.judged.n == 0 and ties.ties.wrong.value == 0.0

    @reward
    def fails_once(prompt: str, completion: str) -> float | None:
        return None if (prompt, completion) == ("t0", "right!") else float("right" in completion)

    (ties,) = of(fails_once, tied + ref).subsets
    assert ties.ties is not None and (ties.ties.judged.n, ties.ties.wrong.n) == (3, 4)
    assert ties.ties.wrong.value == pytest.approx(ties.ties.judged.value * 3 / 4) == pytest.approx(1.01 * 3 / 4)


def test_other_words_and_the_opposite_instruction() -> None:
    lines = [
        Line(f"Say it: {i}", ("yes",), ("no",), paraphrases=(f"Please say it: {i}",), contrasts=(f"Don't: {i}",))
        for i in range(8)
    ]

    @reward
    def obeys(prompt: str, completion: str) -> bool:
        return (completion == "yes") != prompt.startswith("Don't")

    @reward
    def deaf(prompt: str, completion: str) -> bool:
        return completion == ("yes" if "Please" not in prompt else "no")

    good, bad = of(obeys, lines).consistency, of(deaf, lines).consistency
    assert good is not None and (good.same.value, good.turned.value, good.follows.value) == (1.0, 1.0, 1.0)
    assert bad is not None and (bad.same.value, bad.reworded.value, bad.turned.value) == (0.0, 0.0, 0.0)
    assert of(obeys, GOOD).consistency is None


def test_a_comparator_is_asked_in_both_orders() -> None:
    def first_is_better(rollouts, pairs) -> Comparisons:
        return Comparisons(pairs[:, 0], pairs[:, 1], torch.ones(len(pairs)))

    e = of(win_rate(first_is_better), GOOD)
    assert e.position is not None and e.position.first_share == 1.0 and e.position.agree == 0 and e.position.pairs == 20
    assert of(says_right, GOOD).position is None


def test_rewards_finer_than_an_answer_and_with_fields_are_summed() -> None:
    @reward(level="segment", split=r"\n")
    def digits(segment: str) -> float:
        return float(segment.isdigit())

    assert of(digits, [Line("p", ("1\n2",), ("1\nb",))]).accuracy.judged.value == 1.0
    lines = [Line("p", ("so 4",), ("so 5",), fields={"answer": "4"})]
    assert of(checkers.numeric(), lines).accuracy.judged.value == 1.0
    with pytest.raises(InputError, match="reads `answer`, and no line has it"):
        of(checkers.numeric(), GOOD)


# ---- files


def test_lines_of_several_kinds(tmp_path: Path) -> None:
    asked, said = {"role": "user", "content": "2+2="}, [{"role": "assistant", "content": x} for x in "45"]
    rows = [
        {"prompt": "2+2=", "chosen": "4", "rejected": "5"},
        {
            "prompt": "2+2=",
            "chosen": ["4"],
            "rejected": ["5", "6"],
            "num_correct": 1,
            "total_completions": 3,
            "id": 7,
            "subset": "x",
        },
        {"chosen": [asked, said[0]], "rejected": [asked, said[1]]},
        {"prompt": [asked], "chosen": [said[0]], "rejected": [[said[1]], [said[1]]], "answer": "4"},
    ]
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    a, b, c, d = read_lines(path)
    assert (a.chosen, a.rejected, b.rejected, b.id, b.subset, dict(b.fields)) == (("4",), ("5",), ("5", "6"), "7", "x", {})
    assert c.prompt == [asked] and c.chosen == ([said[0]],) and len(d.rejected) == 2 and d.fields == {"answer": "4"}
    assert of(checkers.exact(), [line_of({**r, "answer": "4"}) for r in rows]).accuracy.judged.value == 1.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "chosen": [], "rejected": "b"}, "`chosen` should be an answer"),
        ({"prompt": "p", "chosen": "a", "rejected": 3}, "`rejected` should be an answer"),
        ({"chosen": "a", "rejected": "b"}, "expected a `prompt`, or conversations"),
    ],
)
def test_a_line_that_is_none_is_refused(row: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        line_of(row)


def test_the_page_holds_everything_and_asks_for_nothing(tmp_path: Path) -> None:
    @reward
    def near(prompt: str, completion: str) -> float:
        return len(completion) + (len(prompt) % 3)

    e = of(near, [Line("<b>" * (i % 4), ("right " * (i % 3),), ("- wrong",), "s") for i in range(12)])
    write_page(e, tmp_path / "e.html", "d.jsonl")
    page = (tmp_path / "e.html").read_text()
    assert "on d.jsonl" in page and "Reliability" in page and "Length and style" in page and "12 lines, 24 answers" in page
    assert 'class="line c2 dashed"' in page and 'class="band c0"' in page and page.count('<span class="name">') == 2
    assert not re.search(r"(src|href)=[\"'](?!data:)", page) and "http" not in page.replace("http-equiv", "")
