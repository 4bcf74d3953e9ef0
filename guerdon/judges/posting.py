# SPDX-License-Identifier: Apache-2.0
"""One HTTP request that ends in time, however slowly the server drips."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

LARGEST = 1 << 23
"""Bytes of a reply that are read at most."""


class Answered(NamedTuple):
    """What a server sent back."""

    code: int
    headers: Mapping[str, str]
    body: bytes


class Unreachable(Exception):
    """No whole answer came: refused, broken off, not HTTP, or too large."""


_HERE = threading.local()


@contextlib.contextmanager
def lines() -> Iterator[None]:
    """Within it, this thread's requests to a server go over one connection, as long as the server keeps it open."""
    _HERE.lines = {}
    try:
        yield
    finally:
        for line in vars(_HERE).pop("lines").values():
            line.close()


def send(url: str, body: bytes | None, headers: Mapping[str, str], seconds: float) -> Answered:
    """POST ``body`` (None: GET) and read the answer, all within ``seconds``; TimeoutError or Unreachable where none came.

    Redirections are not followed: a key would go where nobody sent it.
    """
    parts, end, kept = urlsplit(url), time.monotonic() + seconds, getattr(_HERE, "lines", {})
    try:
        if (line := kept.pop(parts[:2], None)) is not None:
            with contextlib.suppress(ConnectionError, ssl.SSLError):  # the server has closed it since; it is asked anew
                return line.ask(parts.path, body, headers, end, kept)
        return _Line(parts, end).ask(parts.path, body, headers, end, kept)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, TimeoutError) or time.monotonic() >= end:
            raise TimeoutError from None
        raise Unreachable(f"{type(error).__name__}: {error}".rstrip(": ")) from None


class _Line:
    """A connection to a server."""

    def __init__(self, parts: SplitResult, end: float) -> None:
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.server, self.connection = parts[:2], kind(parts.hostname or "", parts.port, timeout=end - time.monotonic())
        self.connection.connect()
        self.until = self.connection.sock = _Until(self.connection.sock)

    def ask(self, path: str, body: bytes | None, headers: Mapping[str, str], end: float, kept: dict[Any, _Line]) -> Answered:
        """The answer to one request; the connection goes to ``kept`` if it can be used again, and is closed otherwise."""
        self.until.end, again = end, False
        try:
            self.connection.request("GET" if body is None else "POST", path or "/", body, dict(headers))
            response = self.connection.getresponse()
            found = response.read(LARGEST + 1)
            if len(found) > LARGEST:
                raise Unreachable(f"the reply has more than {LARGEST:,} bytes")
            again = not response.will_close and "lines" in vars(_HERE)
            return Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, found)
        finally:
            if again:
                kept[self.server] = self
            else:
                self.close()

    def close(self) -> None:
        self.until.opened.close()


class _Until:
    """What a connection needs of a socket, with each wait to end by ``end``: a socket's own limit starts anew with every byte."""

    def __init__(self, opened: socket.socket) -> None:
        self.opened, self.end = opened, 0.0

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
