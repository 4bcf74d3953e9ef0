# SPDX-License-Identifier: Apache-2.0
"""Items under way to a judge: requests are made of them as they come, and answered in the background.

Which items share a request depends on the order in which they come alone: what is too little for a request waits for more. The
threads are daemons, and a process that ends does not wait for replies.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, NamedTuple

from guerdon.judges.asking import only_model
from guerdon.judges.posting import lines

if TYPE_CHECKING:
    from guerdon.judges.judging import Item, Judge, Verdict


class Request(NamedTuple):
    keys: list[str]
    verdicts: Future[dict[str, Verdict]]


class Inquiry:
    """One scoring's items, from the first that is begun to the verdicts.

    items      key -> item, of all that came
    cached     verdicts that were in the cache
    waiting    keys that are in no request yet
    answers    group -> what the judge is shown of its rows that came so far: a judge of pairs compares the next with each
    replies    key -> its request's verdicts
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.secret = judge.endpoint.key()
        self.model = only_model(judge.endpoint, self.secret)
        self.items: dict[str, Item] = {}
        self.cached: dict[str, Verdict] = {}
        self.waiting: list[str] = []
        self.answers: defaultdict[int, list[Item]] = defaultdict(list)
        self.replies: dict[str, Future[dict[str, Verdict]]] = {}
        self._stop, self._lock, self._threads = Event(), Lock(), 0
        self._requests: deque[Request] = deque()

    def add(self, items: Sequence[Item]) -> None:
        """Take items in, and ask about as many as fill requests. Equal items are asked about once."""
        self._take(self.judge.keys(items, self.model), items)

    def finish(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict for each item, in order; what came before and is none of them is dropped."""
        try:
            keys = self.judge.keys(items, self.model)
            self._keep_only(set(keys))
            self._take(keys, items)
            if self.waiting:
                self._send(self.waiting)
            found = {k: self.cached[k] for k in keys if k in self.cached}
            for reply in wait({self.replies[k] for k in keys if k not in found}, return_when=FIRST_EXCEPTION).done:
                found |= reply.result()
            return [found[k] for k in keys]
        finally:  # after an interrupt, say: what waits is not asked any more
            self._stop.set()
            with self._lock:
                self._requests.clear()

    def _take(self, keys: Sequence[str], items: Sequence[Item]) -> None:
        new = {k: x for k, x in zip(keys, items, strict=True) if k not in self.items}
        cached = self.judge.cached(list(new))
        self.items |= new
        self.cached |= cached
        self.waiting += [k for k in new if k not in cached]
        together = self.judge.together
        while len(self.waiting) >= together:
            self._send(self.waiting[:together])
            del self.waiting[:together]

    def _keep_only(self, wanted: set[str]) -> None:
        self.waiting = [k for k in self.waiting if k in wanted]
        with self._lock:
            self._requests = deque(r for r in self._requests if not wanted.isdisjoint(r.keys))

    def _send(self, keys: list[str]) -> None:
        request = Request(list(keys), Future())
        self.replies |= dict.fromkeys(keys, request.verdicts)
        with self._lock:
            self._requests.append(request)
            if self._threads >= self.judge.endpoint.concurrency:
                return
            self._threads += 1
            name = f"judge-{self._threads}"
        Thread(target=self._answer, name=name, daemon=True).start()

    def _answer(self) -> None:
        """What a thread does: one request after another, until there are none."""
        with lines():
            while (request := self._next()) is not None:
                asked = {k: self.items[k] for k in request.keys}
                try:
                    request.verdicts.set_result(self.judge.answers(asked, self.model, self.secret, self._stop))
                except BaseException as error:  # noqa: BLE001 - raised again where the verdicts are waited for
                    request.verdicts.set_exception(error)

    def _next(self) -> Request | None:
        with self._lock:
            if self._requests:
                return self._requests.popleft()
            self._threads -= 1
            return None
