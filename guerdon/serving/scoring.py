# SPDX-License-Identifier: Apache-2.0
"""Items scored by a reward. What one item gets does not depend on those it happens to be scored with, unless the reward compares.

Items that have the same fields and shapes are scored in one call. Where a call fails, it is made again for each half, so that
only the items that break it are errors.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from guerdon.errors import InputError
from guerdon.rewards import FunctionReward, Reward, evaluating
from guerdon.rewards.fields import FieldReward
from guerdon.rewards.worker import caught
from guerdon.rollouts import Rollouts, as_messages
from guerdon.scores import Bounds, Component, Status
from guerdon.serving.schema import Item, Judged, Problem, RewardInfo, Scored

MADE_HERE = {"prompt", "completion", "messages", "offset"}
"""What a reward reads of an item besides its fields."""

RESERVED = MADE_HERE | {"prompts", "completions", "steps", "task", "group"}

SAMPLED = {"log_prob", "ref_log_prob", "context_ids"}


@dataclass(frozen=True)
class Ask:
    """One item and the training step that it is asked at."""

    item: Item
    step: int = 0


class Scorer:
    """Scores items by ``reward``. ``compares``: an item's score depends on the others of its request, which stay together."""

    def __init__(self, reward: Reward) -> None:
        refuse_unservable(reward)
        self.reward = reward
        self.compares = reward.relation in ("group", "batch")
        finer = any(node.level not in ("turn", "episode") for node in reward.nodes())
        self.steps = "characters" if finer else "text"
        self.info = info_of(reward)

    def problems(self, items: Sequence[Item]) -> list[Problem]:
        """Fields that the reward needs and an item lacks, and those that nothing reads."""
        required, known = set(self.info.required), {*self.info.required, *self.info.optional}
        found = []
        for i, item in enumerate(items):
            have = set(item.fields)
            unread = have & RESERVED if self.info.open else have - known
            found += [(f"items[{i}].fields.{name}", "missing; the reward reads it") for name in sorted(required - have)]
            found += [(f"items[{i}].fields.{name}", f"not read by the reward; {self._reads()}") for name in sorted(unread)]
        return found[:20]

    def _reads(self) -> str:
        return f"it reads {', '.join(sorted([*self.info.required, *self.info.optional])) or 'no fields'}"

    def __call__(self, asks: Sequence[Ask]) -> list[Scored]:
        found: dict[int, Scored] = {}
        for places in _alike(asks, self.compares):
            found |= zip(places, self._all([asks[i] for i in places]), strict=True)
        return [found[i] for i in range(len(asks))]

    def _all(self, asks: list[Ask]) -> list[Scored]:
        scored, error = caught(partial(self._once, asks))
        if error is None:
            return scored
        if len(asks) > 1 and not self.compares:
            half = len(asks) // 2
            return self._all(asks[:half]) + self._all(asks[half:])
        return [Scored(total=Judged(value=None, status="error", reason=f"{type(error).__name__}: {error}"), parts={})] * len(asks)

    def _once(self, asks: list[Ask]) -> list[Scored]:
        items = [a.item for a in asks]
        completions = [_plain(item.completion) for item in items]
        if "messages" in self.reward.needs:
            completions = [as_messages(c, "assistant") for c in completions]
        names = dict.fromkeys(name for item in items for name in item.fields)
        columns: dict[str, Any] = {name: [item.fields.get(name) for item in items] for name in names}
        rollouts = Rollouts.from_text(
            [_plain(item.prompt) for item in items],
            completions,
            steps=self.steps,
            group=[_group(item, i) for i, item in enumerate(items)],
            **columns,
        )
        scores = self.reward.score(rollouts, step=asks[0].step)
        total = judged(scores.total)
        parts = {name: judged(c) for name, c in scores.trace.items()}
        return [Scored(total=total[n], parts={name: x[n] for name, x in parts.items()}) for n in range(len(asks))]


def _alike(asks: Sequence[Ask], compares: bool) -> list[list[int]]:
    """Places of the items that one call can take without one seeing what another has: same fields, text or chat, step."""
    found: dict[Hashable, list[int]] = {}
    for i, ask in enumerate(asks):
        item = ask.item
        chat = isinstance(item.prompt, str), isinstance(item.completion, str)
        found.setdefault((ask.step,) if compares else (ask.step, frozenset(item.fields), chat), []).append(i)
    return list(found.values())


def _plain(text: Any) -> Any:
    return text if isinstance(text, str) else [message.model_dump() for message in text]


def _group(item: Item, row: int) -> Hashable:
    """Its own, or else its prompt's; an item without either is alone."""
    if item.group is not None:
        return "group", item.group
    return ("prompt", json.dumps(_plain(item.prompt))) if item.prompt else ("row", row)


def judged(c: Component) -> list[Judged]:
    """One judgement a row: the sum over its units, or the worst status and all reasons."""
    values, status = c.values.tolist(), c.status.tolist()
    told: dict[int, list[str]] = {}
    for (n, k), text in sorted(c.reasons.items()):
        if text not in told.setdefault(n, []) and status[n][k] == max(status[n]):
            told[n].append(text)
    out = []
    for n, row in enumerate(status):
        worst = Status(max(row, default=Status.NONE))
        if worst == Status.NONE:
            out.append(Judged(value=None, status="abstain", reason=f"it has no {c.level}"))
            continue
        ok = worst == Status.OK
        value = math.fsum(v for v, s in zip(values[n], row, strict=True) if s == Status.OK) if ok else None
        out.append(Judged(value=value, status=worst.name.lower(), reason="; ".join(told.get(n, []))))
    return out


# ---- what a reward says of itself


def refuse_unservable(reward: Reward) -> None:
    carried = {node.field for node in reward.nodes() if isinstance(node, FieldReward)}
    wrong = sorted(carried | (reward.needs & (SAMPLED | (RESERVED - MADE_HERE))))
    if wrong:
        raise InputError(
            f"serve: expected a reward of prompts, completions and fields, `{reward}` reads `{'`, `'.join(wrong)}`. "
            "Usual cause: a term of a policy's samples or of an environment's steps, which belongs where these are."
        )


def info_of(reward: Reward) -> RewardInfo:
    functions = [node for node in reward.nodes() if isinstance(node, FunctionReward)]
    required = reward.needs - MADE_HERE
    read = {name for f in functions if f.arguments is None for name in f.reads.values()}
    weights = evaluating.additive(reward, 0)
    names = evaluating.unique_names(evaluating.visible(reward, weights))
    low, high = (None if math.isinf(x) else x for x in _of_item(reward))
    return RewardInfo(
        reward=str(reward),
        version=version_of(reward),
        tree=reward.tree(),
        level=reward.level,
        relation=reward.relation,
        bounds=(low, high),
        required=sorted(required),
        optional=sorted(read - required - MADE_HERE - {"index", "step_count"}),
        open=any(f.every or f.arguments is not None for f in functions),
        parts={name: weights.get(node) for node, name in names.items()},
    )


def _of_item(reward: Reward) -> tuple[float, float]:
    of: Bounds = reward.bounds.of_total("episode" if reward.level == "episode" else "step")
    return of.low, of.high


def version_of(reward: Reward) -> str:
    """Changes when what it says may: of its text and the versions of its leaves."""
    told = [str(reward), *(f"{node.name}:{node.version}" for node in reward.nodes() if not node.parts)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
