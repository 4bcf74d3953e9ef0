# SPDX-License-Identifier: Apache-2.0
"""Everything an evaluation says of a scorer, each figure with an interval, and what became of the answers it could not score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from guerdon.audit.reward_bench.calibration import right_of
from guerdon.audit.reward_bench.choosing import Ties, best_credit, pair_credit, pairs_equal, ties_score
from guerdon.audit.reward_bench.intervals import Estimate, bootstrap, mean_share, wilson
from guerdon.audit.reward_bench.leaning import Leaning, leaning
from guerdon.audit.reward_bench.lines import Line
from guerdon.audit.reward_bench.pairs import Boot, Calibration, Pairs, calibrations
from guerdon.audit.reward_bench.scoring import Group, Scoring, rollouts_of, score_lines
from guerdon.errors import InputError
from guerdon.judges.orders import BothAgree, Orders
from guerdon.judges.tally import tallies
from guerdon.rewards import Reward
from guerdon.rewards.ranking import Tournament, WinRate


@dataclass(frozen=True)
class Both:
    """A figure over the lines that were judged, and the same with every other line counted as wrong."""

    judged: Estimate
    wrong: Estimate

    def as_dict(self) -> dict[str, Any]:
        return {"judged": self.judged.as_dict(), "unjudged_wrong": self.wrong.as_dict()}


@dataclass(frozen=True)
class Subset:
    """One part of the benchmark. ``ties``: its Ties score where it has one; ``chance``: best of k by guessing."""

    name: str
    accuracy: Both
    best: Both
    chance: float
    ties: Both | None

    @property
    def headline(self) -> Both:
        """What RewardBench 2 calls the subset's score."""
        return self.ties or self.best


@dataclass(frozen=True)
class Consistency:
    """Whether a preference survives other words and turns round with the instruction.

    same       share of pairs (line, paraphrase) in which the line's verdict (all good answers above all others) stays
    reworded   accuracy under the paraphrases
    turned     share of contrasts under which the worse answers are above the good ones
    follows    share of contrasts that were right before and turned round
    """

    same: Estimate
    reworded: Estimate
    turned: Estimate
    follows: Estimate
    unjudged: int


