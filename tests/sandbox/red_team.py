# SPDX-License-Identifier: Apache-2.0
"""The targets of attacks, and running one: in a sandbox, or without any in a process of its own to see that evidence is found."""

from __future__ import annotations

import ast
import inspect
import os
import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

TOKEN = "guerdon-token-5f1c"

_NUMBERS = {
    "x86_64": "clone=56 keyctl=250 add_key=248 bpf=321 io_uring_setup=425 perf_event_open=298 userfaultfd=323 memfd_create=319 "
    "inotify_init1=294 fanotify_init=300 personality=135 unshare=272 chroot=161 setgroups=116 pidfd_open=434 shmget=29 "
    "mq_open=240 timer_create=222 capset=126",
    "aarch64": "clone=220 keyctl=219 add_key=217 bpf=280 io_uring_setup=425 perf_event_open=241 userfaultfd=282 memfd_create=279 "
    "inotify_init1=26 fanotify_init=262 personality=92 unshare=97 chroot=51 setgroups=159 pidfd_open=434 shmget=194 "
    "mq_open=180 timer_create=107 capset=91",
}
NUMBERS = {k: int(v) for k, v in (word.split("=") for word in _NUMBERS.get(platform.machine(), "").split())}

CALLS = sorted(set(NUMBERS) - {"clone"})

_DECOY = """
import ctypes, signal, sys, time
held = ctypes.create_string_buffer(sys.argv[1].encode(), 64)
for number in (signal.SIGUSR1, signal.SIGURG):
    signal.signal(number, lambda n, frame: open(sys.argv[2], "a").write(f"{n} "))
print(ctypes.addressof(held), flush=True)
while True:
    time.sleep(1)
"""


class Targets:
    """A home with a secret, a process with one, and ears on every kind of socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.chmod(folder, 0o777)
        self.heard = folder / "heard"
        self.decoy = subprocess.Popen(
            [sys.executable, "-c", _DECOY, TOKEN, str(self.heard)],
            stdout=subprocess.PIPE,
            text=True,
            env={"GUERDON_SECRET": TOKEN},
        )
        assert self.decoy.stdout is not None
        self.address = int(self.decoy.stdout.readline())
        self.tcp, self.unix, self.abstract = socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.tcp.bind(("127.0.0.1", 0))
        self.udp.bind(("127.0.0.1", 0))
        self.unix.bind(str(folder / "socket"))
        os.chmod(folder / "socket", 0o777)
        self.abstract.bind(f"\0guerdon-{os.getpid()}")
        self.datagrams.bind(f"\0guerdon-{os.getpid()}-datagrams")
        for server in (self.tcp, self.unix, self.abstract):
            server.listen()
        for s in (self.tcp, self.udp, self.unix, self.abstract, self.datagrams):
            s.setblocking(False)
        self.count = 0

    def fresh(self, **more: Any) -> dict[str, Any]:
        """What a program is told: a new home and an empty place to drop things."""
        self.count += 1
        home, drop = self.folder / f"home{self.count}", self.folder / f"drop{self.count}"
        home.mkdir()
        drop.mkdir()
        os.chmod(drop, 0o777)
        for name, mode in (("secret", 0o644), ("file", 0o666), ("of_root", 0o600)):
            (home / name).write_text(TOKEN)
            os.chmod(home / name, mode)
        return {
            "home": str(home),
            "drop": str(drop),
            **{name: str(home / name) for name in ("secret", "file", "of_root")},
            "decoy": self.decoy.pid,
            "address": self.address,
            "caller": os.getpid(),
            "launcher": os.getpid(),
            "tcp": self.tcp.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "unix": str(self.folder / "socket"),
            "abstract": f"guerdon-{os.getpid()}",
            "datagrams": f"guerdon-{os.getpid()}-datagrams",
            "nr": NUMBERS,
            "amount": 64,
            "gib": 10,
            "forks": 200,
            **more,
        }

    def signals(self) -> str:
        """The signals that the decoy has had since the last call. One of our own, that comes after them, says that it is done."""
        os.kill(self.decoy.pid, signal.SIGURG)
        while str(int(signal.SIGURG)) not in (text := self.heard.read_text() if self.heard.exists() else ""):
            pass
        self.heard.unlink()
        return text

    def close(self) -> None:
        self.decoy.kill()
        self.decoy.communicate()
        for s in (self.tcp, self.udp, self.unix, self.abstract, self.datagrams):
            s.close()


def accepted(server: socket.socket) -> bool:
    """Whether somebody has connected, or sent something, since the last call."""
    try:
        if server.type == socket.SOCK_DGRAM:
            return bool(server.recv(100))
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def source(attack: Any) -> str:
    return inspect.getsource(attack) + f"\nf = {attack.__name__}\n"


def unguarded(attack: Any, world: dict[str, Any]) -> Any:
    """What the attack returns in a process without any sandbox; the exception's text where it raises."""
    program = source(attack) + f"print(repr(f({world!r})))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=world["drop"],
        env={"GUERDON_SECRET": TOKEN},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    try:
        return ast.literal_eval(done.stdout.strip() or "None")
    except (ValueError, SyntaxError):
        return done.stdout
