# SPDX-License-Identifier: Apache-2.0
"""Requests of many clients in one call: a thread that takes what is waiting, up to ``max_batch`` items, and scores it.

A request waits at most ``max_wait`` seconds for company, less if the items it waits with fill a batch; while a batch is being
scored the next one gathers. A request that was cancelled before its batch began is never scored.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from guerdon.rewards.worker import caught
from guerdon.serving.metrics import Metrics
from guerdon.serving.schema import Scored
from guerdon.serving.scoring import Ask

Score = Callable[[Sequence[Ask]], list[Scored]]


class QueueFull(Exception):
    """No room for a request's items."""


class Closed(Exception):
    """The server is stopping."""


@dataclass
class Entry:
    asks: Sequence[Ask]
    future: Future[list[Scored]] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """``alone``: requests are not mixed, since the reward compares the items of one with each other."""

    def __init__(
        self, score: Score, metrics: Metrics, *, max_batch: int, max_wait: float, max_queue: int, alone: bool = False
    ) -> None:
        self.score, self.metrics = score, metrics
        self.max_batch, self.max_wait, self.max_queue, self.alone = max_batch, max_wait, max_queue, alone
        self.waiting: deque[Entry] = deque()
        self.begun: float | None = None  # when the batch that is being scored was begun
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="guerdon-scoring", daemon=True)
        self._thread.start()

    def submit(self, asks: Sequence[Ask]) -> Future[list[Scored]]:
        """What becomes of the items; cancel it when nobody waits for it any more."""
        entry = Entry(asks)
        with self._changed:
            if self._closed:
                raise Closed
            if self.queued + len(asks) > self.max_queue:
                raise QueueFull
            self.waiting.append(entry)
            self._changed.notify()
        return entry.future

    @property
    def queued(self) -> int:
        """Items that wait."""
        with self._changed:
            return sum(len(e.asks) for e in self.waiting if not e.future.cancelled())

    def scoring_for(self) -> float:
        """Seconds since the batch that is being scored was begun; 0 where none is."""
        begun = self.begun
        return 0.0 if begun is None else time.monotonic() - begun

    def close(self, seconds: float) -> None:
        """Score what waits, at most for ``seconds``, and stop; what is left is cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            for entry in self.waiting:
                entry.future.cancel()

    # ---- the thread

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            batch = [e for e in batch if e.future.set_running_or_notify_cancel()]
            if batch:
                self._run(batch)

    def _take(self) -> list[Entry] | None:
        with self._changed:
            while not self.waiting:
                if self._closed:
                    return None
                self._changed.wait()
            until = self.waiting[0].since + self.max_wait
            while not (self.alone or self._closed or self.queued >= self.max_batch):
                if (left := until - time.monotonic()) <= 0:
                    break
                self._changed.wait(left)
            batch = [self.waiting.popleft()]
            size = len(batch[0].asks)
            while not self.alone and self.waiting and size + len(self.waiting[0].asks) <= self.max_batch:
                batch.append(self.waiting.popleft())
                size += len(batch[-1].asks)
            return batch

    def _run(self, batch: list[Entry]) -> None:
        asks = [ask for entry in batch for ask in entry.asks]
        self.begun = time.monotonic()
        pieces = [asks] if self.alone else [asks[i : i + self.max_batch] for i in range(0, len(asks), self.max_batch)]
        scored, error = caught(lambda: [s for piece in pieces for s in self.score(piece)])
        self.metrics.batch(len(asks), time.monotonic() - self.begun)
        self.begun = None
        for entry in batch:
            if error is not None:
                entry.future.set_exception(error)
                continue
            mine, scored = scored[: len(entry.asks)], scored[len(entry.asks) :]
            entry.future.set_result(mine)
