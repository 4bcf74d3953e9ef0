# SPDX-License-Identifier: Apache-2.0
"""A pool of processes in which a check may hang, crash or print without harm to the run or to another item.

Budgets are kept from outside: a worker writes which item it is at into shared memory, and the parent, which watches, kills the
worker when that item has had its time. Only that item is lost (TIMEOUT, or ERROR where the worker died by itself); a new worker
goes on with the rest.

    an item's check ...                        becomes
    -----------------------------------------  ---------------------------------------
    returns a finite number or bool            OK
    returns None                               ABSTAIN
    raises, returns NaN, inf or another type   ERROR, with the reason
    ends its process (exit, signal, memory)    ERROR, with the exit status or signal
    takes longer than its budget               TIMEOUT

Workers are plain subprocesses: they can be had inside daemonic processes, import nothing of the parent's main script, and are
ended by the kernel when the parent goes.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import json
import math
import os
import pickle
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
import torch

from guerdon.errors import InputError
from guerdon.rewards import worker
from guerdon.scores import Status

BATCH = 64
"""Most items in one call of a batched function. Fixed, so that calls don't depend on the number of cores."""

START_LIMIT = 120.0
"""Seconds that a worker may take to import a function's module."""

_CHUNK_SECONDS = 0.05  # how much work a worker is handed at once, by the pace so far
_STATUS = (Status.OK, Status.ABSTAIN, Status.TIMEOUT, Status.ERROR)


class Outcome(NamedTuple):
    """What became of one item: ``value`` is NaN unless the status is OK; ``reason`` says why, or is a rationale."""

    status: Status
    value: float
    reason: str = ""


# ---- in this process


def run_here(function: Callable[..., Any], items: Sequence[dict[str, Any]], batched: bool = False) -> list[Outcome]:
    """Outcomes of ``function`` on ``items`` in this process: what it raises becomes that item's error; a hang is a hang.

    So does SystemExit, which would end the run as if it were done. KeyboardInterrupt and the like are not the function's to raise
    and go up. An item's lists, dicts and arrays are its own: what the function does to them reaches no other item.

    A batched function gets all items in one call; where that raises, smaller and smaller calls, so that only the items that
    raise are lost.

    >>> run_here(lambda a, b: a / b, [{"a": 1, "b": 2}, {"a": 1, "b": 0}])[0]
    Outcome(status=<Status.OK: 0>, value=0.5, reason='')
    """
    if not batched:
        return [_outcome(worker.attempt(function, _own(item), SystemExit)) for item in items]
    judged = worker.attempt_batch(function, [_own(item) for item in items], SystemExit) if items else []
    if not isinstance(judged, str):
        return [_outcome(j) for j in judged]
    if len(items) == 1:
        return [Outcome(Status.ERROR, math.nan, judged)]
    return [o for a, b in _pieces(0, len(items)) for o in run_here(function, items[a:b], batched)]


def _own(item: dict[str, Any]) -> dict[str, Any]:
    """The item with copies of what can be written to."""
    if not any(isinstance(x, _WRITABLE) for x in item.values()):
        return item
    return {name: _copied(x) if isinstance(x, _WRITABLE) else x for name, x in item.items()}


def _copied(x: Any) -> Any:
    """A copy, or the thing itself where something in it can't be copied."""
    try:
        return x.clone() if isinstance(x, torch.Tensor) else copy.deepcopy(x)
    except (TypeError, RuntimeError, copy.Error):
        return x


_WRITABLE = (list, dict, set, bytearray, np.ndarray, torch.Tensor)


def _outcome(judgement: worker.Judgement) -> Outcome:
    return Outcome(_STATUS[judgement[0]], judgement[1], judgement[2])


def _pieces(start: int, stop: int) -> list[tuple[int, int]]:
    """The range in eight. After a hang of a call of n items, finding the item costs at most n (1/8 + 1/64 + ...) budgets more."""
    size = math.ceil((stop - start) / 8)
    return [(at, min(at + size, stop)) for at in range(start, stop, size)]


# ---- sending a function


class _Pickler(pickle.Pickler):
    """Functions, and classes that can't be imported by name, travel as a reference to their module or file."""

    def persistent_id(self, thing: Any) -> tuple[str, ...] | None:
        if isinstance(thing, FunctionType):
            return _reference(thing)
        if isinstance(thing, type) and not _importable(thing.__module__) and thing.__module__ != "builtins":
            return _reference(thing)
        return None


def _importable(name: str) -> bool:
    """True if a fresh process would find this module, and the same file, by its name."""
    module, parent = sys.modules.get(name), name.rpartition(".")[0]
    if module is None or name == "__main__" or (parent and parent not in sys.modules):
        return False
    path = sys.modules[parent].__path__ if parent else None
    specs = (finder.find_spec(name, path) for finder in sys.meta_path)  # importlib.util.find_spec would look into sys.modules
    spec = next((s for s in specs if s is not None), None)
    return spec is not None and (getattr(module, "__file__", None) in (None, spec.origin))


