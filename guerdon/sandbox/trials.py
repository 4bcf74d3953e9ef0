# SPDX-License-Identifier: Apache-2.0
"""Each mechanism of the kernel tried by itself: in a child that has nothing else, before it stands and after. The report's.

Runs in a process of its own (``main``), whose children try.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from guerdon.sandbox import kernel, landlock, syscalls, walls
from guerdon.sandbox.trying import (
    Action,
    change_root,
    find_a_way_to_privileges,
    have,
    make_other_call,
    reach_network,
    read,
    signal_process,
    start_process,
    succeeds,
)


class Case(NamedTuple):
    """``build`` puts the mechanism up; ``attempt`` worked before and must not after."""

    mechanism: str
    layer: str
    tried: str
    build: Action
    attempt: Action


def main() -> None:
    """Write what was found as JSON."""
    paths = walls.readable()
    with _secret() as secret, _shared_memory() as key:
        rows = [
            {"mechanism": c.mechanism, "layer": c.layer, "tried": c.tried, "found": trial(c)} for c in cases(paths, secret, key)
        ]
    rows.append(
        {"mechanism": "end with parent", "layer": "time", "tried": "outlive a parent that is killed", "found": outlived()}
    )
    sys.stdout.write(json.dumps(rows))


def trial(case: Case) -> str:
    """The empty text where the mechanism holds, else what was found."""

    def run() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if not succeeds(case.attempt):
            raise OSError(1, "cannot be tried here: it is refused without the mechanism too")
        try:
            case.build()
        except OSError as error:
            raise OSError(1, f"not to be had: {error.strerror or error}") from error
        if succeeds(case.attempt):
            raise OSError(1, "stands, but lets it through")

    return walls.in_a_child(run)


def cases(paths: list[str], secret: str, key: int) -> list[Case]:
    apart = partial(partial, _apart, paths)
    peek, caller = partial(read, secret), partial(signal_process, os.getpid())
    nobody = partial(walls.become, walls.NOBODY)
    few = partial(_limit, resource.RLIMIT_NOFILE, 16)
    return [
        Case("mount namespace", "files", "read a file of the caller", apart("mount namespace"), peek),
        Case("landlock", "files", "read a file of the caller", partial(_ruled, paths), peek),
        Case("unprivileged user", "files", "write to a file of root", nobody, partial(_open_own, secret)),
        Case("network namespace", "network", "address 127.0.0.1", apart("network namespace"), reach_network),
        Case("seccomp, sockets", "network", "make a socket", _filtered, reach_network),
        Case("seccomp, processes", "processes", "start a process", _filtered, start_process),
        Case("pid namespace", "processes", "signal the caller", apart("pid namespace"), partial(_in_child, caller)),
        Case("ipc namespace", "processes", "find shared memory", apart("ipc namespace"), partial(_find_memory, key)),
        Case("limit of threads", "processes", "start two where one may be", partial(_few, paths), _start_two),
        Case("seccomp", "syscalls", "make a call outside the list", _filtered, make_other_call),
        Case("no_new_privs", "privileges", "find a way to new privileges", _forbidden, find_a_way_to_privileges),
        Case("capabilities dropped", "privileges", "change the root directory", _without_capabilities, change_root),
        Case("limit of memory", "memory", "have 512 MiB where 256 are left", _half, partial(have, 512)),
        Case("limit of file size", "memory", "64 KiB where 4 are allowed", partial(_limit, resource.RLIMIT_FSIZE, 4096), _grow),
        Case("limit of descriptors", "memory", "open 20 where 16 may be", few, _open_many),
    ]


@contextmanager
def _secret() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="guerdon-") as folder:
        path = os.path.join(folder, "secret")
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        os.chmod(folder, 0o755)
        yield path


@contextmanager
def _shared_memory() -> Iterator[int]:
    key = os.getpid()
    made = kernel.libc.shmget(ctypes.c_int(key), ctypes.c_size_t(1), ctypes.c_int(0o1600))  # create
    yield key
    kernel.libc.shmctl(ctypes.c_int(made), ctypes.c_int(0), None)  # remove


# ---- what is tried


def _open_own(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def _find_memory(key: int) -> None:
    if kernel.libc.shmget(ctypes.c_int(key), ctypes.c_size_t(1), ctypes.c_int(0)) < 0:
        raise OSError


def _in_child(action: Action) -> None:
    """New process ids are for children only."""
    if walls.in_a_child(action):
        raise OSError


def _start_two() -> None:
    children: list[int] = []
    try:
        for _ in range(2):
            if (child := os.fork()) == 0:
                time.sleep(30)
                os._exit(0)
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _grow() -> None:
    fd = os.memfd_create("guerdon")
    try:
        os.ftruncate(fd, 1 << 16)
    finally:
        os.close(fd)


def _open_many() -> None:
    for fd in [os.dup(0) for _ in range(20)]:
        os.close(fd)


# ---- what is built


def _apart(paths: list[str], kind: str) -> None:
    if refused := walls.enclose(paths)[kind]:
        raise OSError(1, refused)


def _forbidden() -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def _ruled(paths: list[str]) -> None:
    _forbidden()
    landlock.restrict(landlock.rules(paths))


def _filtered() -> None:
    _forbidden()
    kernel.filtering(syscalls.filter_code(kernel.MACHINE, os.getpid()))()


def _without_capabilities() -> None:
    kernel.drop_bounding_set()
    kernel.dropping_capabilities()()


def _limit(which: int, most: int) -> None:
    resource.setrlimit(which, (most, most))


def _half() -> None:
    walls.measure_space()
    _limit(resource.RLIMIT_AS, walls.address_space() + 256 * walls.MIB)


def _few(paths: list[str]) -> None:
    root = os.geteuid() == 0
    _apart(paths, "user namespace")
    if root:
        walls.become(walls.NOBODY)
    _without_capabilities()
    _limit(resource.RLIMIT_NPROC, 1)


# ---- what ends with whom


def outlived() -> str:
    """Kill a process whose child is to end with it, and see whether it does."""
    near, far = os.pipe()
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            kernel.ending_with_parent(signal.SIGKILL)()
            os.write(far, b".")
        time.sleep(30)
        os._exit(0)
    os.close(far)
    os.read(near, 1)
    os.kill(middle, signal.SIGKILL)
    os.waitpid(middle, 0)
    os.set_blocking(near, False)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            return "" if os.read(near, 1) == b"" else "lives on"
        except BlockingIOError:
            time.sleep(0.005)
    return "lives on"
