# SPDX-License-Identifier: Apache-2.0
"""How good an audit is: hits on the zoo's bad rewards and alarms on its good ones, with intervals.

A hit shows an output that the reward pays for and the gold check does not, or names the defect: a contract's finding counts when
the specimen's own words for its defect say the same. An alarm is any finding at all on a good reward.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from guerdon.audit.auditing import Audit, audit
from guerdon.audit.findings import Finding
from guerdon.audit.reward_bench.intervals import Estimate, wilson
from guerdon.audit.zoo import Specimen, specimens

NAMED = {
    "not deterministic": r"determinis|random|another score each time",
    "depends on": r"other rows|batch|order|padding|group",
    "mutates what it is given": r"mutat|writes|pops",
    "not finite": r"finite|nan\b|infin",
    "outside its declared bounds": r"bounds",
    "not picklable": r"pickl",
    "too slow for its budget": r"slow|budget",
    "a failure is swallowed": r"swallow|except|failure|error|cannot be read",
    "raises for the whole batch": r"raises|crash",
    "a right answer": r"right answer|gold|full|form of the answer",
    "malformed": r"malformed",
    "changes with whitespace": r"whitespace|form|space",
}
"""The beginning of a finding's name -> how a defect that is the same may be put in words."""


@dataclass(frozen=True)
class Graded:
    """What an audit found of one specimen, and the finding that counts, if any."""

    domain: str
    specimen: Specimen
    audit: Audit
    counted: Finding | None

    @property
    def right(self) -> bool:
        return (self.counted is None) == self.specimen.good


def graded(half: str, keep: Callable[[str, Specimen], bool] = lambda domain, s: True) -> Iterator[Graded]:
    """Each specimen of a half as it has been audited, with the thresholds as they are by default."""
    for domain, s in specimens(half):
        if keep(domain, s):
            found = audit(s.reward, s.subject(), s.gold)
            counted = next((f for f in found.findings if s.good or shows(f) or names(f, s.defect)), None)
            yield Graded(domain, s, found, counted)


def shows(finding: Finding) -> bool:
    """It shows an output that is paid and that the gold check does not pay for."""
    return bool(finding.shown) and finding.gold is not None


def names(finding: Finding, defect: str) -> bool:
    """Its name says what the specimen's words for its defect say.

    >>> names(Finding("depends on the order of the rows", ""), "only the first of equal rows in a batch is paid")
    True
    >>> names(Finding("not picklable", ""), "rewards length")
    False
    """
    return any(finding.names.startswith(k) and re.search(words, defect, re.IGNORECASE) for k, words in NAMED.items())


def rates(found: list[Graded]) -> dict[str, Estimate]:
    """hits, of the bad ones, and alarms, of the good ones: shares with their 95 % intervals."""
    some = {"hits": [g for g in found if not g.specimen.good], "alarms": [g for g in found if g.specimen.good]}
    return {name: wilson(sum(g.counted is not None for g in gs), len(gs)) for name, gs in some.items()}


def report(half: str, found: list[Graded]) -> dict[str, Any]:
    """Everything as JSON."""
    rows = [
        {
            "domain": g.domain,
            "name": g.specimen.name,
            "defect": g.specimen.defect,
            "right": g.right,
            "counted": g.counted.names if g.counted else "",
            "seconds": round(g.audit.seconds, 2),
        }
        for g in found
    ]
    return {"half": half, "rates": {k: e.as_dict() for k, e in rates(found).items()}, "specimens": rows}
