# SPDX-License-Identifier: Apache-2.0
r"""What the ``math`` reward computes for one item: math-verify's verdict, most often without its parser and sympy.

    stated    the part of a text that math-verify would read, in its spelling: its own patterns and normalisation find it
    read      what that part means, exactly: numbers, surds, polynomials, equations, tuples, sets, intervals, matrices, words
    compared  whether math-verify calls two such meanings equal

Each of the three says None where it is not certain, and then math-verify decides. Where math-verify departs from mathematics
it is followed: (1,2) is {2,1}, 50% is 50 as well as 1/2, numbers count to six decimals if one is a decimal, 2\frac{1}{2} is 5/2.
The standard library alone at the top, so that a worker loads this file by itself.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any, NamedTuple

STANDALONE = True  # the worker pool may run this file without the package around it


def same_math(completion: str, answer: Any) -> float:
    """1 if ``completion`` states what the gold ``answer`` is: math-verify's verdict, decided without it where that is certain.

    A comparison that math-verify breaks on raises, where math-verify alone would say False.
    """
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise ValueError(f"the gold answer should be text or a number, got {type(answer).__name__} {answer!r:.60}")
    gold, said = str(answer), stated(completion)
    if said is None:
        return same_by_math_verify(completion, gold)
    verdict = verdict_on(said, gold)
    if verdict is not None:
        return float(verdict)
    value = _stated_by_math_verify(said, gold) if said else None
    return same_by_math_verify(completion, gold) if value is None else value


def plain_verdict(completion: str, answer: str) -> bool | None:
    r"""Whether ``completion`` states ``answer``; None where it takes math-verify to say.

    >>> plain_verdict("42", "42"), plain_verdict(r"so \boxed{41}", "42"), plain_verdict(r"$\sin x$", "42")
    (True, False, None)
    >>> plain_verdict(r"we get $(x+1)^2$.", "$x^2+2x+1$"), plain_verdict(r"\boxed{2\sqrt{2}}", r"$\sqrt{8}$")
    (True, True)
    """
    said = stated(completion)
    return None if said is None else verdict_on(said, answer)


@lru_cache(maxsize=4096)
def verdict_on(said: str, answer: str) -> bool | None:
    """``plain_verdict`` on what a completion states; the completions of a group often state the same."""
    gold = _stated_gold(answer)
    if not gold or said in ("", gold):  # math-verify compares spellings as well
        return said == gold if gold else None
    g, s = read(gold), read(said)
    return None if g is None or s is None else compared(g, s)


# ---- math-verify


@lru_cache(maxsize=4096)
def same_by_math_verify(completion: str, answer: str) -> float:
    """What math-verify says, with its own time limits off: they are signals, which work in a main thread only."""
    return _verified(_parsed_gold(answer), _parse(completion))


@lru_cache(maxsize=4096)
def _stated_by_math_verify(said: str, answer: str) -> float | None:
    """``same_by_math_verify`` on what was stated; None if that can't be parsed, when it looks elsewhere in the completion."""
    if "\\boxed" in said or "answer" in said.casefold() or said.endswith("\\"):  # of which its patterns would see a part
        return None
    parsed = _parse(f"$${said}$$", extraction_config=[_library().as_it_is])
    return None if not parsed or isinstance(parsed[0], str) else _verified(_parsed_gold(answer), parsed)


def _verified(gold: Sequence[Any], said: Sequence[Any]) -> float:
    from math_verify import verify

    broken: Exception | None = None
    for g in gold:
        for s in said:
            try:
                if verify(g, s, timeout_seconds=None, raise_on_error=True):
                    return 1.0
            except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
                broken = error  # another pair may still agree
    if broken is not None:
        raise broken
    return 0.0


@lru_cache(maxsize=4096)
def _parsed_gold(answer: str) -> Sequence[Any]:
    found = _parse(answer, raise_on_error=True) or _parse(f"${answer}$", raise_on_error=True)  # bare LaTeX isn't seen as such
    if not found:
        raise ValueError(f"the gold answer should be mathematics, got {answer!r:.60}")
    return found


def _parse(text: str, **settings: Any) -> list[Any]:
    found: list[Any] = _library().parse(text, parsing_timeout=None, **settings)
    return found


