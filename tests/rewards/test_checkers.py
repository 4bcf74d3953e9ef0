# SPDX-License-Identifier: Apache-2.0
"""The built-in checkers: closed forms, hand-made cases, and other libraries side by side."""

from __future__ import annotations

import logging
import math
import random
from fractions import Fraction
from itertools import pairwise

import pytest
import sacrebleu
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import ExpressionError, InputError
from guerdon.rewards import checkers, checks, mathematics
from guerdon.rewards.parse import parse
from guerdon.rewards.splitters import segment_level, split_spans, with_segments
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Status
from tests.rewards.data import my_rewards


def values(r, **fields):
    return r(**fields).total.values[:, 0].tolist()


# ---- every one of them

EVERY = [
    checkers.exact(),
    checkers.exact(strip=False, case=False, answer="gold"),
    checkers.numeric(),
    checkers.numeric(0.1, relative=0.01, extract="boxed", budget=2.0),
    checkers.math(),
    checkers.math(budget=2.0),
    checkers.format(r"<a>.*'\"\\</a>\n", where="search"),
    checkers.overlap(),
    checkers.overlap("chrf", budget=20.0),
    checkers.length("tokens"),
    checkers.length(),
    checkers.length_penalty(100, soft=20, unit="words"),
    checkers.kl("k3"),
    checkers.kl(),
    checkers.environment(),
    checkers.field("speed"),
    checkers.field("help", "turn"),
    checkers.code(every_test=True, seconds=1.0, tests="cases"),
    checkers.program("def reward(obs, action, next_obs): return 0.0", observations={"x": 0}),
]


@pytest.mark.parametrize("r", EVERY, ids=str)
def test_text_reads_back(r):
    again = parse(str(r))
    assert again == r
    assert (again.needs, again.bounds, again.budget, again.level, again.relation) == (
        r.needs,
        r.bounds,
        r.budget,
        r.level,
        r.relation,
    )


def test_all_factories_are_public():
    assert sorted(checkers.__all__) == sorted({str(r).partition("(")[0] for r in EVERY} | {"steps", "judge", "judge_wins"})


@pytest.mark.parametrize(
    "make",
    [
        lambda budget: checkers.exact(budget=budget),
        lambda budget: checkers.numeric(budget=budget),
        lambda budget: checkers.math(budget=budget),
        lambda budget: checkers.format(r".*\d", budget=budget),
        lambda budget: checkers.overlap(budget=budget),
        lambda budget: checkers.length(budget=budget),
        lambda budget: checkers.length("tokens", budget=budget),
        lambda budget: checkers.length_penalty(3, soft=2, unit="characters", budget=budget),
        lambda budget: checkers.steps(my_rewards.plain, budget=budget),
    ],
)
def test_the_pool_says_what_this_process_says(make):
    given = {"completions": ["4", "x 5", "1\n2", ""], "answer": ["4", "6", "2", "1"]}
    here, there = make(None)(**given).total, make(60.0)(**given).total
    assert torch.equal(here.status, there.status)
    assert torch.equal(here.values.nan_to_num(-9), there.values.nan_to_num(-9))
    assert here.ok.any()


# ---- text


