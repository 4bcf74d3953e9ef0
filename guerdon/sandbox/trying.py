# SPDX-License-Identifier: Apache-2.0
"""The things that walls are against, and trying them in a cell: what every server does before it is used."""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Callable
from typing import Any

from guerdon.sandbox import kernel, walls

Action = Callable[[], object]


def succeeds(action: Action) -> bool:
    try:
        action()
    except (OSError, MemoryError):
        return False
    return True


def read(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))


def reach_network() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("127.0.0.1", 9))


def start_process() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def signal_process(process: int) -> None:
    os.kill(process, 0)


def make_other_call() -> None:
    """One that every process may make, and no program needs."""
    kernel.unshare(0)


def change_root() -> None:
    os.chroot("/")


def find_a_way_to_privileges() -> None:
    """Programs with the rights of their owner give none to a process that has no_new_privs."""
    with open("/proc/self/status", encoding="ascii") as file:
        if "NoNewPrivs:\t1" in file.read():
            raise PermissionError


def have(mib: int) -> None:
    mmap.mmap(-1, mib * walls.MIB).close()


def in_a_cell(given: dict[str, Any]) -> list[str]:
    """The layers that something got through."""
    secret, caller, memory = given["secret"], given["process"], given["memory"]
    tries: dict[str, list[Action]] = {
        "files": [lambda: read(secret), lambda: write(secret), lambda: write(secret + ".new")],
        "network": [reach_network],
        "processes": [start_process, lambda: signal_process(caller)],
        "syscalls": [make_other_call],
        "privileges": [change_root],
        "memory": [lambda: have(memory + 1)],
    }
    return [layer for layer, actions in tries.items() if any(succeeds(a) for a in actions)]
