# SPDX-License-Identifier: Apache-2.0
"""What a reward pays for outputs of an audit's subject, on a scale that the subject's own right and wrong outputs set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from guerdon.audit.subject import Texts, granularity, total_of
from guerdon.errors import InputError
from guerdon.rewards import Reward

Attempt = tuple[int, Any]
"""(task, output)."""

FULL = 0.5
"""What a gold check gives right outputs is at least this share of its best; what is below is not right."""


@dataclass
class TextScorer:
    """Scores completions of tasks. A reward that compares within a group sees each among the task's own right and wrong ones.

    ``paid`` puts a value on the task's own scale: 1 is what its right completions get, the best of them; 0 its wrong ones, the
    median; where a task has no wrong ones, an empty text.
    """

    reward: Reward
    subject: Texts
    _levels: dict[int, tuple[float, float]] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """A value does not depend on other rows, by the reward's own declaration."""
        return self.reward.relation not in ("group", "batch")

    def values(self, attempts: Sequence[Attempt], **fields: Sequence[Any]) -> Tensor:
        """[M] float64, NaN where not ok."""
        if not attempts:
            return torch.zeros(0, dtype=torch.float64)
        steps = granularity(self.reward)
        if self.alone:
            at, texts = [i for i, _ in attempts], [text for _, text in attempts]
            return total_of(self.reward, self.subject.rollouts(at, texts, steps, **fields))
        out = []
        for k, (i, text) in enumerate(attempts):
            row = self.subject.rows[i]
            among = [text, *row["right"][:2], *row.get("wrong", ())[:4]]
            own = {name: [values[k]] * len(among) for name, values in fields.items()}
            out.append(total_of(self.reward, self.subject.rollouts([i] * len(among), among, steps, **own))[0])
        return torch.stack(out)

    def levels(self, i: int) -> tuple[float, float]:
        """(value of a wrong, value of a right completion) of task ``i``; NaN where there is none that is ok."""
        if i not in self._levels:
            row = self.subject.rows[i]
            wrong = row.get("wrong") or [""]
            found = self.values([(i, t) for t in [*row["right"], *wrong]])
            right, low = found[: len(row["right"])], found[len(row["right"]) :]
            best = right[~right.isnan()].max().item() if not right.isnan().all() else float("nan")
            self._levels[i] = low.nanmedian().item(), best
        return self._levels[i]

    def paid(self, attempts: Sequence[Attempt], values: Tensor) -> Tensor:
        """[M] values on the tasks' own scales. Where a task's right and wrong ones are paid alike, what is paid as much is 1."""
        out = []
        for (i, _), value in zip(attempts, values.tolist(), strict=True):
            low, high = self.levels(i)
            slack = 1e-9 * max(1.0, abs(high))
            alike = float("nan") if value != value or high != high else float(value >= high - slack)
            out.append((value - low) / (high - low) if high - low > slack else alike)
        return torch.tensor(out, dtype=torch.float64)


@dataclass
class GoldScorer:
    """What a gold check gives completions, as a share of what it gives the task's right ones; without one, nothing is known."""

    gold: Reward
    subject: Texts

    @cached_property
    def _scorer(self) -> TextScorer:
        return TextScorer(self.gold, self.subject)

    def shares(self, attempts: Sequence[Attempt], **fields: Sequence[Any]) -> Tensor:
        """[M]; 0 where the gold check abstains or fails: what can't be checked is not right."""
        values = self._scorer.values(attempts, **fields).nan_to_num()
        best = {i: self._scorer.levels(i)[1] for i in {i for i, _ in attempts}}
        if unknown := [i for i, b in best.items() if not b > 0]:
            raise InputError(
                f"audit: the gold check `{self.gold}` should give a right completion of every task more than 0, "
                f"of task {unknown[0]} it gives {best[unknown[0]]:g}. "
                "Usual cause: it raises or abstains there, or reads another form of answer."
            )
        shares = [v / best[i] for (i, _), v in zip(attempts, values.tolist(), strict=True)]
        return torch.tensor(shares, dtype=torch.float64)
