# SPDX-License-Identifier: Apache-2.0
"""Reward functions that are served in tests; plain, so that a worker loads them at once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def size(completion):
    return len(completion)


def matches(completion, answer, bonus=0.5):
    """Needs `answer`; `bonus` may be missing."""
    return (completion == answer) * (1 + bonus)


def traps(completion):
    if completion == "hang":
        time.sleep(3600)
    if completion == "raise":
        raise ValueError("no such thing")
    if completion == "kill the server":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(3600)
    return None if completion == "none" else 4.0


def gated(completion, gate):
    """Notes that it was begun, and waits until the file `gate` is there."""
    Path(gate + "." + completion).touch()
    while not Path(gate).exists():
        time.sleep(0.01)
    return 1.0


def anything(completion, **fields):
    return float(sum(x for x in fields.values() if isinstance(x, int)))
