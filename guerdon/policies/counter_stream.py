# SPDX-License-Identifier: Apache-2.0
"""Random numbers by counting: each is a hash of its place, so that thousands of rows' own streams are made in one go."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_INDEX, _STEP = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)  # odd, far from multiples of one another


def counter_stream(seed: int, keys: Sequence[tuple[str, int]], count: int) -> Tensor:
    """[N, count] float64 in [0, 1): the stream of each (task, index); a longer one begins with a shorter one.

    A number is SplitMix64's hash of (seed, task), index and place, 53 bits of it. Not the numbers of
    `token_distribution.stream`, and not for cryptography.

    Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators; the mixing constants are variant 13 of Stafford.

    >>> a, b = counter_stream(0, [("x", 0), ("x", 1)], 2), counter_stream(0, [("x", 1)], 3)
    >>> bool((a[1] == b[0, :2]).all()), [round(u, 4) for u in a[0].tolist()]
    (True, [0.9181, 0.8657])
    """
    roots = {task: _root(seed, task) for task, _ in keys}
    root = np.array([roots[task] for task, _ in keys], dtype=np.uint64)
    index = np.array([i for _, i in keys], dtype=np.int64).astype(np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is what is meant
        row = _mix(_mix(root + index * _INDEX))
        bits = _mix(row[:, None] + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * _STEP)
    return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _root(seed: int, task: str) -> int:
    return int.from_bytes(hashlib.blake2b(repr((int(seed), task)).encode(), digest_size=8).digest(), "little")


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
