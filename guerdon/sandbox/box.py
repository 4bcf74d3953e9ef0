# SPDX-License-Identifier: Apache-2.0
"""Sandbox: programs that nobody vouches for, run apart from everything, one process each.

with Sandbox() as box:
    box.run("def f(a, b): return a + b", [{"call": "f(1, 2)", "result": 3}])      # [Verdict(passed=True, reason='')]
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.errors import InputError
from guerdon.sandbox.connection import Server
from guerdon.sandbox.jobs import Cell, Fate, Job, Outcome
from guerdon.sandbox.layers import LAYERS, SandboxUnavailable

if TYPE_CHECKING:
    from guerdon.sandbox.unit_tests import Verdict

WAKE = 0.2
"""Seconds between looks at whether this process was interrupted: a signal may have come to another thread."""

TRIES = 2
"""How often an item is tried whose server breaks down."""


class Sandbox:
    """Servers that run programs, one a core unless ``workers`` says otherwise. Close it, or use it in a ``with``.

    warm     modules that are imported before the first program; others are when a program imports them
    without  layers that one may do without (``LAYERS``); where another is missing, SandboxUnavailable says so

    Servers start with the first programs and stay.
    """

    def __init__(self, workers: int | None = None, *, warm: Sequence[str] = (), without: Iterable[str] = ()) -> None:
        self.without = frozenset(without)
        if unknown := self.without - set(LAYERS):
            raise InputError(f"sandbox: `without` should name layers ({', '.join(LAYERS)}), got {', '.join(sorted(unknown))}.")
        if sys.platform != "linux":
            raise SandboxUnavailable(f"sandbox: needs Linux, whose kernel does the guarding; this is {sys.platform}.")
        self.size = workers or len(os.sched_getaffinity(0))
        self.warm = tuple(warm)
        self._servers: list[Server] = []
        self._lock = threading.Lock()

    def evaluate(
        self, jobs: Sequence[Job], *, seconds: float = 5.0, memory: int = 512, output: int = 1 << 20
    ) -> list[list[Outcome]]:
        """For each job an Outcome for each of its items, in order.

        seconds  of wall time that an item may take
        memory   MiB that a program may have beyond the interpreter's own
        output   bytes that it may print, or answer, in one process
        """
        if not 0 < seconds < float("inf"):
            raise InputError(f"sandbox: `seconds` should be a number above 0, got {seconds!r}.")
        run = _Run(jobs, self.size)
        with self._lock:
            try:
                while run.todo or any(s.cell for s in self._servers):
                    self._assign(run, (seconds, memory, output))
                    self._listen(run, seconds, output)
            except BaseException:  # an interrupt, say: no server may go on with what nobody waits for
                for server in [s for s in self._servers if s.cell]:
                    self._drop(server)
                raise
        return run.result()

    def run(
        self, program: str, tests: Sequence[Any], *, seconds: float = 5.0, memory: int = 512, tolerance: float = 0.0
    ) -> list[Verdict]:
        """A Verdict for each unit test of one program; ``run_tests`` takes many programs at once.

        tests      {"input": text, "output": text} or {"call": "f(1, 2)", "result": 3}
        tolerance  bounds the absolute and the relative difference of floats in results
        """
        from guerdon.sandbox.unit_tests import read_tests, run_tests  # they are made of sandboxes

        return run_tests(self, [(program, read_tests(tests))], seconds=seconds, memory=memory, tolerance=tolerance)[0]

    def _assign(self, run: _Run, limits: tuple[float, int, int]) -> None:
        idle = [s for s in self._servers if s.cell is None]
        missing = min(self.size - len(self._servers), len(run.todo) - len(idle))
        if missing > 0:
            idle += self._start(missing)
        for server in idle:
            if run.todo:
                server.send(run.todo.popleft(), *limits)

    def _start(self, count: int) -> list[Server]:
        started = [Server(self.warm) for _ in range(count)]
        self._servers += started
        try:
            with _secret() as secret:
                for server in started:
                    server.started()
                    self._check(server, secret)
        except BaseException:
            for server in started:
                self._drop(server)
            raise
        return started

    def layers(self) -> dict[str, bool]:
        """Layer -> whether it holds, found by trying in a cell of each server."""
        with self._lock, _secret() as secret:
            if not self._servers:
                self._start(1)
            missing = {layer for server in self._servers for layer in server.tried(secret, 64)}
        return {layer: layer not in missing for layer in LAYERS}

    def _check(self, server: Server, secret: str) -> None:
        missing = [layer for layer in server.tried(secret, 64) if layer not in self.without]
        if missing:
            refused = ", ".join(f"{name} ({why})" for name, why in server.walls.items() if why) or "none"
            raise SandboxUnavailable(
                f"sandbox: expected every layer to hold, but not so: {'; '.join(f'{m} ({LAYERS[m]})' for m in missing)}. "
                f"Walls that the kernel refused: {refused}. To do without, say without={tuple(missing)}."
            )

    def _listen(self, run: _Run, seconds: float, output: int) -> None:
        busy = [s for s in self._servers if s.cell]
        if not busy:
            return
        left = min(max(min(s.until for s in busy) - time.monotonic(), 0), WAKE)
        ready = select.select([s.orders for s in busy], [], [], left)[0]
        for server in busy:
            if server.orders in ready:
                self._settle(run, server, server.hear(), seconds, output)
            elif time.monotonic() > server.until:
                self._settle(run, server, None, seconds, output)

    def _settle(self, run: _Run, server: Server, ended: dict[str, Any] | None, seconds: float, output: int) -> None:
        cell, server.cell = server.cell, None
        assert cell is not None
        if ended is None:
            self._drop(server)
            run.again(cell)
        else:
            ended["limit"] = seconds
            run.keep(cell, cell.outcomes(ended, output))
        cell.close()

    def _drop(self, server: Server) -> None:
        if server in self._servers:
            self._servers.remove(server)
        if server.cell is not None:
            server.cell.close()
        server.end()

    def pids(self) -> list[int]:
        """Process ids of the launchers there are; servers and cells are below them."""
        return [s.process.pid for s in self._servers]

    def close(self) -> None:
        """End all servers. The sandbox can be used again; it would start new ones."""
        with self._lock:
            for server in list(self._servers):
                self._drop(server)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _secret() -> Iterator[str]:
    """The path of a file that everybody may read and write: walls are to be tried, not the rights of files."""
    with tempfile.TemporaryDirectory(prefix="guerdon-") as folder:
        path = os.path.join(folder, "secret")
        Path(path).write_text("")
        os.chmod(folder, 0o777)
        os.chmod(path, 0o666)
        yield path


class _Run:
    """One call of ``evaluate``: which cells are left to run and what came out."""

    def __init__(self, jobs: Sequence[Job], workers: int) -> None:
        self.found: list[list[Outcome | None]] = [[None] * sum(job.groups()) for job in jobs]
        self.todo: deque[Cell] = deque()
        for at, job in enumerate(jobs):
            self.add(job, at, 0)

    def add(self, job: Job, at: int, start: int) -> None:
        """Cells for the groups from ``start``."""
        for first in range(start, len(job.groups()), job.together):
            self.todo.append(Cell(job, at, first, min(first + job.together, len(job.groups()))))

    def keep(self, cell: Cell, outcomes: list[Outcome]) -> None:
        """What a cell has settled; the groups after the one it ended in are for another."""
        self.found[cell.at][cell.first : cell.first + len(outcomes)] = outcomes
        if len(outcomes) == cell.count:
            return
        done = 0
        for group in range(cell.start, cell.stop):
            done += cell.sizes[group]
            if done >= len(outcomes):
                lost = Outcome(Fate.LOST, None, f"not reached: an earlier item {outcomes[-1].fate}, {outcomes[-1].reason}")
                self.found[cell.at][cell.first + len(outcomes) : cell.first + done] = [lost] * (done - len(outcomes))
                if group + 1 < cell.stop:
                    self.todo.append(Cell(cell.job, cell.at, group + 1, cell.stop))
                return

    def again(self, cell: Cell) -> None:
        """Its server broke down: try it again, on its own where it was with others, and give up in the end."""
        if cell.stop - cell.start > 1:
            self.todo += [Cell(cell.job, cell.at, g, g + 1, cell.tries) for g in range(cell.start, cell.stop)]
        elif cell.tries + 1 < TRIES:
            self.todo.append(Cell(cell.job, cell.at, cell.start, cell.stop, cell.tries + 1))
        else:
            broken = Outcome(Fate.BROKEN, None, f"the sandbox broke down {TRIES} times")
            self.found[cell.at][cell.first : cell.first + cell.count] = [broken] * cell.count

    def result(self) -> list[list[Outcome]]:
        return [[o for o in items if o is not None] for items in self.found]


_shared: dict[tuple[int, tuple[str, ...]], Sandbox] = {}  # by process: a fork must not use its parent's servers


def shared_box(warm: Sequence[str] = ()) -> Sandbox:
    """The sandbox of this process with these modules imported, made at the first call; its servers end with the process."""
    return _shared.setdefault((os.getpid(), tuple(warm)), Sandbox(warm=warm))
