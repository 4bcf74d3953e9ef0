# SPDX-License-Identifier: Apache-2.0
r"""What the ``math`` reward computes for one item: math-verify's verdict, most often without math-verify.

    stated    the part of a text that math-verify would read: the last box, the last dollars, a number at the end
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
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
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
    gold = stated(answer) or _bare(answer)
    if gold is None:
        return None
    g, s = read(gold), read(said)
    if g is not None and said == "":
        return False
    if g is None or s is None:
        return None
    return True if _spelt(gold) == _spelt(said) else compared(g, s)


def _spelt(latex: str) -> str:
    """The same text for ways to write that math-verify can't tell apart."""
    latex = re.sub(r"\s*\\(?:cdot|times)\s*", r"\\times ", latex.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))
    return re.sub(r"\^\{(\d)\}", r"^\1", latex)


# ---- math-verify


@lru_cache(maxsize=4096)
def same_by_math_verify(completion: str, answer: str) -> float:
    """What math-verify says, with its own time limits off: they are signals, which work in a main thread only."""
    return _verified(_parsed_gold(answer), _parse(completion))


@lru_cache(maxsize=4096)
def _stated_by_math_verify(said: str, answer: str) -> float | None:
    """``same_by_math_verify`` on what was stated; None if that can't be parsed, when it looks elsewhere in the completion."""
    parsed = _parse(f"\\boxed{{{said}}}")
    return None if not parsed or isinstance(parsed[0], str) else _verified(_parsed_gold(answer), parsed)


def _verified(gold: Sequence[Any], said: Sequence[Any]) -> float:
    from math_verify import verify

    broken: Exception | None = None
    for g in gold:
        for s in said:
            try:
                if verify(g, s, timeout_seconds=None, raise_on_error=True):
                    return 1.0
            except (TypeError, ValueError, AttributeError, NotImplementedError, ArithmeticError, RecursionError) as error:
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
    found: list[Any] = _parser()(text, parsing_timeout=None, **settings)
    return found


@lru_cache(maxsize=1)
def _parser() -> Callable[..., list[Any]]:
    from math_verify import parse

    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.ERROR)  # it warns that the limits are off
    return parse


WARM_UP = {"same_math": lambda: same_by_math_verify("$x$", "$x$")}
"""name -> a first call, in which libraries are imported: a worker makes it before the clock of the first item starts."""


# ---- what a text states

_TAIL = re.compile(r"\s*(?:\$\$?|\\\]|\\\))?[^%$\\{}\[\]]*")  # the end of the surrounding mathematics, and prose
_PER_CENT = re.compile(r"percent|pct", re.IGNORECASE)
_JOINS = re.compile(r"\s*(?:,?\s*(?:and|or)|,)?\s*")  # between dollars: math-verify makes one list of both
_DISPLAY = re.compile(r"\\\[(?:[^$\\]|\\(?!\]))*\\\]")
_SEPARATES = re.compile(r"\b(?:and|or)\b|[,;]")
_NUMBER = r"-?(?:0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,11})(?:\.\d{1,9})?"
_AT_END = re.compile(rf"(?:^|[A-Za-z:=]\s+)({_NUMBER}\.?|-?[1-9]\d{{0,8}}/[1-9]\d{{0,8}})\s*$", re.ASCII)
_BARE_FRACTION = re.compile(r"-?\\frac\{\d+\}\{\d+\}")
_SEEN = re.compile(  # a number or sum after a space or =, a fraction of two numbers, brackets with space around them
    r"(?:^|[\s=])(?:\*\*)?(?:[^\w\s(\\{]?-?\.?\d|-?\(-?\d[\d.\s+\-*×/^()÷]*[+\-*×/^()÷])"
    r"|\\frac\{-?\d+(?:[.,]\d+)?\}\{-?\d|\s\[[^\n\]\[]+\]\s"
)
_LONE_FRACTION = re.compile(r"(-?\\frac\{\d+\}\{\d+\})\.?\s*$", re.ASCII)
_LONE = re.compile(r"(?:^|[\s=])(-?(?:0|[1-9]\d{0,8})(?:\.\d{1,5})?)(?=[A-OQ-Za-oq-z\\]|\)?$)", re.ASCII)


