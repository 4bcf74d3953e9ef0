# SPDX-License-Identifier: Apache-2.0
"""The figure by which a run is judged, and how it reads: success on held-out tasks, or the first that its evaluation names."""

from __future__ import annotations

from collections.abc import Iterable

SUCCESS = "eval/success"
SHARES = (SUCCESS, "eval/greedy", "eval/pass@")
"""Beginnings of the names of figures that are shares."""


def headline_of(keys: Iterable[str]) -> str | None:
    """The evaluation's figure that curves and verdicts are of; None where nothing was evaluated.

    >>> headline_of(["step", "eval/return", "eval/success"]), headline_of(["eval/return", "eval/length"]), headline_of(["loss"])
    ('eval/success', 'eval/return', None)
    """
    found = [k for k in keys if k.startswith("eval/")]
    return SUCCESS if SUCCESS in found else next(iter(found), None)


def is_share(key: str) -> bool:
    """Shown in per cent.

    >>> is_share("eval/pass@4"), is_share("eval/return")
    (True, False)
    """
    return key.startswith(SHARES)


def called(key: str) -> str:
    """
    >>> called("eval/success"), called("eval/return")
    ('held-out success', 'return')
    """
    name = key.removeprefix("eval/")
    return f"held-out {name}" if is_share(key) else name
