# SPDX-License-Identifier: Apache-2.0
"""The ``math`` check beside math-verify: where it decides alone it says the same, on generated completions and on odd ones."""

from __future__ import annotations

import logging
import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.math_against_math_verify import OTHERS, PLAIN, by_guerdon, by_math_verify, pairs
from guerdon.rewards import mathematics


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("math_verify").setLevel(logging.ERROR)


def test_generated_pairs_get_math_verifys_verdict():
    found = Counter()
    for kind, said, gold in pairs(200, seed=3):
        alone, fast = by_math_verify(said, gold), mathematics.plain_verdict(said, gold)
        assert fast in (None, alone), (said, gold)
        assert by_guerdon(said, gold) == alone, (said, gold)
        found.update(fast=fast is not None, right=alone, plain=kind in {f.__name__ for f in PLAIN})
    assert found["fast"] > 0.95 * 200
    assert 0.35 * 200 < found["right"] < 0.65 * 200
    assert found["plain"] < 100


def test_every_kind_of_answer_is_decided_both_ways():
    decided = {(kind, mathematics.plain_verdict(said, gold)) for kind, said, gold in pairs(6000, seed=4)}
    assert {(f.__name__, v) for f in PLAIN + OTHERS for v in (True, False)} <= decided


ODD = [  # (gold, completion, math-verify's verdict): where it departs from mathematics, or from what one would expect
    ("$(1,2)$", "$(2,1)$", False),
    ("$(3,1)$", "$(1,3)$", False),
    ("$\\{1,2\\}$", "$2,1$", True),
    ("$50\\%$", "$50$", True),
    ("$50\\%$", "$0.5$", True),
    ("$12.5\\%$", "$12.5$", False),
    ("$100\\%$", "$10^2$", False),
    ("$\\frac{5}{2}$", "$2\\frac{1}{2}$", True),
    ("$-\\frac{5}{2}$", "$-2\\frac{1}{2}$", True),
    ("$5$", "$2(3)$", True),
    ("$1234$", "$1\\,234$", False),
    ("$\\{1,234\\}$", "$1,234$", False),
    ("$\\frac{1}{3}$", "$0.333333$", True),
    ("$\\frac{1}{3}$", "$0.33333$", False),
    ("$2\\pi$", "$6.283185$", True),
    ("$\\sqrt{8}$", "$2\\sqrt{2}$", True),
    ("$x$", "$2x-x$", False),
    ("$x=5$", "$5$", True),
    ("$x=5$", "$5=x$", True),
    ("$x=5$", "$y=5$", False),
    ("$5$", "$y=5$", True),
    ("$y=2x+3$", "$2y=4x+6$", True),
    ("$5t$", "$5x$", False),
    ("$5$", "$5t$", True),
    ("$[2,\\infty)$", "$[2,\\infty)$", True),
    ("$113$", "$1.13\\times 10^2$", False),
    ("$320000$", "$3.2\\times 10^5$", True),
    ("$5\\text{ cm}^2$", "\\boxed{5}", True),
    ("$90^\\circ$", "$90$", True),
    ("\\text{yes}", "\\boxed{\\text{no}}", False),
    ("$4$", "\\boxed{3} or \\boxed{4}", False),
    ("$\\{3,4\\}$", "\\boxed{3} or \\boxed{4}", True),
    ("$4$", "$3$, $4$", False),
    ("$4$", "$3$ but $4$", True),
    ("$4$", "The answer is $4$, not $5$.", True),
    ("$4$", "it costs 5$4$", False),
    ("$4$", "\\boxed{4}. The final answer is 5", False),
    ("$0.04$", "$4$ percent", True),
    ("$4$", "(4, 5)", False),
    ("$4$", "no idea", False),
    ("$4$", "it equals 4\\pi.", True),
    ("$4$", "it equals 4percent", True),
    ("$4$", "\\boxed{4", False),
    ("$4$", "so $4$ \\boxed{}", True),
    ("$4$", "so [4] then", True),
    ("$4$", "y=4x+3", True),
    ("$4$", "so $4$ or $5$", False),
    ("$x=4$", "so $x$ and $y$ are \\[ 4 \\]", True),
    ("$5$", "we get $5$, that is \\[ 6 \\]", False),
    ("$3606.94$", "$x = 3,606.94$", False),
    ("$0.359$", "\\boxed{0,359}", True),
    ("$-0.359$", "\\boxed{-0,359}", False),
    ("$1234$", "$1234^\\circ$", True),
    ("$7494381$", "$7,494,381^\\circ$", False),
    ("$2$", "\\boxed{2, 2}", True),
    ("$3$", "$1\\cdot 3, 3$", True),
    ("$27$", "$27.0000001$", False),
    ("$0.1$", "$0.0999999$", False),
    ("$27.0$", "$27.0000001$", True),
    ("$100\\%$", "$1.0000001$", False),
    ("$x=0$", "$x-0=0$", False),
    ("$2x$", "$x(2)$", False),
    ("$2x+4$", "$2(x+2)$", True),
    ("$4$", "$2\\sqrt{4}$", True),
    ("$-\\frac{1}{2}$", "$-50\\%$", True),
    ("$-50$", "$-50\\%$", False),
    ("$1234\\%$", "$1,234\\%$", False),
    ("$8$", "so it is \\boxed8.", False),
    ("$5$", "\\boxed{5\\,\\mathrm{m}}", True),
    ("$\\begin{pmatrix}1&2\\end{pmatrix}$", "$2$", False),
    ("$h^2+1$", "$h\\cdot h+1$", True),
    ("$34$", "$3400.0\\%$", False),
    ("$4$", "The final answer is $4$. I hope it is correct. Not $5$.", True),
    ("$4$", "\\boxed{4} is the final answer is 5", False),
    ("$\\sin x$", "\\boxed{\\sin x}", True),
    ("$12.5$", "it is 12.5%", True),
    ("$\\frac{8}{6}$", "\\boxed{\\text{answer: }\\frac{8}{6}}", False),
    ("$x\\ne 2$", "$x\\ne 3$", False),
    ("$5$", "\\boxed{5\\%\\}", False),
]


