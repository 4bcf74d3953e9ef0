# SPDX-License-Identifier: Apache-2.0
"""Episodes of a tabular policy in a table, as Rollouts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from guerdon.errors import check_shape
from guerdon.rollouts import Field, Rollouts
from guerdon.worlds.stepping import TableWorld
from guerdon.worlds.tables import Table


def walks(table: Table, policy: Tensor, *, episodes: int, limit: int, seed: int) -> Rollouts:
    """``episodes`` rows of one episode each, at most ``limit`` steps; what has not ended by then is truncated.

    ``policy`` [S, A], probabilities. Row i depends on (``seed``, i) alone. Step fields: ``state``, ``next_state``,
    ``environment_reward``.

    >>> from guerdon.worlds import grid_table
    >>> right = torch.tensor([[0., 1., 0., 0.]]).expand(3, 4)
    >>> rows = walks(grid_table("S.G"), right, episodes=1, limit=9, seed=0)
    >>> rows.fields["state"].values.tolist(), rows.fields["environment_reward"].values.tolist(), rows.terminated.tolist()
    ([[0, 1]], [[0.0, 1.0]], [[False, True]])
    """
    check_shape("walks", "policy", policy, (table.states, table.actions), "logits, or the policy of another table")
    world = TableWorld(table, episodes, limit)
    world.reset(seed=[seed * 1_000_003 + i for i in range(episodes)])
    draws = world.uniform(slice(None), limit)
    edges = policy.detach().double().cumsum(-1).numpy()
    going, kept = np.ones(episodes, dtype=bool), []
    for t in range(limit):
        at = world.at.copy()
        action = np.minimum((draws[:, t, None] * edges[at, -1:] >= edges[at]).sum(1), table.actions - 1)
        _, reward, ended, cut, info = world.step(action)
        kept.append((action, at, info["next_state"], reward, going, ended & going, cut & going))
        going = going & ~ended
        if not going.any():
            break
    actions, state, after, rewards, mask, terminated, truncated = (
        torch.from_numpy(np.stack(x, 1)) for x in zip(*kept, strict=True)
    )
    fields = {"state": state, "next_state": after, "environment_reward": torch.where(mask, rewards, 0)}
    length = mask.sum(1)
    return Rollouts(
        action=actions,
        mask=mask,
        task=[f"walk {i}" for i in range(episodes)],
        log_prob=torch.where(mask, policy.detach().double().log()[state, actions], 0),
        terminated=terminated,
        truncated=truncated,
        length=length,
        group=torch.zeros_like(length),
        fields={name: Field("step", x) for name, x in fields.items()},
    )
