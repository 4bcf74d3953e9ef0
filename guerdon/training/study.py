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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guerdon.protocols import Observer
from guerdon.training.recipe import Learning, Recipe
from guerdon.training.workers import Tell, cores, run_jobs

START = "start"


@dataclass(frozen=True)
class Study:
    """``arms``: name -> (seed, start) -> Recipe or Learning; start is the directory of the policy that ``prepare(seed)`` trained.

    Recipes are made where they run, and made once more to count their steps, when the start may not be there yet: only the
    recipe's ``policy()`` may read it. ``summarise(result, directory)`` adds to the study's result.
    """

    name: str
    arms: Mapping[str, Callable[[int, Path | None], Recipe | Learning]]
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

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        return (self.directory / "result.json").exists()

    def recipe_of(self, study: Study) -> Recipe | Learning:
        if self.arm == START and study.prepare is not None:
            return study.prepare(self.seed)
        return study.arms[self.arm](self.seed, self.start)


def run_study(
    study: Study, make: Make, recipe: str, arguments: Mapping[str, Any], out: Path, observers: Sequence[Observer] = ()
) -> dict[str, Any]:
    """Run every arm and seed of ``study``, as many at a time as there are cores.

    ``make(recipe, arguments)`` makes the same study again in another process.
    """
    waiting = [job for job in _plan(study, make, recipe, arguments, out) if not job.finished]
    for o in observers:
        o.start({"about": dict(study.about), **_to_do(study, waiting)}, out, 0)

    def told(line: tuple[int, Mapping[str, Any]]) -> None:
        for o in observers:
            o.metrics(*line)

    run_jobs(waiting, _run_job, _is_ready, told, cores())
    result = _collect(study, out)
    for o in observers:
        o.finish(result)
    return result


def _plan(study: Study, make: Make, recipe: str, arguments: Mapping[str, Any], out: Path) -> list[Job]:
    """Seed by seed the start and then the arms, so that the first seed's comparison is there early."""

    def of_seed(seed: int) -> list[Job]:
        start = out / f"{START}-s{seed}" if study.prepare else None
        first = [Job(make, recipe, arguments, START, seed, start, None)] if start else []
        return first + [Job(make, recipe, arguments, a, seed, out / f"{a}-s{seed}", start) for a in study.arms]

    return [job for seed in study.seeds for job in of_seed(seed)]


def _to_do(study: Study, waiting: Sequence[Job]) -> dict[str, int]:
    """``runs`` that are not finished, starts not counted, and ``total_steps`` of one, the mean where arms differ."""
    jobs = [job for job in waiting if job.arm != START]
    steps = {arm: job.recipe_of(study).total_steps for arm, job in {job.arm: job for job in jobs}.items()}
    return {"runs": len(jobs), "total_steps": round(sum(steps[job.arm] for job in jobs) / max(len(jobs), 1))}


def _is_ready(job: Job) -> bool:
    return job.start is None or (job.start / "result.json").exists()


# ---- in the worker


@dataclass(frozen=True)
class _Forward:
    """An observer that passes every line on to the parent."""

    tell: Tell

    def start(self, config: Mapping[str, Any], directory: Path, step: int) -> None: ...

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.tell((step, dict(metrics)))

    def finish(self, result: Mapping[str, Any]) -> None: ...


def _run_job(job: Job, tell: Tell) -> None:
    from guerdon.training.run import run_recipe

    recipe = job.recipe_of(job.make(job.recipe, job.arguments))
    tags = {"arm": job.arm, "seed": job.seed}
    config = {"recipe": job.recipe, "arguments": dict(job.arguments), **tags}
    run_recipe(recipe, job.directory, [_Forward(tell)], config, tags)


# ---- the result


def _collect(study: Study, out: Path) -> dict[str, Any]:
    runs = {(a, s): out / f"{a}-s{s}" for a in study.arms for s in study.seeds}
    if study.prepare:
        runs |= {(START, s): out / f"{START}-s{s}" for s in study.seeds}
    with (out / "metrics.jsonl").open("w", encoding="utf-8") as f:
        f.writelines((d / "metrics.jsonl").read_text(encoding="utf-8") for d in runs.values())
    results = {k: json.loads((d / "result.json").read_text(encoding="utf-8")) for k, d in runs.items()}
    arms = {
        a: {_short(key): [results[a, s].get(key) for s in study.seeds] for key in results[a, study.seeds[0]] if key != "schema"}
        for a in study.arms
    }
    result: dict[str, Any] = {"schema": 1, "seeds": list(study.seeds), "arms": arms}
    return result | (study.summarise(result, out) if study.summarise else {})


def _short(metric: str) -> str:
    return metric.removeprefix("eval/")
