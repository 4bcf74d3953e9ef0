# SPDX-License-Identifier: Apache-2.0
"""The process, or for a notebook the thread, that serves a reward."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from guerdon.errors import InputError
from guerdon.rewards import Reward
from guerdon.serving.app import Settings, create_app
from guerdon.serving.limits import is_loopback

CONNECTIONS = 1000
"""Most that are served at a time; further ones are answered 503."""


def listen(host: str, port: int, token: str) -> socket.socket:
    """A socket that listens; beyond this machine only with a token. Port 0: any that is free."""
    if not token and not is_loopback(host):
        raise InputError(
            f"serve: expected a token, since {host} can be reached from other machines, got none. Put a long random text into a "
            "file and give it as --token-file FILE, or set GUERDON_TOKEN."
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends without delay only on sockets that say that they are TCP; else an answer waits 40 ms for an acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
        return listening
    except OSError as error:
        listening.close()
        raise InputError(
            f"serve: can't listen on {host}, port {port}: {error.strerror or error}. Usual cause: another server on that port."
        ) from error


def address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_of(reward: Reward, settings: Settings) -> uvicorn.Server:
    config = uvicorn.Config(
        create_app(reward, settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # else anybody could say which address a request is from
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=int(settings.drain) + 1,
    )
    return uvicorn.Server(config)


@contextmanager
def running(reward: Reward, settings: Settings | None = None) -> Iterator[str]:
    """A server in a thread of this process, on this machine alone; gives its address."""
    listening = listen("127.0.0.1", 0, "")
    server = server_of(reward, settings or Settings())
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield address(listening)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