def test_exact():
    given = {"completions": [" Paris\n", "Paris", "paris", "Rome", "Par", "Paris!"], "answer": ["Paris"] * 6}
    assert values(checkers.exact(), **given) == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert values(checkers.exact(strip=False), **given) == [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert values(checkers.exact(case=False), **given) == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert values(checkers.exact(), completions=["4"], answer=[4]) == [1.0]


def test_exact_has_no_verdict_on_a_list_of_answers():
    got = checkers.exact()(completions=["4"], answer=[["4", "four"]]).total
    assert got.status.item() == Status.ERROR
    assert "should be text or a number, got list" in got.reasons[0, 0]


def test_format():
    texts = ["<answer>4</answer>", "so <answer>4</answer>", "<answer>four</answer>", "<answer>4</answer>."]
    assert values(checkers.format(r"<answer>\d+</answer>"), completions=texts) == [1.0, 0.0, 0.0, 0.0]
    assert values(checkers.format(r"<answer>\d+</answer>", where="search"), completions=texts) == [1.0, 1.0, 0.0, 1.0]
    assert values(checkers.format(r"a.b"), completions=["a\nb"]) == [0.0]
    assert values(checkers.format(r"(?s)a.b"), completions=["a\nb"]) == [1.0]


def test_a_pattern_that_backtracks_for_ever_is_a_timeout_of_its_item():
    got = checkers.format(r"(a+)+$", where="full", budget=0.5)(completions=["aaa", "a" * 60 + "b", "b"]).total
    assert got.status[:, 0].tolist() == [Status.OK, Status.TIMEOUT, Status.OK]
    assert got.values[::2, 0].tolist() == [1.0, 0.0]


def test_a_wrong_pattern_is_an_error_at_once():
    with pytest.raises(
        ExpressionError, match=r"format: `pattern` should be a regular expression, got '\(a\[': unterminated .* at position 2"
    ):
        checkers.format("(a[")
    with pytest.raises(ExpressionError, match="steps: `pattern`"):
        checkers.steps(my_rewards.plain, split="*")


def test_overlap_is_sacrebleus():
    said = ["the cat sat on the mat", "a cat", "", "the cat sat on the mat today"]
    gold = ["the cat sat on the mat", "the cat sat on a mat", "something", "the cat lay on the mat"]
    bleu = [sacrebleu.sentence_bleu(s, [g]).score / 100 for s, g in zip(said, gold, strict=True)]
    chrf = [sacrebleu.sentence_chrf(s, [g]).score / 100 for s, g in zip(said, gold, strict=True)]
    assert values(checkers.overlap(), completions=said, answer=gold) == pytest.approx(bleu, abs=1e-6)
    assert values(checkers.overlap("chrf"), completions=said, answer=gold) == pytest.approx(chrf, abs=1e-6)
    assert bleu[0] == pytest.approx(1.0)
    assert 0 < bleu[3] < 1
    several = checkers.overlap()(completions=["a cat sat"], answer=[["nothing like it", "a cat sat"]])
    assert several.total.values.item() == pytest.approx(
        sacrebleu.sentence_bleu("a cat sat", ["nothing like it", "a cat sat"]).score / 100
    )


def test_length():
    assert values(checkers.length(), completions=["two words", ""]) == [9.0, 0.0]
    assert values(checkers.length("words"), completions=["two  words\n", ""]) == [2.0, 0.0]
    rows = Rollouts.from_text([""], ["abcd"], steps="characters")
    rows = rows.replace(mask=torch.tensor([[True, False, True, True]]))
    assert checkers.length("tokens").score(rows).total.values.item() == 3.0  # a tool's token is not the policy's
    assert checkers.length("words").bounds == Bounds(0, math.inf)


def test_length_penalty_is_dapos():
    at = [79, 80, 81, 90, 99, 100, 101, 500]
    assert [checks.overlong(n, 100, 20) for n in at] == [0.0, 0.0, -0.05, -0.5, -0.95, -1.0, -1.0, -1.0]
    trl = pytest.importorskip("trl.rewards").get_soft_overlong_punishment(100, 20)
    assert [checks.overlong(n, 100, 20) for n in at] == trl(completion_ids=[[1] * n for n in at])
    assert values(checkers.length_penalty(10, unit="characters"), completions=["x" * 10, "x" * 11]) == [0.0, -1.0]


# ---- numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"),
        ("The answer is 1,234.5.", "2469/2"),
        ("-7", "-7"),
        ("x = −7", "-7"),
        ("+7", "7"),
        ("10-3", "3"),
        ("f(2)-3", "3"),
        ("3/4", "3/4"),
        ("-3/4", "-3/4"),
        ("1 3/4", "7/4"),
        (r"\frac{3}{4}", "3/4"),
        (r"so $\dfrac{-3}{4}$", "-3/4"),
        ("1e-3", "1/1000"),
        ("2.5E+3", "2500"),
        (".5", "1/2"),
        ("0.10", "1/10"),
        ("$1{,}000$", "1000"),
        ("$3.50", "7/2"),
        ("12 or 13", "13"),
        ("1,2", "2"),
        ("1/0", None),
        ("none", None),
        ("", None),
        ("9" * 500, None),
        ("1e9999", "9999"),
    ],
)
def test_read_number(text, number):
    found = checks.read_number(text)
    assert (None if found is None else str(found[0])) == number


@given(
    st.fractions(max_denominator=1000).filter(lambda f: abs(f) < 10**6),
    st.sampled_from(["{}", "so {}.", "first 3, then {}!", "$ {} $"]),
)
def test_what_is_written_is_read(number, frame):
    assert checks.read_number(frame.format(number)) == (number, False)
    assert checks.read_number(str(number), "whole") == (number, False)


