# SPDX-License-Identifier: Apache-2.0
"""Episodes as Minari data sets: what its other readers read, and what they wrote. Needs ``guerdon[offline]``.

A data set is a directory; an episode of L steps has L actions and rewards and L + 1 observations.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.errors import InputError
from guerdon.rewards.fields import ENVIRONMENT
from guerdon.rollouts import Field, Rollouts


def write_minari(
    rollouts: Rollouts, path: Path | str, observation_space: Any, action_space: Any, name: str = "guerdon/rollouts-v0"
) -> None:
    """Write every episode of ``rollouts`` to a new data set in ``path``, for Gymnasium spaces.

    Needs the step fields ``observation``, ``next_observation`` and ``environment_reward``. An episode that has no end in its row
    is written as truncated. ``name`` is its id, as NAMESPACE/NAME-vVERSION.
    """
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    seen, after, reward = (rollouts.field(k).values for k in ("observation", "next_observation", ENVIRONMENT))
    episode, buffers = rollouts.level("episode"), list[EpisodeBuffer]()
    for row, unit in rollouts.units("episode"):
        at = (episode[row] == unit).nonzero()[:, 0]
        if not rollouts.mask[row, at].all() or not torch.equal(seen[row, at[1:]], after[row, at[:-1]]):
            raise InputError(
                "write_minari: expected every step of an episode to be the policy's and to begin where the one before led, got "
                f"row {row}, episode {unit}, where they don't. Usual cause: steps of others, or rows that were cut and joined."
            )
        terminated, truncated = rollouts.terminated[row, at].clone(), rollouts.truncated[row, at].clone()
        truncated[-1] |= ~terminated[-1]
        buffers.append(
            EpisodeBuffer(
                id=len(buffers),
                observations=_array(torch.cat([seen[row, at], after[row, at[-1:]]]), observation_space),
                actions=_array(rollouts.action[row, at], action_space),
                rewards=reward[row, at].tolist(),
                terminations=terminated.tolist(),
                truncations=truncated.tolist(),
                infos={},
            )
        )
    if (Path(path) / "metadata.json").exists():
        raise InputError(f"{path}: expected a directory without a data set, got one that has one; nothing was written.")
    Path(path).mkdir(parents=True, exist_ok=True)
    storage = MinariStorage.new(
        path, observation_space=observation_space, action_space=action_space, data_format="hdf5", jpeg_encoding=False
    )
    storage.update_episodes(buffers)
    storage.update_metadata({"dataset_id": name, "minari_version": importlib.metadata.version("minari")})


def read_minari(path: Path | str) -> Rollouts:
    """The episodes of a data set, a row each, with the step fields ``observation``, ``next_observation``, ``environment_reward``.

    ``path``: the directory that holds its metadata, e.g. ``~/.minari/datasets/D4RL/door/human-v2/data``.
    """
    from minari import MinariDataset

    if not (Path(path) / "metadata.json").is_file():
        raise InputError(f"{path}: expected a Minari data set, with metadata.json. Usual cause: its `data` folder is meant.")
    episodes = list(MinariDataset(Path(path)).iterate_episodes())
    if not episodes or not isinstance(episodes[0].observations, np.ndarray) or not isinstance(episodes[0].actions, np.ndarray):
        raise InputError(
            f"{path}: expected episodes of arrays, got none or some of several parts, which have no place in Rollouts."
        )
    length = torch.tensor([len(e.rewards) for e in episodes])
    longest = int(length.max())

    def stacked(values: list[np.ndarray]) -> Tensor:
        padded = np.zeros((len(values), longest, *values[0].shape[1:]), values[0].dtype)
        for row, x in zip(padded, values, strict=True):
            row[: len(x)] = x
        return torch.from_numpy(padded)

    fields = {
        "observation": stacked([e.observations[:-1] for e in episodes]),
        "next_observation": stacked([e.observations[1:] for e in episodes]),
        ENVIRONMENT: stacked([np.asarray(e.rewards) for e in episodes]),
    }
    return Rollouts(
        action=stacked([e.actions for e in episodes]),
        mask=torch.arange(longest) < length[:, None],
        task=["episode"] * len(episodes),
        terminated=stacked([np.asarray(e.terminations, dtype=bool) for e in episodes]),
        truncated=stacked([np.asarray(e.truncations, dtype=bool) for e in episodes]),
        length=length,
        source=["data"] * len(episodes),
        fields={k: Field("step", x) for k, x in fields.items()},
    )


def _array(x: Tensor, space: Any) -> np.ndarray:
    return x.cpu().numpy().astype(space.dtype, copy=False)