class _Library(NamedTuple):
    """Of math-verify: ``patterns`` in its order, those of one priority together, and whether they need an answer or a box."""

    parse: Any
    as_it_is: Any
    patterns: list[list[tuple[re.Pattern[str], bool, bool]]]
    normalised: Any
    settings: dict[bool, Any]


@lru_cache(maxsize=1)
def _library() -> _Library:
    from dataclasses import replace

    from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse
    from math_verify.parser import get_extraction_regexes

    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.ERROR)  # it warns that the limits are off
    latex = LatexExtractionConfig()
    every = [x for patterns, _ in get_extraction_regexes([latex, ExprExtractionConfig()]) for x in patterns]
    ordered = groupby(sorted(every, key=lambda x: x[1]), key=lambda x: x[1])
    return _Library(
        parse,
        LatexExtractionConfig(normalization_config=NormalizationConfig(basic_latex=False, boxed="none")),
        [[(p, "answer" in p.pattern, "boxed{" in p.pattern) for p, _ in group] for _, group in ordered],
        normalize_latex,
        {False: latex.normalization_config, True: replace(latex.normalization_config, boxed="last")},
    )


WARM_UP = {"same_math": lambda: same_by_math_verify("$x$", "$x$")}
"""name -> a first call, in which libraries are imported: a worker makes it before the clock of the first item starts."""


# ---- what a text states

_TAIL = re.compile(r"\s*(?:\$\$?|\\\]|\\\))?[^%$\\{}\[\]]*")  # the end of the surrounding mathematics, and prose
_PER_CENT = re.compile(r"percent|pct", re.IGNORECASE)
_FRACTION = re.compile(r"-?[1-9]\d{0,8}/[1-9]\d{0,8}", re.ASCII)


def stated(text: str) -> str | None:
    r"""The part of ``text`` that math-verify would read, in its spelling; "" if it finds nothing, None if that is not certain.

    >>> stated(r"We get $x=3$, so \boxed{\dfrac34}."), stated("so $x = 3$ m."), stated("The answer is 42.")
    ('\\frac{3}{4}', 'x = 3', '42')
    >>> stated(r"\boxed{3} or \boxed{4}"), stated(r"$3$ or $4$")  # it takes both
    ('3,4', None)
    """
    box = _only_box(text)
    if box is not None:
        return _normalised(box) or None
    found = _found(text)
    if found is None:
        return ""
    groups = {name: x for name, x in found.groupdict().items() if x}
    if any(name.endswith("percent") for name in groups):
        return None
    if "expr" in groups:
        x = groups["expr"].strip()
        return x if _FRACTION.fullmatch(x) else None
    latex = [name for name in groups if "_latex" in name]
    if not latex:
        whole, part = ("".join(x for name, x in groups.items() if name.startswith(kind)) for kind in ("integer", "decimal"))
        number = (re.sub("[ ,]", "", whole).lstrip("0") or "0") + part.replace(",", ".")
        return number if number.isascii() else None
    return _normalised(groups[latex[0]], latex[0] == "first_latexBoxed") or None if len(latex) == 1 else None


@lru_cache(maxsize=4096)
def _stated_gold(answer: str) -> str | None:
    said = stated(answer)
    return stated(f"${answer}$") if said == "" else said  # bare LaTeX isn't seen as such


@lru_cache(maxsize=4096)
def _normalised(latex: str, boxed: bool = False) -> str:
    return str(_library().normalised(latex, _library().settings[boxed]))


def _found(text: str) -> re.Match[str] | None:
    """Of the first patterns of math-verify that match at all, the match that ends last, then the longest."""
    answer, box = "answer" in text.casefold(), "\\boxed" in text
    for patterns in _library().patterns:
        matches = [m for p, for_answer, for_box in patterns if answer >= for_answer and box >= for_box for m in p.finditer(text)]
        if matches:
            return max(matches, key=lambda m: (m.end(), -m.start()))
    return None


