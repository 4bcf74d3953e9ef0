# SPDX-License-Identifier: Apache-2.0
"""Reads run directories: configuration, metrics, results and the paths of saved rollouts, without judging any of it.

A directory is a study (one sub-directory per arm and seed), a directory whose metrics name several arms, or a single run.
All three become a `Run` of `Arm`s of `Seed`s; a run without arms is one arm with an empty name.

What the report shows where it finds it, all optional, in `config.json` or in its `about`: `task` (a sentence or two), `title`,
`notes` (sentences), `example` ({"prompt", "completion"}), `reward`, `reward_tree` and `sees` (what a learner is told; a study may
write it as `arms`), each a text or a text per arm; `command`, `arguments`, `versions`, `grid`, `chosen`, and `lengths`, the
points of a study over chain lengths, in `result.json` too, where it may be the path of a JSON file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guerdon.errors import InputError
from guerdon.training.study import START

Points = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Seed:
    """One training run: its lines of metrics, in order of step, each step once; ``lines`` has the keys train and eval."""

    seed: int
    directory: Path
    config: Mapping[str, Any]
    lines: Mapping[str, list[Mapping[str, Any]]]

    def points(self, stage: str, x: str, y: str) -> Points:
        """(x, y) of every line of a stage that has both as finite numbers."""
        pairs = [(line[x], line[y]) for line in self.lines.get(stage, ()) if is_number(line.get(x)) and is_number(line.get(y))]
        return [float(a) for a, _ in pairs], [float(b) for _, b in pairs]

    def last(self, stage: str, key: str) -> float | None:
        """The last finite value of a key."""
        found = [line[key] for line in self.lines.get(stage, ()) if is_number(line.get(key))]
        return float(found[-1]) if found else None


@dataclass(frozen=True)
class Arm:
    name: str
    seeds: tuple[Seed, ...]
    texts: Mapping[str, str]
    result: Mapping[str, Any]

    def keys(self, stage: str) -> list[str]:
        """Every metric key of a stage, in the order of first appearance."""
        return list(dict.fromkeys(key for seed in self.seeds for line in seed.lines.get(stage, ()) for key in line))


@dataclass(frozen=True)
class Run:
    name: str
    directory: Path
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    arms: tuple[Arm, ...]
    notes: tuple[str, ...] = field(default=())


def is_number(x: object) -> bool:
    """A finite int or float; True and False are not numbers here.

    >>> is_number(1.5), is_number(float("nan")), is_number(None), is_number(True)
    (True, False, False, False)
    """
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


def read_run(directory: Path) -> Run:
    """The run or study in ``directory``, but for the start its arms share; InputError where there are no metrics to show."""
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(
            f"report: `{directory}` should be a run directory, got {'a file' if directory.exists() else 'nothing there'}. "
            "Usual cause: the name of another run, or another working directory."
        )
    notes: list[str] = []
    inner = sorted(path.parent for path in directory.glob("*/metrics.jsonl"))
    seeds = [part for path in inner or [directory] for part in _seeds(path, notes) if part[0] != START]
    if not any(lines for _, seed in seeds for lines in seed.lines.values()):
        raise InputError(
            f"report: `{directory}` should hold metrics.jsonl, itself or in sub-directories ARM-sSEED; found no line of metrics. "
            "Usual cause: a run that ended before its first step, or the parent of the run directory."
        )
    config, result = read_config(directory, notes), read_json(directory / "result.json", notes)
    by_arm: dict[str, list[Seed]] = {}
    for name, seed in seeds:
        by_arm.setdefault(name, []).append(seed)
    stored = result.get("arms", {})
    order = [name for name in stored if name in by_arm] + [name for name in by_arm if name not in stored]
    arms = tuple(_arm(name, sorted(by_arm[name], key=lambda s: s.seed), config, result) for name in order)
    missing = [name for name in stored if name not in by_arm]
    if missing:
        notes.append(f"result.json names {', '.join(missing)}, for which there are no metrics.")
    return Run(directory.resolve().name, directory, config, result, arms, tuple(notes))


def read_config(directory: Path, notes: list[str]) -> dict[str, Any]:
    """config.json with what is in its ``about`` beside the rest."""
    config = read_json(directory / "config.json", notes)
    about = config.pop("about", {})
    return {**about, **config} if isinstance(about, dict) else config


def read_json(path: Path, notes: list[str]) -> dict[str, Any]:
    """The object in a JSON file; {} and a note where there is no such file."""
    if not path.exists():
        notes.append(f"{path.name} is missing in {path.parent.name}.")
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"report: `{path}` should be one JSON object, line {error.lineno} is not JSON: {error.msg}. "
            "Usual cause: a file edited by hand or cut by a full disk."
        ) from error
    if not isinstance(found, dict):
        got = type(found).__name__
        raise InputError(f"report: `{path}` should be one JSON object, got {got}. Usual cause: another tool's file.")
    return found


def read_lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl; a last line without its newline belongs to a run that was cut off and is left out."""
    *whole, rest = path.read_text(encoding="utf-8").split("\n")
    if rest:
        notes.append(f"The last line of {path.parent.name}/{path.name} is cut off and left out.")
    lines = []
    for number, text in enumerate(whole, 1):
        try:
            line = json.loads(text) if text.strip() else {}
        except json.JSONDecodeError as error:
            raise InputError(
                f"report: line {number} of `{path}` should be one JSON object, got {text[:60]!r}. "
                "Usual cause: two processes wrote to one file."
            ) from error
        if line:
            lines.append(line)
    return lines


def _seeds(directory: Path, notes: list[str]) -> list[tuple[str, Seed]]:
    path = directory / "metrics.jsonl"
    if not path.exists():
        return []
    config = read_config(directory, [])
    named = re.fullmatch(r"(.+)-s(\d+)", directory.name)
    arm_of, seed_of = (named[1], int(named[2])) if named else ("", 0)
    groups: dict[tuple[str, int], dict[str, dict[Any, dict[str, Any]]]] = {}
    for line in read_lines(path, notes):
        key = (str(line.get("arm", config.get("arm", arm_of)) or ""), int(line.get("seed", config.get("seed", seed_of)) or 0))
        stage = groups.setdefault(key, {}).setdefault("eval" if line.get("stage") == "eval" else "train", {})
        stage[line.get("step")] = line  # a resumed run may have written a step twice: the later line stands
    return [
        (arm, Seed(seed, directory, config, {stage: _in_order(steps.values()) for stage, steps in stages.items()}))
        for (arm, seed), stages in groups.items()
    ]


def _in_order(lines: Iterable[dict[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(lines, key=lambda line: line.get("step", 0))


def _arm(name: str, seeds: list[Seed], config: Mapping[str, Any], result: Mapping[str, Any]) -> Arm:
    places = (config, seeds[0].config)
    texts = {key: _text_of(name, key, places) for key in ("reward", "reward_tree", "sees")}
    texts["sees"] = texts["sees"] or _text_of(name, "arms", places)
    return Arm(name, tuple(seeds), texts, result.get("arms", {}).get(name, {} if name else result))


def _text_of(arm: str, key: str, places: Iterable[Mapping[str, Any]]) -> str:
    """A text, or the arm's own of a text per arm; empty if there is none."""
    for place in places:
        found = place.get(key)
        found = found.get(arm) if isinstance(found, Mapping) else found
        if isinstance(found, str):
            return found
    return ""
