# SPDX-License-Identifier: Apache-2.0
"""Imitation in four rooms: one trajectory of an expert and many random steps, and exact returns from every cell.

Episodes start anywhere, so the expert shows its way through a small part of the maze; the random steps show how to get there.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from guerdon.worlds.tables import FOUR_ROOMS, Table, expected_return, grid_table, optimal_policy

EXPERT_STEPS, RANDOM_STEPS = 60, 2000
"""The expert stays at the goal once it is there, for the rest of its steps."""


def maze() -> Table:
    """Four rooms with the goal in the last cell; one move in ten slips; discount 0.95."""
    layout = FOUR_ROOMS.strip("\n").replace(".", "S")
    return grid_table(layout[:-1] + "G", gamma=0.95, slip=0.1)


def walk(table: Table, policy: Tensor, start: int, steps: int, rng: np.random.Generator, stay: bool) -> Tensor:
    """[steps, 3] int64 (state, action, next state). At the goal it stays, or goes on from anywhere."""
    out, s = [], start
    for _ in range(steps):
        a = int(rng.choice(table.actions, p=policy[s].numpy()))
        at_goal = bool(table.terminal[s])
        after = s if at_goal else int(rng.choice(table.states, p=table.transition[s, a].numpy()))
        out.append((s, a, after))
        s = int(rng.integers(table.states)) if at_goal and not stay else after
    return torch.tensor(out)


def dataset(table: Table, seed: int) -> tuple[Tensor, Tensor]:
    """(expert, random): the expert's one trajectory from the first cell, and random steps from anywhere."""
    rng = np.random.default_rng(seed)
    uniform = torch.full((table.states, table.actions), 1 / table.actions, dtype=torch.float64)
    expert = walk(table, optimal_policy(table), 0, EXPERT_STEPS, rng, stay=True)
    return expert, walk(table, uniform, int(rng.integers(table.states)), RANDOM_STEPS, rng, stay=False)


def measured(table: Table, policy: Tensor) -> dict[str, float]:
    """eval/return: the expected discounted return from an even start, as a share of the best policy's."""
    return {"eval/return": float(expected_return(table, policy) / expected_return(table, optimal_policy(table)))}
