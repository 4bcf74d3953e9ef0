# SPDX-License-Identifier: Apache-2.0
"""A context in the middle of a row: the steps taken so far are given, and the policy goes on from there."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from guerdon.protocols import Context


@dataclass(frozen=True, eq=False)
class Prefix(Context):
    """The first ``len(action)`` steps of a row, to be continued.

    ``action`` [S, ...]: what was done in them; they come first in the row that is sampled, with the mask False, since this row's
    policy did not choose them. Step t of a row always uses number t of its stream, so a prefix that keeps its row's ``index``
    gives that very row again, and another index a fork. ``parent``: (row, step) it was forked from, step being S.
    """

    action: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    parent: tuple[int, int] = (-1, -1)


def forced_steps(contexts: object) -> list[int]:
    """How many steps are given in each context: 0 for those that are no `Prefix`."""
    return [len(c.action) if isinstance(c, Prefix) else 0 for c in contexts]  # type: ignore[attr-defined]


def parents(contexts: object) -> Tensor:
    """[N, 2] for ``Rollouts.parent``."""
    return torch.tensor([c.parent if isinstance(c, Prefix) else (-1, -1) for c in contexts])  # type: ignore[attr-defined]
