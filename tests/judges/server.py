# SPDX-License-Identifier: Apache-2.0
"""A chat-completions server on this machine that misbehaves as a test says."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Say:
    """One answer: ``text`` as a chat completion, or ``raw`` bytes as they are."""

    text: str | None = ""
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    delay: float = 0.0
    drip: float = 0.0  # seconds between two bytes
    usage: dict[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 2})
    finish: str = "stop"

    def body(self) -> bytes:
        if self.raw is not None:
            return self.raw
        choice = {"index": 0, "message": {"role": "assistant", "content": self.text}, "finish_reason": self.finish}
        return json.dumps({"object": "chat.completion", "choices": [choice], "usage": self.usage}).encode()


@dataclass
class Server:
    """``requests``: what was asked; ``most``: the most requests that were in flight at once."""

    script: Callable[[list[dict[str, Any]], int], Say | str]
    url: str = ""
    models: list[str] = field(default_factory=lambda: ["tiny"])
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    running: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def items(self) -> list[dict[str, Any]]:
        """Every item that was asked about, in the order of the requests."""
        return [item for request in self.requests for item in items_of(request)]


def items_of(request: dict[str, Any]) -> list[dict[str, Any]]:
    shown = request["messages"][0]["content"].partition("\nItems:\n")[2]
    return [json.loads(line) for line in shown.splitlines()]


def verdicts(items: list[dict[str, Any]], **said: Callable[[dict[str, Any]], Any]) -> str:
    return json.dumps({"verdicts": [{"id": x["id"], "why": "so", **{k: f(x) for k, f in said.items()}} for x in items]})


@contextlib.contextmanager
def serving(script: Callable[[list[dict[str, Any]], int], Say | str], models: list[str] | None = None) -> Iterator[Server]:
    """``script(items, number of the request)`` says what is answered."""
    server = Server(script, models=["tiny"] if models is None else models)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(Say(raw=json.dumps({"data": [{"id": m} for m in server.models]}).encode()))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.requests.append(request)
                server.headers.append({k.lower(): v for k, v in self.headers.items()})
                number = len(server.requests)
                server.running += 1
                server.most = max(server.most, server.running)
            try:
                said = server.script(items_of(request), number)
                say = Say(said) if isinstance(said, str) else said
                time.sleep(say.delay)
            finally:
                with server.lock:  # before the answer, upon which the client may ask again
                    server.running -= 1
            self.answer(say)

        def answer(self, say: Say) -> None:
            body = say.body()
            with contextlib.suppress(OSError):  # the client went away
                self.send_response(say.code)
                for name, value in {"Content-Length": str(len(body)), **say.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                for i in range(len(body) if say.drip else 0):
                    self.wfile.write(body[i : i + 1])
                    time.sleep(say.drip)
                if not say.drip:
                    self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
