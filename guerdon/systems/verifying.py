# SPDX-License-Identifier: Apache-2.0
"""Runs the claims of a system and says whether they hold: held, not held, or undecided.

comparison   seeds are added ``batch`` by batch and AdaStop looks at each batch. Held: ``better`` is declared better, by
             ``effect`` or more. Not held: it is declared worse, or the difference is surely smaller than ``effect``. Undecided:
             neither, after the last look
bound        the interval of the mean over seeds lies on the right side of the limit, on the wrong side, or across it
exact        every number is what it should be, or not
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import singledispatch
from pathlib import Path
from typing import Any

import torch

from guerdon import systems
from guerdon.errors import InputError
from guerdon.systems import intervals
from guerdon.systems.arms import runs_of, train_all
from guerdon.systems.curves import curve_over_seeds
from guerdon.systems.evidence.adastop import Outcome, adastop
from guerdon.systems.intervals import Interval
from guerdon.systems.measuring import curve_of, figure_of, higher_is_better, lines_of
from guerdon.systems.picture import picture
from guerdon.systems.progress import Progress
from guerdon.systems.results import code_of, fingerprint, store
from guerdon.systems.searching import refuse_unsearched
from guerdon.systems.system import Bound, Claim, Comparison, Exact
from guerdon.training.run import versions, write_json
from guerdon.training.study import START
from guerdon.training.workers import Tell, cores, run_jobs

HELD, NOT_HELD, UNDECIDED = "held", "not held", "undecided"
DRAWS = 100_000
"""Permutations of a look: enough that two looks at five seeds a side are enumerated."""


@dataclass(frozen=True)
class Asked:
    """Which claim of which system, with all its arms or only those that decide."""

    slug_or_file: str
    number: int
    full: bool

    @property
    def title(self) -> str:
        count = len(systems.system_of(self.slug_or_file).claims)
        return systems.slug_of(self.slug_or_file) + (f", claim {self.number + 1} of {count}" if count > 1 else "")


def verify(slug_or_file: str, full: bool = False, command: Sequence[str] = ()) -> dict[str, Any]:
    """Verify every claim and store what was found."""
    claims = systems.system_of(slug_or_file).claims
    for number, claim in enumerate(claims):
        if isinstance(claim, Comparison):
            refuse_unsearched(slug_or_file, number)
    found = [_verified(Asked(slug_or_file, i, full), claim) for i, claim in enumerate(claims)]
    result = {
        "slug": systems.slug_of(slug_or_file),
        "claims": found,
        "code": code_of(slug_or_file),
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "command": list(command),
    }
    store(slug_or_file, result)
    for claim_result in found:
        if drawn := picture(claim_result):
            (Path(claim_result["directory"]) / "picture.svg").write_text(drawn, encoding="utf-8")
    return result


def _verified(asked: Asked, claim: Claim) -> dict[str, Any]:
    began, mark = time.perf_counter(), fingerprint(claim)
    found = verified(claim, asked)
    seconds = time.perf_counter() - began
    told = {"kind": type(claim).__name__.lower(), "statement": claim.statement, "fingerprint": mark, "tried": claim.tried}
    return {**told, "differences": list(claim.differences), **found, "wall_seconds": seconds}


@singledispatch
def verified(claim: Any, asked: Asked) -> dict[str, Any]:
    """The verdict on a claim, and what it stands on."""
    raise InputError(f"{asked.slug_or_file}: expected a Comparison, a Bound or an Exact as claim, got {type(claim).__name__}.")


# ---- a comparison


@verified.register
def _(claim: Comparison, asked: Asked) -> dict[str, Any]:
    chosen = {arm: dict(choice) for arm, choice in claim.chosen.items()}
    out = runs_of(asked.slug_or_file, f"verify-{asked.number + 1}", chosen)
    arms = [claim.better, claim.than]
    watch = Progress(asked.title, claim.metric.name)
    try:
        for look in range(1, claim.interims + 1):
            seeds = list(range(claim.first_seed, claim.first_seed + look * claim.batch))
            train_all(asked.slug_or_file, asked.number, arms, seeds, out, [watch])
            scores = {arm: scores_of(claim, out, arm, seeds) for arm in arms}
            outcome, effect = judged(claim, scores)
            watch.say(_look_text(claim, outcome, len(seeds)))
            verdict = verdict_of(claim, outcome, effect, look == claim.interims)
            if verdict is not None:
                break
        if asked.full:
            arms += [arm for arm in claim.arms if arm not in arms]
            train_all(asked.slug_or_file, asked.number, arms, seeds, out, [watch])
    finally:
        watch.end()
    return {
        "verdict": verdict,
        "better": claim.better,
        "than": claim.than,
        "metric": asdict(claim.metric),
        "budget": claim.budget,
        "seeds": seeds,
        "arms": {arm: _arm_result(claim, out, arm, seeds) for arm in arms},
        "effect": asdict(effect),
        "test": {"batch": claim.batch, "interims": claim.interims, "alpha": claim.alpha, "effect": claim.effect},
        "looks": [asdict(look) for look in outcome.looks],
        "start_core_seconds": _core_seconds(out, START, seeds) if claim.prepare else 0.0,
        "directory": str(out),
    }


def scores_of(claim: Comparison, out: Path, arm: str, seeds: Sequence[int]) -> list[float]:
    return [figure_of(claim.metric, lines_of(out / f"{arm}-s{s}"), f"{arm}, seed {s}") for s in seeds]


def judged(claim: Comparison, scores: Mapping[str, Sequence[float]]) -> tuple[Outcome, Interval]:
    """The test's decisions so far, and the difference ``better`` - ``than`` with its 95 % interval."""
    better, than = scores[claim.better], scores[claim.than]
    blocks = torch.tensor([better, than], dtype=torch.float64).reshape(2, -1, claim.batch)
    sign = 1 if higher_is_better(claim.metric) else -1
    return adastop(sign * blocks, interims=claim.interims, alpha=claim.alpha, draws=DRAWS), intervals.of_difference(better, than)


