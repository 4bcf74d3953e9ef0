# SPDX-License-Identifier: Apache-2.0
"""A study: arms x seeds from the same starts, each a run of its own in a process of its own, one thread each.

    runs/NAME/start-s0/        the shared start of seed 0, if the study prepares one
    runs/NAME/dense-s0/        one run per arm and seed: metrics.jsonl, result.json, checkpoint/, rollouts/, ...
    runs/NAME/metrics.jsonl    all of them together
    runs/NAME/result.json      per arm and metric, one figure per seed

A run that has its result.json is not run again, and one that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guerdon.errors import GuerdonError
from guerdon.protocols import Observer
from guerdon.training.recipe import Recipe

START = "start"


@dataclass(frozen=True)
class Study:
    """``arms``: name -> (seed, start) -> Recipe, where start is the directory of the policy that ``prepare(seed)`` trained.

    Both are called in the process that runs the recipe. ``summarise(result, directory)`` adds to the study's result.
    """

    name: str
    arms: Mapping[str, Callable[[int, Path | None], Recipe]]
    seeds: Sequence[int]
    prepare: Callable[[int], Recipe] | None = None
    summarise: Callable[[dict[str, Any], Path], dict[str, Any]] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


Make = Callable[[str, Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Job:
    """One run of a study, as another process can be told of it: the study is made there again, by ``make(recipe, arguments)``."""

    make: Make
    recipe: str
    arguments: Mapping[str, Any]
    arm: str
    seed: int
    directory: Path
    start: Path | None


def run_study(
    study: Study, make: Make, recipe: str, arguments: Mapping[str, Any], out: Path, observers: Sequence[Observer] = ()
) -> dict[str, Any]:
    """Run every arm and seed of ``study``, as many at a time as there are cores.

    ``make(recipe, arguments)`` makes the same study again in another process.
    """
    jobs = _plan(study, make, recipe, arguments, out)
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for o in observers:
        o.start({"about": dict(study.about)}, out, 0)
    with ProcessPoolExecutor(min(cores, len(jobs)), context, initializer=_start_worker, initargs=(told,)) as executor:
        try:
            _schedule(executor, jobs, told, observers)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for p in multiprocessing.active_children():
                p.terminate()
            raise
    result = _collect(study, out)
    for o in observers:
        o.finish(result)
    return result


def _plan(study: Study, make: Make, recipe: str, arguments: Mapping[str, Any], out: Path) -> list[Job]:
    """Starts first, then the arms seed by seed, so that the first seed's comparison is there early."""

    def start(seed: int) -> Path | None:
        return out / f"{START}-s{seed}" if study.prepare else None

    starts = [Job(make, recipe, arguments, START, s, d, None) for s in study.seeds if (d := start(s))]
    return starts + [Job(make, recipe, arguments, a, s, out / f"{a}-s{s}", start(s)) for s in study.seeds for a in study.arms]


def _schedule(executor: ProcessPoolExecutor, jobs: list[Job], told: Any, observers: Sequence[Observer]) -> None:
    """Submit each job when its start is there; pass on what the workers tell."""
    waiting = [j for j in jobs if not (j.directory / "result.json").exists()]
    running: dict[Future[None], Job] = {}
    while waiting or running:
        for job in list(waiting):
            ready = job.start is None or (job.start / "result.json").exists()
            if ready and len(running) < executor._max_workers:
                waiting.remove(job)
                running[executor.submit(_run_job, job)] = job
        done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
        _pass_on(told, observers)
        for future in done:
            _raise_of(future, running.pop(future).directory.name)
    _pass_on(told, observers)


def _raise_of(future: Future[None], whose: str) -> None:
    """Raise what ended a run, if something did, with the run's name."""
    try:
        future.result()
    except GuerdonError as e:
        raise type(e)(f"{whose}: {e}") from e
    except BrokenProcessPool as e:
        raise GuerdonError(
            f"{whose}: expected its process to finish, but a process of the study was ended from outside. Usual cause: out of memory. "
            "The same command goes on from the newest checkpoints."
        ) from e


def _pass_on(told: Any, observers: Sequence[Observer]) -> None:
    while True:
        try:
            step, line = told.get_nowait()
        except queue.Empty:
            return
        for o in observers:
            o.metrics(step, line)


# ---- in the worker

_told: Any = None


def _start_worker(told: Any) -> None:
    global _told
    import torch

    _told = told
    torch.set_num_threads(1)


class _Tell:
    """An observer that passes every line on to the parent."""

    def start(self, config: Mapping[str, Any], directory: Path, step: int) -> None: ...

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        _told.put((step, dict(metrics)))

    def finish(self, result: Mapping[str, Any]) -> None: ...


def _run_job(job: Job) -> None:
    from guerdon.training.run import run_recipe

    study = job.make(job.recipe, job.arguments)
    recipe = study.prepare(job.seed) if job.arm == START else study.arms[job.arm](job.seed, job.start)
    config = {"recipe": job.recipe, "arguments": dict(job.arguments), "arm": job.arm, "seed": job.seed}
    run_recipe(recipe, job.directory, [_Tell()], config, tags={"arm": job.arm, "seed": job.seed})


# ---- the result


def _collect(study: Study, out: Path) -> dict[str, Any]:
    runs = {(a, s): out / f"{a}-s{s}" for a in study.arms for s in study.seeds}
    if study.prepare:
        runs |= {(START, s): out / f"{START}-s{s}" for s in study.seeds}
    with (out / "metrics.jsonl").open("w") as f:
        f.writelines((d / "metrics.jsonl").read_text() for d in runs.values())
    results = {k: json.loads((d / "result.json").read_text()) for k, d in runs.items()}
    arms = {
        a: {_short(key): [results[a, s].get(key) for s in study.seeds] for key in results[a, study.seeds[0]]} for a in study.arms
    }
    result: dict[str, Any] = {"schema": 1, "seeds": list(study.seeds), "arms": arms}
    return result | (study.summarise(result, out) if study.summarise else {})


def _short(metric: str) -> str:
    return metric.removeprefix("eval/")
