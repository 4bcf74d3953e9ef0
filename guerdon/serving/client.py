# SPDX-License-Identifier: Apache-2.0
"""A reward that a server scores, as a leaf: ``remote("http://judge:8000") + 0.2 * format``.

A request that fails is tried again where that may help: no connection, a time-out, 429, 503 and other 5xx, with growing pauses
or the server's Retry-After, until ``attempts`` or the ``patience`` of a call are used up. Then its items are not ok, with the
reason: TIMEOUT where the last failure was one, else ERROR. A request that is refused (413, 422) is cut in halves, so that only
the items that it is refused for are lost. What a server says of an item, status and reason included, is what the item gets.
"""

from __future__ import annotations

import json
import math
import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from guerdon.errors import InputError
from guerdon.rewards import FunctionReward, Reward
from guerdon.rewards.function import field_values
from guerdon.rewards.pool import Outcome
from guerdon.rollouts import Rollouts, as_messages
from guerdon.scores import Bounds, Component, Status
from guerdon.serving.schema import RewardInfo, Scored, ScoreResponse

if TYPE_CHECKING:
    import httpx2

RETRIED = (408, 429, 500, 502, 503, 504)
CUT = (413, 422)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds


@dataclass(eq=False)
class Failed(Exception):
    """Why a request has no scores."""

    status: Status
    reason: str
    code: int = 0


