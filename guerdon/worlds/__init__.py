# SPDX-License-Identifier: Apache-2.0
"""Worlds: small tasks of our own that show what a reward does, many copies at a time; and tables in which everything is exact.

    key_door(worlds, size)       sparse: key, door, goal in two rooms of any size
    boat_race(worlds)            hackable: pays for checkpoints, means laps
    tomato_watering(worlds)      hackable: pays for what the sensor sees, means watered tomatoes
    side_effects(worlds)         hackable: pays for the goal, means without breaking anything on the way
    deep_sea_treasure(worlds)    two objectives with a known front
    table_world(table, worlds)   any table, to be stepped in

Each is a function that makes a Gymnasium vector environment (`guerdon.worlds.world` says how it resets); what is meant, not paid,
is in ``info["true_reward"]``. Importing `guerdon.worlds.ids` gives them ids of Gymnasium's. They need gymnasium.

The tables (`guerdon.worlds.tables`) need torch alone: `Table`, `grid_table`, `four_rooms`, `policy_evaluation`, `occupancy`,
`value_iteration` and the rest. `hinted.hinted_grid` adds hints that help or mislead; `walking.walks` samples a table's episodes.
"""

from __future__ import annotations

import importlib
from typing import Any

from guerdon.worlds.tables import (
    Table,
    advantages,
    expected_return,
    expected_reward,
    four_rooms,
    grid_table,
    occupancy,
    optimal_policy,
    policy_evaluation,
    q_values,
    shaped,
    value_iteration,
)

__all__ = [
    "Table",
    "advantages",
    "expected_return",
    "expected_reward",
    "four_rooms",
    "grid_table",
    "occupancy",
    "optimal_policy",
    "policy_evaluation",
    "q_values",
    "shaped",
    "value_iteration",
]

_WORLDS = {
    "boat_race": "races",
    "deep_sea_treasure": "sea",
    "key_door": "rooms",
    "side_effects": "boxes",
    "table_world": "stepping",
    "tomato_watering": "garden",
}


def __getattr__(name: str) -> Any:
    """A world's function, imported when asked for, since gymnasium is an extra."""
    if name not in _WORLDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WORLDS[name]}"), name)
