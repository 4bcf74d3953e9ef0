# SPDX-License-Identifier: Apache-2.0
"""The endpoints.

POST /score    items to scores (``schema``)
GET  /reward   what is served: expression, tree, bounds, fields it reads, version
GET  /health   200 while batches get done, 503 while one has been at it for longer than budgets allow; needs no token
GET  /metrics  for Prometheus

Errors are JSON: {"error": what, "detail": [{"field": path, "message": why}]}.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from guerdon.rewards import Reward
from guerdon.serving.batching import Batcher, Closed, QueueFull
from guerdon.serving.limits import RateLimit, host_of, is_loopback, same_token
from guerdon.serving.metrics import Metrics
from guerdon.serving.schema import Problem, Scored, ScoreRequest, problems
from guerdon.serving.scoring import Ask, Scorer

BODY_SECONDS = 60.0
"""Seconds that a client may take to send a request."""

LEFT = 499
"""How a request whose client left is counted; nobody reads the answer."""


@dataclass(frozen=True)
class Settings:
    """How a reward is served.

    budget     seconds that a function may take for one item
    max_batch  most items in one call of the reward; max_wait: seconds that a request waits for company
    max_queue  most items that wait; beyond it requests are answered 503
    max_body   most bytes of a request
    rate       requests a second of one client, by its address, in bursts of ``burst``; 0: no limit
    token      what a client has to bear; "": nothing, and then only requests to this machine's own names are answered
    drain      seconds that scores may take when the server is told to stop
    """

    budget: float = 10.0
    max_batch: int = 64
    max_wait: float = 0.005
    max_queue: int = 10_000
    max_body: int = 8_000_000
    rate: float = 0.0
    burst: int = 20
    token: str = ""
    drain: float = 20.0

    def stuck_after(self) -> float:
        """Seconds after which a batch that isn't done is not held up by budgets any more."""
        return self.budget * self.max_batch + 60.0


class Refused(Exception):
    """An answer other than scores."""

    def __init__(self, code: int, error: str, detail: list[Problem] | None = None, wait: float = 0.0) -> None:
        super().__init__(error)
        self.code, self.error, self.detail, self.wait = code, error, detail or [], wait

    def response(self) -> Response:
        headers = {"Retry-After": str(max(math.ceil(self.wait), 1))} if self.wait else {}
        if self.code == 401:
            headers["WWW-Authenticate"] = "Bearer"
        detail = [{"field": field, "message": message} for field, message in self.detail]
        return JSONResponse({"error": self.error, "detail": detail}, self.code, headers)