@dataclass(eq=False)
class Client:
    """Asks one server. Threads may share it; a fork makes connections of its own.

    timeout   seconds without a word from the server after which a request has failed
    patience  seconds that all attempts at the items of one call may take together
    """

    url: str
    token: str = ""
    timeout: float = 30.0
    patience: float = 120.0
    attempts: int = 5
    batch: int = 64
    concurrency: int = 4
    version: str = ""
    sleep: Callable[[float], None] = time.sleep
    clients: dict[int, httpx2.Client] = field(default_factory=dict)

    @property
    def http(self) -> httpx2.Client:
        import httpx2

        if os.getpid() not in self.clients:
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            # Redirects and the environment's proxies would carry the token elsewhere.
            made = httpx2.Client(base_url=self.url, headers=headers, timeout=self.timeout, trust_env=False)
            self.clients[os.getpid()] = made
            weakref.finalize(self, made.close)
        return self.clients[os.getpid()]

    def info(self) -> RewardInfo:
        """What the server serves; scores of any other version are refused from now on."""
        until = time.monotonic() + self.patience
        try:
            answer = self._asked("GET", "/reward", None, until)
            info = RewardInfo.model_validate_json(answer)
        except Failed as failed:
            raise InputError(f"remote: expected a reward served at {self.url}, got: {failed.reason}.") from None
        except ValidationError as error:
            raise InputError(
                f"remote: expected a reward served at {self.url}, got another answer: {_first(error)}. "
                "Usual cause: the address of another service, or another version of guerdon."
            ) from None
        self.version = info.version
        return info

    def outcomes(self, items: Sequence[dict[str, Any]], step: int = 0, together: bool = False) -> list[Outcome]:
        """One for each item, in order; ``together``: all in one request, since they are compared with each other."""
        until = time.monotonic() + self.patience
        found: dict[int, Outcome] = {}
        texts: dict[int, str] = {}
        for i, item in enumerate(items):
            try:
                texts[i] = json.dumps(item, allow_nan=False)
            except (TypeError, ValueError) as error:
                found[i] = Outcome(Status.ERROR, math.nan, f"the item can't be sent as JSON: {error}")
        places = list(texts)
        size = max(len(places), 1) if together else self.batch
        pieces = [places[at : at + size] for at in range(0, len(places), size)]
        with ThreadPoolExecutor(self.concurrency, "guerdon-remote") as threads:
            answers = threads.map(lambda piece: self._all([texts[i] for i in piece], step, until, together), pieces)
            for piece, answer in zip(pieces, answers, strict=True):
                found |= zip(piece, answer, strict=True)
        return [found[i] for i in range(len(items))]

    def _all(self, texts: list[str], step: int, until: float, together: bool) -> list[Outcome]:
        try:
            return self._scored(texts, step, until)
        except Failed as failed:
            if failed.code in CUT and len(texts) > 1 and not together:
                half = len(texts) // 2
                return [o for part in (texts[:half], texts[half:]) for o in self._all(part, step, until, together)]
            return [Outcome(failed.status, math.nan, f"{self.url}: {failed.reason}")] * len(texts)

    def _scored(self, texts: list[str], step: int, until: float) -> list[Outcome]:
        body = f'{{"step": {step}, "items": [{", ".join(texts)}]}}'
        answer = self._asked("POST", "/score", body.encode(), until)
        try:
            response = ScoreResponse.model_validate_json(answer)
        except ValidationError as error:
            raise Failed(Status.ERROR, f"answered with something else than scores: {_first(error)}") from None
        if len(response.items) != len(texts):
            raise Failed(Status.ERROR, f"answered with {len(response.items)} scores for {len(texts)} items")
        if response.version != self.version:
            raise Failed(Status.ERROR, f"serves another reward now: version {response.version}, not {self.version}")
        return [outcome_of(item) for item in response.items]

    def _asked(self, method: str, path: str, body: bytes | None, until: float) -> bytes:
        """The body of an answer with status 200, after as many attempts as are allowed."""
        for attempt, last in self._attempts():
            try:
                return self._once(method, path, body, max(until - time.monotonic(), 0.001))
            except Retry as retry:
                pause = max(retry.after, min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE))
                if last or time.monotonic() + pause > until:
                    tried = "" if attempt == 0 else f", after {attempt + 1} attempts"
                    raise Failed(retry.status, f"{retry.reason}{tried}", retry.code) from None
                self.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _attempts(self) -> Iterator[tuple[int, bool]]:
        return ((i, i == self.attempts - 1) for i in range(self.attempts))

    def _once(self, method: str, path: str, body: bytes | None, left: float) -> bytes:
        import httpx2

        try:
            answer = self.http.request(
                method, path, content=body, headers={"content-type": "application/json"}, timeout=min(self.timeout, left)
            )
        except httpx2.TimeoutException:
            raise Retry(Status.TIMEOUT, f"no answer within {min(self.timeout, left):.3g} s") from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise Retry(Status.ERROR, f"{type(error).__name__}: {error or 'the connection ended'}") from None
        if answer.status_code == 200:
            return answer.content
        reason = f"answered {answer.status_code}: {said(answer.content)}"
        if answer.status_code in RETRIED:
            after = answer.headers.get("retry-after", "")
            raise Retry(Status.ERROR, reason, answer.status_code, float(after) if after.isdecimal() else 0.0)
        raise Failed(Status.ERROR, reason, answer.status_code)


@dataclass(eq=False)
class Retry(Exception):
    """A request that may do better another time."""

    status: Status
    reason: str
    code: int = 0
    after: float = 0.0


def said(body: bytes, most: int = 300) -> str:
    """The error in an answer, with the first places that are wrong.

    >>> said(b'{"error": "no", "detail": [{"field": "items[0].x", "message": "missing"}]}')
    'no (items[0].x: missing)'
    """
    try:
        told = json.loads(body)
        detail = "; ".join(f"{d['field']}: {d['message']}" for d in told["detail"][:3])
        return f"{told['error']} ({detail})" if detail else str(told["error"])
    except (ValueError, KeyError, TypeError):
        return body[:most].decode(errors="replace") or "nothing"


