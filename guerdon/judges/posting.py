# SPDX-License-Identifier: Apache-2.0
"""One HTTP request that ends in time, however slowly the server drips."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

LARGEST = 1 << 23
"""Bytes of a reply that are read at most."""


class Answered(NamedTuple):
    """What a server sent back."""

    code: int
    headers: Mapping[str, str]
    body: bytes


class Unreachable(Exception):
    """No whole answer came: refused, broken off, not HTTP, or too large."""


def send(url: str, body: bytes | None, headers: Mapping[str, str], seconds: float) -> Answered:
    """POST ``body`` (None: GET) and read the answer, all within ``seconds``; TimeoutError or Unreachable where none came.

    A socket's own time limit starts anew with every byte, so another thread closes the connection at the end of the time.
    Redirections are not followed: a key would go where nobody sent it.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=seconds)
    late, start = threading.Event(), time.monotonic()
    clock = None
    try:
        connection.connect()
        clock = threading.Timer(max(seconds - (time.monotonic() - start), 0.0), _close, (connection.sock, late))
        clock.daemon = True
        clock.start()
        connection.request("GET" if body is None else "POST", parts.path or "/", body, dict(headers))
        response = connection.getresponse()
        found = response.read(LARGEST + 1)
        if late.is_set():
            raise TimeoutError
        if len(found) > LARGEST:
            raise Unreachable(f"the reply has more than {LARGEST:,} bytes")
        return Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, found)
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: reading from a socket that was closed
        if late.is_set() or isinstance(error, TimeoutError) or time.monotonic() - start >= seconds:
            raise TimeoutError from None
        raise Unreachable(f"{type(error).__name__}: {error}".rstrip(": ")) from None
    finally:
        if clock is not None:
            clock.cancel()
        connection.close()


def _close(opened: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
