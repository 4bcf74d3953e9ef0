# SPDX-License-Identifier: Apache-2.0
"""Kinds that are no functions of a unit: tensors of steps, comparators, judges, a reward behind HTTP, environments."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from guerdon.comparisons import Comparisons
from guerdon.errors import InputError, ShapeError
from guerdon.judges import asking, judge
from guerdon.policies.acting import Acted
from guerdon.rewards import reward
from guerdon.rewards.ranking import win_rate
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.sampling.environments import Environments
from guerdon.scores import Status
from guerdon.serving.app import Settings
from guerdon.serving.client import remote
from guerdon.serving.server import running
from tests.faults.cells import Cell
from tests.faults.data import faulty
from tests.faults.rows import BOUNDS, HANG, ROW, TEXTS, assert_others, assert_same
from tests.judges.server import Say, serving, verdicts
from tests.serving.processes import served

# ---- tensors of steps

AT = (2, 1)


def steps() -> Rollouts:
    return Rollouts(torch.arange(18.0).reshape(6, 3), torch.ones(6, 3, dtype=torch.bool), list("abcdef"))


def of_steps(fault: str) -> Any:
    @tensor_reward(level="step", bounds=BOUNDS)
    def found(rollouts: Rollouts) -> Any:
        values = rollouts.action.double().clone()
        acts: dict[str, Callable[[], Any]] = {
            "fine": lambda: values,
            "complex": lambda: values + 0j,
            "None": lambda: None,
            "text": lambda: "3.0",
            "list": values.tolist,
            "too few": lambda: values[:-1],
            "too many": lambda: torch.cat([values, values]),
            "changes a field": lambda: rollouts.action.mul_(1.0),
            "ValueError": lambda: values.reshape(-1, 5).view("no"),
        }
        if fault in acts:
            return acts[fault]()
        values[AT] = {"out of bounds": 1e6}.get(fault) or float(fault)
        return values

    return found


def tensor(cell: Cell) -> str:
    if cell.outcome == "raises":
        wanted = {"too few": ShapeError, "too many": ShapeError, "ValueError": (RuntimeError, TypeError)}.get(
            cell.fault, InputError
        )
        with pytest.raises(wanted) as caught:
            of_steps(cell.fault).score(steps())
        assert cell.fault == "ValueError" or str(caught.value).startswith("found: ")
        return "raises"
    found, fine = of_steps(cell.fault).score(steps()), of_steps("fine").score(steps())
    assert_others(found, fine, AT)
    assert found.total.values[AT].isnan()
    assert found.total.status[AT] == Status.ABSTAIN or found.total.reasons[AT]
    return Status(int(found.total.status[AT])).name.lower()


# ---- comparators


def longer(fault: str) -> Callable[[Rollouts, torch.Tensor], Comparisons]:
    def compare(rollouts: Rollouts, pairs: torch.Tensor) -> Comparisons:
        size = torch.tensor([len(t) for t in rollouts.values_at("completion", "episode")])
        target = (size[pairs[:, 0]] > size[pairs[:, 1]]).double()
        status = torch.zeros(len(pairs), dtype=torch.int8)
        lost = (pairs == ROW).any(1) if fault == "no match of a row judged" else (pairs == torch.tensor([0, 1])).all(1)
        if fault in ("no match of a row judged", "one match not judged"):
            target[lost], status[lost] = torch.nan, int(Status.ERROR)
        if fault in ("inf", "out of bounds"):
            target[0] = float("inf") if fault == "inf" else 1.5
        if fault == "ValueError":
            raise ValueError("no such thing")
        kept = (
            slice(0, -1)
            if fault == "too few"
            else torch.arange(len(pairs) - 1, -1, -1)
            if fault == "other pairs"
            else slice(None)
        )
        return Comparisons(pairs[kept, 0], pairs[kept, 1], target[kept], status=status[kept])

    return compare


def ranking(cell: Cell) -> str:
    def rated(fault: str, rows: list[int]) -> Any:
        return win_rate(longer(fault))(completions=[TEXTS[i] for i in rows], group=[0] * len(rows)).total

    every = list(range(6))
    if cell.outcome == "raises":
        with pytest.raises(ValueError, match=r"comparator: expected|probability that the first|no such thing"):
            rated(cell.fault, every)
        return "raises"
    found, fine = rated(cell.fault, every), rated("fine", every)
    if cell.fault == "one match not judged":
        assert torch.equal(found.values[2:], fine.values[2:]) and found.ok.all()
        return "ok"
    others = [i for i in every if i != ROW]
    assert torch.equal(found.values[others], rated("fine", others).values)
    assert found.reasons[ROW, 0] == "none of its matches could be judged"
    return Status(int(found.status[ROW, 0])).name.lower()


# ---- judges


def judging(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.001)
    together = 6 if cell.fault in ("too few", "other order", "cut off") else 1

    def grades(items: list[dict], fault: str) -> Say | str:
        bad = items[0]["answer"] == "BAD"
        said = verdicts(items, score=lambda x: 10 if fault == "fine" else min(len(x["answer"]) + 1, 10))
        if fault == "too few":
            kept = [v for v in json.loads(said)["verdicts"] if next(x for x in items if x["id"] == v["id"])["answer"] != "BAD"]
            return json.dumps({"verdicts": kept})
        if fault == "other order":
            return json.dumps({"verdicts": json.loads(said)["verdicts"][::-1]})
        if fault == "cut off":
            return Say(said[: said.index('"score": 5')], finish="length")
        acts = {"hang": Say(said, delay=3 * HANG), "text": "Well, it is good.", "answers 500": Say("", code=500)}
        acts["out of bounds"] = verdicts(items, score=lambda x: 99)
        return acts[fault] if bad and fault in acts else said

    def asked(fault: str) -> Any:
        # BAD last where one request has all, so that what is cut off is what comes last
        texts = [t for t in TEXTS if t != "BAD"] + ["BAD"] if fault == "cut off" or cell.fault == "cut off" else TEXTS
        with serving(lambda items, _: grades(items, fault)) as server:
            made = judge(server.url, together=together, timeout=HANG if fault == "hang" else 20.0, attempts=1)
            return made(completions=texts, group=[0] * 6)

    found, fine = asked(cell.fault), asked("nothing wrong")
    if cell.fault == "other order":
        assert_same(found, fine)
        return "ok"
    if cell.fault == "cut off":
        return cut_off(found, fine)
    assert_others(found, fine, (ROW, 0))
    assert found.total.values[ROW, 0].isnan() and found.total.reasons[ROW, 0]
    return Status(int(found.total.status[ROW, 0])).name.lower()


def cut_off(found: Any, fine: Any) -> str:
    """Verdicts before the cut count; answers without one abstain, with a reason."""
    lost = ~found.total.ok[:, 0]
    assert 0 < lost.sum() < 6 and torch.equal(found.total.values[~lost], fine.total.values[~lost])
    assert all(found.total.reasons[n, 0] for n in lost.nonzero()[:, 0].tolist())
    assert (found.total.status[lost] == Status.ABSTAIN).all()
    return "abstain"


# ---- behind HTTP


def serving_it(cell: Cell) -> str:
    if cell.fault == "dies in a batch":
        with served("traps") as (url, process):
            there: Any = remote(url, batch=1)
            there.function.attempts, there.function.concurrency = 1, 1
            found = there(completions=["before", "kill the server", "after"])
            process.wait(30)
        assert found.total.values[0, 0] == 4.0, "what was scored before it died is kept"
        assert found.total.values[1:].isnan().all() and found.total.reasons.keys() >= {(1, 0), (2, 0)}
        return Status(int(found.total.status[1, 0])).name.lower()
    made = reward(bounds=BOUNDS)(faulty.unit)
    settings = Settings(budget=HANG if cell.fault == "hang" else 20.0)
    with running(made, settings) as url:
        there = remote(url)
        found, fine = (there(completions=TEXTS, fault=[f] * 6) for f in (cell.fault, "fine"))
    assert_others(found, fine, (ROW, 0))
    assert found.total.values[ROW, 0].isnan() and found.total.reasons[ROW, 0]
    return Status(int(found.total.status[ROW, 0])).name.lower()


# ---- environments

BROKEN, WHEN = 1, 3


class Line(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    made = 0

    def __init__(self, fault: str) -> None:
        self.fault = fault if type(self).made == BROKEN else "fine"
        type(self).made += 1
        self.at = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.at = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.at += 1
        seen, paid = np.full(2, self.at, np.float32), float(self.at)
        if self.at != WHEN or self.fault == "fine":
            return seen, paid, False, self.at == 5, {}
        self.fault, fault = "fine", self.fault
        if fault == "too few":
            return seen, paid
        if fault.startswith("observation"):
            wrong = np.full(2, np.nan, np.float32) if "nan" in fault else np.zeros(3, np.float32)
            return wrong, paid, False, False, {}
        return seen, faulty.ACTS[fault](), False, False, {}


class Still:
    """Does nothing, certainly."""

    def noise(self, generator: Any, steps: int) -> np.ndarray:
        return np.zeros((steps, 1))

    def act(self, observation: np.ndarray, noise: np.ndarray, greedy: bool = False) -> Acted:
        return Acted(np.zeros(len(observation), np.int64), np.zeros(len(observation), np.float32))


def environment(cell: Cell) -> str:
    def sampled(fault: str) -> Any:
        Line.made = 0
        return Environments(lambda: Line(fault), 3, 6, max_failed=0.5).batch(0, Still(), 0).rollouts  # type: ignore[arg-type]

    if cell.outcome == "raises":
        with pytest.raises(KeyboardInterrupt):
            sampled(cell.fault)
        return "raises"
    found, fine = sampled(cell.fault), sampled("fine")
    others = [i for i in range(3) if i != BROKEN]
    for name in fine.fields:
        a, b = found.rows(others).fields[name].values, fine.rows(others).fields[name].values
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert not found.mask[BROKEN, WHEN - 1] and found.truncated[BROKEN, WHEN - 2]
    assert found.field("failure").values[BROKEN].startswith(f"step {WHEN - 1}: ")
    assert torch.equal(found.field("environment_reward").values[BROKEN, : WHEN - 1], torch.tensor([1.0, 2.0]))
    return "its episode is cut"
