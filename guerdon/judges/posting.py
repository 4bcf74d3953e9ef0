# SPDX-License-Identifier: Apache-2.0
"""One HTTP request that ends in time, however slowly the server drips."""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
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

    Redirections are not followed: a key would go where nobody sent it.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection, end, opened = kind(parts.hostname or "", parts.port, timeout=seconds), time.monotonic() + seconds, None
    try:
        connection.connect()
        opened = connection.sock
        connection.sock = _Until(opened, end)
        connection.request("GET" if body is None else "POST", parts.path or "/", body, dict(headers))
        response = connection.getresponse()
        found = response.read(LARGEST + 1)
        if len(found) > LARGEST:
            raise Unreachable(f"the reply has more than {LARGEST:,} bytes")
        return Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, found)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, TimeoutError) or time.monotonic() >= end:
            raise TimeoutError from None
        raise Unreachable(f"{type(error).__name__}: {error}".rstrip(": ")) from None
    finally:
        if opened is not None:
            opened.close()


class _Until:
    """What a connection needs of a socket, with each wait to end by ``end``: a socket's own limit starts anew with every byte."""

    def __init__(self, opened: socket.socket, end: float) -> None:
        self.opened, self.end = opened, end

    def in_time(self) -> socket.socket:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.opened.settimeout(left)
        return self.opened

    def sendall(self, data: bytes) -> None:
        self.in_time().sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """Nothing: what was sent is still to be read."""


class _Reader(io.RawIOBase):
    def __init__(self, until: _Until) -> None:
        self.until = until

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        return self.until.in_time().recv_into(into)
