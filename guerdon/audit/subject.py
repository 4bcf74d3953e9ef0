# SPDX-License-Identifier: Apache-2.0
"""What a reward is audited on: tasks with answers that are known to be right or wrong, an environment, or images.

Whatever the kind, an audit makes Rollouts of it and lets two rewards score them: the one under audit and, where there is one, a
gold check that says how good a row really is. An audit only ever reads ``total_of(reward, rollouts)``: one number a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import InputError
from guerdon.rewards import Reward
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Status

MALFORMED = ("wrong", "abstain", "error")
"""What a reward may declare for an answer that is none: it scores as a wrong one does, it abstains, or it is an error."""


@dataclass(frozen=True)
class Texts:
    """Tasks whose answers are text. A row is a mapping:

    prompt     what was asked
    right      completions that deserve full reward, at least one
    wrong      completions that deserve none; may be missing
    malformed  completions that are no answer at all; may be missing. ``malformed`` of the subject says what they should get
    other keys are the task's fields, for rewards to read by name: answer, source, ...
    """

    rows: Sequence[Mapping[str, Any]]
    malformed: str = "wrong"

    OWN = ("prompt", "right", "wrong", "malformed")

    def __post_init__(self) -> None:
        if self.malformed not in MALFORMED:
            raise InputError(f"Texts: `malformed` should be one of {', '.join(MALFORMED)}, got {self.malformed!r}.")
        for i, row in enumerate(self.rows):
            if "prompt" not in row or not row.get("right"):
                raise InputError(
                    f"Texts: row {i} should have a `prompt` and at least one completion in `right`, got {row!r:.120}."
                )
            for name in ("right", "wrong", "malformed"):
                if isinstance(row.get(name, []), str):
                    raise InputError(f"Texts: `{name}` of row {i} should be a list of completions, got one string.")

    def rollouts(self, at: Sequence[int], completions: Sequence[Any], steps: str = "text", **fields: Sequence[Any]) -> Rollouts:
        """Rows of completions, each of task ``at``; those of one task are a group. ``fields`` replace the tasks' own."""
        rows = [self.rows[i] for i in at]
        names = dict.fromkeys(k for row in self.rows for k in row if k not in self.OWN)
        columns = {k: [row.get(k) for row in rows] for k in names} | {k: list(v) for k, v in fields.items()}
        prompts = columns.pop("prompt", [row["prompt"] for row in rows])
        return Rollouts.from_text(prompts, completions, steps=steps, task=[str(i) for i in at], group=list(at), **columns)


@dataclass(frozen=True)
class Episodes:
    """An environment whose episodes are scored.

    make    a Gymnasium id (``guerdon.worlds.ids:BoatRace-v0`` for the worlds here) or a function that makes an environment
    info    numbers of the steps' info that become step fields, for the reward or the gold check to read
    limit   steps an audit lets an episode run at most
    """

    make: str | Callable[[], Any]
    info: tuple[str, ...] = ()
    limit: int = 200


@dataclass(frozen=True)
class Images:
    """Images [N, 64] of 8 x 8 pixels in [-1, 1] (-1: no ink) that were asked for by ``label`` [N] and are good.

    wrong  images [M, 64] that are not what their ``wrong_label`` [M] asked for.
    """

    right: Tensor
    label: Tensor
    wrong: Tensor = field(default_factory=lambda: torch.zeros(0, 64))
    wrong_label: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

    @staticmethod
    def rollouts(images: Tensor, label: Tensor) -> Rollouts:
        """One step a row, with a flow policy's fields: ``sample`` (episode) [N, 1, 64], ``label`` (step) [N, 1]."""
        n = len(images)
        ones = torch.ones(n, 1, dtype=torch.bool)
        fields = {"sample": Field("episode", images[:, None]), "label": Field("step", label[:, None])}
        fields["prompt"] = Field("task", label.tolist())
        return Rollouts(
            images[:, None], ones, [str(x) for x in label.tolist()], torch.zeros(n, 1), terminated=ones, fields=fields
        )


Subject = Texts | Episodes | Images


def granularity(reward: Reward) -> str:
    """The ``steps`` that text needs for every part of the reward to have units to stand on."""
    return "characters" if any(node.level not in ("turn", "episode") for node in reward.nodes()) else "text"


def total_of(reward: Reward, rollouts: Rollouts) -> Tensor:
    """[N] the reward's sum over each row, float64; NaN where a unit of the row is not ok or there is none."""
    total = reward.score(rollouts).total
    there = total.status != Status.NONE
    whole = (total.ok | ~there).all(1) & there.any(1)
    return total.values.double().nan_to_num().sum(1).where(whole, torch.nan)