def _only_box(text: str) -> str | None:
    """What is in the one box of ``text``, None if math-verify may look elsewhere or take it apart."""
    before, _, rest = text.partition("\\boxed{")
    if not rest or "\\boxed" in before or "\\boxed" in rest or "\\fbox" in text:
        return None
    depth = 1
    for brace in re.finditer("[{}]", rest):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            break
    else:
        return None
    inside, tail, folded = rest[: brace.start()].strip(), rest[brace.end() :], text.casefold()
    if not inside or "$" in inside.replace("\\$", "") or "\\)" in inside or "\\]" in inside:
        return None
    if not _TAIL.fullmatch(tail) or _PER_CENT.search(tail):
        return None
    return None if "final answer" in folded and ("i hope" in folded or any(c.isdigit() for c in tail)) else inside


# ---- numbers, surds and polynomials: {(what is under the root, ((variable, power), ...)): coefficient}

Terms = Mapping[tuple[int, tuple[tuple[str, int], ...]], Fraction]
_PI, _INFINITY = "\\pi", "\\infty"
_MOST = 60  # terms, and digits of a power


class _Unsure(Exception):
    """Only math-verify can say."""


def _constant(x: Fraction | int) -> Terms:
    return {(1, ()): Fraction(x)} if x else {}


def _plus(a: Terms, b: Terms) -> Terms:
    total = dict(a)
    for key, x in b.items():
        total[key] = total.get(key, Fraction(0)) + x
    return {key: x for key, x in total.items() if x}


def _times(a: Terms, b: Terms) -> Terms:
    total: Terms = {}
    for (r, v), x in a.items():
        for (s, w), y in b.items():
            common, powers = math.gcd(r, s), dict(v)
            for name, power in w:
                powers[name] = powers.get(name, 0) + power
            left = tuple(sorted((name, power) for name, power in powers.items() if power))
            total = _plus(total, {(r * s // common**2, left): x * y * common})
    if len(total) > _MOST:
        raise _Unsure
    return total


def _inverse(a: Terms) -> Terms:
    if len(a) != 1:
        raise _Unsure  # 0, or a sum
    ((root, powers), x) = next(iter(a.items()))
    return {(root, tuple((name, -power) for name, power in powers)): 1 / (x * root)}


def _power(a: Terms, n: int) -> Terms:
    if abs(n) > (_MOST if len(a) == 1 else 8):
        raise _Unsure
    result = _constant(1)
    for _ in range(abs(n)):
        result = _times(result, a)
    return result if n >= 0 else _inverse(result)


def _root(a: Terms) -> Terms:
    x = _rational(a)
    if x is None or not 0 < x < 10**6 or x.denominator > 1000:
        raise _Unsure
    inside, outside = x.numerator * x.denominator, Fraction(1, x.denominator)
    d = 2
    while d * d <= inside:
        if inside % (d * d):
            d += 1
        else:
            inside, outside = inside // (d * d), outside * d
    return {(inside, ()): outside}


def _rational(a: Terms) -> Fraction | None:
    return a.get((1, ()), Fraction(0)) if not a or set(a) == {(1, ())} else None


def _is_constant(a: Terms) -> bool:
    return all(name == _PI for _, powers in a for name, _ in powers)


def _float(a: Terms) -> float:
    return math.fsum(float(x) * math.sqrt(root) * math.pi ** sum(p for _, p in powers) for (root, powers), x in a.items())


# ---- reading


_ENDLESS = (1, ((_INFINITY, 1),))


class Value(NamedTuple):
    """``form``: integer, decimal, scientific (decimal times a power of ten), percent, infinity, symbol (a letter), expression."""

    terms: Terms
    form: str = "expression"
    decimals: bool = False


class Many(NamedTuple):
    """``kind``: tuple, set, matrix (of ``width``), or the brackets of an interval."""

    kind: str
    items: tuple[Value, ...]
    width: int = 0


class Equation(NamedTuple):
    left: Value
    right: Value


class Word(NamedTuple):
    name: str


Meaning = Value | Many | Equation | Word

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:0|[1-9]\d{0,11})(?:\.\d{1,9})?(?![\d.]))|(?P<letter>[a-cf-hj-zA-DF-HJ-Z])"
    r"|(?P<command>\\(?:frac|sqrt|pi|cdot|times|infty)(?![a-zA-Z]))|(?P<sign>\\[{}]|[-+*/^(){}\[\],=]))",
    re.ASCII,
)
_WORD = re.compile(r"\\(?:text|mbox)\{\(?([A-Za-z][A-Za-z ]*)\)?\}|([A-H])")
_NO_WORDS = re.compile(r"\b(?:d|(?i:i|pi|gamma))\b")  # of which sympy or the grammar makes something else
_MATRIX = re.compile(r"\\begin\{([pb]matrix)\}(.*)\\end\{\1\}", re.DOTALL)
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_PERCENT = re.compile(r"((?:0|[1-9]\d{0,11})(?:\.\d{1,9})?)\s?\\?%", re.ASCII)
_SPACE = re.compile(r"\\(?:[,:;]|q?quad(?![a-zA-Z]))")
_DEGREES = re.compile(r"(?<=\d)\s*\^(?:\\circ|\{\\circ\})(?=\s*(?:$|[-+,)\]]))")


