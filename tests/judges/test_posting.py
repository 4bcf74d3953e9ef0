# SPDX-License-Identifier: Apache-2.0
"""One connection for a thread's requests, and what happens when the server gives it up."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from guerdon.judges import posting
from guerdon.judges.posting import Unreachable, lines, send


class Talkative(BaseHTTPRequestHandler):
    """Keeps connections open, says the body back, and hangs up without a word after ``/last``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    connections = 0

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/slow":
            time.sleep(0.5)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.path == "/last"

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    Talkative.connections = 0
    http = ThreadingHTTPServer(("127.0.0.1", 0), Talkative)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    http.server_close()


def said(url: str, body: bytes, seconds: float = 10.0) -> bytes:
    return send(url, body, {"Content-Type": "text/plain"}, seconds).body


@pytest.mark.parametrize("kept", [False, True])
def test_requests_of_a_thread_share_a_connection_where_asked(server: str, kept: bool) -> None:
    with lines() if kept else contextlib.nullcontext():
        assert [said(f"{server}/a", b"x" * n) for n in (1, 0, 70_000)] == [b"x", b"", b"x" * 70_000]
    assert Talkative.connections == (1 if kept else 3)


def test_a_server_that_hung_up_in_the_meantime_is_asked_anew(server: str) -> None:
    with lines():
        for n in range(3):
            assert said(f"{server}/last", b"%d" % n) == b"%d" % n
            time.sleep(0.05)
    assert Talkative.connections == 3


@pytest.mark.parametrize("error", [ssl.SSLEOFError, ConnectionResetError])
def test_a_kept_connection_that_breaks_is_given_up(server: str, error: type[OSError], monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one that breaks is an error: nothing is asked a third time."""

    def broken(self: posting._Line, *_: object) -> None:
        self.close()
        raise error("gone")

    with lines():
        assert said(f"{server}/a", b"x") == b"x"
        kept = posting._HERE.lines[("http", server.partition("//")[2])]
        monkeypatch.setattr(kept, "ask", broken.__get__(kept))
        assert said(f"{server}/a", b"y") == b"y" and Talkative.connections == 2
        monkeypatch.setattr(posting._Line, "ask", broken)
        with pytest.raises(Unreachable, match=error.__name__):
            said(f"{server}/a", b"z")


def test_a_kept_connection_has_each_requests_own_time(server: str) -> None:
    with lines():
        assert said(f"{server}/a", b"x", 0.2) == b"x"
        time.sleep(0.3)
        with pytest.raises(TimeoutError):
            said(f"{server}/slow", b"y", 0.2)
        assert said(f"{server}/slow", b"z") == b"z"  # and not the late answer to y
    assert Talkative.connections == 2


def test_too_much_and_nobody_there(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "LARGEST", 3)
    with lines():
        with pytest.raises(Unreachable, match="more than 3 bytes"):
            said(f"{server}/a", b"four")
        assert said(f"{server}/a", b"six") == b"six"
        with pytest.raises(Unreachable, match="ConnectionRefusedError"):
            said("http://127.0.0.1:9/a", b"")
