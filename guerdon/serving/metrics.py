# SPDX-License-Identifier: Apache-2.0
"""Counts and times, as the text that Prometheus reads."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096)


@dataclass
class Histogram:
    """How many observations were at most each edge.

    >>> h = Histogram("wait_seconds", "Waiting.", (1, 2))
    >>> h.add(0.5); h.add(2); h.add(9)
    >>> list(h.lines())[2:5]
    ['wait_seconds_bucket{le="1"} 1', 'wait_seconds_bucket{le="2"} 2', 'wait_seconds_bucket{le="+Inf"} 3']
    """

    name: str
    about: str
    edges: Sequence[float]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.edges) + 1)

    def add(self, x: float) -> None:
        self.counts[bisect_left(self.edges, x)] += 1
        self.total += x

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, "histogram", self.about)
        below = 0
        for edge, count in zip([*self.edges, "+Inf"], self.counts, strict=True):
            below += count
            yield f'{self.name}_bucket{{le="{edge if isinstance(edge, str) else f"{edge:g}"}"}} {below}'
        yield f"{self.name}_sum {self.total:g}"
        yield f"{self.name}_count {below}"


class Metrics:
    """What a server has done; any thread may add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: Counter[int] = Counter()
        self.items: Counter[str] = Counter(dict.fromkeys(("ok", "abstain", "timeout", "error"), 0))
        self.left = 0
        self.answering = Histogram("guerdon_request_seconds", "From a request's last byte to its scores.", SECONDS)
        self.scoring = Histogram("guerdon_batch_seconds", "One call of the reward.", SECONDS)
        self.sizes = Histogram("guerdon_batch_items", "Items in one call of the reward.", ITEMS)

    def answered(self, code: int) -> None:
        with self._lock:
            self.requests[code] += 1

    def scored(self, statuses: Sequence[str], seconds: float) -> None:
        with self._lock:
            self.items.update(statuses)
            self.answering.add(seconds)

    def batch(self, items: int, seconds: float) -> None:
        with self._lock:
            self.sizes.add(items)
            self.scoring.add(seconds)

    def gone(self) -> None:
        with self._lock:
            self.left += 1

    def text(self, queued: int) -> str:
        with self._lock:
            return "\n".join([*self._lines(queued), ""])

    def _lines(self, queued: int) -> Iterator[str]:
        yield from _head("guerdon_requests_total", "counter", "Answers by HTTP status.")
        yield from (f'guerdon_requests_total{{code="{code}"}} {n}' for code, n in sorted(self.requests.items()))
        yield from _head("guerdon_items_total", "counter", "Scored items by the status of their total.")
        yield from (f'guerdon_items_total{{status="{status}"}} {n}' for status, n in self.items.items())
        yield from _head("guerdon_disconnected_total", "counter", "Clients that left before their scores were there.")
        yield f"guerdon_disconnected_total {self.left}"
        yield from _head("guerdon_queue_items", "gauge", "Items that wait to be scored.")
        yield f"guerdon_queue_items {queued}"
        for histogram in (self.answering, self.scoring, self.sizes):
            yield from histogram.lines()


def _head(name: str, kind: str, about: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"
