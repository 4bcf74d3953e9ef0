# SPDX-License-Identifier: Apache-2.0
"""A reward expression as the columns of TRL: scored once a batch, one number per completion and component."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import ExpressionError, InputError
from guerdon.integrations.token_rows import Generated, token_rollouts
from guerdon.rewards import Reward, evaluating, parse
from guerdon.rewards.algebra import Scale
from guerdon.rewards.oracle import refuse_oracles
from guerdon.rollouts import Rollouts
from guerdon.scores import Scores, Status
from guerdon.training.loop import score_metrics
from guerdon.training.scoring import refuse_failures

OF_THE_POLICY = {"log_prob", "ref_log_prob"}
"""What a reward may read that a reward function of TRL is not told."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One batch: ``values``, name -> [N] what TRL is told of each component, NaN in every one where the total is not ok."""

    completions: Sequence[Any]
    step: int
    rollouts: Rollouts
    scores: Scores
    values: Mapping[str, Tensor]


class Scorer:
    """Scores a batch when its first column is asked for, and remembers it for the others.

    The columns are called with the same list of completions, which is how a batch is known again.
    """

    def __init__(
        self,
        reward: Reward | str,
        *,
        tokenizer: Any = None,
        max_failed: float = 0.1,
        weighted: bool = False,
        levels: Mapping[str, str] | None = None,
    ) -> None:
        self.reward = parse(reward) if isinstance(reward, str) else reward
        self.tokenizer, self.max_failed, self.levels = tokenizer, max_failed, dict(levels or {})
        _check(self.reward)
        weights = named_weights(self.reward, 0)
        knots = {n.factor.steps for n in self.reward.nodes() if isinstance(n, Scale) and not isinstance(n.factor, float)}
        moving = {name for name in weights for step in knots if named_weights(self.reward, step)[name] != weights[name]}
        self.weighted = set(weights) if weighted else moving
        self.weights = [1.0 if name in self.weighted else weight for name, weight in weights.items()]
        self.columns = [Column(self, name, first=i == 0) for i, name in enumerate(weights)]
        self.generated: Generated | None = None
        self.last: Scored | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:  # some of TRL's trainers score in a process of their own
        return {**vars(self), "last": None, "generated": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def batch(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        columns: Mapping[str, Sequence[Any]],
        step: int,
    ) -> Scored:
        """The batch that these completions are, scored now or before."""
        with self._lock:  # some of TRL's trainers call the columns from threads
            if self.last is None or self.last.completions is not completions or self.last.step != step:
                self.last = self._score(prompts, completions, completion_ids, columns, step)
            return self.last

    def _score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        columns: Mapping[str, Sequence[Any]],
        step: int,
    ) -> Scored:
        if completion_ids is None:
            raise InputError("as_reward_funcs: expected `completion_ids`, got none. Usual cause: a version of TRL before 0.16.")
        if self.tokenizer is None and any(_finer(node.level) for node in self.reward.nodes()):
            raise InputError(
                f"as_reward_funcs: `{self.reward}` scores parts of the answer, so it has to know what each token wrote. "
                "Give as_reward_funcs the trainer's tokenizer=."
            )
        rollouts = token_rollouts(
            prompts,
            completions,
            completion_ids,
            columns,
            tokenizer=self.tokenizer,
            generated=self.generated,
            levels=self.levels,
        )
        scores = self.reward.score(rollouts, step=step)
        refuse_failures(scores, self.max_failed)
        return Scored(completions, step, rollouts, scores, self._values(scores))

    def _values(self, scores: Scores) -> dict[str, Tensor]:
        ok = scores.reward().sum(1).isfinite() & scores.mask.any(1)
        values = {}
        for name, c in scores.components.items():
            weight = c.weight if name in self.weighted and c.weight is not None else 1.0
            total = weight * c.steps(scores.levels[c.level], scores.mask).double().sum(1)
            values[name] = torch.where(ok, total, torch.nan)
        return values


class Column:
    """One component as a reward function of TRL; the first of them also logs what became of each completion."""

    def __init__(self, scorer: Scorer, name: str, *, first: bool) -> None:
        self.scorer, self.first = scorer, first
        self.__name__ = name  # what TRL calls the column

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        trainer_state: Any = None,
        log_extra: Any = None,
        log_metric: Any = None,
        **columns: Sequence[Any],
    ) -> list[float | None]:
        step = 0 if trainer_state is None else int(trainer_state.global_step)
        scored = self.scorer.batch(prompts, completions, completion_ids, columns, step)
        if self.first and log_extra is not None:
            for column, said in verdicts(scored.scores).items():
                log_extra(column, said)
        if self.first and log_metric is not None:
            for name, value in score_metrics(scored.scores).items():
                if math.isfinite(value):
                    log_metric(name, value)
        return [None if math.isnan(x) else x for x in scored.values[self.__name__].tolist()]


def verdicts(scores: Scores) -> dict[str, list[str]]:
    """For each row: ``reward_status``, the worst status of its total, and ``reward_reason``, all reasons and rationales of it.

    >>> from guerdon import reward
    >>> @reward
    ... def cites(completion, source):
    ...     return source in completion if source else None
    >>> verdicts(cites(completions=["a", "b"], source=["a", ""]))
    {'reward_status': ['ok', 'abstain'], 'reward_reason': ['', 'cites: abstain: returned None']}
    """
    rows = len(scores.mask)
    worst = scores.total.status.long().amax(1).tolist() if scores.total.status.shape[1] else [int(Status.NONE)] * rows
    said: list[list[str]] = [[] for _ in range(rows)]
    for name, c in scores.trace.items():
        for (n, k), reason in c.reasons.items():
            status = Status(int(c.status[n, k]))
            text = reason if status == Status.OK else f"{status.name.lower()}: {reason}"
            said[n].append(f"{name}: {text}")
    return {
        "reward_status": [Status(s).name.lower() for s in worst],
        "reward_reason": ["; ".join(dict.fromkeys(texts)) for texts in said],
    }


def named_weights(reward: Reward, step: int) -> dict[str, float]:
    """name -> weight of each additive term, in order, as ``reward.score`` names them."""
    weights = evaluating.additive(reward, step)
    names = evaluating.unique_names(evaluating.visible(reward, weights))
    return {names[node]: weight for node, weight in weights.items()}


def _finer(level: str) -> bool:
    return level not in ("step", "turn", "episode")


def _check(reward: Reward) -> None:
    refuse_oracles(reward, "trl")
    if reward.evolves:
        parts = ", ".join(str(n) for n in reward.nodes() if n.evolves and not n.parts)
        raise ExpressionError(
            f"trl: a reward in TRL stays as it is, and `{parts}` learns while in use, which takes guerdon's own loop to tell it."
        )
    asked = sorted(reward.needs & OF_THE_POLICY)
    if asked:
        raise ExpressionError(
            f"trl: TRL does not tell a reward the policy's `{'`, `'.join(asked)}`. A penalty on the divergence is TRL's `beta`."
        )
