# SPDX-License-Identifier: Apache-2.0
"""What verl's reward workers send to its trainer beside the one number: every component's units, with level and status.

verl scores completions one by one in processes of their own and passes on a number and a flat dict. The dict's entry `PAYLOAD` is
JSON text; the trainer makes Scores of a batch of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import ExpressionError, InputError
from guerdon.integrations.token_rows import Generated, token_rollouts
from guerdon.levels import pool
from guerdon.rewards import Reward
from guerdon.rewards.algebra import Scale
from guerdon.rewards.oracle import refuse_oracles
from guerdon.rollouts import Rollouts
from guerdon.scores import Component, Scores, Status, scores_of

PAYLOAD = "guerdon"
"""Key of the JSON text in verl's ``reward_extra_info``."""

OWN = ("step", "turn", "episode")
"""Levels that the trainer makes itself, of the response mask."""


def check_reward(reward: Reward) -> None:
    """Refuse what a reward can't do in verl, where completions are scored one by one, in other processes, at no known step."""
    refuse_oracles(reward, "verl")
    causes = {
        "learns while in use, which takes guerdon's own loop": reward.evolves,
        "compares rows with one another, and verl scores them one by one; compare in `credit`": reward.relation
        in ("group", "batch"),
        "reads the policy's log-probabilities, which verl does not tell; use verl's KL loss": bool(
            reward.needs & {"log_prob", "ref_log_prob"}
        ),
        "has a weight that changes with the training step, which verl does not tell": any(
            isinstance(n, Scale) and not isinstance(n.factor, float) for n in reward.nodes()
        ),
    }
    for cause, holds in causes.items():
        if holds:
            raise ExpressionError(f"verl: `{reward}` {cause}.")


def score_one(
    reward: Reward,
    prompt: Any,
    ids: Sequence[int],
    fields: Mapping[str, Any],
    tokenizer: Any,
    ends: Collection[int],
) -> dict[str, Any]:
    """What a reward manager of verl returns: ``reward_score``, NaN where the total is not ok, and ``reward_extra_info``.

    The latter has the same keys for every completion, since verl takes those of the first: each component's sum over the
    completion (NaN where it is not ok), ``reward_status``, ``reward_reason`` and the payload.
    """
    rollouts = token_rollouts(
        [prompt], [""], [ids], {k: [v] for k, v in fields.items()}, tokenizer=tokenizer, generated=Generated(ends=ends)
    )
    scores = reward.score(rollouts)
    total = scores.reward().double().sum().item() if len(ids) else math.nan
    parts = {name: c.steps(scores.levels[c.level], scores.mask).double().sum().item() for name, c in scores.components.items()}
    status = Status(int(scores.total.status.max())) if scores.total.status.numel() else Status.NONE
    reasons = [f"{name}: {text}" for name, c in scores.trace.items() for text in c.reasons.values()]
    info = {"reward_status": status.name.lower(), "reward_reason": "; ".join(dict.fromkeys(reasons))}
    return {"reward_score": total, "reward_extra_info": {**parts, **info, PAYLOAD: payload_of(rollouts, scores)}}


def payload_of(rollouts: Rollouts, scores: Scores) -> str:
    """One row's components as JSON text: values and status per unit, reasons, and the levels in runs of (unit, steps).

    >>> from guerdon import checkers
    >>> rows = token_rollouts([""], ["4"], [[7]], {"answer": ["4"]})
    >>> print(payload_of(rows, checkers.numeric().score(rows)))
    {"tokens": 1, "ended": false, "levels": {}, "parts": {"numeric": ["episode", "last", 1.0, [1.0], [0], {}]}}
    """
    parts = {}
    for name, c in scores.components.items():
        values = [None if math.isnan(x) else x for x in c.values[0].tolist()]
        reasons = {str(k): text for (_, k), text in c.reasons.items()}
        parts[name] = [c.level, c.spread, c.weight, values, c.status[0].tolist(), reasons]
    tokens = int(rollouts.length[0])
    runs = {
        name: [[unit, len(list(run))] for unit, run in groupby(ids[0, :tokens].tolist())]
        for name, ids in scores.levels.items()
        if name not in OWN
    }
    return json.dumps({"tokens": tokens, "ended": bool(rollouts.terminated.any()), "levels": runs, "parts": parts})


