# SPDX-License-Identifier: Apache-2.0
"""Pure checks of text: what the rewards of ``guerdon.rewards.checkers`` compute for one item.

A completion that cannot be read is a wrong answer: 0. A gold answer that cannot be read is a fault of the data: it raises. The
standard library alone at the top, so that a worker loads this file by itself.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import lru_cache
from typing import Any

STANDALONE = True  # the worker pool may run this file without the package around it

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)])[-+]\s?)?[$€£]?(?:(?P<whole>\d{{1,9}})\s(?=\d{{1,9}}\s?/))?"
    rf"(?P<body>{_DIGITS}(?:\.\d+)?|\.\d+)(?:[eE](?P<exponent>[-+]?\d{{1,3}})(?![\w.]))?"
    rf"(?:\s?/\s?(?P<divisor>{_DIGITS})(?!\d|\.\d))?\s?(?P<percent>%)?"
)
_FRAC = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_LOOK = str.maketrans({"−": "-", "–": "-", "﹣": "-", "－": "-", "＋": "+", "\u00a0": " ", "\u202f": " "})  # minus signs, spaces
_MAX_DIGITS = 400

Exact = Any
"""An int or a Fraction; type checkers know no number that is both."""


# ---- text


def _text_of(answer: Any) -> str:
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise ValueError(f"the gold answer should be text or a number, got {type(answer).__name__} {answer!r:.60}")
    return str(answer)


def same_text(completion: str, answer: Any, strip: bool = True, case: bool = True) -> float:
    """1 if ``completion`` is ``answer``; ``strip``: but for space around them; not ``case``: but for upper and lower case.

    >>> same_text(" Paris\\n", "Paris"), same_text("paris", "Paris"), same_text("paris", "Paris", case=False)
    (1.0, 0.0, 1.0)
    """
    a, b = completion, _text_of(answer)
    if strip:
        a, b = a.strip(), b.strip()
    if not case:
        a, b = a.casefold(), b.casefold()
    return float(a == b)


def matches(completion: str, pattern: str, where: str = "full") -> float:
    """1 if the whole ``completion`` (where="full") or a part of it (where="search") matches the regular expression.

    >>> matches("<answer>4</answer>", r"<answer>.*</answer>"), matches("so 4", r"\\d"), matches("so 4", r"\\d", "search")
    (1.0, 0.0, 1.0)
    """
    find = re.fullmatch if where == "full" else re.search
    return float(find(pattern, completion) is not None)


def text_length(completion: str, unit: str = "characters") -> float:
    """Number of characters or of words (runs without white space).

    >>> text_length("two words"), text_length("two words", "words")
    (9.0, 2.0)
    """
    return float(len(completion) if unit == "characters" else len(completion.split()))


def step_length(step_count: int) -> float:
    """Number of steps that the policy took (of a language model: tokens)."""
    return float(step_count)


def overlong(length: float, limit: float, soft: float = 0.0) -> float:
    """Penalty for a ``length`` near or above ``limit``.

        length <= limit - soft          0
        limit - soft < length <= limit  (limit - soft - length) / soft
        limit < length                  -1

    Source: soft overlong punishment, DAPO (arXiv 2503.14476), equation 13.

    >>> [overlong(n, 100, 20) for n in (80, 90, 100, 101)], overlong(100, 100), overlong(101, 100)
    ([0.0, -0.5, -1.0, -1.0], 0.0, -1.0)
    """
    if length <= limit - soft:
        return 0.0
    return -1.0 if length > limit else (limit - soft - length) / soft


def overlong_text(completion: str, limit: float, soft: float, unit: str) -> float:
    return overlong(text_length(completion, unit), limit, soft)


def overlong_steps(step_count: int, limit: float, soft: float) -> float:
    return overlong(step_count, limit, soft)


# ---- numbers


def boxed(text: str) -> str | None:
    r"""Content of the last ``\boxed{...}`` with its braces balanced; None without one.

    >>> boxed(r"so \boxed{1} or \boxed{\frac{3}{4}}"), boxed(r"\boxed{4"), boxed("4")
    ('\\frac{3}{4}', None, None)
    """
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, first = 1, start + len("\\boxed{")
    for at in range(first, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[first:at]
    return None


def _plain(text: str) -> str:
    if text.isascii() and "\\" not in text and "{" not in text:
        return text
    text = text.translate(_LOOK).replace("{,}", ",").replace("\\,", "").replace("\\!", "").replace("\\%", "%").replace("\\$", "$")
    return _FRAC.sub(r"\1/\2", text)


def _value(found: re.Match[str]) -> tuple[Exact, bool] | None:
    """(value, whether a per cent sign follows), None where the notation has no value (1/0, hundreds of digits)."""
    body, divisor, exponent = found["body"].replace(",", ""), found["divisor"], int(found["exponent"] or 0)
    if len(found[0]) > _MAX_DIGITS:
        return None
    value: Exact = Fraction("0" + body) if "." in body else int(body)  # most are integers, which are ten times as fast
    if exponent:
        value = value * Fraction(10) ** exponent
    if divisor is not None:
        below = int(divisor.replace(",", ""))
        if below == 0:
            return None
        value = Fraction(value, below) + int(found["whole"] or 0)
    return (-value if (found["sign"] or "").startswith("-") else value), found["percent"] is not None


def read_number(text: str, extract: str = "last") -> tuple[Exact, bool] | None:
    """(value, whether a per cent sign follows) of the number in ``text``, exactly; None without one. 50% is (50, True).

    Read: signs (also the typographic minus), thousands commas, decimals, exponents, fractions (3/4, 1 3/4, \\frac{3}{4}), per
    cent, a currency sign in front. ``extract``: the "last" number of the text, the "whole" text but for space, $ and a final
    stop, or the whole of the last "boxed" content.

    >>> [str(read_number(t)[0]) for t in ("it is 1,234.5.", "so 3/4", "x = −2", "1e-3", "1 3/4", "10-3=7", "\\\\frac{1}{3}")]
    ['2469/2', '3/4', '-2', '1/1000', '7/4', '7', '1/3']
    >>> read_number("5 apples", "whole"), read_number("7/0"), read_number("50%")
    (None, None, (50, True))
    """
    if extract == "boxed":
        inside = boxed(text)
        return None if inside is None else read_number(inside, "whole")
    text = _plain(text)
    if extract == "whole":
        whole = _NUMBER.fullmatch(text.strip().removesuffix(".").strip(" $").removesuffix("."))
        return None if whole is None else _value(whole)
    numbers = list(_NUMBER.finditer(text))
    return _value(numbers[-1]) if numbers else None


def same_number(completion: str, answer: Any, tolerance: float = 0.0, relative: float = 0.0, extract: str = "last") -> float:
    """1 if the number of ``completion`` is within ``tolerance + relative * |answer|`` of the gold ``answer``, decided exactly.

    Where only one of the two has a per cent sign, either reading of it counts: 50% is 50 and 0.5.

    >>> same_number("so 1,234.50", "1234.5"), same_number("0.6", "0.5", tolerance=0.1), same_number("no idea", "4")
    (1.0, 1.0, 0.0)
    """
    gold = read_number(_text_of(answer), "whole")
    if gold is None:
        raise ValueError(f"the gold answer should be a number, got {answer!r:.60}")
    said = read_number(completion, extract)
    if said is None:
        return 0.0
    (x, x_percent), (g, g_percent) = said, gold
    allowed: Exact = _exactly(tolerance) + _exactly(relative) * abs(g) if tolerance or relative else 0
    other = x if x_percent == g_percent else Fraction(x, 100) if x_percent else x * 100
    return float(min(abs(x - g), abs(other - g)) <= allowed)


@lru_cache
def _exactly(number: float) -> Fraction:
    """The decimal fraction that a float is written as: 0.1 is a tenth."""
    return Fraction(str(number))


# ---- overlap


@lru_cache(maxsize=2)
def _metric(name: str) -> Any:
    from sacrebleu.metrics import BLEU, CHRF

    return BLEU(effective_order=True) if name == "bleu" else CHRF()


def overlap_score(completion: str, answer: str | Sequence[str], metric: str = "bleu") -> float:
    """sacrebleu's sentence score of ``completion`` against one reference or several, divided by 100.

    "bleu": up to 4-grams of words, exponential smoothing, effective order. "chrf": character 6-grams, beta 2.
    """
    references = [answer] if isinstance(answer, str) else list(answer)
    return min(max(_metric(metric).sentence_score(completion, references).score / 100, 0.0), 1.0)


WARM_UP = {"overlap_score": lambda: overlap_score("a", "a")}
"""name -> a first call, in which libraries are imported: a worker makes it before the clock of the first item starts."""


# ---- calling functions that were written for other libraries


def call_trl(function: Any, **columns: list[Any]) -> Any:
    """What a reward function of TRL returns; columns it logs, one value a row, become the rows' rationales."""
    count, logged = len(columns["completions"]), {}

    def log_extra(column: str, values: Sequence[Any]) -> None:
        logged[column] = list(values)

    def log_metric(name: str, value: float) -> None:
        """There is no trainer that would show it."""

    values = awaited(function(**columns, trainer_state=None, log_extra=log_extra, log_metric=log_metric))
    if isinstance(values, Mapping | Set | str | bytes):  # not a value for each, in order; refused where values are judged
        return values
    values = list(values)
    notes = {name: v for name, v in logged.items() if len(v) == count}
    if not notes or len(values) != count:
        return values
    return [(v, _written({name: column[i] for name, column in notes.items()})) for i, v in enumerate(values)]


def call_verl(
    function: Any, kwargs: Mapping[str, Any], data_source: Any, solution_str: str, ground_truth: Any, extra_info: Any
) -> Any:
    """What verl's ``compute_score`` returns; other keys of a dict beside ``score`` become the rationale."""
    given = {
        "data_source": data_source,
        "solution_str": solution_str,
        "ground_truth": ground_truth,
        "extra_info": extra_info or {},
    }
    result = awaited(function(**given, **kwargs))
    if not isinstance(result, Mapping):
        return result
    if "score" not in result:
        raise ValueError(f"compute_score should return a number or a dict with `score`, got the keys {list(result)}")
    return result["score"], _written({k: v for k, v in result.items() if k != "score"})


def awaited(result: Any) -> Any:
    """The result of a coroutine, or what is none as it is. A thread has the loop, since a notebook's is running already."""
    if not inspect.isawaitable(result):
        return result

    async def wait() -> Any:
        return await result

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, wait()).result()


def _written(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r:.120}" for name, value in values.items())