def _reference(thing: Any) -> tuple[str, ...]:
    """(kind, module or file, name, version of a file) under which a worker finds a function or class."""
    module, name = thing.__module__, thing.__qualname__
    if "<" in name:
        raise InputError(
            f"pool: `{name}` should be at the top level of a module to run with a budget; it is a lambda or local to "
            "a function, where another process can't find it. Move it, or leave the budget away to run it in this process."
        )
    found = sys.modules.get(module)
    names = thing.__globals__ if isinstance(thing, FunctionType) else getattr(found, "__dict__", {})
    path = names.get("__file__")
    if _importable(module) and not names.get("STANDALONE"):
        return ("module", module, _name_in(names, thing))
    if path is None or not os.path.exists(path):
        raise InputError(
            f"pool: `{name}` should be in a module or file to run with a time budget; it was typed into an interactive session. "
            "Put it into a file, or leave the budget away to run it in this process."
        )
    if module == "__main__":
        _check_guard(path, name)
    return ("file", os.path.abspath(path), _name_in(names, thing), str(os.stat(path).st_mtime_ns))


def _name_in(names: dict[str, Any], thing: FunctionType | type) -> str:
    """The name in its module, also where a decorator left an object there that holds the function as ``.function``."""
    first, *rest = thing.__qualname__.split(".")
    found: Any = names.get(first)
    for part in rest:
        found = getattr(found, part, None)
    if found is not thing and getattr(found, "function", None) is thing:
        return f"{thing.__qualname__}.function"
    if found is not thing:
        raise InputError(
            f"pool: `{thing.__module__}.{thing.__qualname__}` should be the function itself, it is {found!r:.80} now. "
            "Usual cause: a decorator replaced it; decorate another name, or leave the budget away to run it in this process."
        )
    return thing.__qualname__


def _check_guard(path: str, name: str) -> None:
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    tests = [ast.unparse(node.test) for node in tree.body if isinstance(node, ast.If)]
    if not any("__name__" in test for test in tests):
        raise InputError(
            f"pool: `{name}` is in the script {os.path.basename(path)}, which a worker would run to find it. "
            'Put what it does under `if __name__ == "__main__":`, move the function to a module, or leave the budget away.'
        )


def pack(function: Callable[..., Any]) -> bytes:
    """A function as bytes for a worker: by reference, with the values bound to it (functools.partial, a picklable object)."""
    out = io.BytesIO()
    try:
        _Pickler(out, protocol=pickle.HIGHEST_PROTOCOL).dump(function)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(
            f"pool: {function!r:.80} should be a function of a module or pickle to run with a time budget, but: {error}. "
            "Leave the budget away to run it in this process."
        ) from error
    return out.getvalue()


# ---- one worker, seen from the parent


