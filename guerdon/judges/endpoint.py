# SPDX-License-Identifier: Apache-2.0
"""Where a judge is and how it is asked: an OpenAI-compatible chat-completions endpoint with its limits and prices."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from guerdon.errors import InputError


@dataclass(frozen=True, eq=False, kw_only=True)
class Endpoint:
    """One server and one model on it.

    url          base address such as http://127.0.0.1:8000/v1; requests go to ``url``/chat/completions
    model        its name there; "": the one model that the server lists
    key_env      environment variable that holds the API key; "": no key is sent
    timeout      seconds one request may take, from connecting to the last byte
    attempts     requests for one question at most, the first one included
    seconds      time for one question at most, waits between attempts included
    concurrency  requests in flight at once
    max_tokens   length of a reply at most
    temperature  of the reply; 0 is greedy
    body         more fields of the request, or others; a field that is None is left out
    price        (prompt, completion) for a million tokens, in any currency
    """

    url: str
    model: str = ""
    key_env: str = ""
    timeout: float = 60.0
    attempts: int = 4
    seconds: float = 180.0
    concurrency: int = 8
    max_tokens: int = 1024
    temperature: float = 0.0
    body: Mapping[str, Any] = field(default_factory=dict)
    price: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url) if isinstance(self.url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise InputError(f"judge: `url` should be like http://127.0.0.1:8000/v1, got {self.url!r:.80}.")
        if parts.username is not None:
            raise InputError("judge: `url` should hold no user name or password; give the key's environment variable as key_env.")
        object.__setattr__(self, "url", self.url.rstrip("/").removesuffix("/chat/completions"))
        for name, least in (("timeout", 0.0), ("seconds", 0.0), ("attempts", 1), ("concurrency", 1), ("max_tokens", 1)):
            x = getattr(self, name)
            if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x) or x < least or x == 0:
                raise InputError(
                    f"judge: `{name}` should be a number {f'of at least {least}' if least else 'above 0'}, got {x!r}."
                )
        try:
            json.dumps(dict(self.body))
        except (TypeError, ValueError) as error:
            raise InputError(f"judge: `body` should hold JSON values by name, got {self.body!r:.80}: {error}.") from error

    def key(self) -> str:
        """The API key; "" where none is sent."""
        if self.key_env and not os.environ.get(self.key_env):
            raise InputError(f"judge: the environment variable {self.key_env} should hold the API key, and is not set.")
        return os.environ[self.key_env] if self.key_env else ""

    def request(self, model: str, prompt: str) -> bytes:
        """The body of a request."""
        found = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            **self.body,
        }
        return json.dumps({k: v for k, v in found.items() if v is not None}).encode()

    def decides(self) -> str:
        """What of it a verdict may depend on, as text; never the key."""
        return json.dumps([self.url, self.model, self.max_tokens, self.temperature, dict(self.body)], sort_keys=True)
