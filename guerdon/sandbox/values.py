# SPDX-License-Identifier: Apache-2.0
"""Plain data as JSON and back: what crosses the wall of a sandbox. Nothing that is read can run anything.

Numbers, text, None, booleans, bytes, lists, tuples, sets and dicts go through as they are; numpy's arrays and scalars as lists
and numbers; anything else as ``Other``, which is equal to nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 50
LOADED = -1
"""In place of an item's index: whether the program could be loaded."""
_WIDE = 1 << 63


class Other:
    """A value that is no plain data; ``text`` says what it was."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<{self.text}>"


def encode(value: Any, depth: int = MAX_DEPTH) -> Any:
    """``value`` as something that ``json`` writes and ``decode`` reads back.

    >>> encode([1, 2.5, (None, "a")]), encode({1: float("inf")})
    ([1, 2.5, {'t': [None, 'a']}], {'d': [[1, {'f': 'inf'}]]})
    """
    if value is None or value is True or value is False or type(value) is str:
        return value
    if depth == 0:
        return {"o": f"{type(value).__name__}, nested more than {MAX_DEPTH} deep"}
    if isinstance(value, int):
        number = int(value)
        return number if -_WIDE < number < _WIDE else {"i": hex(number)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"f": repr(float(value))}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, complex):
        return {"c": [encode(value.real), encode(value.imag)]}
    if isinstance(value, bytes | bytearray):
        return {"b": bytes(value).hex()}
    return _collection(value, depth)


def _collection(value: Any, depth: int) -> Any:
    if isinstance(value, list):
        return [encode(x, depth - 1) for x in value]
    for kind, tag in ((tuple, "t"), (set, "s"), (frozenset, "s")):
        if isinstance(value, kind):
            return {tag: [encode(x, depth - 1) for x in value]}
    if isinstance(value, dict):
        return {"d": [[encode(k, depth - 1), encode(v, depth - 1)] for k, v in value.items()]}
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return encode(value.tolist(), depth - 1)
    return {"o": f"{type(value).__name__} {value!r:.60}"}


_UNTAG: dict[str, Callable[[Any], Any]] = {
    "t": lambda x: tuple(map(_decoded, x)),
    "s": lambda x: frozenset(map(_decoded, x)),
    "d": lambda x: {_decoded(k): _decoded(v) for k, v in x},
    "i": lambda x: int(x, 16),
    "f": float,
    "b": bytes.fromhex,
    "c": lambda x: complex(_decoded(x[0]), _decoded(x[1])),
    "o": Other,
}


def decode(data: Any) -> Any:
    """What ``encode`` was given; ValueError for anything it does not write.

    >>> decode(encode({"a": (1, {2}), 3: 10**30})) == {"a": (1, {2}), 3: 10**30}
    True
    """
    try:
        return _decoded(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _decoded(data: Any) -> Any:
    if isinstance(data, list):
        return [_decoded(x) for x in data]
    if not isinstance(data, dict):
        return data
    if len(data) != 1 or (tag := next(iter(data))) not in _UNTAG:
        raise ValueError("an object has one key, and one of those in use")
    try:
        return _UNTAG[tag](data[tag])
    except (TypeError, OverflowError, IndexError, KeyError) as error:
        raise ValueError(f"not the content of `{tag}`: {error}") from error


def dumps(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def loads(text: bytes | str) -> Any:
    """JSON; ValueError for all that is none, however it is malformed."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def equal(got: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether two plain values are the same; ``tolerance`` bounds the absolute and the relative difference of floats.

    Lists and tuples are one kind, as in JSON; so are the integers and floats. A boolean equals booleans alone.

    >>> equal((1, 2.0), [1, 2]), equal(1, True), equal(0.1 + 0.2, 0.3), equal(0.1 + 0.2, 0.3, 1e-9)
    (True, False, False, True)
    """
    if isinstance(got, Other) or isinstance(expected, Other):
        return False
    if isinstance(got, bool) or isinstance(expected, bool):
        return isinstance(got, bool) and isinstance(expected, bool) and got == expected
    if isinstance(got, int | float) and isinstance(expected, int | float):
        return _same_number(got, expected, tolerance)
    if isinstance(got, list | tuple) and isinstance(expected, list | tuple):
        return len(got) == len(expected) and all(equal(a, b, tolerance) for a, b in zip(got, expected, strict=True))
    if isinstance(got, dict) and isinstance(expected, dict):
        return got.keys() == expected.keys() and all(equal(got[k], expected[k], tolerance) for k in expected)
    alike = type(got) is type(expected) or {type(got), type(expected)} <= {set, frozenset}
    return alike and bool(got == expected)


def _same_number(a: float, b: float, tolerance: float) -> bool:
    if a == b or (a != a and b != b):
        return True
    if not tolerance or (isinstance(a, int) and isinstance(b, int)):
        return False
    try:
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an int beyond every float
        return False
