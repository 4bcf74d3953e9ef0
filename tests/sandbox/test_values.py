# SPDX-License-Identifier: Apache-2.0
"""What crosses the wall: plain data there and back, and nothing that is read does harm."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from enum import IntEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.sandbox.values import Other, decode, dumps, encode, equal, loads

_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        | st.sets(st.integers() | st.text(), max_size=3)
    ),
    max_leaves=12,
)


@given(_PLAIN)
def test_plain_data_comes_back(value):
    again = decode(loads(dumps(encode(value))))
    assert again == value
    assert type(again) is type(value) or isinstance(value, set)
    assert equal(again, value) or isinstance(value, set)


Point = namedtuple("Point", "x y")
Colour = IntEnum("Colour", ["RED"])


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (Point(1, 2), (1, 2)),
        (Colour.RED, 1),
        (Counter("aab"), {"a": 2, "b": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (OrderedDict(a=1), {"a": 1}),
        (np.arange(3), [0, 1, 2]),
        (np.float64(0.5), 0.5),
        (np.int32(3), 3),
        (np.bool_(True), True),
        (bytearray(b"ab"), b"ab"),
        (math.inf, math.inf),
    ],
    ids=repr,
)
def test_kinds_of_plain_data_are_plain_data(value, same):
    assert equal(decode(encode(value)), same)


def test_what_is_no_plain_data_equals_nothing():
    found = decode(encode([object(), range(3), len]))
    assert all(isinstance(x, Other) for x in found)
    assert not equal(found, found)
    nested: list = []
    nested.append(nested)
    assert not equal(decode(encode(nested)), nested)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "nan",
        '{"x":1}',
        '{"t":1}',
        '{"d":[[[],1]]}',
        '{"d":[1]}',
        '{"c":[1]}',
        '{"i":"z"}',
        '{"i":3}',
        '{"b":"0g"}',
        '{"f":[]}',
        '{"s":[[]]}',
        '{"t":[1],"s":[]}',
        "{}",
        "[" * 100_000,
        "[" * 900 + "]" * 900,
        "9" * 100_000,
    ],
    ids=lambda t: t[:12],
)
def test_what_nobody_wrote_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - of every kind
        decode(loads(text))


@pytest.mark.parametrize(
    ("a", "b", "tolerance", "same"),
    [
        (1, 1.0, 0, True),
        (True, 1, 0, False),
        (True, True, 0, True),
        (0.1 + 0.2, 0.3, 0, False),
        (0.1 + 0.2, 0.3, 1e-9, True),
        (100.0, 101.0, 0.02, True),
        (100, 101, 0.02, False),
        ([1, (2,)], (1, [2]), 0, True),
        ([1], [1, 2], 0, False),
        ({"a": 1.0}, {"a": 1}, 0, True),
        ({"a": 1}, {"b": 1}, 0, False),
        ({1, 2}, frozenset({1, 2}), 0, True),
        ([1, 2], {1, 2}, 0, False),
        ("1", 1, 0, False),
        ("a", "a", 0, True),
        (None, False, 0, False),
        (math.nan, math.nan, 0, True),
        (10**400, 1.5, 0.1, False),
    ],
)
def test_what_is_the_same(a, b, tolerance, same):
    assert equal(a, b, tolerance) is same
    assert equal(b, a, tolerance) is same