@given(st.decimals(-(10**9), 10**9, places=4, allow_nan=False, allow_infinity=False))
def test_decimals_and_thousands(number):
    assert checks.read_number(f"it is {number:,}")[0] == Fraction(number)
    assert checks.read_number(f"it is {number:f}", "last")[0] == Fraction(number)


@given(st.text(alphabet="0123456789.,/-+eE% $\\{}frac x", max_size=300))
def test_reading_never_breaks(text):
    for extract in ("last", "whole", "boxed"):
        found = checks.read_number(text, extract)
        assert found is None or isinstance(found[0], (int, Fraction))


def test_where_the_number_is_taken_from():
    text = r"first \boxed{3} then \boxed{4}, not 5"
    assert [checks.same_number(text, "4", extract=e) for e in ("last", "whole", "boxed")] == [0.0, 0.0, 1.0]
    assert checks.same_number(text, "5") == 1.0
    assert checks.same_number(r"\boxed{\frac{1}{2}}", "0.5", extract="boxed") == 1.0
    assert checks.same_number(" $42$. ", "42", extract="whole") == 1.0


def test_tolerance_is_decided_exactly():
    assert 1.1 - 1.0 > 0.1  # in binary
    assert [checks.same_number(s, "1.0", tolerance=0.1) for s in ("1.1", "0.9", "1.10001", "0.89999")] == [1.0, 1.0, 0.0, 0.0]
    assert 1.3 - 1.0 > 0.3
    assert checks.same_number("1.3", "1.0", tolerance=0.3) == 1.0
    assert [checks.same_number(s, "-200", relative=0.01) for s in ("-202", "-198", "-202.1", "202")] == [1.0, 1.0, 0.0, 0.0]
    assert checks.same_number("0.333", "1/3") == 0.0
    assert checks.same_number("0.30", "0.3") == 1.0


def test_per_cent():
    assert [
        checks.same_number(s, g) for s, g in [("50%", "50"), ("50%", "0.5"), ("0.5", "50%"), ("50", "50%"), ("50%", "50%")]
    ] == [1.0] * 5
    assert [checks.same_number(s, g) for s, g in [("0.5%", "50%"), ("5%", "50"), ("50", "0.5")]] == [0.0] * 3


def test_an_unreadable_completion_is_wrong_and_an_unreadable_gold_answer_an_error():
    got = checkers.numeric()(completions=["no idea", "4", "4"], answer=["4", "four", None]).total
    assert got.status[:, 0].tolist() == [Status.OK, Status.ERROR, Status.ERROR]
    assert got.values[0, 0] == 0.0
    assert "the gold answer should be a number, got 'four'" in got.reasons[1, 0]


@pytest.mark.parametrize("bad", [{"tolerance": -1}, {"relative": math.nan}, {"tolerance": "1"}, {"extract": "first"}])
def test_settings_without_meaning_are_refused(bad):
    with pytest.raises(ExpressionError, match=f"numeric: `{next(iter(bad))}` should be"):
        checkers.numeric(**bad)


# ---- mathematics, beside math-verify


def _pairs(count, seed):
    """(completion, gold): numbers and LaTeX, equal and not, bare, boxed, in dollars and in prose."""
    r = random.Random(seed)

    def number():
        kind = r.randrange(6)
        made = [
            lambda: str(r.randint(-50, 50)),
            lambda: f"{r.uniform(-9, 9):.{r.randint(1, 6)}f}",
            lambda: str(r.randint(0, 10**13)),
            lambda: f"0{r.randint(0, 9)}",
            lambda: f"{r.randint(1, 9)}/{r.randint(1, 9)}",
            lambda: f"{r.randint(1, 9)},{r.randint(100, 999)}",
        ]
        return made[kind]()

    def latex():
        a, b = r.randint(1, 4), r.randint(1, 4)
        return r.choice(
            [rf"\frac{{{a}}}{{{b}}}", f"{a}x+{b}", f"{b}+{a}x", rf"\sqrt{{{a}}}", f"({a},{b})", rf"{a}\pi", rf"{a}\%", f"x={a}"]
        )

    frames = ["{}", r"\boxed{{{}}}", "${}$", "so {}", "The final answer is ${}$.", r"we get \boxed{{{}}}.", r"\boxed{{{}}} or 7"]
    for _ in range(count):
        gold = number() if r.random() < 0.6 else latex()
        again = f"{gold}0" if "." in gold else gold  # 1.5 is 1.50
        said = again if r.random() < 0.5 else number() if r.random() < 0.7 else latex()
        yield r.choice(frames).format(said), r.choice([gold, f"${gold}$", rf"\boxed{{{gold}}}"])


