# SPDX-License-Identifier: Apache-2.0
"""Reward programs: Python text that nobody vouches for, as a language model writes it, run in the sandbox.

    def reward(obs, action, next_obs):
        upright = 1 - abs(next_obs["angle"])
        return upright - 0.1 * abs(action), {"upright": upright}

``obs`` and ``next_obs`` are dicts of named parts of the observation: floats, and numpy arrays where a part has several numbers.
It returns a number, or a number and a dict of named terms. The program is run anew for each episode and its function called for
the steps in order, so what it keeps in its module's names lasts for one episode. ``random`` and ``numpy.random`` start the same
in each.

A step at which it raises is an ERROR with the line, and the next step is tried; one that takes too long is a TIMEOUT; after a
hang or the end of its process, the rest of that episode is an ERROR that says so, and the other episodes are untouched.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.errors import ExpressionError, InputError
from guerdon.rewards import worker
from guerdon.rewards.aligning import taken
from guerdon.rewards.node import Reward
from guerdon.rollouts import Rollouts
from guerdon.sandbox import Episodes, Fate, Outcome, shared_box
from guerdon.scores import Bounds, Component, Status

Place = int | tuple[int, int]
"""Where a part of an observation is: its index, or the first and one past the last."""

_OUTPUT = 1 << 20, 4096  # bytes of answers: for one process, and for each step more


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ProgramReward(Reward):
    """A reward program; see ``program``."""

    source: str
    observations: tuple[tuple[str, Place], ...]
    seconds: float
    memory: int
    written: str

    def expression(self) -> str:
        return self.written

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        rows, steps, counts = _episodes(rollouts)
        box = shared_box(("numpy",))
        job = Episodes(self.source, self._columns(rollouts, rows, steps), counts, max(1, math.ceil(len(counts) / box.size)))
        output = _OUTPUT[0] + _OUTPUT[1] * len(rows)
        (outcomes,) = box.evaluate([job], seconds=self.seconds, memory=self.memory, output=output)
        return self._scored(rollouts, list(zip(rows.tolist(), steps.tolist(), strict=True)), outcomes)

    def _columns(self, rollouts: Rollouts, rows: Tensor, steps: Tensor) -> dict[tuple[str, str], np.ndarray]:
        columns = {("action", ""): rollouts.action[rows, steps].cpu().numpy()}
        for argument, name in (("obs", "observation"), ("next_obs", "next_observation")):
            values = rollouts.field(name).values
            if not isinstance(values, Tensor) or values.dim() < 2 or rollouts.field(name).level != "step":
                raise InputError(f"{self.name}: the field `{name}` should be a tensor with one observation a step.")
            taken_ones = values[rows, steps].cpu().numpy()
            for part, place in self.observations:
                columns[argument, part] = self._part(taken_ones, part, place, name)
        return columns

    def _part(self, values: np.ndarray, part: str, place: Place, name: str) -> np.ndarray:
        if place == WHOLE:
            return values
        last = place if isinstance(place, int) else place[1] - 1
        if values.ndim != 2 or last >= values.shape[1]:
            shape = list(values.shape[1:])
            raise InputError(f"{self.name}: `{part}` should be number {last} of `{name}`, which has the shape {shape} a step.")
        return values[:, place] if isinstance(place, int) else values[:, place[0] : place[1]]

    def _scored(self, rollouts: Rollouts, at: Sequence[tuple[int, int]], outcomes: Sequence[Outcome]) -> Component:
        dtype = torch.get_default_dtype() if rollouts.log_prob is None else rollouts.log_prob.dtype
        values = torch.full(rollouts.mask.shape, math.nan, dtype=dtype)
        status = torch.full(rollouts.mask.shape, int(Status.NONE), dtype=torch.int8)
        judged = [_judged(o) for o in outcomes]
        if at:
            n, t = torch.tensor(at).unbind(1)
            values[n, t] = torch.tensor([j[1] for j in judged], dtype=dtype)
            status[n, t] = torch.tensor([j[0] for j in judged], dtype=torch.int8)
        reasons = {unit: j[2] for unit, j in zip(at, judged, strict=True) if j[2]}
        device = rollouts.action.device
        return Component(
            self.name, "step", values.to(device), status.to(device), reasons, self.bounds, self.spread, version=self.version
        )


WHOLE = (0, 0)
"""The place of an observation that is not taken apart."""


def _episodes(rollouts: Rollouts) -> tuple[Tensor, Tensor, list[int]]:
    """(row, step) of every step that the policy took, episode by episode, and how many each episode has."""
    rows, steps = taken(rollouts, "step").cpu().nonzero().unbind(1)
    if not len(rows):
        return rows, steps, []
    episode = rollouts.level("episode").cpu()[rows, steps]
    new = torch.ones(len(rows), dtype=torch.bool)
    new[1:] = (rows[1:] != rows[:-1]) | (episode[1:] != episode[:-1])
    first = [*new.nonzero()[:, 0].tolist(), len(rows)]
    return rows, steps, [b - a for a, b in pairwise(first)]


def _judged(outcome: Outcome) -> worker.Judgement:
    """(status, value, reason) of what came of one step; terms are the reason of a step that is ok."""
    if outcome.fate is not Fate.OK:
        status = Status.TIMEOUT if outcome.fate is Fate.TIMEOUT else Status.ERROR
        return int(status), math.nan, outcome.reason
    result = outcome.value
    if not (isinstance(result, tuple | list) and len(result) == 2 and isinstance(result[1], dict)):
        return worker.judge(result)
    number, terms = result
    code, value, why = worker.judge(number)
    if code != worker.OK:
        return code, value, why
    for name, term in terms.items():
        if worker.judge(term)[0] != worker.OK or not isinstance(name, str):
            return worker.ERROR, math.nan, f"the term {name!r:.40} is {term!r:.40}, expected a finite number with a name"
    return code, value, json.dumps({"terms": {name: float(x) for name, x in terms.items()}})


def program(
    source: str, *, observations: Mapping[str, Place] | None = None, seconds: float = 0.5, memory: int = 512
) -> ProgramReward:
    """The reward of each step by a program that defines ``reward(obs, action, next_obs)``, run in the sandbox (Linux).

    - source: its text, or the path of a .py file with it.
    - observations: name -> index, or (first, one past the last), in the fields ``observation`` and ``next_observation``. None:
      one part, ``observation``, with all of it.
    - seconds, memory: wall time that one step may take, and MiB for the process.
    """
    text = Path(source).read_text(encoding="utf-8") if source.endswith(".py") and "\n" not in source else source
    if not text.strip():
        raise ExpressionError("program: `source` should be the text of a program or the path of a .py file, got nothing.")
    if not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
        raise ExpressionError(f"program: `seconds` should be a number above 0, got {seconds!r}.")
    places = {"observation": WHOLE} if observations is None else dict(observations)
    if observations is not None and (wrong := [name for name, place in places.items() if not _is_place(place)]):
        raise ExpressionError(
            "program: `observations` should give an index or (first, one past the last) for each name, "
            f"got {places[wrong[0]]!r} for {wrong[0]!r}."
        )
    given: list[tuple[str, Any, Any]] = [("observations", None if observations is None else places, None)]
    given += [("seconds", seconds, 0.5), ("memory", memory, 512)]
    said = [repr(source), *(f"{name}={value!r}" for name, value, default in given if value != default)]
    version = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return ProgramReward(
        name="program",
        level="step",
        needs=frozenset({"observation", "next_observation"}),
        bounds=Bounds(),
        causal=True,
        version=version,
        identity=version,
        source=text,
        observations=tuple(places.items()),
        seconds=seconds,
        memory=memory,
        written=f"program({', '.join(said)})",
    )


def _is_place(place: Any) -> bool:
    if isinstance(place, bool):
        return False
    if isinstance(place, int):
        return place >= 0
    return (
        isinstance(place, tuple | list)
        and len(place) == 2
        and all(isinstance(x, int) and not isinstance(x, bool) for x in place)
        and 0 <= place[0] < place[1]
    )


def terms(component: Component) -> dict[str, Tensor]:
    """name -> [N, T] of the named terms that a program returned, NaN where it returned none of that name."""
    found: dict[str, Tensor] = {}
    for (n, t), reason in component.reasons.items():
        if component.ok[n, t]:
            for name, value in json.loads(reason)["terms"].items():
                found.setdefault(name, torch.full_like(component.values, math.nan))[n, t] = value
    return found
