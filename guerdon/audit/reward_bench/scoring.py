# SPDX-License-Identifier: Apache-2.0
"""Scoring every answer of every line at once, under its prompt and under the prompts that ask the same or the opposite."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guerdon.audit.reward_bench.lines import Line
from guerdon.audit.subject import granularity
from guerdon.errors import InputError
from guerdon.rewards import Reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Component, Status

KINDS = ("own", "paraphrase", "contrast")


@dataclass(frozen=True)
class Group:
    """The answers of a line under one prompt. scores [k], NaN where an answer was not scored; ``good`` of them come first.

    ``kind``: own, paraphrase or contrast; ``line``: its place in the file.
    """

    line: int
    kind: str
    scores: np.ndarray
    good: int

    @property
    def judged(self) -> bool:
        return bool(np.isfinite(self.scores).all())


@dataclass(frozen=True)
class Scoring:
    """What scoring gave: a Group for each line and prompt, statuses of the answers, why some have no score, and the time."""

    groups: list[Group]
    statuses: dict[str, int]
    reasons: list[tuple[str, str, int]]
    seconds: float

    def of(self, kind: str) -> list[Group]:
        return [g for g in self.groups if g.kind == kind]

    @property
    def answers(self) -> int:
        return sum(self.statuses.values())


def score_lines(reward: Reward, lines: Sequence[Line]) -> Scoring:
    """Every answer's total. The answers of a line under one prompt are a group, for rewards that compare."""
    wanted = [(i, "own", line.prompt) for i, line in enumerate(lines)]
    wanted += [(i, "paraphrase", p) for i, line in enumerate(lines) for p in line.paraphrases]
    wanted += [(i, "contrast", p) for i, line in enumerate(lines) for p in line.contrasts]
    rollouts = rollouts_of(reward, lines, wanted)
    start = time.perf_counter()
    total = reward.score(rollouts).total
    seconds = time.perf_counter() - start
    values, status = totals(total)
    groups, at = [], 0
    for i, kind, _ in wanted:
        k = len(lines[i].answers)
        groups.append(Group(i, kind, values[at : at + k], len(lines[i].chosen)))
        at += k
    names = {s: Status(s).name.lower() if s != Status.NONE else "no unit" for s in Status}
    counted = Counter(names[Status(s)] for s in status)
    return Scoring(groups, {n: counted.get(n, 0) for n in names.values() if n != "no unit" or n in counted}, why(total), seconds)


def rollouts_of(reward: Reward, lines: Sequence[Line], wanted: Sequence[tuple[int, str, object]]) -> Rollouts:
    rows = [(i, group, prompt, answer) for group, (i, _, prompt) in enumerate(wanted) for answer in lines[i].answers]
    names = dict.fromkeys(k for line in lines for k in line.fields if k != "completion")
    have = {"prompt", "completion", "offset", "messages", *names}
    if missing := sorted(n for node in reward.nodes() if not node.parts for n in node.needs if n not in have):
        raise InputError(
            f"evaluate: the scorer reads `{'`, `'.join(missing)}`, and no line has it. "
            "Usual cause: a checker that needs a gold answer, on a file of preferences without one."
        )
    return Rollouts.from_text(
        [prompt for _, _, prompt, _ in rows],
        [answer for *_, answer in rows],
        steps=granularity(reward),
        task=[str(i) for i, *_ in rows],
        group=[group for _, group, *_ in rows],
        **{k: [lines[i].fields.get(k) for i, *_ in rows] for k in names},
    )


def totals(total: Component) -> tuple[np.ndarray, list[int]]:
    """(sum over each row's units, NaN where one is not ok; the worst status of the row's units)."""
    worst = total.status.amax(1) if total.status.shape[1] else total.status.new_full((len(total.status),), int(Status.NONE))
    values = total.values.double().nan_to_num().sum(1)
    return np.where(worst.numpy() == int(Status.OK), values.numpy(), math.nan), worst.tolist()


def why(total: Component) -> list[tuple[str, str, int]]:
    """(status, reason, how often) of the units that are not ok, the commonest first."""
    status = total.status.tolist()
    failed = ((status[n][k], text) for (n, k), text in total.reasons.items() if status[n][k] > Status.OK)
    return [(Status(s).name.lower(), text, count) for (s, text), count in Counter(failed).most_common()]
