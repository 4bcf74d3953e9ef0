# SPDX-License-Identifier: Apache-2.0
"""Jobs in processes of their own, one thread each. They end with the parent, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection as pipes
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Generic, TypeVar

from guerdon.errors import GuerdonError
from guerdon.training.process import use_threads

Job = TypeVar("Job")
Tell = Callable[[Any], None]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(jobs: Sequence[Job], work: Callable[[Job, Tell], None], ready: Callable[[Job], bool], told: Tell, most: int) -> None:
    """``work(job, tell)`` for every job once it is ``ready``, at most ``most`` at a time; ``told`` gets what they tell, at once.

    A GuerdonError of a job is raised here with the job's name before it. Whatever is raised here, no process is left.
    """
    waiting, workers = list(jobs), list[Worker[Job]]()
    finished = False
    try:
        while waiting or any(w.job is not None for w in workers):
            _hand_out(waiting, workers, work, ready, most)
            busy = {w.pipe: w for w in workers if w.job is not None}
            if not busy:
                left = "; ".join(map(str, waiting))
                raise GuerdonError(f"study: expected something to run, but {left} can't start. Usual cause: files deleted.")
            for pipe in pipes.wait(list(busy)):
                busy[pipe].hear(told)  # type: ignore[index]  # they are the connections that went in
        finished = True
    finally:
        for w in workers:
            w.end(now=not finished)


def _hand_out(
    waiting: list[Job], workers: list[Worker[Job]], work: Callable[[Job, Tell], None], ready: Callable[[Job], bool], most: int
) -> None:
    for job in [j for j in waiting if ready(j)]:
        free = [w for w in workers if w.job is None]
        if not free and len(workers) == most:
            return
        if not free:
            free = [Worker(work)]
            workers += free
        waiting.remove(job)
        free[0].give(job)


def start_server() -> None:
    """Have the imports that workers share done beside what this process does until it needs them; nothing on a single core."""
    if sys.platform == "linux" and cores() > 1:
        from multiprocessing import forkserver  # not on every system

        _context()
        forkserver.ensure_running()


class Worker(Generic[Job]):
    """A process that does one job after another."""

    def __init__(self, work: Callable[[Job, Tell], None]) -> None:
        context = _context()
        self.pipe, its = context.Pipe()
        self.process = context.Process(target=_serve, args=(its, work))
        self.process.start()
        its.close()  # so that its end is the end of the pipe
        self.job: Job | None = None

    def give(self, job: Job) -> None:
        self.job = job
        self.pipe.send(job)

    def hear(self, told: Tell) -> None:
        try:
            kind, what = self.pipe.recv()
        except (EOFError, ConnectionResetError) as e:
            self.process.join()
            raise GuerdonError(
                f"{self.job}: expected its process to finish, but it ended with exit code {self.process.exitcode}. Usual cause: "
                "out of memory (-9). The same command goes on from the newest checkpoints."
            ) from e
        if kind == "told":
            told(what)
        elif kind == "failed":
            what.args = (f"{self.job}: {what}",)
            raise what
        elif kind == "broke":
            error = GuerdonError(
                f"{self.job}: expected the run to finish, got {what.splitlines()[-1]}. "
                "Usual cause: an error in the recipe's own code."
            )
            error.add_note(what)
            raise error
        else:
            self.job = None

    def end(self, now: bool) -> None:
        """Let it finish (it has no job), or end it ``now``."""
        if now:
            self.process.terminate()
        self.pipe.close()
        self.process.join()


def _context() -> SpawnContext | ForkServerContext:
    """Linux: workers are copies of a server that has imported torch once. Elsewhere copying after such imports isn't safe."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["guerdon.training.run", "torch._dynamo"])  # which an optimiser imports when it is made
    return context


# ---- in the worker


def _serve(pipe: pipes.Connection, work: Callable[[Any, Tell], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent too, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_threads(1)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            work(job, lambda what: pipe.send(("told", what)))
        except GuerdonError as e:
            pipe.send(("failed", e))
        except BaseException:
            pipe.send(("broke", traceback.format_exc()))
            raise
        else:
            pipe.send(("done", None))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