@dataclass(frozen=True)
class Evaluation:
    scorer: str
    version: str
    lines: int
    scoring: Scoring
    accuracy: Both
    strict: Both
    equal: Estimate
    best: Both
    chance: float
    subsets: list[Subset]
    average: float
    unjudged: Estimate
    calibration: list[Calibration]
    leanings: dict[str, Leaning]
    consistency: Consistency | None
    position: Orders | None
    judges: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON values; a figure that there is no way to have is None."""
        from guerdon.audit.reward_bench.telling import as_json

        return as_json(self)


def evaluate(reward: Reward, lines: Sequence[Line], *, replicates: int = 1000, seed: int = 0) -> Evaluation:
    """Score the lines and say how good the scorer is.

    ``replicates``: bootstrap samples of the lines for the figures that are no shares; shares have Wilson intervals.
    """
    if not lines:
        raise InputError("evaluate: expected at least one line, got none.")
    scoring = score_lines(reward, lines)
    own = scoring.of("own")
    judged = [g for g in own if g.judged]
    boot = partial(bootstrap, replicates=replicates, seed=seed)
    found = [subset_of(name, [g for g in own if lines[g.line].subset == name], lines, boot) for name in _subsets(lines)]
    pairs = Pairs.of(judged, lines)
    return Evaluation(
        scorer=str(reward),
        version=reward.version,
        lines=len(lines),
        scoring=scoring,
        accuracy=both(own, pair_credit),
        strict=both(own, lambda scores, good: float(np.mean(scores[:good, None] > scores[None, good:]))),
        equal=mean_share(np.array([pairs_equal(g.scores, g.good) for g in judged])),
        best=both(own, best_credit),
        chance=_chance(own),
        subsets=found,
        average=_mean([s.headline.judged.value for s in found]),
        unjudged=wilson(len(own) - len(judged), len(own)),
        calibration=calibrations(pairs, boot),
        leanings={name: leaning(x, right_of(pairs.d), pairs.line) for name, x in pairs.features.items()},
        consistency=consistency(scoring),
        position=position(reward, lines),
        judges={name: tally.as_dict() | {"said": str(tally)} for name, tally in tallies(reward).items()},
    )


def both(groups: Sequence[Group], credit: Callable[[np.ndarray, int], float]) -> Both:
    """The mean credit of the judged lines, and of all with 0 for the others."""
    credits = np.array([credit(g.scores, g.good) for g in groups if g.judged])
    return Both(mean_share(credits), wilson(float(credits.sum()), len(groups)))


def subset_of(name: str, groups: Sequence[Group], lines: Sequence[Line], boot: Boot) -> Subset:
    return Subset(name, both(groups, pair_credit), both(groups, best_credit), _chance(groups), ties_of(groups, lines, boot))


def ties_of(groups: Sequence[Group], lines: Sequence[Line], boot: Boot) -> Both | None:
    """The Ties score of the lines marked for it, by question; a question with an unjudged line is left out, or scores 0."""
    questions: dict[str, dict[str, Group]] = {}
    for g in groups:
        if (mark := lines[g.line].tie) is not None:
            questions.setdefault(mark[1], {})[mark[0]] = g
    if not questions:
        return None
    whole = [q for q in questions.values() if all(g.judged for g in q.values())]
    estimate = boot(lambda index: ties_of_questions([whole[i] for i in index]).score, len(whole))
    share = len(whole) / len(questions)
    wrong = Estimate(estimate.value * share, estimate.low * share, estimate.high * share, len(questions))
    return Both(estimate, wrong if whole else Estimate(0.0, 0.0, 0.0, len(questions)))


def ties_of_questions(questions: Sequence[dict[str, Group]]) -> Ties:
    kinds: dict[str, dict[str, tuple[np.ndarray, int]]] = {"ref": {}, "tied": {}}
    for i, question in enumerate(questions):
        for kind, g in question.items():
            kinds[kind][str(i)] = (g.scores, g.good)
    return ties_score(kinds["ref"], kinds["tied"])


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def _subsets(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line.subset for line in lines))


def _chance(groups: Sequence[Group]) -> float:
    return float(np.mean([g.good / len(g.scores) for g in groups]))


# ---- other words, other order


def consistency(scoring: Scoring) -> Consistency | None:
    """None where no line has a paraphrase or a contrast."""
    own = {g.line: g for g in scoring.of("own")}
    reworded, turned = ([(own[g.line], g) for g in scoring.of(kind)] for kind in ("paraphrase", "contrast"))
    if not reworded and not turned:
        return None
    same, opposite = ([(a, b) for a, b in pairs if a.judged and b.judged] for pairs in (reworded, turned))
    flipped = [_above(b.scores[b.good :], b.scores[: b.good]) for _, b in opposite]
    before = [_prefers(a) for a, _ in opposite]
    return Consistency(
        wilson(sum(_prefers(a) == _prefers(b) for a, b in same), len(same)),
        mean_share(np.array([pair_credit(b.scores, b.good) for _, b in same])),
        wilson(sum(flipped), len(flipped)),
        wilson(sum(f and b for f, b in zip(flipped, before, strict=True)), sum(before)),
        len(reworded) + len(turned) - len(same) - len(opposite),
    )


def _prefers(g: Group) -> bool:
    return _above(g.scores[: g.good], g.scores[g.good :])


def _above(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(a.min() > b.max())


def position(reward: Reward, lines: Sequence[Line]) -> Orders | None:
    """What the comparator of a win rate or tournament prefers by place; None for a scorer that compares nothing.

    One that does not ask in both orders by itself is asked about the lines' pairs in both.
    """
    import torch

    for node in reward.nodes():
        if isinstance(node, WinRate | Tournament):
            if isinstance(node.comparator, BothAgree):
                return node.comparator.orders
            rollouts = rollouts_of(reward, lines, [(i, "own", line.prompt) for i, line in enumerate(lines)])
            pairs, start = [], 0
            for line in lines:
                c, k = len(line.chosen), len(line.answers)
                pairs += [(start + a, start + b) for a in range(c) for b in range(c, k)]
                start += k
            asked = BothAgree(node.comparator)
            asked(rollouts, torch.tensor(pairs))
            return asked.orders
    return None
