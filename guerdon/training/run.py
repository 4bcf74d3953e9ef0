# SPDX-License-Identifier: Apache-2.0
"""A run directory: what is written where, whether a run is one recipe or a study.

config.json     re-runs the run by itself
metrics.jsonl   one line per step and per evaluation
result.json     the figures at the end, machine-readable
report.html     for people; written by ``guerdon report``
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from guerdon.errors import CheckpointError, InputError
from guerdon.protocols import Observer
from guerdon.training.loop import train
from guerdon.training.observers import Jsonl
from guerdon.training.recipe import Learning, Recipe
from guerdon.training.study import Make, run_study

SCHEMA = 1


def run(
    make: Make,
    recipe: str,
    arguments: Mapping[str, Any],
    out: Path,
    observers: Sequence[Observer] = (),
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Run what ``make(recipe, arguments)`` returns in ``out``, or go on with it where it was interrupted.

    Refuses a directory that holds another run.
    """
    made = make(recipe, arguments)
    config = {"command": list(command), "recipe": recipe, "arguments": dict(arguments)}
    if isinstance(made, Recipe | Learning):
        return run_recipe(made, out, observers, config)
    refuse_other(out, config)
    ConfigFile().start({**config, "about": dict(made.about)}, out, 0)
    result = run_study(made, make, recipe, arguments, out, observers)
    write_json(out / "result.json", result)
    return result


def run_recipe(
    recipe: Recipe | Learning,
    out: Path,
    observers: Sequence[Observer],
    config: Mapping[str, Any],
    tags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run one recipe with its metrics in ``out/metrics.jsonl``; ``tags`` are added to every line.

    Nothing is written before the policy is there, so a model that can't be loaded leaves no directory behind. The result's
    ``time/process`` is the processor time that this process took, evaluation included; since its last start, if it was resumed.
    """
    refuse_other(out, config)
    path = out / "result.json"
    if not path.exists():
        told: list[Observer] = [ConfigFile(), *(_Tagged(o, tags or {}) for o in [Jsonl(), *observers])]
        began = time.process_time()
        found = train(recipe, out, told, config) if isinstance(recipe, Recipe) else learn(recipe, out, told, config)
        write_json(path, {"schema": SCHEMA, **found, "time/process": time.process_time() - began})
    return json.loads(path.read_text())


def learn(learning: Learning, out: Path, observers: Sequence[Observer], config: Mapping[str, Any]) -> dict[str, Any]:
    """Tell the lines of a learner that has a loop of its own; what was there of an interrupted run is written anew.

    A line without ``step`` has the number of lines before it plus one; one with an evaluation (``eval/...``) is of stage "eval".
    The last line is the result.
    """
    last: dict[str, Any] = {}
    out.mkdir(parents=True, exist_ok=True)
    told = {**config, "about": dict(learning.about), "total_steps": learning.total_steps, "runs": 1}
    for o in observers:
        o.start(told, out, 0)
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(learning.seed)
        for number, line in enumerate(learning.lines(), 1):
            stage = "eval" if any(k.startswith("eval/") for k in line) else "train"
            last = {"stage": stage, "step": number, "seconds": time.perf_counter() - began, **line}
            for o in observers:
                o.metrics(last["step"], last)
    if not last:
        raise InputError(f"learning `{learning.name}`: expected `lines()` to yield a line or more, got none.")
    result = {k: v for k, v in last.items() if k not in ("stage", "step")} | {"steps": last["step"]}
    for o in observers:
        o.finish(result)
    return result


def refuse_other(out: Path, config: Mapping[str, Any]) -> None:
    """Raise if ``out`` holds something else than this run: its recipe and arguments decide."""
    path = out / "config.json"
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(f != _unfinished(path) for f in out.iterdir())):
            raise InputError(
                f"{out}: expected an empty or new directory or a run to go on with, got other files; nothing was written."
            )
        return
    try:
        there = json.loads(path.read_text())
    except json.JSONDecodeError as e:
        raise CheckpointError(f"{path}: expected JSON, got {e}. Usual cause: edited by hand, or a copy cut short.") from e
    mine = json.loads(json.dumps({k: config[k] for k in ("recipe", "arguments")}))
    if {k: there.get(k) for k in mine} != mine:
        raise InputError(
            f"{out}: holds another run ({_brief(there)}), and this one is {_brief(mine)}; nothing was written. "
            "Give another --out, or delete the directory."
        )


class ConfigFile:
    """An observer that writes config.json where there is none yet."""

    def start(self, config: Mapping[str, Any], directory: Path, step: int) -> None:
        path = directory / "config.json"
        if not path.exists():
            directory.mkdir(parents=True, exist_ok=True)
            write_json(path, {"schema": SCHEMA, **config, "versions": versions()})

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None: ...

    def finish(self, result: Mapping[str, Any]) -> None: ...


def _brief(config: Mapping[str, Any]) -> str:
    return " ".join([str(config.get("recipe")), *(f"{k}={v}" for k, v in (config.get("arguments") or {}).items())])


def versions() -> dict[str, str]:
    """What a figure may depend on."""
    found = {}
    for package in ("guerdon", "torch", "numpy", "transformers", "peft", "tokenizers"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **found, "machine": platform.machine(), "cores": str(os.cpu_count())}


def write_json(path: Path, value: Any) -> None:
    """Write atomically; NaN becomes null, since JSON has none."""
    _unfinished(path).write_text(json.dumps(_no_nan(value), indent=1, allow_nan=False) + "\n")
    os.replace(_unfinished(path), path)


def _unfinished(path: Path) -> Path:
    """Where a file is written before it is renamed; what a killed run leaves of it is written over."""
    return path.with_name(f".{path.name}.unfinished")


def _no_nan(x: Any) -> Any:
    if isinstance(x, float):
        return x if x - x == 0 else None
    if isinstance(x, Mapping):
        return {k: _no_nan(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_no_nan(v) for v in x]
    return x if isinstance(x, (str, int, bool)) or x is None else str(x)


class _Tagged:
    """An observer that is told ``tags`` with every line."""

    def __init__(self, observer: Observer, tags: Mapping[str, Any]) -> None:
        self.observer, self.tags = observer, dict(tags)

    def start(self, config: Mapping[str, Any], directory: Path, step: int) -> None:
        self.observer.start(config, directory, step)

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.observer.metrics(step, {**self.tags, **metrics})

    def finish(self, result: Mapping[str, Any]) -> None:
        self.observer.finish(result)
