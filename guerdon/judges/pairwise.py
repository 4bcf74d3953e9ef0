# SPDX-License-Identifier: Apache-2.0
"""A judge that compares two answers: a comparator, and the reward of beating the others of one's group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.errors import InputError
from guerdon.judges.making import items_of, judge_of, needs_of, written
from guerdon.judges.orders import BothAgree, Orders
from guerdon.rewards.ranking import WinRate
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Status

if TYPE_CHECKING:
    from guerdon.judges.judging import Judge
    from guerdon.judges.tally import Tally

APART = "the two rows answer different prompts"


@dataclass(frozen=True, eq=False)
class PairJudge:
    """A comparator that shows each pair [P, 2] of rows in the order in which it is given; the first episode of a row counts."""

    judge: Judge
    reference: str = ""

    def items(self, rollouts: Rollouts, pairs: Sequence[tuple[int, int]]) -> list[dict[str, Any] | None]:
        """What is shown of each pair; None: its rows answer different prompts."""
        rows = sorted({n for pair in pairs for n in pair})
        shown = dict(zip(rows, items_of(rollouts, [(n, 0) for n in rows], self.reference), strict=True))
        return [_item(shown[a], shown[b]) for a, b in pairs]

    def begin(self, rollouts: Rollouts) -> None:
        """Start asking, in the background, about the rows and those begun before, each with each of its group, in both orders."""
        if self.judge.quick:
            return
        shown = items_of(rollouts, [(n, 0) for n in range(len(rollouts))], self.reference)
        with suppress(InputError):  # of a judge that cannot be asked, which `verdicts` meets too and says so
            begun = self.judge.inquiry()
            for group, b in zip(rollouts.group.tolist(), shown, strict=True):
                pairs = [_item(*pair) for a in begun.answers[group] for pair in ((a, b), (b, a))]
                begun.answers[group].append(b)
                begun.add([x for x in pairs if x is not None])

    def __call__(self, rollouts: Rollouts, pairs: Tensor) -> Comparisons:
        items = self.items(rollouts, pairs.tolist())
        found = iter(self.judge.verdicts([x for x in items if x is not None]))
        target, status, reasons = [], [], {}
        for i, item in enumerate(items):
            verdict = None if item is None else next(found)
            target.append(verdict.said if verdict is not None and verdict.status == Status.OK else math.nan)
            status.append(int(verdict.status if verdict is not None else Status.ABSTAIN))
            if reason := (verdict.reason if verdict is not None else APART):
                reasons[i] = reason
        return Comparisons(
            pairs[:, 0],
            pairs[:, 1],
            torch.tensor(target, dtype=torch.get_default_dtype()),
            annotator=[self.judge.endpoint.model or self.judge.endpoint.url] * len(pairs),
            status=torch.tensor(status, dtype=torch.int8),
            reasons=reasons,
        )


def _item(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any] | None:
    if a.get("prompt") != b.get("prompt"):
        return None
    same = {name: value for name, value in a.items() if name != "answer"}
    return {**same, "first": a["answer"], "second": b["answer"]}


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class JudgeWins(WinRate):
    """WinRate by a judge, with its text in the expression language."""

    comparator: BothAgree
    pairs: PairJudge
    written: str

    @property
    def tally(self) -> Tally:
        return self.pairs.judge.tally

    @property
    def orders(self) -> Orders:
        return self.comparator.orders

    def expression(self) -> str:
        return self.written

    @property
    def begins(self) -> bool:
        """Not with several pairs a request: one order of the batch is asked before the other, so that no request has both."""
        return self.pairs.judge.together == 1

    def begin(self, rollouts: Rollouts) -> None:
        if self.begins and self.needs <= rollouts.fields.keys():
            self.pairs.begin(rollouts)


def _pair_judge(said: Mapping[str, Any]) -> PairJudge:
    from guerdon.judges.verdicts import read_better

    return PairJudge(judge_of(said, "pairwise", read_better), said["reference"])


def judge_pairs(
    url: str,
    rubric: str = "",
    *,
    disagreement: str = "tie",
    model: str = "",
    reference: str = "",
    together: int = 1,
    cache: str = "",
    key_env: str = "",
    timeout: float = 60.0,
    attempts: int = 4,
    seconds: float = 180.0,
    concurrency: int = 8,
    max_tokens: int = 1024,
    temperature: float = 0.0,
    price: Sequence[float] | None = None,
    body: Mapping[str, Any] | None = None,
) -> BothAgree:
    """A comparator: a language model says which of two answers is better, and is asked in both orders.

    ``disagreement``: what a pair becomes on which the orders differ, a "tie" or "abstain". The other arguments are those of
    ``judge``.
    """
    return BothAgree(_pair_judge(locals()), disagreement)


def judge_wins(
    url: str,
    rubric: str = "",
    *,
    disagreement: str = "tie",
    model: str = "",
    reference: str = "",
    together: int = 1,
    cache: str = "",
    key_env: str = "",
    timeout: float = 60.0,
    attempts: int = 4,
    seconds: float = 180.0,
    concurrency: int = 8,
    max_tokens: int = 1024,
    temperature: float = 0.0,
    price: Sequence[float] | None = None,
    body: Mapping[str, Any] | None = None,
) -> JudgeWins:
    """How often a completion beats the others of its group, by a language model that compares them in pairs (``judge_pairs``).

    >>> print(judge_wins("http://127.0.0.1:8000/v1", disagreement="abstain"))
    judge_wins('http://127.0.0.1:8000/v1', disagreement='abstain')
    """
    said = dict(locals())
    pairs = _pair_judge(said)
    version = pairs.judge.version[:8]
    return JudgeWins(
        name="judge_wins",
        relation="group",
        bounds=Bounds(0, 1),
        needs=needs_of(reference),
        version=version,
        identity=(version, disagreement),
        comparator=BothAgree(pairs, disagreement),
        pairs=pairs,
        written=written("judge_wins", judge_wins, said),
    )
