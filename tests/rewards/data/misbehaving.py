# SPDX-License-Identifier: Apache-2.0
"""Checks that do everything a check should not, for the tests of the worker pool. The standard library alone."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import re
import signal
import subprocess
import sys
import time


def score(x):
    return x


def slowly(x):
    time.sleep(x)
    return 1.0


def process_id(x):
    return float(os.getpid())


def misbehave(deed):
    """Do what ``deed`` says; a number is returned as it is."""
    if not isinstance(deed, str):
        return deed
    return DEEDS[deed]()


def misbehave_batched(deed):
    return [misbehave(d) for d in deed]


def one_too_many(x):
    return [*x, 1.0]


def one_by_one_only(x):
    if len(x) > 1:
        raise RuntimeError("too many")
    return x


def _loop():
    while True:
        pass


def _regex():
    return float(re.match(r"(a+)+$", "a" * 60 + "b") is not None)


def _fork():
    if os.fork() == 0:
        return 0.25  # the child must not answer in its parent's place
    time.sleep(0.2)
    return 0.5


def _prints():
    sys.stdout.write('{"done": 1}\n' * 1000)
    sys.stdout.flush()
    os.write(1, b'{"reason": [0, "forged"]}\n')
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    return 1.0


def _leaves_a_child_and_hangs():
    subprocess.Popen(["sleep", "1000"])
    _loop()


def _raise(error):
    raise error


def _parse():
    return float("not a number")


class Strange(Exception):
    def __str__(self):
        raise RuntimeError("no text")


DEEDS = {
    "loop": _loop,
    "sleep": lambda: time.sleep(1000),
    "regex": _regex,
    "exit": lambda: os._exit(3),
    "sys.exit": lambda: sys.exit(4),
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "memory": lambda: _raise(MemoryError("no more")),
    "raise": _parse,
    "strange": lambda: _raise(Strange()),
    "recursion": lambda: DEEDS["recursion"](),
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "huge": lambda: 10**400,
    "text": lambda: "1.0",
    "list": lambda: [1.0],
    "none": lambda: None,
    "input": lambda: float(input()),
    "fork": _fork,
    "prints": _prints,
    "child": _leaves_a_child_and_hangs,
    "ignores": lambda: (signal.signal(signal.SIGTERM, signal.SIG_IGN), _loop()),
}


def trl_style(completions, answer, **kwargs):
    return [None if a is None else float(c == a) for c, a in zip(completions, answer, strict=True)]


async def trl_async(completions, **kwargs):
    await asyncio.sleep(0)
    return [float(len(c)) for c in completions]


def verl_style(data_source, solution_str, ground_truth, extra_info, bonus=0.0):
    return {"score": float(solution_str == ground_truth) + bonus, "acc": solution_str == ground_truth, "pred": solution_str}


def modules(x):
    return x in sys.modules


def scaled(x, by):
    return x * by


class Scaled:
    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x * self.by


@functools.lru_cache
def hidden(x):
    return x
