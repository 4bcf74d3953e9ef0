# SPDX-License-Identifier: Apache-2.0
"""A question put to an endpoint until it is answered, or its attempts or its time are used up."""

from __future__ import annotations

import email.utils
import json
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any

from guerdon.errors import InputError
from guerdon.judges.endpoint import Endpoint
from guerdon.judges.posting import Answered, Unreachable, send
from guerdon.scores import Status

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 529})
"""Answers that may be another the next time; any other than 200 is final."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0


@dataclass(frozen=True)
class Reply:
    """What became of a question. ``status``: OK (there is ``text``), TIMEOUT or ERROR (there is a ``reason``)."""

    status: Status
    text: str = ""
    reason: str = ""
    finish: str = ""
    requests: int = 1
    usage: tuple[int, int] | None = None


def ask(endpoint: Endpoint, model: str, key: str, prompt: str, stop: Event) -> Reply:
    """The reply to ``prompt``. ``stop`` ends the waits between attempts."""
    body, start, reply = endpoint.request(model, prompt), time.monotonic(), Reply(Status.ERROR, reason="not asked", requests=0)
    for attempt in range(1, endpoint.attempts + 1):
        left = endpoint.seconds - (time.monotonic() - start)
        if left <= 0 or stop.is_set():
            break
        reply, wait = once(endpoint, key, body, min(endpoint.timeout, left), attempt)
        if wait is None or attempt == endpoint.attempts:
            break
        if wait >= endpoint.seconds - (time.monotonic() - start):
            return _after(reply, f"another attempt {wait:.3g} s later would not fit into {endpoint.seconds:g} s", endpoint)
        stop.wait(wait)
    return _after(reply, "", endpoint)


def once(endpoint: Endpoint, key: str, body: bytes, seconds: float, attempt: int) -> tuple[Reply, float | None]:
    """The reply to one request, and the seconds to wait before the next; None: this one is final."""
    try:
        answered = send(f"{endpoint.url}/chat/completions", body, headers_of(key), seconds)
    except TimeoutError:
        return Reply(Status.TIMEOUT, reason=f"no answer within {seconds:.3g} s", requests=attempt), backoff(attempt)
    except Unreachable as error:
        return Reply(Status.ERROR, reason=str(error), requests=attempt), backoff(attempt)
    if answered.code != 200:
        reason = f"HTTP {answered.code}: {_complaint(answered.body, key)}"
        again = answered.code in AGAIN
        wait = max(backoff(attempt), retry_after(answered.headers, time.time())) if again else None
        return Reply(Status.ERROR, reason=reason, requests=attempt), wait
    try:
        return _read(answered, attempt), None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        reason = f"the answer is no chat completion ({type(error).__name__}: {error}): {_complaint(answered.body, key)}"
        return Reply(Status.ERROR, reason=reason, requests=attempt), backoff(attempt)


def headers_of(key: str) -> dict[str, str]:
    own = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "guerdon"}
    return own | ({"Authorization": f"Bearer {key}"} if key else {})


def backoff(attempt: int) -> float:
    """Seconds to wait after the attempt: doubling from half a second, spread so that waiting requests don't return together."""
    return min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT) * (0.75 + random.random() / 2)


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Seconds that the server asks to wait, from Retry-After as a number or as a date; 0 where it doesn't say.

    >>> [retry_after({"retry-after": said}, 5.0) for said in ("7", "Thu, 01 Jan 1970 00:00:09 GMT", "soon")]
    [7.0, 4.0, 0.0]
    """
    said = headers.get("retry-after", "").strip()
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - now
        except (ValueError, TypeError):
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def only_model(endpoint: Endpoint, key: str) -> str:
    """The model of the endpoint: the one it was given or the only one that the server lists."""
    if endpoint.model:
        return endpoint.model
    try:
        answered = send(f"{endpoint.url}/models", None, headers_of(key), endpoint.timeout)
        names = [m["id"] for m in json.loads(answered.body)["data"]]
    except (TimeoutError, Unreachable, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"judge: {endpoint.url}/models should list the models, got {type(error).__name__}: {error}. "
            "Usual cause: no server at that address; or give model=..."
        ) from error
    if len(names) != 1:
        raise InputError(f"judge: {endpoint.url} has {len(names)} models ({', '.join(names[:8])}); say which with model=...")
    return str(names[0])


def _read(answered: Answered, attempt: int) -> Reply:
    found = json.loads(answered.body)
    choice = found["choices"][0]
    usage = found.get("usage") or {}
    given, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
    counted = (given, made) if isinstance(given, int) and isinstance(made, int) else None
    text = choice["message"].get("content")
    finish = str(choice.get("finish_reason") or "")
    return Reply(Status.OK, text if isinstance(text, str) else "", finish=finish, requests=attempt, usage=counted)


def _complaint(body: bytes, key: str) -> str:
    """The beginning of what the server says, on one line, without the key."""
    text = body[:2000].decode("utf-8", "replace")
    try:
        said: Any = json.loads(body)["error"]
        text = str(said["message"] if isinstance(said, dict) else said)
    except (ValueError, KeyError, TypeError):
        pass
    text = " ".join(text.split())
    return (text.replace(key, "***") if key else text)[:200] or "no text"


def _after(reply: Reply, why: str, endpoint: Endpoint) -> Reply:
    """A failed reply with what was spent on it in its reason."""
    if reply.status == Status.OK:
        return reply
    spent = f" ({reply.requests} of {endpoint.attempts} attempts{f'; {why}' if why else ''})"
    return Reply(reply.status, reason=reply.reason + spent, requests=reply.requests)
