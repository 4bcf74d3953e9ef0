# SPDX-License-Identifier: Apache-2.0
"""What an audit says: checks that passed, that found something, or that could not be run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a reward.

    names   the defect in a few words: what it is called
    says    one sentence with the numbers
    shown   an output that shows it, as text; "": the sentence says all
    paid    what the reward gave that output, as a share of what a right one gets (0: no more than a wrong one)
    gold    what the gold check gave it; None without one
    where   the task, environment or label it was seen on
    """

    names: str
    says: str
    shown: str = ""
    paid: float | None = None
    gold: float | None = None
    where: str = ""


@dataclass(frozen=True)
class Check:
    """One check of a reward. ``skipped`` says why it was not run; a check that was not run has neither passed nor failed."""

    name: str
    about: str
    findings: list[Finding] = field(default_factory=list)
    skipped: str = ""
    looked_at: int = 0
    """How many outputs it looked at."""

    @property
    def outcome(self) -> str:
        return "not run" if self.skipped else "found" if self.findings else "passed"

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.name,
            "about": self.about,
            "outcome": self.outcome,
            "skipped": self.skipped,
            "looked_at": self.looked_at,
            "findings": [vars(f) for f in self.findings],
        }


def trimmed(text: str, most: int = 400) -> str:
    """``text`` on one line, its middle left out where it is long.

    >>> trimmed("one\\ntwo"), trimmed("abcdefghij", 5)
    ('one\\\\ntwo', 'ab ... ij')
    """
    text = text.replace("\n", "\\n")
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"
