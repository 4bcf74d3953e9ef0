# SPDX-License-Identifier: Apache-2.0
"""Any table as a world to step in, so that what is sampled can be held against what is exact."""

from __future__ import annotations

import numpy as np

from guerdon.errors import InputError
from guerdon.worlds.tables import Table
from guerdon.worlds.world import Array, Which, World, box, one_hots


def table_world(table: Table, worlds: int = 256, limit: int = 1000) -> TableWorld:
    """``worlds`` copies of a `Table`; the observation is the state, one-hot. Arriving in a terminal state ends the episode.

    A reward [S, A, S] is that of the move made, a reward [S, A] that of the action.

    info  state       where the action was taken
          next_state  where it led
    """
    return TableWorld(table, worlds, limit)


class TableWorld(World):
    state = ("at",)

    def __init__(self, table: Table, worlds: int, limit: int) -> None:
        if bool((table.start[table.terminal] > 0).any()):
            raise InputError("table_world: no episode should start where it ends, got a terminal state with a `start` above 0.")
        super().__init__(worlds, box(table.states), table.actions, limit)
        transition = table.transition.detach().numpy()
        most = int((transition > 0).sum(-1).max())
        self._next = np.argsort(-transition, axis=-1, kind="stable")[..., :most]  # those that can follow, likeliest first
        likely = np.take_along_axis(transition, self._next, -1)
        is_last = np.arange(most) >= (likely > 0).sum(-1, keepdims=True) - 1
        self._edges = np.where(is_last, 1.0, likely.cumsum(-1))  # sums of floats end just beside 1
        reward = table.reward.detach().numpy()
        self._reward = reward if reward.ndim == 3 else np.broadcast_to(reward[..., None], transition.shape)
        self._start = np.flatnonzero(table.start > 0)
        self._start_edges = table.start.detach().numpy()[self._start].cumsum()
        self._terminal, self._states = table.terminal.numpy(), table.states
        self.at = np.zeros(worlds, dtype=np.int64)

    def begin(self, which: Which) -> None:
        drawn = np.searchsorted(self._start_edges, self.uniform(which, 1)[:, 0], side="right")
        self.at[which] = self._start[np.minimum(drawn, len(self._start) - 1)]

    def advance(self, action: Array) -> tuple[Array, Array, dict[str, Array]]:
        before = self.at
        drawn = (self.uniform(slice(None), 1) >= self._edges[before, action]).sum(1)
        self.at = self._next[before, action, drawn]
        info = {"state": before, "next_state": self.at.copy()}
        return self._reward[before, action, self.at], self._terminal[self.at], info

    def observe(self, which: Which) -> Array:
        return one_hots([self.at[which]], [self._states])