def verdict_of(claim: Comparison, outcome: Outcome, effect: Interval, is_last: bool) -> str | None:
    """None: look again, with more seeds."""
    declared = outcome.decisions[0, 1]
    gain, most = (effect.estimate, effect.high) if higher_is_better(claim.metric) else (-effect.estimate, -effect.low)
    if declared == "larger" and gain >= claim.effect:
        return HELD
    if declared == "smaller" or (is_last and most < claim.effect):
        return NOT_HELD
    return UNDECIDED if is_last else None


def _look_text(claim: Comparison, outcome: Outcome, seeds: int) -> str:
    last = outcome.looks[-1]
    said = {"larger": f"{claim.better} is better", "smaller": f"{claim.better} is worse", "": "not told apart"}[last.declared]
    return f"{seeds} seeds each: statistic {last.statistic:.4g}, boundary {last.boundary:.4g}: {said}"


def _arm_result(claim: Comparison, out: Path, arm: str, seeds: Sequence[int]) -> dict[str, Any]:
    runs = {s: lines_of(out / f"{arm}-s{s}") for s in seeds}
    return {
        "choice": dict(claim.chosen.get(arm, {})),
        "scores": scores_of(claim, out, arm, seeds),
        "curve": curve_over_seeds([curve_of(claim.metric, lines, f"{arm}, seed {s}") for s, lines in runs.items()]),
        "core_seconds": _core_seconds(out, arm, seeds),
    }


def _core_seconds(out: Path, arm: str, seeds: Sequence[int]) -> float:
    """Of one training, on average."""
    results = [json.loads((out / f"{arm}-s{s}" / "result.json").read_text(encoding="utf-8")) for s in seeds]
    return statistics.fmean(r["time/process"] for r in results)


# ---- a bound


@dataclass(frozen=True)
class Measuring:
    """The statistic of one seed, as another process can be told of it."""

    slug_or_file: str
    number: int
    seed: int
    path: Path

    def __str__(self) -> str:
        return f"claim {self.number + 1}, seed {self.seed}"


@verified.register
def _(claim: Bound, asked: Asked) -> dict[str, Any]:
    out = runs_of(asked.slug_or_file, f"verify-{asked.number + 1}")
    out.mkdir(parents=True, exist_ok=True)
    seeds = range(claim.first_seed, claim.first_seed + claim.seeds)
    jobs = [Measuring(asked.slug_or_file, asked.number, s, out / f"seed-{s}.json") for s in seeds]
    watch = Progress(asked.title, "value")
    try:
        watch.say(f"{asked.title}: {claim.seeds} seeds")
        waiting = [job for job in jobs if not job.path.exists()]
        run_jobs(waiting, _measure, lambda job: True, lambda line: watch.metrics(0, line), cores())
    finally:
        watch.end()
    told = [json.loads(job.path.read_text(encoding="utf-8")) for job in jobs]
    interval = intervals.of_mean([t["value"] for t in told], claim.confidence)
    return {
        "verdict": side_of(claim, interval),
        "limit": claim.limit,
        "above": claim.above,
        "confidence": claim.confidence,
        "seeds": list(seeds),
        "scores": [t["value"] for t in told],
        "effect": asdict(interval),
        "core_seconds": statistics.fmean(t["time/process"] for t in told),
        "directory": str(out),
    }


def side_of(claim: Bound, interval: Interval) -> str:
    """
    >>> claim = Bound("", lambda seed: 0.0, limit=1.0, above=True)
    >>> [side_of(claim, Interval(1.5, *ends)) for ends in ((1.1, 1.9), (0.9, 2.1), (0.1, 0.9))]
    ['held', 'undecided', 'not held']
    """
    low, high = (interval.low, interval.high) if claim.above else (-interval.high, -interval.low)
    limit = claim.limit if claim.above else -claim.limit
    return HELD if low >= limit else NOT_HELD if high < limit else UNDECIDED


def _measure(job: Measuring, tell: Tell) -> None:
    began = time.process_time()
    claim = systems.system_of(job.slug_or_file).claims[job.number]
    assert isinstance(claim, Bound)
    value = float(claim.measure(job.seed))
    if value - value != 0:
        raise InputError(
            f"expected a finite statistic, got {value}. Usual cause: a failure inside `measure` that became a number."
        )
    tell({"arm": "statistic", "seed": job.seed, "value": value})
    write_json(job.path, {"value": value, "time/process": time.process_time() - began})


# ---- an identity


@verified.register
def _(claim: Exact, asked: Asked) -> dict[str, Any]:
    began = time.process_time()
    found = {name: (float(a), float(b)) for name, (a, b) in claim.measure().items()}
    errors = {name: abs(a - b) for name, (a, b) in found.items()}
    return {
        "verdict": HELD if errors and all(e <= claim.tolerance for e in errors.values()) else NOT_HELD,
        "tolerance": claim.tolerance,
        "values": {name: {"found": a, "expected": b, "error": errors[name]} for name, (a, b) in found.items()},
        "core_seconds": time.process_time() - began,
    }


# ---- where it was done


def machine() -> dict[str, Any]:
    """Processor and how many cores the trainings could use."""
    return {"processor": _processor(), "cores": cores(), "system": f"{platform.system()} {platform.machine()}"}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in path.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
