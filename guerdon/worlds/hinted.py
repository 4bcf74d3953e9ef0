# SPDX-License-Identifier: Apache-2.0
"""An empty grid with a far goal, and what a designer might add to its reward: a hint that helps, misleads, or pays for loops."""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.errors import InputError
from guerdon.worlds.tables import Table, grid_table

KINDS = ("helpful", "misleading", "loop")


def hinted_grid(kind: str, size: int = 8, gamma: float = 0.95, strength: float = 0.1) -> tuple[Table, Tensor]:
    """(table, hint [S]): start in the upper left corner, goal in the lower right, paid 1. The hint is one of states.

    ``helpful``     minus the distance to the goal, as a share of the longest
    ``misleading``  a bonus in the upper right corner
    ``loop``        a bonus in the four cells up and left of the middle

    all times ``strength``. With the defaults staying with either bonus for ever is worth more than the goal.

    >>> table, hint = hinted_grid("misleading")
    >>> table.states, hint.nonzero().flatten().tolist(), float(hint.max())
    (64, [7], 0.1)
    """
    if kind not in KINDS or size < 4:
        raise InputError(
            f"hinted_grid: expected a kind of {', '.join(KINDS)} and a `size` of 4 or more, got {kind!r} and {size}."
        )
    cells = ["."] * size**2
    cells[0], cells[-1] = "S", "G"
    table = grid_table("\n".join("".join(cells[i : i + size]) for i in range(0, size**2, size)), gamma=gamma)
    row, column = (x.flatten() for x in torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"))
    middle = size // 2
    hint = {
        "helpful": (row + column) / (2 * size - 2) - 1.0,
        "misleading": (row == 0) & (column == size - 1),
        "loop": (row < middle) & (row >= middle - 2) & (column < middle) & (column >= middle - 2),
    }[kind]
    return table, strength * hint.double()