@lru_cache(maxsize=16384)
def read(latex: str) -> Meaning | None:
    r"""What a piece of LaTeX in math-verify's spelling means to math-verify, None if that is not certain.

    >>> read("42"), read(r"\text{yes}"), read(r"\int x")
    (Value(terms={(1, ()): Fraction(42, 1)}, form='integer', decimals=False), Word(name='yes'), None)
    """
    try:
        return _read(latex)
    except _Unsure:
        return None


def _read(text: str) -> Meaning:
    word = _WORD.fullmatch(text)
    if word:
        if _NO_WORDS.search(text):
            raise _Unsure
        return Word((word[1] or word[2]).replace(" ", "").lower())
    if _THOUSANDS.fullmatch(text):
        if text.startswith("0"):  # a decimal comma
            raise _Unsure
        return _value(text.replace(",", ""))
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        rows = [[_value(cell) for cell in row.split("&")] for row in matrix[2].split("\\\\")]
        if len({len(row) for row in rows}) != 1:
            raise _Unsure
        return Many("matrix", tuple(x for row in rows for x in row), len(rows[0]))
    percent = _PERCENT.fullmatch(text)
    if percent:
        x = _value(percent[1])
        return Value(x.terms, "percent", x.form == "decimal")
    text = _DEGREES.sub("", _SPACE.sub(" ", text))
    if re.search(r"\d\s+[\d.]", text):
        raise _Unsure
    if "=" in text:
        left, _, right = text.partition("=")
        return Equation(_value(left), _value(right))
    return _Reader(text).collection()


def _value(text: str) -> Value:
    reader = _Reader(text)
    value = reader.sum()
    reader.end()
    return _finite(value)


def _finite(x: Value) -> Value:
    if _INFINITY in _names(x):
        raise _Unsure
    return x


def _exact_product(a: Terms, b: Terms) -> bool:
    """Whether a decimal times a power of ten is a whole number also in floating point, as 3.2e5 is and 1.13e2 is not."""
    x, y = _rational(a), _rational(b)
    return x is not None and y is not None and 1 < y < 10**16 and x * y == Fraction(float(x) * float(y)) == int(x * y)


