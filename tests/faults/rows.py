# SPDX-License-Identifier: Apache-2.0
"""Six completions, of which the third is bad, scored by a call of the reward: what becomes of the third, and of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from guerdon.errors import InputError
from guerdon.rewards import Reward, min_of, reward
from guerdon.rewards.adapters import from_trl, from_verl
from guerdon.rewards.oracle import oracle
from guerdon.scores import Scores, Status
from tests.faults.cells import LOUD, Cell
from tests.faults.data import faulty

TEXTS = ["a", "bb", "BAD", "dddd", "ccccc", "ffffff"]
ROW = 2
SEGMENTS = ["a", "bb|a", "cc|BAD|dddd", "dddd", "", "ffffff|a|b"]
HANG, FINE = 0.3, 30.0  # seconds for what never ends, and for what does
BOUNDS = (0.0, 100.0)

plain = reward(lambda completion: float(len(completion)), name="plain", bounds=BOUNDS)


def budget(cell: Cell) -> float | None:
    return None if "pool" not in cell.kind else HANG if cell.fault in ("hang", "sleep") else FINE


def unit(cell: Cell) -> Reward:
    return reward(bounds=BOUNDS, budget=budget(cell))(faulty.unit)


def batched(cell: Cell) -> Reward:
    return reward(bounds=BOUNDS, budget=budget(cell), batched=True)(faulty.batch)


def segments(cell: Cell) -> Reward:
    return reward(bounds=BOUNDS, budget=budget(cell), level="segment", split=r"\|")(faulty.segment)


BUILD: dict[str, Callable[[Cell], Reward]] = {
    "function": unit,
    "batched": batched,
    "segments": segments,
    "TRL": lambda c: from_trl(faulty.trl, bounds=BOUNDS, budget=budget(c)),
    "verl": lambda c: from_verl(faulty.verl, ground_truth="fault", bounds=BOUNDS, budget=budget(c)),
    "sum": lambda c: unit(c) + plain,
    "sum, weight 0": lambda c: 0 * unit(c) + plain,
    "condition of a gate": lambda c: plain.gate(on=unit(c), above=1.5),
    "gated": lambda c: unit(c).gate(on=plain, above=1.5),
    "min_of": lambda c: min_of(unit(c), plain),
    "product": lambda c: unit(c) * plain,
    "clipped": lambda c: unit(c).clip(0, 5),
    "pooled from segments": lambda c: segments(c).pool("sum"),
    "normalised over the group": lambda c: unit(c).normalise(),
    "otherwise": lambda c: unit(c).otherwise(2 * plain),
    "watched": lambda c: plain + unit(c).watch(),
    "oracle": lambda c: oracle(unit(c)),
}


def scored(made: Reward, cell: Cell, fault: str) -> Scores:
    texts = SEGMENTS if "segments" in cell.kind else TEXTS
    return made(completions=texts, fault=[fault] * len(texts), group=[0] * len(texts))


def play(cell: Cell) -> str:
    if cell.fault == "no such field":
        with pytest.raises(InputError, match=r"missing: reads `no_such_field`, which these rollouts do not have"):
            reward(budget=budget(cell))(faulty.missing)(completions=TEXTS)
        return "raises"
    if cell.fault == "changes a field":
        return changed(cell)
    kind = cell.kind.removesuffix(", pool")
    made = BUILD[kind](cell)
    if kind in ("function", "batched") and cell.kind == kind and LOUD.get(cell.fault) == "raises":
        with pytest.raises(type(_raised(cell.fault))):
            scored(made, cell, cell.fault)
        return "raises"
    return judged(cell, kind, scored(made, cell, cell.fault), scored(BUILD[kind](cell), cell, "fine"))


def judged(cell: Cell, kind: str, found: Scores, fine: Scores) -> str:
    """The outcome; an AssertionError where anything but the faulty unit differs from a run without the fault."""
    at = (ROW, 1) if kind == "segments" else (ROW, 0)
    status = Status(int(found.total.status[at]))
    if kind == "watched":
        assert_same(found, fine)
        assert found.trace["unit"].status[at] != Status.OK and found.trace["unit"].reasons[at]
        return "total untouched"
    if kind == "otherwise":
        assert_others(found, fine, at)
        assert (
            found.total.values[at] == 2 * plain(completions=TEXTS).total.values[at]
            and found.trace["unit"].status[at] != Status.OK
        )
        return "the other part's value"
    if status == Status.OK:
        assert_same(found, fine)
        return "ok"
    every = found.total.status != Status.NONE
    if (found.total.status[every] == Status.ERROR).all():
        assert set(found.total.reasons) == {tuple(unit) for unit in every.nonzero().tolist()}
        return "error of the call"
    assert found.total.values[at].isnan() and found.total.reasons[at], "no value, and a reason"
    if kind == "normalised over the group":
        others = [i for i in range(len(TEXTS)) if i != ROW]
        alone = unit(cell).normalise()(completions=[TEXTS[i] for i in others], fault=["fine"] * 5, group=[0] * 5)
        torch.testing.assert_close(found.total.values[others], alone.total.values, rtol=0, atol=1e-6)
    else:
        assert_others(found, fine, at)
    if kind.startswith("sum"):
        assert found.trace["plain"].values[at] == 3.0, "the sound part keeps its value"
    return status.name.lower()


def assert_same(found: Scores, fine: Scores) -> None:
    torch.testing.assert_close(found.total.values, fine.total.values, equal_nan=True, rtol=0, atol=0)
    assert torch.equal(found.total.status, fine.total.status)


def assert_others(found: Scores, fine: Scores, at: tuple[int, int]) -> None:
    """Every other unit of every part has the value and status it has without the fault: none is lost."""
    for a, b in [(found.total, fine.total), *((found.trace[name], fine.trace[name]) for name in fine.trace)]:
        other = torch.ones_like(b.status, dtype=torch.bool)
        other[at if a.level not in ("segment", "episode") else (ROW, int(a.level == "segment"))] = False
        torch.testing.assert_close(a.values[other], b.values[other], equal_nan=True, rtol=0, atol=0)
        assert torch.equal(a.status[other], b.status[other])


def changed(cell: Cell) -> str:
    """A function that empties a list it was given: the next part, and the rollouts, still have it."""
    made = reward(budget=budget(cell))(faulty.count) + reward(faulty.tags)
    lists = [["x", "y"] for _ in TEXTS]
    found = made(completions=TEXTS, tags=lists)
    assert found.trace["tags"].values[:, 0].tolist() == [2.0] * 6 and lists == [["x", "y"]] * 6
    assert found.trace["count"].values[:, 0].tolist() == [2.0, 2.0, 0.0, 2.0, 2.0, 2.0]
    return "ok"


def _raised(fault: str) -> Any:
    try:
        faulty.ACTS[fault]()
    except BaseException as error:  # noqa: BLE001 - what the fault raises is what is asked for
        return error
    raise AssertionError(f"{fault} raises nothing")
