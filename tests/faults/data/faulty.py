# SPDX-License-Identifier: Apache-2.0
"""Functions that judge every completion by its length, but for BAD, on which they do what the field ``fault`` names.

The standard library alone, since workers of the pool import it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from asyncio import CancelledError

BAD = "BAD"


class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Interrupted(BaseException):
    """What a library of somebody else's may raise to end everything."""


class Bare:
    pass


class Sly(float):
    """A number until somebody wants to know which."""

    def __float__(self):
        raise OSError("gone")


class Mute:
    def __repr__(self):
        raise RuntimeError("no repr")


def _raise(error):
    raise error


def _recurse():
    return _recurse()


def _hang():
    while True:
        pass


def _numbers():
    yield 1.0


ACTS = {
    "fine": lambda: 3.0,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "-inf": lambda: float("-inf"),
    "too large an integer": lambda: 10**400,
    "out of bounds": lambda: 1e6,
    "None": lambda: None,
    "text": lambda: "3.0",
    "list": lambda: [3.0],
    "dict": lambda: {"value": 3.0},
    "complex": lambda: 3 + 0j,
    "object": lambda: Bare(),
    "float() raises": lambda: Sly(3.0),
    "repr() raises": lambda: Mute(),
    "generator": lambda: _numbers(),
    "wrong key": lambda: {}["value"],
    "ValueError": lambda: float("not a number"),
    "odd exception": lambda: _raise(Odd()),
    "StopIteration": lambda: next(iter(())),
    "AssertionError": lambda: _raise(AssertionError()),
    "MemoryError": lambda: _raise(MemoryError("no more")),
    "RecursionError": _recurse,
    "TimeoutError": lambda: _raise(TimeoutError("remote")),
    "SystemExit": lambda: sys.exit(0),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "CancelledError": lambda: _raise(CancelledError()),
    "BaseException": lambda: _raise(Interrupted("stop")),
    "hang": _hang,
    "sleep": lambda: time.sleep(1000),
    "os._exit(0)": lambda: os._exit(0),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "prints": lambda: (sys.stdout.write('{"done": 1}\n'), sys.stdout.flush(), 3.0)[-1],
}


def unit(completion, fault):
    return ACTS[fault]() if completion.startswith(BAD) else float(len(completion))


def segment(segment, fault):
    return ACTS[fault]() if segment.strip("|") == BAD else float(len(segment))


def letters(completion, fault):
    """For runs of the letter policy: every completion that begins with b or c is a bad one."""
    return ACTS[fault]() if completion.startswith(("b", "c")) else float(len(completion))


LENGTHS = {
    "too few": lambda found: found[:-1],
    "too many": lambda found: [*found, 1.0],
    "none at all": lambda found: [],
    "one number": lambda found: 3.0,
    "None for all": lambda found: None,
    "text for all": lambda found: "3" * len(found),
    "dict for all": lambda found: dict(enumerate(found)),
    "set for all": lambda found: set(found),
    "a generator": lambda found: (x for x in found),
    "a generator that raises": lambda found: (x if x != 3.0 else float("no") for x in found),
}


def batch(completion, fault):
    found = [unit(c, f if f in ACTS else "fine") for c, f in zip(completion, fault, strict=True)]
    if BAD in completion and fault[0] in LENGTHS:
        return LENGTHS[fault[0]](found)
    if BAD in completion and fault[0] == "empties its arguments":
        completion.clear()
        fault.reverse()
    return found


def trl(completions, fault, **kwargs):
    return batch(completions, fault)


def verl(data_source, solution_str, ground_truth, extra_info):
    if solution_str == BAD and ground_truth == "no score":
        return {"acc": 3.0}
    found = unit(solution_str, ground_truth)
    return {"score": found, "acc": True} if len(solution_str) % 2 else found


def missing(completion, no_such_field):
    return 1.0


def count(completion, tags):
    """How many tags there are; for BAD it takes them all away first."""
    if completion == BAD:
        tags.clear()
    return float(len(tags))


def tags(tags):
    return float(len(tags))