class _Reader:
    """Recursive descent: a sum of products of juxtaposed factors, as math-verify's grammar groups them."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise _Unsure
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self.tokens.append(("end", ""))
        self.at = 0

    @property
    def next(self) -> str:
        return self.tokens[self.at][1]

    def take(self, *expected: str) -> str:
        kind, text = self.tokens[self.at]
        if text not in expected and kind not in expected:
            raise _Unsure
        self.at += 1
        return text

    def end(self) -> None:
        self.take("end")

    def collection(self) -> Meaning:
        opener = self.next
        closers = {"(": (")", "]"), "[": ("]", ")"), "\\{": ("\\}",)}.get(opener, ())
        start = self.at
        if closers:
            self.at += 1
        items = [self.sum()]
        while self.next == ",":
            self.at += 1
            items.append(self.sum())
        if closers and (len(items) > 1 or opener == "\\{"):
            closer = self.take(*closers)
            self.end()
            return _collected(opener + closer, items)
        self.at = start
        items = [self.sum()]
        while self.next == ",":
            self.at += 1
            items.append(self.sum())
        self.end()
        return _finite(items[0]) if len(items) == 1 else _collected("\\{\\}", items)

    def sum(self) -> Value:
        total = self.product()
        while self.next in ("+", "-"):
            sign = -1 if self.take("+", "-") == "-" else 1
            term = self.product()
            total = Value(_plus(total.terms, _times(_constant(sign), term.terms)), decimals=total.decimals or term.decimals)
        return total

    def product(self) -> Value:
        total = self.factors()
        while self.next in ("*", "/", "\\cdot", "\\times"):
            sign, base = self.take("*", "/", "\\cdot", "\\times"), self.tokens[self.at][1]
            x = self.factors()
            ten = total.form == "decimal" and sign != "/" and base == "10" and _exact_product(total.terms, x.terms)
            terms = _times(total.terms, _inverse(x.terms) if sign == "/" else x.terms)
            total = Value(terms, "scientific" if ten else "expression", total.decimals or x.decimals)
        return total

    def factors(self) -> Value:
        if self.next in ("+", "-"):
            sign = self.take("+", "-")
            x = self.factors()
            form = x.form if x.form in ("integer", "decimal", "infinity") else "expression"
            return Value(_times(_constant(-1), x.terms), form, x.decimals) if sign == "-" else x
        total, _ = self.factor()
        while self.next == "(" or (self.tokens[self.at][0] in ("letter", "command") and self.next not in ("\\cdot", "\\times")):
            x, kind = self.factor()
            if kind and _rational(x.terms) is not None and _rational(total.terms) is not None:
                return self.mixed(total, x, kind)
            total = Value(_times(total.terms, x.terms), decimals=total.decimals or x.decimals)
        if self.tokens[self.at][0] == "number":
            raise _Unsure
        return total

    def mixed(self, whole: Value, x: Value, kind: str) -> Value:
        """2\\frac{1}{2} is 5/2; any other two rational numbers side by side are left to math-verify."""
        last = self.next in ("", "+", "-", ",", ")", "]", "}", "\\}", "=")
        if not (kind == "fraction" and last and whole.form == "integer") or not 0 < (_rational(x.terms) or 0) < 1:
            raise _Unsure
        return Value(_plus(whole.terms, x.terms))

    def factor(self) -> tuple[Value, str]:
        """A factor with its power, and what it is: a fraction of two integers, a number to sympy, a name or something else."""
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            value, kind = Value(_constant(Fraction(text)), "decimal" if "." in text else "integer", "." in text), "number"
        elif kind == "letter":
            value, kind = Value({(1, ((text.lower(), 1),)): Fraction(1)}, "symbol"), "name"
        elif text in (_PI, _INFINITY):
            value = Value({(1, ((text, 1),)): Fraction(1)}, "infinity" if text == _INFINITY else "expression")
            kind = "name"
        elif text == "\\frac":
            above, below = self.argument(), self.argument()
            kind = "fraction" if above.form == below.form == "integer" else ""
            value = Value(_times(above.terms, _inverse(below.terms)), decimals=above.decimals or below.decimals)
        elif text == "\\sqrt":
            inside, kind = self.argument(), ""
            value = Value(_root(inside.terms), decimals=inside.decimals)
        elif text == "(":
            value, kind = self.sum(), "number"
            self.take(")")
        else:
            raise _Unsure
        if self.next == "^":
            self.at += 1
            n = self.argument()
            power = _rational(n.terms)
            if n.form != "integer" or power is None:
                raise _Unsure
            value, kind = Value(_power(value.terms, int(power)), decimals=value.decimals), kind if kind == "name" else ""
        if kind == "name" and self.next == "(" and self.tokens[self.at + 2][1] in (")", "^"):
            raise _Unsure  # the value of a function
        return value, kind

    def argument(self) -> Value:
        """What stands in braces, or a number."""
        if self.next == "{":
            self.at += 1
            value = self.sum()
            self.take("}")
            return value
        text = self.take("number")
        return Value(_constant(Fraction(text)), "decimal" if "." in text else "integer", "." in text)


def _collected(brackets: str, items: list[Value]) -> Many:
    """Round and square brackets around two numbers in rising order are an interval to math-verify, in falling order a tuple."""
    endless = any(x.form == "infinity" for x in items)
    if not all(x.form == "infinity" or _is_constant(x.terms) for x in items) or (
        endless and not _open_at_infinity(brackets, items)
    ):
        raise _Unsure
    if brackets == "\\{\\}":
        items.sort(key=lambda x: _float(x.terms))
        if any(_float(b.terms) - _float(a.terms) < 1e-5 for a, b in pairwise(items)):
            raise _Unsure  # it may keep one of them
        return Many("set", tuple(items))
    if endless:
        return Many(brackets, tuple(items))
    if len(items) > 2:
        if brackets != "()":
            raise _Unsure
        return Many("tuple", tuple(items))
    low, high = (_float(x.terms) for x in items)
    if low < high - 1e-6:
        return Many(brackets, tuple(items))
    if brackets != "()" or (low < high + 1e-6 and items[0].terms != items[1].terms):
        raise _Unsure
    return Many("tuple", tuple(items))


def _open_at_infinity(brackets: str, items: list[Value]) -> bool:
    """Whether these are ends from -infinity, or up to infinity, with a round bracket there."""
    if len(items) != 2 or brackets not in ("()", "[)", "(]"):
        return False
    rising = all(x.form != "infinity" or x.terms[_ENDLESS] == end for x, end in zip(items, (-1, 1), strict=True))
    return rising and all(x.form != "infinity" or bracket in "()" for x, bracket in zip(items, brackets, strict=True))


# ---- comparing


def compared(gold: Meaning, said: Meaning) -> bool | None:
    """Whether math-verify calls ``said`` equal to ``gold``; None if that is not certain."""
    if isinstance(said, Equation) and isinstance(gold, Equation):
        return _same_equation(gold, said)
    if isinstance(said, Equation):
        said = said.right
    elif isinstance(gold, Equation):
        if gold.left.form != "symbol":
            return None
        gold = gold.right
    if isinstance(gold, Value) and isinstance(said, Value):
        return _same_value(gold, said)
    if isinstance(gold, Many) and isinstance(said, Many):
        return _same_many(gold, said)
    if isinstance(gold, Word) and isinstance(said, Word):
        return gold == said
    one = gold if isinstance(gold, Value) else said if isinstance(said, Value) else None
    if one is None or not _is_constant(one.terms):
        return None
    many = gold if isinstance(gold, Many) else said
    return None if isinstance(many, Many) and many.kind != "matrix" and len(many.items) == 1 else False


def _same_equation(gold: Equation, said: Equation) -> bool | None:
    sides = (gold.left, gold.right, said.left, said.right)
    solved = gold.left.form == said.left.form == "symbol" and all(_is_constant(e.right.terms) for e in (gold, said))
    if solved and (gold.left != said.left or _same_value(gold.right, said.right) is False):
        return False
    if any(x.decimals or x.form == "percent" for x in sides):
        return None
    g, s = (_plus(e.left.terms, _times(_constant(-1), e.right.terms)) for e in (gold, said))
    if g in (s, _times(_constant(-1), s)):
        return True if len(g) > 1 else None  # x = 0 is compared as text
    return False if _linear(g) and _linear(s) and not _proportional(g, s) else None


def _linear(a: Terms) -> bool:
    return all(root == 1 and sum(p for _, p in powers) in (0, 1) and len(powers) < 2 for root, powers in a) and not _is_constant(
        a
    )


def _proportional(a: Terms, b: Terms) -> bool:
    return set(a) == set(b) and len({a[key] / b[key] for key in a}) == 1


def _names(x: Value) -> set[str]:
    return {name for _, powers in x.terms for name, _ in powers}


def _same_value(gold: Value, said: Value) -> bool | None:
    forms = {gold.form, said.form}
    if "infinity" in forms:
        return gold.terms == said.terms
    if "percent" in forms:
        return _same_percent(gold, said)
    if forms == {"symbol"}:
        return gold.terms == said.terms
    if "symbol" in forms and not (forms & {"integer", "decimal"}):
        return None  # math-verify compares these as text
    constant = _is_constant(gold.terms), _is_constant(said.terms)
    if not all(constant):
        return _same_polynomial(gold, said, any(constant))
    if "scientific" in forms:
        return _same_scientific(gold, said)
    if "decimal" in forms:
        plain = all(x.form == "decimal" or not x.decimals for x in (gold, said))
        return _same_rounded(gold, said) if plain else _apart(gold.terms, said.terms)
    if gold.decimals or said.decimals:
        return _apart(gold.terms, said.terms)
    return True if gold.terms == said.terms else _distinct(gold.terms, said.terms)


def _same_polynomial(gold: Value, said: Value, one_constant: bool) -> bool | None:
    if gold.decimals or said.decimals:
        return False if one_constant and {gold.form, said.form} & {"integer", "decimal"} else None
    if gold.terms == said.terms:
        rational = all(root == 1 and not any(name == _PI for name, _ in powers) for root, powers in gold.terms)
        return True if rational else None
    gap = _plus(gold.terms, _times(_constant(-1), said.terms))
    return False if max(abs(x) for x in gap.values()) > Fraction(1, 10**6) else None


def _distinct(a: Terms, b: Terms) -> bool | None:
    """False if two unequal exact constants are too far apart for any rounding to make them equal."""
    x, y = _rational(a), _rational(b)
    if x is None or y is None:
        return _apart(a, b)
    return False if abs(x - y) > Fraction(1, 10**6) else None


def _apart(a: Terms, b: Terms) -> bool | None:
    """False if two constants differ by more than floating point may err."""
    x, y = _float(a), _float(b)
    return False if abs(x - y) > 1e-5 + 1e-9 * max(abs(x), abs(y)) else None


def _rounded(a: Terms) -> int | None:
    """Millionths, None near the middle between two."""
    x = _rational(a)
    scaled = Fraction(_float(a) if x is None else x) * 10**6
    near = round(scaled)
    return None if abs(scaled) > 10**15 or abs(scaled - near) > Fraction(499, 1000) else near


def _same_rounded(gold: Value, said: Value) -> bool | None:
    """Whether two constants, one of them a decimal, agree to six places; with an integer, which sympy doesn't round, exactly."""
    for exact, other in ((gold, said), (said, gold)):
        x = _rational(exact.terms)
        if not exact.decimals and x is not None and x.denominator == 1:
            return False if gold.terms != said.terms else True if other.form == "decimal" else None
    g, s = _rounded(gold.terms), _rounded(said.terms)
    if g is None or s is None or (g == s and gold.terms != said.terms and str(abs(g)).strip("0") == "1"):
        return None  # 0.0999999 is rounded to fewer digits than 0.1 has
    return g == s


