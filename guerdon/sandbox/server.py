# SPDX-License-Identifier: Apache-2.0
"""The process that forks cells: it has imported what programs need, is walled in, and never reads what programs are or say.

    caller ── launcher ── server (pid 1 of its namespace) ── cell, cell, ... (one at a time, each pid 1 of its own)

An order (JSON with limits) comes with descriptors: the job to read, the file for results, the files for input and output. They go
to the cell unread. What comes back is how the cell ended, as the kernel tells it. The launcher ends the server when the caller is
gone, and the kernel ends whatever is left in a namespace whose first process has ended.
"""

from __future__ import annotations

import array
import fcntl
import gc
import importlib
import json
import math
import os
import select
import signal
import socket
import time
from typing import Any

from guerdon.sandbox import harness, kernel, walls

RESULT = 3
"""Descriptor of the file for results in a cell."""

BUILD_LIMIT = 10.0
"""Seconds that a cell may take until its program runs: many times what it takes on an overloaded machine."""

POLL = 0.01
"""Seconds between looks at whether a cell is built."""

Ended = dict[str, Any]
"""status (of exit, or minus the signal), over ("" or "time"), seconds, memory (KiB at most)."""


def main(orders: str, life: str, settings: str) -> None:
    """The launcher: wall this process in, fork the server, and see that it does not outlive the caller."""
    caller = os.pidfd_open(os.getppid())
    for name in json.loads(settings)["warm"]:
        importlib.import_module(name)
    kernel.one_arena()
    walls.measure_space()
    paths, root = walls.readable(), os.geteuid() == 0
    standing = walls.enclose(paths)
    server = os.fork()
    if server == 0:
        kernel.ending_with_parent(signal.SIGKILL)()
        os.close(caller)
        os.close(int(life))
        serve(socket.socket(fileno=int(orders)), walls.Cage(paths, standing, root), standing)
        os._exit(0)
    os.close(int(orders))
    end = os.pidfd_open(server)
    select.select([caller, int(life), end], [], [])
    os.kill(server, signal.SIGKILL)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(server, 0)[1]) & 0xFF)


def serve(orders: socket.socket, cage: walls.Cage, standing: dict[str, str]) -> None:
    gc.freeze()
    null = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, walls.HIGH)  # the caller gave /dev/null as standard input
    home = -1 if standing["pid namespace"] else os.pidfd_open(os.getpid())
    orders.send(json.dumps({"walls": standing}).encode())
    while True:
        data, ancillary, _, _ = orders.recvmsg(1 << 16, socket.CMSG_SPACE(16))
        if not data:
            return
        fds = array.array("i")
        for _level, _kind, content in ancillary:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        ended = run(json.loads(data), fds.tolist(), cage, home, null, orders)
        orders.send(json.dumps(ended).encode())


def run(order: dict[str, Any], fds: list[int], cage: walls.Cage, home: int, null: int, orders: socket.socket) -> Ended:
    """Fork a cell, wait until it ends or its time is over, and say how it ended."""
    began = time.monotonic()
    cell = fork(home)
    if cell == 0:
        code = 70
        try:
            code = work(order, fds, cage, null)
        finally:
            os._exit(code)
    job, results, *streams = fds
    for fd in (job, *streams):
        os.close(fd)
    over = watch(cell, results, order["stall"], order["total"], orders)
    os.kill(cell, signal.SIGKILL)  # and with it, in a namespace of its own, whatever it may have started
    _, status, usage = os.wait4(cell, 0)
    os.close(results)
    code = os.waitstatus_to_exitcode(status)
    return {"status": code, "over": over, "seconds": time.monotonic() - began, "memory": usage.ru_maxrss}


def fork(home: int) -> int:
    """Fork, into a new pid namespace where ``home``, a descriptor of this process, tells where to come back to."""
    if home < 0:
        return os.fork()
    kernel.unshare(kernel.CLONE_NEWPID)
    child = os.fork()
    if child:
        kernel.setns(home, kernel.CLONE_NEWPID)
    return child


def watch(cell: int, results: int, stall: float, total: float, orders: socket.socket) -> str:
    """Wait for the cell's end; "time" when nothing was added to ``results`` for ``stall`` seconds, or all took ``total``.

    Time counts from the first byte in ``results``, with which the cell says that it is built.
    """
    end = os.pidfd_open(cell)
    size, since, until = 0, time.monotonic(), math.inf
    try:
        while True:
            now = time.monotonic()
            grown = os.fstat(results).st_size
            if grown != size:
                until = now + total if size == 0 else until
                size, since = grown, now
            left = min(since + (stall if size else BUILD_LIMIT), until) - now
            if left <= 0:
                return "time"
            ready = select.select([end, orders.fileno()], [], [], left if size else min(left, POLL))[0]
            if end in ready:
                return ""
            if ready:  # nothing is ordered while a cell runs: the caller is gone
                os._exit(0)
    finally:
        os.close(end)


def work(order: dict[str, Any], fds: list[int], cage: walls.Cage, null: int) -> int:
    """In the cell: take the descriptors to their places, build the walls, do the job."""
    job, results, *streams = [fcntl.fcntl(fd, fcntl.F_DUPFD, walls.HIGH) for fd in fds]
    stdin, stdout = streams or (null, null)
    for place, fd in enumerate((stdin, stdout, null, results, job)):
        os.dup2(fd, place)
    cage.confine(order["memory"], order["total"], order["output"], RESULT + 2)
    return harness.run(RESULT + 1, RESULT)