def batch_of(payloads: Sequence[str | None], response: Tensor, mask: Tensor, length: Tensor, uid: Sequence[str]) -> Rollouts:
    """The trainer's rows as Rollouts with the payloads' levels. ``response``, ``mask`` [N, T]; None: a row that is padding."""
    told = [json.loads(p) if p is not None else None for p in payloads]
    for n, row in enumerate(told):
        if row is not None and row["tokens"] != int(length[n]):
            raise InputError(
                f"verl: row {n} has {int(length[n])} tokens and was scored as one of {row['tokens']}. Usual cause: an agent loop "
                "with several outputs a session, of which verl scores the last."
            )
    there = torch.arange(mask.shape[1]) < length[:, None]
    before = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], 1)
    levels = {"turn": torch.where(there, ((mask & ~before).long().cumsum(1) - 1).clamp(min=0), -1)}
    for name in dict.fromkeys(k for row in told if row for k in row["levels"]):
        ids = torch.full(mask.shape, -1, dtype=torch.long)
        for n, row in enumerate(told):
            flat = [unit for unit, count in (row["levels"][name] if row else ()) for _ in range(count)]
            ids[n, : len(flat)] = torch.tensor(flat, dtype=torch.long)
        levels[name] = ids
    last = torch.arange(mask.shape[1]) == length[:, None] - 1
    ended = torch.tensor([bool(row and row["ended"]) for row in told])
    return Rollouts(
        action=response,
        mask=mask,
        task=list(uid),
        terminated=last & ended[:, None],
        truncated=last & ~ended[:, None],
        length=length,
        levels=levels,
    )


def scores_from(payloads: Sequence[str | None], rollouts: Rollouts) -> Scores:
    """The payloads' components on the trainer's rows, whose mask says which tokens the policy wrote."""
    told = [json.loads(p)["parts"] if p is not None else {} for p in payloads]
    names = dict.fromkeys(name for row in told for name in row)
    return scores_of(rollouts, [_component(name, told, rollouts) for name in names])


def _component(name: str, told: Sequence[Mapping[str, Any]], rollouts: Rollouts) -> Component:
    level, spread, weight = next(tuple(row[name][:3]) for row in told if name in row)
    counts = rollouts.unit_counts(level)
    wide = max([*counts, 1])
    values = torch.full((len(told), wide), torch.nan)
    status = torch.full((len(told), wide), int(Status.NONE), dtype=torch.int8)
    reasons: dict[tuple[int, int], str] = {}
    for n, row in enumerate(told):
        if name not in row:
            continue
        _, _, _, said, became, why = row[name]
        there = sum(s != Status.NONE for s in became)
        if there != counts[n]:
            raise InputError(
                f"verl: `{name}` was scored on {there} units of level `{level}` in row {n}, which has {counts[n]}. Usual cause: "
                "turns of an agent loop, which verl does not tell a reward manager; score those in extra_fields of the loop."
            )
        values[n, :there] = torch.tensor([math.nan if x is None else x for x in said[:there]])
        status[n, :there] = torch.tensor(became[:there], dtype=torch.int8)
        reasons |= {(n, int(k)): text for k, text in why.items()}
    _check_lands(name, level, values, rollouts)
    return Component(name, level, values, status, reasons, spread=spread, weight=weight)


def _check_lands(name: str, level: str, values: Tensor, rollouts: Rollouts) -> None:
    """A unit in which the policy wrote no token can't be paid."""
    taken = pool(rollouts.mask.double(), rollouts.level(level), "sum")
    taken = torch.nn.functional.pad(taken, (0, values.shape[1] - taken.shape[1]))
    lost = (taken == 0) & (values != 0) & ~values.isnan()
    if lost.any():
        n, k = lost.nonzero()[0].tolist()
        raise InputError(
            f"verl: `{name}` gives {values[n, k].item()} to {level} {k} of row {n}, in which the policy wrote no token. "
            "Usual cause: an agent loop whose tools' replies are scored as if the policy had written them."
        )