def _same_scientific(gold: Value, said: Value) -> bool | None:
    if gold.form == said.form:
        return True if gold == said else _apart(gold.terms, said.terms)
    number, other = (gold, said) if gold.form == "scientific" else (said, gold)
    if other.form == "decimal":
        return _same_rounded(gold, said)
    if number.terms != other.terms:
        return _apart(number.terms, other.terms)
    return True if other.form == "integer" else None


def _same_percent(gold: Value, said: Value) -> bool | None:
    x, y = _rational(gold.terms), _rational(said.terms)
    if x is None or y is None:
        return None
    if gold.decimals or said.decimals:
        if any(v.decimals and v.form not in ("percent", "decimal") for v in (gold, said)):
            return None
        hundredths = [w._replace(terms=_constant(v / 100)) if w.form == "percent" else w for v, w in ((x, gold), (y, said))]
        return _same_rounded(*hundredths)
    if gold.form == said.form:
        return x == y
    part, y, other = (x, y, said) if gold.form == "percent" else (y, x, gold)
    if other.form != "integer":
        return None if part == y else part / 100 == y
    return None if part == 100 * y and part else part == y


def _same_many(gold: Many, said: Many) -> bool | None:
    if "matrix" in (gold.kind, said.kind):
        if gold.kind != said.kind or any(x.decimals or not _is_constant(x.terms) for x in gold.items + said.items):
            return None
        return gold.width == said.width and _all(gold.items, said.items)
    if len(gold.items) != len(said.items):
        return False
    if gold.kind == said.kind:
        return _all(gold.items, said.items)
    if "set" in (gold.kind, said.kind):
        return None
    return False


def _all(gold: Sequence[Value], said: Sequence[Value]) -> bool | None:
    """Whether all items agree, in order: one that does not decides."""
    verdicts = [_same_value(g, s) for g, s in zip(gold, said, strict=True)] if len(gold) == len(said) else [False]
    return False if False in verdicts else None if None in verdicts else True