class _Worker:
    """A process and what it is doing. ``job`` is the range of items it was given, None while it loads or idles."""

    def __init__(self) -> None:
        far, self.commands = os.pipe()
        self.replies, near = os.pipe()
        life, self.life = os.pipe()
        with tempfile.TemporaryFile() as shared:
            shared.truncate(worker.MAPPED)
            self.slots = worker.Slots(shared.fileno())
            given = (far, near, life, shared.fileno())
            self.process = subprocess.Popen(
                [sys.executable, "-P", worker.__file__, *map(str, given)],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=given,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
        for fd in (far, near, life):
            os.close(fd)
        os.set_blocking(self.replies, False)
        self.end = weakref.finalize(self, _end, self.process, (self.commands, self.replies, self.life), os.getpid())
        self.buffer = b""
        self.loaded: set[bytes] = set()
        self.loading: bytes | None = None
        self.job: tuple[int, int] | None = None
        self.started = self.since = time.monotonic()
        self.seen = 0
        self.reasons: dict[int, str] = {}

    @property
    def idle(self) -> bool:
        return self.job is None and self.loading is None

    def send(self, message: tuple[Any, ...]) -> None:
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        with contextlib.suppress(BrokenPipeError):  # it has died, which is seen and dealt with where workers are watched
            worker.send(self.commands, struct.pack("<Q", len(data)) + data)
        self.since = time.monotonic()

    def load(self, blob: bytes) -> None:
        self.loading = blob
        self.send(("load", blob, sys.path, blob))

    def give(self, job: tuple[int, int], blob: bytes, batched: bool, items: list[bytes]) -> None:
        self.job, self.seen, self.reasons = job, 0, {}
        self.slots.begun[0] = 0
        self.started = time.monotonic()
        self.send(("run", blob, batched, items))

    def read(self) -> list[dict[str, Any]]:
        """The messages that have come."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.replies, 1 << 16):
                self.buffer += piece
        *lines, self.buffer = self.buffer.split(b"\n")
        return [json.loads(line) for line in lines]

    def dead(self) -> str | None:
        """How the process ended, None while it lives."""
        code = self.process.poll()
        if code is None:
            return None
        if code >= 0:
            return f"worker exited with status {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        usual = ", usual cause: out of memory" if -code == signal.SIGKILL else ""
        return f"worker died with signal {-code} ({name}{usual})"


def _end(process: subprocess.Popen[bytes], fds: tuple[int, ...], owner: int) -> None:
    """Close the pipes; kill and reap the process with all that it started (in the process that started it, not in a fork)."""
    for fd in fds:
        os.close(fd)
    if os.getpid() != owner:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# ---- the pool


class _Run:
    """One call of ``WorkerPool.run``: what is left to do and what came out."""

    def __init__(self, function: Callable[..., Any], items: Sequence[dict[str, Any]], budget: float, batched: bool) -> None:
        self.blob, self.budget, self.batched = pack(function), budget, batched
        self.outcomes: list[Outcome | None] = [None] * len(items)
        self.items = [self._pack_item(i, item) for i, item in enumerate(items)]
        self.todo: deque[tuple[int, int]] = deque(self._ranges())
        self.size = 8  # items in the next chunk; grows with the pace

    def _pack_item(self, i: int, item: dict[str, Any]) -> bytes:
        try:
            return pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            self.outcomes[i] = Outcome(Status.ERROR, math.nan, f"the item can't be sent to a worker: {error}")
            return b""

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """Maximal ranges of items that could be packed; cut to calls where the function is batched."""
        start = 0
        for stop in [*(i for i, o in enumerate(self.outcomes) if o is not None), len(self.items)]:
            step = BATCH if self.batched else max(stop - start, 1)
            yield from ((at, min(at + step, stop)) for at in range(start, stop, step))
            start = stop + 1

    def take(self, workers: int) -> tuple[int, int]:
        """The next range for a worker."""
        start, stop = self.todo.popleft()
        if self.batched:
            return start, stop
        left = stop - start + sum(b - a for a, b in self.todo)
        middle = min(start + max(min(self.size, math.ceil(left / workers), worker.SLOTS), 1), stop)
        if middle < stop:
            self.todo.appendleft((middle, stop))
        return start, middle

    def limit(self, job: tuple[int, int]) -> float:
        return self.budget * (job[1] - job[0] if self.batched else 1)

    def keep(self, w: _Worker, count: int) -> None:
        """Take over the first ``count`` outcomes that a worker has written."""
        assert w.job is not None
        start, get = w.job[0], w.reasons.get
        status, value = w.slots.status[:count].tolist(), w.slots.value[:count].tolist()
        self.outcomes[start : start + count] = [
            Outcome(_STATUS[s], v, get(i, "")) for i, (s, v) in enumerate(zip(status, value, strict=True))
        ]

    def finish(self, w: _Worker) -> None:
        """A worker has done its whole job."""
        assert w.job is not None
        count = w.job[1] - w.job[0]
        self.keep(w, count)
        pace = count / max(time.monotonic() - w.started, 1e-6)
        self.size = max(1, min(int(pace * _CHUNK_SECONDS), 4 * count, worker.SLOTS))
        w.job = None

    def lose(self, w: _Worker, blamed: int | None, status: Status, reason: str) -> None:
        """A worker is gone: what it had done is kept, the item it was at gets ``status``, the rest goes to another.

        ``blamed``: the item it was killed for; if it had just got past that one, nobody is to blame.
        """
        assert w.job is not None
        (start, stop), w.job = w.job, None
        if self.batched and stop - start > 1:
            self.todo.extendleft(reversed(_pieces(start, stop)))
            return
        done = max(int(w.slots.begun[0]) - 1, 0)
        w.job = (start, stop)
        self.keep(w, done)
        w.job = None
        if blamed in (None, done) and start + done < stop:
            self.outcomes[start + done] = Outcome(status, math.nan, reason)
            done += 1
        if start + done < stop:
            self.todo.appendleft((start + done, stop))
        self.size = max(1, self.size // 2)


class WorkerPool:
    """Persistent worker processes that judge items, each within its budget. Close it, or use it in a ``with``.

    Workers (default: one per core this process may use) start with the first run and stay; each imports a function's module once.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.size = workers or _cores()
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def run(
        self, function: Callable[..., Any], items: Sequence[dict[str, Any]], budget: float, batched: bool = False
    ) -> list[Outcome]:
        """Outcomes of ``function(**item)`` in the order of ``items``, each item within ``budget`` seconds (wall time, > 0).

        ``batched``: the function takes a list for each argument and returns as many results; it is called with up to 64 items and
        the sum of their budgets. A call that raises, hangs or crashes is cut in eight, and again, until only the items that do
        it are lost; a call that returns another number of results is an error for all its items.
        """
        if not (isinstance(budget, (int, float)) and 0 < budget < math.inf):
            raise InputError(f"pool: `budget` should be a number of seconds above 0, got {budget!r}.")
        with self._lock:
            run = _Run(function, items, budget, batched)
            try:
                while run.todo or any(w.job for w in self._workers):
                    self._assign(run)
                    self._listen(run, min(budget / 8, 0.05))
                    self._watch(run)
            except BaseException:  # an interrupt, say: no worker may go on with what nobody waits for
                self._drop([w for w in self._workers if not w.idle])
                raise
        return [o for o in run.outcomes if o is not None]

    def _assign(self, run: _Run) -> None:
        while run.todo and len(self._workers) < min(self.size, len(run.items)) and not any(w.idle for w in self._workers):
            self._workers.append(_Worker())
            self._workers[-1].load(run.blob)
        for w in self._workers:
            if run.todo and w.idle:
                if run.blob not in w.loaded:
                    w.load(run.blob)
                else:
                    job = run.take(self.size)
                    w.give(job, run.blob, run.batched, run.items[job[0] : job[1]])

    def _listen(self, run: _Run, seconds: float) -> None:
        """Wait for messages, at most ``seconds``, and act on them."""
        with selectors.DefaultSelector() as selector:
            for w in self._workers:
                if not w.idle:
                    selector.register(w.replies, selectors.EVENT_READ, w)
            ready = [key.data for key, _ in selector.select(seconds)]
        for w in ready:
            self._hear(run, w)

    def _hear(self, run: _Run, w: _Worker) -> None:
        for message in w.read():
            if "reason" in message:
                i, text = message["reason"]
                w.reasons[i] = text
            elif "done" in message:
                run.finish(w)
            elif "raised" in message and w.job is not None:
                start, stop = w.job
                w.job = None
                if stop - start == 1:
                    run.outcomes[start] = Outcome(Status.ERROR, math.nan, message["raised"])
                else:
                    run.todo.extendleft(reversed(_pieces(start, stop)))
            elif "loaded" in message and w.loading is not None:
                blob, w.loading = w.loading, None
                if message["loaded"] is None:
                    w.loaded.add(blob)
                elif blob == run.blob:  # else of a run that ended without this worker
                    raise InputError(
                        f"pool: a worker could not load the function: {message['loaded']}. "
                        "Usual cause: its module can be imported in this process only."
                    )

    def _watch(self, run: _Run) -> None:
        """End workers whose item has had its time; bury those that died."""
        now = time.monotonic()
        for w in list(self._workers):
            if (how := w.dead()) is not None:
                self._bury(run, w, Status.ERROR, how)
            elif w.loading is not None and now - w.since > START_LIMIT:
                raise InputError(
                    f"pool: importing the function's module took longer than {START_LIMIT:g} s. Usual cause: work at import."
                )
            elif w.job is not None and (at := int(w.slots.begun[0])) != w.seen:
                w.seen, w.since = at, now
            elif w.job is not None and w.seen and now - w.since > (limit := run.limit(w.job)):
                self._bury(run, w, Status.TIMEOUT, f"took longer than its budget of {limit:g} s", w.seen - 1)

    def _bury(self, run: _Run, w: _Worker, status: Status, reason: str, blamed: int | None = None) -> None:
        """Kill what is left of a worker and settle its job. ``blamed``: the item it was killed for (default: where it stood)."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(w.process.pid, signal.SIGKILL)
        w.process.wait()
        self._hear(run, w)
        self._drop([w])
        if w.loading is not None:
            raise InputError(
                f"pool: while it loaded the function, the {reason}. Usual cause: its module ends the process at import."
            )
        if w.job is not None:
            run.lose(w, blamed, status, reason)

    def _drop(self, workers: list[_Worker]) -> None:
        self._workers = [w for w in self._workers if w not in workers]
        for w in workers:
            w.end()

    def pids(self) -> list[int]:
        """Process ids of the workers there are."""
        return [w.process.pid for w in self._workers]

    def close(self) -> None:
        """End all workers. The pool can be used again; it would start new ones."""
        with self._lock:
            self._drop(self._workers)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


_shared: dict[int, WorkerPool] = {}  # by process: a fork must not use its parent's workers


def shared_pool() -> WorkerPool:
    """The pool of this process, made at the first call; its workers end with the process."""
    return _shared.setdefault(os.getpid(), WorkerPool())