def outcome_of(item: Scored) -> Outcome:
    """A server's judgement as an outcome; one that contradicts itself is an error."""
    total = item.total
    status = {s.name.lower(): s for s in Status if s >= Status.OK}.get(total.status)
    if status == Status.OK and total.value is not None and math.isfinite(total.value):
        return Outcome(Status.OK, total.value, total.reason)
    if status in (None, Status.OK):
        return Outcome(Status.ERROR, math.nan, f"the server answered the value {total.value} with status {total.status!r}")
    return Outcome(status, math.nan, total.reason or "the server gave no reason")


def _first(error: ValidationError) -> str:
    e = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}"


# ---- the leaf


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Remote(FunctionReward):
    """A reward of episodes that a server scores; ``function`` is its client. Budgets are the server's."""

    def with_budget(self, seconds: float) -> FunctionReward:
        return self

    def label(self) -> str:
        return str(self)

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        client: Any = self.function
        units, items = self.items(rollouts)
        asked = [asked_item(item) for item in items]
        if self.relation in ("group", "batch"):
            asked = [{**a, "group": int(rollouts.group[n])} for a, (n, _) in zip(asked, units, strict=True)]
        return self.scored(rollouts, units, client.outcomes(asked, step, together=self.relation in ("group", "batch")))


def asked_item(columns: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {name: columns.pop(name) for name in ("prompt", "completion") if name in columns}
    return {**own, "fields": columns}


def remote(
    url: str,
    *,
    name: str = "remote",
    timeout: float = 30.0,
    patience: float = 120.0,
    batch: int = 64,
    token: str | None = None,
) -> Reward:
    """The reward that ``guerdon serve`` serves at ``url``, scored there; its fields and bounds are asked for once, here.

    timeout   seconds without a word from the server after which a request has failed
    patience  seconds that scoring a batch of rollouts may take, with all that is tried again
    batch     most items in one request
    token     what the server wants clients to bear (default: the environment variable GUERDON_TOKEN)
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise InputError(f"remote: `url` should be an address such as http://127.0.0.1:8000, got {url!r}.")
    for what, least in (("timeout", timeout), ("patience", patience), ("batch", batch)):
        if not 0 < least < math.inf:
            raise InputError(f"remote: `{what}` should be a number above 0, got {least!r}.")
    token = os.environ.get("GUERDON_TOKEN", "") if token is None else token
    client: Any = Client(url.rstrip("/"), token, timeout, patience, batch=batch)
    info: RewardInfo = client.info()
    low, high = info.bounds
    given = {"name": (name, "remote"), "timeout": (timeout, 30.0), "patience": (patience, 120.0), "batch": (batch, 64)}
    settings = "".join(f", {k}={x!r}" for k, (x, default) in given.items() if x != default)
    return Remote(
        name=name,
        relation=info.relation,
        bounds=Bounds(-math.inf if low is None else low, math.inf if high is None else high),
        needs=frozenset({"completion", *info.required}),
        version=info.version,
        identity=info.version,
        function=client,
        arguments=_Columns(tuple(info.required + info.optional), info.open),
        written=f"remote({url!r}{settings})",
    )


@dataclass(frozen=True)
class _Columns:
    """The columns of items that a server reads."""

    names: tuple[str, ...]
    open: bool

    def __call__(self, rollouts: Rollouts) -> dict[str, list[Any]]:
        names = [n for n in self.names if n in rollouts.fields]
        if self.open:
            made = {"prompt", "completion", "messages", "offset", "context_ids"}
            names += [n for n, f in rollouts.fields.items() if f.level == "task" and n not in made and n not in names]
        columns = {name: field_values(rollouts, name, "episode") for name in names}
        columns["completion"] = field_values(rollouts, "completion", "episode")
        if "prompt" in rollouts.fields:
            columns["prompt"] = field_values(rollouts, "prompt", "episode")
        if "messages" in rollouts.fields:
            prompts = columns.get("prompt", [[]] * len(columns["completion"]))
            whole = field_values(rollouts, "messages", "episode")
            columns["completion"] = [m[len(as_messages(p)) :] for p, m in zip(prompts, whole, strict=True)]
        return columns
