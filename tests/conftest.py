# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: one thread a process, no network beyond this machine, the same examples in each run."""

from __future__ import annotations

import os
import signal
import socket

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the parallelism is in the processes
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a shell: tests of Ctrl-C mean what they say
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("guerdon", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("guerdon")


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    """A connection to another machine fails the test that makes it; sockets of this machine serve browsers and workers."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"tests make no connection to other machines, got {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        yield
