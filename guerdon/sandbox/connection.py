# SPDX-License-Identifier: Apache-2.0
"""A server of a sandbox as its caller sees it: a process to start, to give cells to, to hear from and to end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guerdon.sandbox.jobs import Cell, empty, sealed
from guerdon.sandbox.layers import SandboxUnavailable
from guerdon.sandbox.values import dumps

START_LIMIT = 120.0
"""Seconds that a server may take to start, imports included."""

GRACE = 20.0
"""Seconds beyond a cell's time after which its server is held to be broken; longer than building a cell may take."""

_PACKAGE = Path(__file__).parent
_BOOT = """
import sys, types
for name, path in (("guerdon", sys.argv[1]), ("guerdon.sandbox", sys.argv[1] + "/sandbox")):
    module = types.ModuleType(name)
    module.__path__ = [path]
    sys.modules[name] = module
from guerdon.sandbox.{room} import main
main(*sys.argv[2:])
"""
"""Loads the named module without the packages around it, which would bring torch."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
}


def command(module: str, *arguments: object) -> list[str]:
    """The command that starts ``main`` of a module of this room with the package around it left out."""
    boot = _BOOT.replace("{room}", module)
    return [sys.executable, "-P", "-s", "-X", "utf8", "-c", boot, str(_PACKAGE.parent), *map(str, arguments)]


class Server:
    """One launcher with its server, seen from the caller."""

    def __init__(self, warm: Sequence[str]) -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        life, self.life = os.pipe()
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        self.process = subprocess.Popen(
            command("server", far.fileno(), life, json.dumps({"warm": list(warm)})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            pass_fds=(far.fileno(), life),
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
        )
        far.close()
        os.close(life)
        self.orders, self.cell, self.until = near, None, 0.0  # type: tuple[socket.socket, Cell | None, float]
        self.walls: dict[str, str] = {}
        self.end = weakref.finalize(self, _end, self.process, near, self.life, self.errors, os.getpid())

    def started(self) -> None:
        """Wait until it is there."""
        self.until = time.monotonic() + START_LIMIT
        answer = self.wait()
        if answer is None:
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace").strip().splitlines()
            raise SandboxUnavailable(
                f"sandbox: a server should start within {START_LIMIT:g} s, it ended: {said[-1] if said else 'without a word'}. "
                "Usual cause: a module to be imported beforehand that can't be."
            )
        self.walls = answer["walls"]

    def wait(self) -> dict[str, Any] | None:
        """The next message, None when there will be none in time."""
        left = max(self.until - time.monotonic(), 0)
        return self.hear() if select.select([self.orders], [], [], left)[0] else None

    def hear(self) -> dict[str, Any] | None:
        try:
            data = self.orders.recv(1 << 16)
        except ConnectionError:
            return None
        return json.loads(data) if data else None

    def send(self, cell: Cell, stall: float, memory: int, output: int) -> None:
        self.cell = cell
        total = stall * (cell.count + 1)
        order = {"stall": stall, "total": total, "memory": memory, "output": output}
        self.until = time.monotonic() + total + GRACE
        with contextlib.suppress(ConnectionError):  # it is dead, which is seen where it is waited for
            socket.send_fds(self.orders, [dumps(order).encode()], cell.open())

    def tried(self, secret: str, memory: int) -> list[str]:
        """The layers that do not hold in its cells, found by trying."""
        given = {"secret": secret, "process": self.process.pid, "memory": memory}
        head = dumps({"kind": "probe", "nonce": "", "items": given}).encode()
        fds = [sealed(len(head).to_bytes(8, "little") + head), empty()]
        try:
            self.until = time.monotonic() + START_LIMIT
            order = {"stall": START_LIMIT, "total": START_LIMIT, "memory": memory, "output": 1 << 16}
            socket.send_fds(self.orders, [dumps(order).encode()], fds)
            ended = self.wait()
            said = os.pread(fds[1], 1 << 16, 0).split(b" ", 3)
        finally:
            for fd in fds:
                os.close(fd)
        if ended is None or ended["status"] != 0 or len(said) != 4:
            raise SandboxUnavailable(f"sandbox: trying the walls should end with status 0, it ended with {ended}.")
        return json.loads(said[3])


def _end(process: subprocess.Popen[bytes], orders: socket.socket, life: int, errors: Any, owner: int) -> None:
    """Kill the launcher, with which server and cell end, and close what belongs to it; in the process that started it."""
    orders.close()
    os.close(life)
    errors.close()
    if os.getpid() != owner:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