class Service:
    """One reward and what every endpoint shares."""

    def __init__(self, reward: Reward, settings: Settings) -> None:
        self.settings = settings
        self.scorer = Scorer(reward.with_budget(settings.budget))
        self.metrics = Metrics()
        self.limit = RateLimit(settings.rate, settings.burst) if settings.rate else None
        self.batcher = Batcher(
            self.scorer,
            self.metrics,
            max_batch=settings.max_batch,
            max_wait=settings.max_wait,
            max_queue=settings.max_queue,
            alone=self.scorer.compares,
        )

    # ---- endpoints

    async def score(self, request: Request) -> Response:
        self._limit(request)
        self._admit(request)
        asked = await self._read(request)
        if found := self.scorer.problems(asked.items):
            raise Refused(422, "the request has other fields than the reward reads", found)
        begun = time.monotonic()
        try:
            future = self.batcher.submit([Ask(item, asked.step) for item in asked.items])
        except QueueFull:
            raise Refused(503, f"{self.batcher.queued} items are waiting already", wait=1.0) from None
        except Closed:
            raise Refused(503, "the server is stopping", wait=5.0) from None
        scored = await self._scores(request, future)
        self.metrics.scored([s.total.status for s in scored], time.monotonic() - begun)
        return JSONResponse({"items": [s.model_dump() for s in scored], "version": self.scorer.info.version})

    async def reward(self, request: Request) -> Response:
        self._limit(request)
        self._admit(request)
        return JSONResponse(self.scorer.info.model_dump())

    async def health(self, request: Request) -> Response:
        busy = self.batcher.scoring_for()
        stuck = busy > self.settings.stuck_after()
        told = {"status": "stuck" if stuck else "ok", "queued": self.batcher.queued, "scoring_seconds": round(busy, 3)}
        return JSONResponse(told, 503 if stuck else 200)

    async def told(self, request: Request) -> Response:
        self._admit(request)
        return PlainTextResponse(self.metrics.text(self.batcher.queued), media_type="text/plain; version=0.0.4")

    # ---- what a request has to be

    def _limit(self, request: Request) -> None:
        client = request.client.host if request.client else ""
        if self.limit is not None and (wait := self.limit.wait(client)):
            raise Refused(429, f"at most {self.settings.rate:g} requests a second, in bursts of {self.settings.burst}", wait=wait)

    def _admit(self, request: Request) -> None:
        """A token where one is needed; without, only who asks for this machine by its own name.

        Else a web page could have a browser on this machine ask, by a name that leads here.
        """
        if self.settings.token:
            if not same_token(request.headers.get("authorization", ""), self.settings.token):
                raise Refused(401, "expected the header `Authorization: Bearer TOKEN` with the server's token")
        elif not is_loopback(host_of(request.headers.get("host", ""))):
            raise Refused(403, "without a token this server answers requests to 127.0.0.1, [::1] and localhost only")

    async def _read(self, request: Request) -> ScoreRequest:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refused(415, "expected content-type application/json")
        body = await self._body(request)
        try:
            return ScoreRequest.model_validate_json(body)
        except ValidationError as error:
            if any(e["type"] == "json_invalid" for e in error.errors(include_input=False, include_context=False)):
                raise Refused(400, "expected JSON", problems(error)) from None
            raise Refused(422, "the request is not as its schema says", problems(error)) from None

    async def _body(self, request: Request) -> bytes:
        most, body = self.settings.max_body, bytearray()
        too_large = Refused(413, f"expected a body of at most {most:,} bytes")
        if request.headers.get("content-length", "0").isdecimal() and int(request.headers.get("content-length", 0)) > most:
            raise too_large
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for piece in request.stream():
                    body += piece
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Refused(408, f"expected the whole request within {BODY_SECONDS:g} s") from None
        return bytes(body)

    async def _scores(self, request: Request, future: Future[list[Scored]]) -> list[Scored]:
        """The scores; where the client leaves first, its items are taken out of the queue."""
        scores: asyncio.Future[Any] = asyncio.wrap_future(future)
        left: asyncio.Future[Any] = asyncio.ensure_future(
            request.receive()
        )  # after the body nothing comes but the end of the connection
        try:
            await asyncio.wait({scores, left}, return_when=asyncio.FIRST_COMPLETED)
            if not scores.done():
                raise ClientDisconnect
            return scores.result()
        except asyncio.CancelledError:
            raise Refused(503, "the server is stopping", wait=5.0) from None
        finally:
            left.cancel()
            scores.cancel()


Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(reward: Reward, settings: Settings) -> Starlette:
    """The application; it scores from when it is made, and stops scoring when its server stops."""
    service = Service(reward, settings)

    async def counted(endpoint: Endpoint, request: Request) -> Response:
        try:
            response = await endpoint(request)
        except Refused as refused:
            response = refused.response()
        except ClientDisconnect:
            service.metrics.gone()
            response = Response(status_code=LEFT)
        service.metrics.answered(response.status_code)
        return response

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        with suppress(RuntimeError):
            await asyncio.to_thread(service.batcher.close, settings.drain)

    def route(path: str, endpoint: Endpoint, method: str) -> Route:
        return Route(path, partial(counted, endpoint), methods=[method])

    routes = [
        route("/score", service.score, "POST"),
        route("/reward", service.reward, "GET"),
        route("/health", service.health, "GET"),
        route("/metrics", service.told, "GET"),
    ]
    return Starlette(routes=routes, lifespan=lifespan)