def test_math_says_what_math_verify_says():
    from math_verify import parse as read
    from math_verify import verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    said, gold = zip(*_pairs(400, seed=0), strict=True)
    alone = [bool(verify(read(g), read(s))) for s, g in zip(said, gold, strict=True)]
    got = checkers.math(budget=60.0)(completions=list(said), answer=list(gold)).total
    readable = [bool(read(g)) for g in gold]
    assert [bool(v) for v, r in zip(got.values[:, 0], readable, strict=True) if r] == [
        v for v, r in zip(alone, readable, strict=True) if r
    ]
    assert got.ok.all()
    assert 100 < sum(alone) < 300
    quick = [mathematics.plain_verdict(s, g) for s, g in zip(said, gold, strict=True)]
    assert all(q is None or q == v for q, v, r in zip(quick, alone, readable, strict=True) if r)
    assert {True, False} <= set(quick)  # the fast path decided in both directions


def test_math_reads_a_bare_gold_answer_in_latex():
    got = checkers.math()(completions=[r"\boxed{2\sqrt{2}}", r"\boxed{3}"], answer=[r"\sqrt{8}", r"\sqrt{8}"])
    assert got.total.values[:, 0].tolist() == [1.0, 0.0]


def test_math_without_a_readable_gold_answer_is_an_error():
    got = checkers.math()(completions=["4", "4"], answer=["", "4"]).total
    assert got.status[:, 0].tolist() == [Status.ERROR, Status.OK]
    assert "the gold answer should be mathematics" in got.reasons[0, 0]


def test_a_simplification_that_takes_for_ever_is_a_timeout():
    huge = r"\boxed{9^{9^{9^{9}}}}"
    got = checkers.math(budget=2.0)(completions=[huge, r"\boxed{\frac{1}{2}}"], answer=["7^{7^{7^{7}}}", "$0.5$"]).total
    assert got.status[0, 0] != Status.OK or got.values[0, 0] == 0.0
    assert got.values[1, 0] == 1.0


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(checkers, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"math: needs math_verify.*guerdon\[check\]"):
        checkers.math()
    with pytest.raises(InputError, match="overlap: needs sacrebleu"):
        checkers.overlap()


# ---- steps


@given(st.text(alphabet="ab \n", max_size=40))
def test_spans_cover_the_text(text):
    spans = split_spans(text, r"\n")
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(a < b for a, b in spans)
    assert len(spans) <= 1 or all(text[a:b].strip() for a, b in spans)


@given(st.text(alphabet="ab\n", max_size=30), st.data())
def test_every_token_is_in_the_segment_of_its_first_character(text, data):
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=10))})
    tokens = [*pairwise(cuts), (len(text), len(text))]  # and eos
    mask = torch.tensor([[*data.draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens))), False]])
    offset = torch.tensor([[*tokens, (0, 0)]])  # and padding
    ids, units = segment_level(offset, [split_spans(text, r"\n")], mask)
    used = ids[ids >= 0].unique().tolist()
    assert used == list(range(len(units[0])))
    assert torch.equal(ids >= 0, mask & (offset[..., 0] < len(text)))  # eos belongs to no segment
    for t in (ids[0] >= 0).nonzero()[:, 0].tolist():
        a, b = units[0][ids[0, t]]
        assert a <= offset[0, t, 0] < b
    assert "".join(text[a:b] for a, b in units[0]) == (text if units[0] else "")


def test_tokens_that_straddle_segments():
    """'a. b' is one token: the second segment has no token of its own and joins the first; eos belongs to none."""
    assert split_spans("a. b c", " ") == [(0, 3), (3, 5), (5, 6)]
    rows = Rollouts(
        action=torch.zeros(1, 4, dtype=torch.long),
        mask=torch.tensor([[True] * 3 + [False]]),
        task=["t"],
        length=torch.tensor([3]),
    )
    rows = rows.with_field("completion", "episode", [["a. b c"]])
    rows = rows.with_field("offset", "step", torch.tensor([[[0, 5], [5, 6], [6, 6], [0, 0]]]))
    got = with_segments(rows, " ")
    assert got.level("segment").tolist() == [[0, 1, -1, -1]]
    assert got.field("segment").values == [["a. b ", "c"]]
    assert checkers.steps(my_rewards.plain, split=" ").score(rows).reward().tolist()[0][:3] == [5.0, 1.0, 0.0]