def stated(text: str) -> str | None:
    r"""The part of ``text`` that math-verify would read, "" if it finds nothing there, None if that is not certain.

    >>> stated(r"We get $x=3$, so \boxed{\frac{3}{4}}."), stated("so $x = 3$."), stated("The answer is 42.")
    ('\\frac{3}{4}', 'x = 3', '42')
    >>> stated(r"\boxed{3} or \boxed{4}")  # it takes both
    """
    if "\\fbox" in text:
        return None
    box = text.find("\\boxed")
    if box >= 0 and "}" in text[box + 8 :]:
        return _boxed(text)
    text = text.replace("\\boxed", "")  # empty or never closed: not a box to math-verify
    if _BARE_FRACTION.fullmatch(text):
        return text
    if "$" in text:
        return _in_dollars(text)
    return (_at_end(text) or _lone_number(text)) if _seen_bare(text) else ""


def _boxed(text: str) -> str | None:
    start, depth = text.rfind("\\boxed"), 0
    if not text.startswith("\\boxed{", start):
        return None
    for end in range(start + 6, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            break
    else:
        return None
    tail, lower = text[end + 1 :], text.lower()
    if not _TAIL.fullmatch(tail) or _PER_CENT.search(tail):
        return None
    if "final answer" in lower and ("i hope" in lower or any(c.isdigit() for c in tail)):
        return None
    if "\\boxed" in text[:start] and not _alone(text[:start].rstrip()):
        return None
    inside = text[start + 7 : end].strip()
    return None if not inside or "$" in inside.replace("\\$", "") else inside


def _alone(before: str) -> bool:
    """Whether the boxes in ``before`` are neither near the last one nor in the same mathematics: those are read as well."""
    between = before[before.rfind("\\boxed") :].partition("}")[2]
    after = between[between.rfind("}") + 1 :]
    before = before.removesuffix("$$").removesuffix("$").removesuffix("\\[").removesuffix("\\(")
    same = "\\boxed" in before.rpartition("\n")[2] or "$$" in before or before.count("\\[") != before.count("\\]")
    return not same and (len(after) >= 70 or (len(after) >= 10 and not _SEPARATES.search(between)))


def _in_dollars(text: str) -> str | None:
    text = _DISPLAY.sub("\0", text)
    outside, inside = (parts := text.split("$"))[::2], parts[1::2]
    tail = outside[-1]
    if len(parts) % 2 == 0 or not all(inside) or any("\n" in x for x in inside) or inside[-1].endswith("\\"):
        return None
    if any("\\" in x or "[" in x or x[-1:].isdigit() for x in outside):  # other mathematics, or a $ that opens nothing
        return None
    if _PER_CENT.search(tail) or "%" in tail or any(c.isdigit() for c in tail):
        return None
    if "\0" in text or len(inside) > 1:
        between = outside[-2].rpartition("\0")[2]
        if _JOINS.fullmatch(between) or _PER_CENT.match(between.lstrip()) or "%" in between:
            return None
    return inside[-1].strip() if _answered_by(text, outside[-2]) else None


def _answered_by(text: str, before: str) -> bool:
    """Whether the word "answer", after which math-verify looks first, is not there or just before what is stated."""
    count = text.lower().count("answer")
    if count == 0:
        return True
    after = before.lower().rpartition("answer")
    return count == 1 and bool(after[1]) and len(after[2]) <= 40 and not any(c.isdigit() or c in "=\n" for c in after[2])


def _at_end(text: str) -> str | None:
    found = _AT_END.search(text)
    if found is None or "\\" in text or "[" in text or not _answered_by(text, text[: found.start(1)]):
        return None
    return found[1].removesuffix(".")


def _lone_number(text: str) -> str | None:
    """The number of a text in which math-verify would see only one, as the 17 of 17\\pi without dollars."""
    seen = list(_SEEN.finditer(text))
    if len(seen) != 1 or "\\(" in text or "\\[" in text:
        return None
    found = _LONE.match(text, seen[0].start()) or _LONE_FRACTION.search(text)
    return found[1] if found and _answered_by(text, text[: found.start(1)].removesuffix("=")) else None


def _bare(answer: str) -> str | None:
    """A gold answer in LaTeX of which math-verify makes nothing unless it is put between dollars; None if that is not certain."""
    return None if "$" in answer or _seen_bare(answer) else answer.strip() or None


def _seen_bare(text: str) -> bool:
    """Whether a text without dollars and boxes may hold anything that math-verify takes for mathematics."""
    return "\\(" in text or "\\[" in text or _SEEN.search(text) is not None


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

_LETTERS = "abknpqruvwxyz"  # of which no unit of math-verify is made but ab
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>{_NUMBER[2:]}(?![\d.]))|(?P<letter>[{_LETTERS}])|(?P<command>\\(?:[dt]?frac|sqrt|pi|cdot|times|infty)(?![a-zA-Z]))"
    r"|(?P<sign>\\[{}]|[-+*/^(){}\[\],=]))",
    re.ASCII,
)
_UNIT = re.compile(r"(?<=[\w}])\s*\\text\s*\{\s*(?!and\b|or\b|percent|pct|inf)[a-z. ]+\}(?:\^\d|\^\{\d\})?$")
_WORD = re.compile(r"\\text\{\(?([A-Za-z][A-Za-z ]*)\)?\}|([A-D])")
_NO_WORDS = re.compile(r"\b(?:d|(?i:and|or|e|i|pi|percent(?:age)?|pct))\b|(?i:inf|sqrt)")
_MATRIX = re.compile(r"\\begin\{([pb]matrix)\}(.*)\\end\{\1\}", re.DOTALL)
_LEFT_RIGHT = re.compile(r"\\(?:left|right)(?=[()\[\]]|\\[{}])")


