# SPDX-License-Identifier: Apache-2.0
"""A judge that compares two answers: a comparator, and the reward of beating the others of one's group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.judges.absolute import endpoint_of, items_of, written
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

    def __call__(self, rollouts: Rollouts, pairs: Tensor) -> Comparisons:
        rows = sorted(set(pairs.flatten().tolist()))
        shown = dict(zip(rows, items_of(rollouts, [(n, 0) for n in rows], self.reference), strict=True))
        ordered = [(shown[a], shown[b]) for a, b in pairs.tolist()]
        alike = [a.get("prompt") == b.get("prompt") for a, b in ordered]
        found = iter(self.judge.verdicts([_item(a, b) for (a, b), ok in zip(ordered, alike, strict=True) if ok]))
        target, status, reasons = [], [], {}
        for i, ok in enumerate(alike):
            verdict = next(found) if ok else None
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


def _item(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    same = {name: value for name, value in a.items() if name != "answer"}
    return {**same, "first": a["answer"], "second": b["answer"]}


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class JudgeWins(WinRate):
    """WinRate by a judge, with its text in the expression language."""

    comparator: BothAgree
    written: str

    @property
    def tally(self) -> Tally:
        return self.comparator.comparator.judge.tally  # type: ignore[attr-defined]

    @property
    def orders(self) -> Orders:
        return self.comparator.orders

    def expression(self) -> str:
        return self.written


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
    from guerdon.judges.judging import Judge, prompt_of, rubric_of
    from guerdon.judges.tally import Tally
    from guerdon.judges.verdicts import read_better

    endpoint = endpoint_of(locals())
    made = Judge(endpoint, prompt_of("pairwise", rubric=rubric_of(rubric)), read_better, together, cache, Tally(endpoint.price))
    return BothAgree(PairJudge(made, reference), disagreement)


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
    comparator = judge_pairs(**said)
    version = f"{comparator.comparator.judge.version[:8]}"  # type: ignore[attr-defined]
    return JudgeWins(
        name="judge_wins",
        relation="group",
        bounds=Bounds(0, 1),
        needs=frozenset({"completion"} | ({reference} if reference else set())),
        version=version,
        identity=(version, disagreement),
        comparator=comparator,
        written=written("judge_wins", judge_wins, said),
    )
