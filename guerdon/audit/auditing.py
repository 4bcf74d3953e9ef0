# SPDX-License-Identifier: Apache-2.0
"""An audit: every check that fits the subject, and what came of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from guerdon.audit import exploits_control, exploits_image, exploits_text
from guerdon.audit.contracts import contracts
from guerdon.audit.findings import Check, Finding
from guerdon.audit.subject import Episodes, Images, Subject, Texts, granularity
from guerdon.rewards import Reward
from guerdon.rollouts import Rollouts
from guerdon.tasks.digits import drawn_as_text

Make = Callable[[], Reward]


@dataclass(frozen=True)
class Audit:
    """What an audit of a reward found."""

    reward: str
    tree: str
    checks: list[Check]
    seconds: float
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        return [f for c in self.checks for f in c.findings]

    @property
    def passed(self) -> bool:
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        return {
            "reward": self.reward,
            "passed": self.passed,
            "seconds": round(self.seconds, 3),
            "about": self.about,
            "checks": [c.as_json() for c in self.checks],
        }


ROWS, TASKS = 128, 32
"""An audit looks at no more outputs for the contracts, and attacks no more tasks: drawn by its seed where there are more."""


def natural(reward: Reward, subject: Subject) -> tuple[Rollouts, Callable[[int], str]]:
    """Ordinary outputs of the subject, for the contracts, and what each looks like."""
    if isinstance(subject, Texts):
        pairs = [(i, t) for i, row in enumerate(subject.rows) for t in [*row["right"], *(row.get("wrong") or [])]][:ROWS]
        rollouts = subject.rollouts([i for i, _ in pairs], [t for _, t in pairs], granularity(reward))
        return rollouts, lambda row: str(pairs[row][1])
    if isinstance(subject, Images):
        some = slice(None, None, max(len(subject.right) // (ROWS // 2), 1))
        images, label = (
            torch.cat([subject.right[some], subject.wrong[:32]]),
            torch.cat([subject.label[some], subject.wrong_label[:32]]),
        )
        return Images.rollouts(images, label), lambda row: drawn_as_text(images[row : row + 1])
    rollouts, names = exploits_control.natural(exploits_control.Stage(subject))
    return rollouts, lambda row: names[row]


def audit(
    make: Make,
    subject: Subject,
    gold: Make | None = None,
    *,
    seed: int = 0,
    budget: float | None = None,
    exploits: bool = True,
    told: Callable[[str], None] = lambda what: None,
) -> Audit:
    """Contracts and, with ``exploits``, the search for outputs that are paid and not right.

    ``make`` gives the reward anew each time, since a reward may keep something of what it has seen. ``budget``: seconds that its
    functions may take for one unit; they then run in the worker pool, and a hang costs its own unit. ``told`` is called with what
    is being done.
    """
    start = time.perf_counter()

    def held() -> Reward:
        return make() if budget is None else make().with_budget(budget)

    reward, subject = held(), drawn(subject, seed)
    told("contracts")
    rollouts, show = natural(reward, subject)
    found = contracts(held, rollouts, show, in_process=make)
    if exploits and found[0].name != "scores":
        told("exploits")
        judge = None if gold is None else gold()
        if isinstance(subject, Texts):
            found += exploits_text.checks(held(), subject, judge, seed)
        elif isinstance(subject, Episodes):
            found += exploits_control.checks(held(), subject, judge, seed)
        else:
            found += exploits_image.checks(held(), subject, judge, seed)
    about = {"seed": seed, "relation": reward.relation, "gold": "" if gold is None else str(gold())}
    return Audit(str(reward), reward.tree(), found, time.perf_counter() - start, about)


def drawn(subject: Subject, seed: int) -> Subject:
    """The subject, or ``TASKS`` of its tasks where it has more."""
    if not isinstance(subject, Texts) or len(subject.rows) <= TASKS:
        return subject
    return replace(subject, rows=random.Random(seed).sample(list(subject.rows), TASKS))