@lru_cache(maxsize=16384)
def read(latex: str) -> Meaning | None:
    r"""What a piece of LaTeX means to math-verify, None if that is not certain.

    >>> read("42"), read(r"\text{yes}"), read(r"\int x")
    (Value(terms={(1, ()): Fraction(42, 1)}, form='integer', decimals=False), Word(name='yes'), None)
    """
    try:
        return _read(latex.strip())
    except _Unsure:
        return None


def _read(text: str) -> Meaning:
    word = _WORD.fullmatch(text)
    if word:
        if _NO_WORDS.search(text):
            raise _Unsure
        return Word((word[1] or word[2]).replace(" ", "").lower())
    text = _LEFT_RIGHT.sub("", text).replace("{,}", ",").replace("\\!", "")
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        rows = [[_value(cell) for cell in row.split("&")] for row in matrix[2].split("\\\\")]
        if len({len(row) for row in rows}) != 1:
            raise _Unsure
        return Many("matrix", tuple(x for row in rows for x in row), len(rows[0]))
    text = _UNIT.sub("", text).removeprefix("\\$")
    text = re.sub(r"(?<=\d)\^(?:\\circ|\{\\circ\})$", "", text)
    if text.endswith("\\%"):
        x = _value(text[:-2])
        if x.form not in ("integer", "decimal"):
            raise _Unsure
        return Value(x.terms, "percent", x.form == "decimal")
    if text == "0.5":  # math-verify reads this one as a fraction
        return Value(_constant(Fraction(1, 2)))
    if re.search(r"ab|\d\s+\d", text):
        raise _Unsure
    if "=" in text:
        left, _, right = text.partition("=")
        return Equation(_value(left), _value(right))
    reader = _Reader(text)
    return reader.collection()


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
            if "," in found[0] and found.lastgroup == "number" and found[0] != text.removeprefix("-"):
                raise _Unsure  # 1,234 is a number, (1,234) may be two
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
        total, fraction = self.factor()
        while self.next == "(" or (self.tokens[self.at][0] in ("letter", "command") and self.next not in ("\\cdot", "\\times")):
            x, fraction = self.factor()
            if _rational(x.terms) is not None and _rational(total.terms) is not None:
                return self.mixed(total, x, fraction)
            total = Value(_times(total.terms, x.terms), decimals=total.decimals or x.decimals)
        if self.tokens[self.at][0] == "number":
            raise _Unsure
        return total

    def mixed(self, whole: Value, x: Value, fraction: bool) -> Value:
        """2\\frac{1}{2} is 5/2; any other two numbers side by side are left to math-verify."""
        last = self.next in ("", "+", "-", ",", ")", "]", "}", "\\}", "=")
        if not (fraction and last and whole.form == "integer") or not 0 < (_rational(x.terms) or 0) < 1:
            raise _Unsure
        return Value(_plus(whole.terms, x.terms))

    def factor(self) -> tuple[Value, bool]:
        """A factor with its power, and whether it is a fraction of two integers."""
        kind, text = self.tokens[self.at]
        self.at += 1
        fraction = False
        if kind == "number":
            x = Fraction(text.replace(",", ""))
            value = Value(_constant(x), "decimal" if "." in text else "integer", "." in text)
        elif kind == "letter":
            value = Value({(1, ((text, 1),)): Fraction(1)}, "symbol")
        elif text in (_PI, _INFINITY):
            value = Value({(1, ((text, 1),)): Fraction(1)}, "infinity" if text == _INFINITY else "expression")
        elif text.endswith("frac"):
            above, below = self.argument(), self.argument()
            fraction = above.form == below.form == "integer"
            value = Value(_times(above.terms, _inverse(below.terms)), decimals=above.decimals or below.decimals)
        elif text == "\\sqrt":
            inside = self.argument()
            value = Value(_root(inside.terms), decimals=inside.decimals)
        elif text == "(":
            value = self.sum()
            self.take(")")
        else:
            raise _Unsure
        if self.next == "^":
            self.at += 1
            n = self.argument()
            power = _rational(n.terms)
            if n.form != "integer" or power is None:
                raise _Unsure
            return Value(_power(value.terms, int(power)), decimals=value.decimals), False
        return value, fraction

    def argument(self) -> Value:
        """What stands in braces, or one digit or letter."""
        if self.next == "{":
            self.at += 1
            value = self.sum()
            self.take("}")
            return value
        kind, text = self.tokens[self.at]
        if kind == "number" and len(text) == 2 and text.isdigit() and self.tokens[self.at - 1][1].endswith("frac"):
            self.tokens[self.at : self.at + 1] = [("number", text[0]), ("number", text[1])]  # \frac12
        if kind not in ("number", "letter") or len(self.next) > 1:
            raise _Unsure
        return self.factor()[0] if self.tokens[self.at + 1][1] != "^" else self._refuse()

    def _refuse(self) -> Value:
        raise _Unsure


