# SPDX-License-Identifier: Apache-2.0
"""The names of the language are the public checkers; each one's text is read back."""

from __future__ import annotations

import pytest

from guerdon.errors import ExpressionError
from guerdon.rewards import checkers, parse
from guerdon.rewards.parse import builtin_names


def test_every_public_checker_is_a_name() -> None:
    assert list(builtin_names()) == checkers.__all__


@pytest.mark.parametrize("text", ["exact", "numeric(0.01)", "format('<a>.*')", "exact(case=False)", "length", "kl"])
def test_a_checker_is_read_back(text) -> None:
    assert str(parse(text)) == text
    assert parse(text) == parse(text)


def test_calls_without_arguments_are_the_name() -> None:
    assert parse("exact() + numeric()") == parse("exact + numeric")


def test_scores_of_a_text() -> None:
    reward = parse("exact + 0.5 * numeric(0.1).gate(on=exact) - 0.25 * length.watch()")
    scores = reward(completions=["4", "4.05", "no"], answer=["4", "4", "4"])
    assert scores.total.values[:, 0].tolist() == [1.5, 0, 0]
    assert scores.trace["numeric"].values[:, 0].tolist() == [1, 1, 0]
    assert scores.trace["length"].values[:, 0].tolist() == [1, 4, 2]
    assert scores.trace["length"].weight is None


def test_a_misspelt_checker() -> None:
    with pytest.raises(ExpressionError, match="did you mean exact"):
        parse("exakt")