@pytest.mark.parametrize(("gold", "said", "verdict"), ODD)
def test_math_verify_is_followed_where_it_is_odd(gold, said, verdict):
    assert by_math_verify(said, gold) is verdict
    assert mathematics.plain_verdict(said, gold) in (None, verdict)
    assert by_guerdon(said, gold) is verdict


_PIECES = st.sampled_from(
    [*"xyab0123456789+-*/^(){},=. $", "\\frac{1}{2}", "\\sqrt{2}", "\\pi", "\\boxed{", "}", "\\infty", "2x", "0.5", "\\%"]
)


@given(st.lists(_PIECES, max_size=14).map("".join))
def test_reading_never_breaks(text):
    said = mathematics.stated(text)
    assert said is None or isinstance(said, str)
    mathematics.read(text)
    assert mathematics.plain_verdict(text, "$3$") in (None, True, False)


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=60), st.fractions(-1000, 1000, max_denominator=60))
def test_fractions_are_compared_exactly(x, y):
    def latex(z: Fraction) -> str:
        return f"{'-' if z < 0 else ''}\\frac{{{abs(z.numerator)}}}{{{z.denominator}}}"

    assert mathematics.plain_verdict(f"so \\boxed{{{latex(y)}}}", f"${latex(x)}$") == (x == y)


def test_surds_have_one_form():
    def terms(latex: str) -> object:
        return mathematics.read(latex).terms

    assert terms("\\sqrt{72}") == terms("6\\sqrt{2}") == terms("\\frac{12}{\\sqrt{2}}") == {(2, ()): 6}
    assert terms("(1+\\sqrt{2})^2") == {(1, ()): 3, (2, ()): 2}
    assert terms("(x+y)(x-y)") == terms("x^2-y^2")
    assert mathematics._float(terms("\\sqrt{2}+\\pi")) == pytest.approx(math.sqrt(2) + math.pi, abs=1e-15)


def test_a_group_is_judged_by_math_verify_once(monkeypatch):
    calls = []
    library = mathematics._library()

    def parse(text, **more):
        calls.append(text)
        return library.parse(text, **more)

    monkeypatch.setattr(mathematics, "_library", lambda: library._replace(parse=parse))
    for cache in (mathematics._parsed_gold, mathematics._stated_by_math_verify, mathematics.same_by_math_verify):
        cache.cache_clear()
    said = [f"{reason} so \\boxed{{\\sin x}}" for reason in ("First", "Then", "Again")]
    assert [mathematics.same_math(s, "$\\sin(x)$") for s in said] == [1.0, 1.0, 1.0]
    assert calls == ["$$\\sin x$$", "$\\sin(x)$"]


def test_a_gold_answer_that_is_no_mathematics_raises():
    for gold in ("", " "):
        with pytest.raises(ValueError, match="the gold answer should be mathematics"):
            mathematics.same_math("\\boxed{4}", gold)
    with pytest.raises(ValueError, match="should be text or a number, got list"):
        mathematics.same_math("4", [4])
    assert mathematics.same_math("4", 4) == 1.0