def _collected(brackets: str, items: list[Value]) -> Many:
    """Round and square brackets around two numbers in rising order are an interval to math-verify, in falling order a tuple."""
    endless = any(x.form == "infinity" for x in items)
    if not all(x.form == "infinity" or _is_constant(x.terms) for x in items) or (
        endless and not _open_at_infinity(brackets, items)
    ):
        raise _Unsure
    if brackets == "\\{\\}":
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
    if one is None or not _is_constant(one.terms) or "matrix" in (getattr(gold, "kind", ""), getattr(said, "kind", "")):
        return None
    many = gold if isinstance(gold, Many) else said
    return None if isinstance(many, Many) and len(many.items) == 1 else False


def _same_equation(gold: Equation, said: Equation) -> bool | None:
    sides = (gold.left, gold.right, said.left, said.right)
    solved = gold.left.form == said.left.form == "symbol" and all(_is_constant(e.right.terms) for e in (gold, said))
    if solved and (gold.left != said.left or _same_value(gold.right, said.right) is False):
        return False
    if any(x.decimals or x.form == "percent" for x in sides):
        return None
    g, s = (_plus(e.left.terms, _times(_constant(-1), e.right.terms)) for e in (gold, said))
    if g in (s, _times(_constant(-1), s)):
        return True if g else None
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
        return _same_rounded(gold.terms, said.terms) if plain else _apart(gold.terms, said.terms)
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


def _same_rounded(a: Terms, b: Terms) -> bool | None:
    x, y = _rounded(a), _rounded(b)
    return None if x is None or y is None else x == y


def _same_scientific(gold: Value, said: Value) -> bool | None:
    if gold.form == said.form:
        return True if gold == said else _apart(gold.terms, said.terms)
    number, other = (gold, said) if gold.form == "scientific" else (said, gold)
    if other.form == "decimal":
        return _same_rounded(gold.terms, said.terms)
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
        hundredths = [v / 100 if w.form == "percent" else v for v, w in ((x, gold), (y, said))]
        return _same_rounded(_constant(hundredths[0]), _constant(hundredths[1]))
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
    if gold.kind == said.kind == "set":
        ordered = [sorted(x.items, key=lambda v: _float(v.terms)) for x in (gold, said)]
        for items in ordered:
            if any(_float(b.terms) - _float(a.terms) < 1e-5 for a, b in pairwise(items)):
                return None
        return _all(*ordered)
    if gold.kind == said.kind:
        return _all(gold.items, said.items)
    if "set" in (gold.kind, said.kind):
        return None
    return False


def _all(gold: Sequence[Value], said: Sequence[Value]) -> bool | None:
    """Whether all items agree, in order: one that does not decides."""
    verdicts = [_same_value(g, s) for g, s in zip(gold, said, strict=True)] if len(gold) == len(said) else [False]
    return False if False in verdicts else None if None in verdicts else True