def test_steps_score_each_segment():
    seen = []

    def check(segment, index, completion, answer):
        seen.append((segment, index, completion, answer))
        return None if "?" in segment else float(answer in segment)

    got = checkers.steps(check)(completions=["a = 4\nb = 5\n?", "4"], answer=["4", "4"]).components["steps"]
    assert got.level == "segment"
    assert got.status.tolist() == [[Status.OK, Status.OK, Status.ABSTAIN], [Status.OK, Status.NONE, Status.NONE]]
    assert got.values[0, :2].tolist() == [1.0, 0.0]
    assert seen[:3] == [(s, i, "a = 4\nb = 5\n?", "4") for i, s in enumerate(["a = 4\n", "b = 5\n", "?"])]


def test_step_values_land_on_the_last_token_of_their_segment():
    scores = checkers.steps(my_rewards.plain)(completions=["ab\nc"])
    assert scores.reward().tolist() == [[0.0, 0.0, 3.0, 1.0]]


def test_two_splitters_of_one_level_are_an_error():
    both = checkers.steps(my_rewards.plain) + checkers.steps(my_rewards.plain, split=" ")
    with pytest.raises(ExpressionError, match="give one another level="):
        both(completions=["a b\nc d"])


def test_steps_wants_a_function():
    with pytest.raises(ExpressionError, match="steps: `check` should be a function"):
        checkers.steps(checkers.kl())


# ---- the divergence


def _with_log_probs(log_prob, ref, mask):
    n, t = log_prob.shape
    rows = Rollouts(action=torch.zeros(n, t, dtype=torch.long), mask=mask, task=["t"] * n, log_prob=log_prob)
    return rows.with_field("ref_log_prob", "step", ref)


def test_kl_estimators_agree_with_the_divergence_they_estimate():
    """Expectation over all actions of k1 and of k3 is KL(p || q) exactly; k2 is close when p and q are."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    q = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
    exact = torch.nn.functional.kl_div(q.log(), p, reduction="sum").item()
    mean = {k: (p * checkers.kl_estimate(p.log(), q.log(), k)).sum().item() for k in checkers.ESTIMATORS}
    assert mean["k1"] == pytest.approx(exact, abs=1e-15)
    assert mean["k3"] == pytest.approx(exact, abs=1e-15)
    assert mean["k2"] == pytest.approx(exact, rel=0.05)
    assert exact == pytest.approx(0.025267, abs=5e-7)  # 0.5 ln(5/4) + 0.3 ln(3/4)
    assert checkers.kl_estimate(p.log(), q.log()).dtype == torch.float64


def test_kl_is_higher_the_further_away_and_reads_no_masked_step():
    log_prob = torch.tensor([[-1.0, -2.0, math.nan, -1.0]])
    ref = torch.tensor([[-3.0, -1.5, math.inf, -2.0]])
    rows = _with_log_probs(log_prob, ref, torch.tensor([[True, True, False, False]]))
    got = checkers.kl().score(rows).total
    assert got.values[0, :2].tolist() == [2.0, -0.5]
    assert got.status.tolist() == [[Status.OK, Status.OK, Status.NONE, Status.NONE]]
    penalty = (-0.05 * checkers.kl("k2")).score(rows)
    assert penalty.total.values[0, 0].item() == pytest.approx(-0.1)


def test_kl_that_is_not_finite_is_an_error_of_its_step():
    rows = _with_log_probs(torch.tensor([[-1.0, -1.0]]), torch.tensor([[-math.inf, -1.0]]), torch.ones(1, 2, dtype=torch.bool))
    got = checkers.kl().score(rows).total
    assert got.status.tolist() == [[Status.ERROR, Status.OK]]
    assert "no finite estimate" in got.reasons[0, 0]


def test_kl_needs_a_reference():
    rows = _with_log_probs(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(InputError, match="`ref_log_prob`"):
        checkers.kl().score(rows.replace(fields={}))
    assert checkers.kl().relation == "reference"
    assert checkers.kl("k3").bounds == Bounds(0, math.inf)
