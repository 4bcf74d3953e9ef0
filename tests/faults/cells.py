# SPDX-License-Identifier: Apache-2.0
"""The grid: a fault, in a kind of reward, at a place, and what has to become of it."""

from __future__ import annotations

from dataclasses import dataclass

SINGLE = {
    "nan": "error",
    "inf": "error",
    "-inf": "error",
    "too large an integer": "error",
    "out of bounds": "error",
    "None": "abstain",
    "text": "error",
    "list": "error",
    "dict": "error",
    "complex": "error",
    "object": "error",
    "float() raises": "error",
    "repr() raises": "error",
    "generator": "error",
    "wrong key": "error",
    "ValueError": "error",
    "odd exception": "error",
    "StopIteration": "error",
    "AssertionError": "error",
    "MemoryError": "error",
    "RecursionError": "error",
    "TimeoutError": "error",
}
"""What a unit's call may do without harm to its process, and the status of that unit."""

LOUD = {"SystemExit": "error", "KeyboardInterrupt": "raises", "CancelledError": "raises", "BaseException": "raises"}
"""What is no Exception: in this process it goes up to whoever called, but for SystemExit, which would end a run in silence."""

DEADLY = {
    "hang": "timeout",
    "sleep": "timeout",
    "os._exit(0)": "error",
    "SIGKILL": "error",
    "segfault": "error",
    "abort": "error",
    "prints": "ok",
    **dict.fromkeys(LOUD, "error"),
}
"""What harms the process: for the pool alone."""

CALLS = {
    "too few": "error of the call",
    "too many": "error of the call",
    "none at all": "error of the call",
    "one number": "error",
    "None for all": "error",
    "text for all": "error of the call",
    "dict for all": "error of the call",
    "set for all": "error of the call",
    "a generator": "ok",
    "a generator that raises": "error",
    "empties its arguments": "ok",
}
"""What a batched call may return as a whole. A wrong number says nothing of any item, so all of the call are lost."""

BRIEF = ("nan", "inf", "None", "text", "complex", "ValueError", "out of bounds", "RecursionError")
"""Faults of a part, for the nodes that read it."""

TYPED = ("nan", "inf", "None", "text", "complex", "ValueError", "RecursionError", *(f for f in DEADLY if f != "prints"))
LISTED = ("too few", "ValueError", "hang", "SIGKILL")
"""Faults of rewards that the command line is given."""


@dataclass(frozen=True, order=True)
class Cell:
    """``outcome``: the status of the faulty unit, "ok", or in words what happens."""

    place: str
    kind: str
    fault: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.place}-{self.kind}-{self.fault}".replace(" ", "_")


def _cells(place: str, kind: str, faults: dict[str, str]) -> list[Cell]:
    return [Cell(place, kind, fault, outcome) for fault, outcome in faults.items()]


def _part(kind: str, outcome: str = "", faults: tuple[str, ...] = BRIEF) -> list[Cell]:
    return _cells("call", kind, {f: outcome or SINGLE[f] for f in faults})


CELLS: list[Cell] = [
    *_cells("call", "function", SINGLE | LOUD | {"no such field": "raises", "changes a field": "ok"}),
    *_cells("call", "function, pool", SINGLE | DEADLY | {"no such field": "raises", "changes a field": "ok"}),
    *_cells("call", "batched", SINGLE | LOUD | CALLS),
    *_cells("call", "batched, pool", SINGLE | DEADLY | CALLS),
    *_cells("call", "segments", SINGLE),
    *_cells("call", "segments, pool", {f: DEADLY[f] for f in ("hang", "SIGKILL", "segfault", "SystemExit")}),
    *_cells("call", "TRL", SINGLE | {"SystemExit": "error"} | {k: v for k, v in CALLS.items() if k != "empties its arguments"}),
    *_cells("call", "TRL, pool", {"hang": "timeout", "SIGKILL": "error", "too few": "error of the call", "ValueError": "error"}),
    *_cells("call", "verl", SINGLE | {"SystemExit": "error", "no score": "error"}),
    *_cells("call", "verl, pool", {"hang": "timeout", "SIGKILL": "error", "ValueError": "error", "None": "abstain"}),
    *_cells(
        "call",
        "tensor of steps",
        {
            "nan": "abstain",
            "inf": "error",
            "-inf": "error",
            "out of bounds": "error",
            "complex": "raises",
            "None": "raises",
            "text": "raises",
            "list": "raises",
            "ValueError": "raises",
            "too few": "raises",
            "too many": "raises",
            "changes a field": "raises",
        },
    ),
    *_part("sum"),
    *_part("sum, weight 0"),
    *_part("condition of a gate"),
    *_part("gated"),
    *_part("min_of"),
    *_part("product"),
    *_part("clipped"),
    *_part("pooled from segments"),
    *_part("normalised over the group"),
    *_part("otherwise", "the other part's value"),
    *_part("watched", "total untouched"),
    *_part("oracle"),
    *_cells("call", "sum, pool", {"hang": "timeout", "SIGKILL": "error"}),
    *_cells("call", "otherwise, pool", {"hang": "the other part's value", "SIGKILL": "the other part's value"}),
    *_cells("call", "watched, pool", {"hang": "total untouched", "SIGKILL": "total untouched"}),
    *_cells(
        "call",
        "win rate",
        {
            "one match not judged": "ok",
            "no match of a row judged": "error",
            "too few": "raises",
            "inf": "raises",
            "out of bounds": "raises",
            "ValueError": "raises",
            "other pairs": "raises",
        },
    ),
    *_cells(
        "call",
        "judge",
        {
            "hang": "timeout",
            "text": "abstain",
            "out of bounds": "abstain",
            "answers 500": "error",
            "too few": "abstain",
            "other order": "ok",
            "cut off": "abstain",
        },
    ),
    *_cells("call", "served", {"ValueError": "error", "nan": "error", "None": "abstain", "hang": "timeout"}),
    *_cells("call", "served", {"dies in a batch": "error"}),
    *_cells("guerdon score", "function, pool", {f: (SINGLE | DEADLY)[f] for f in TYPED}),
    *_cells("guerdon score", "batched, pool", {f: (DEADLY | CALLS | SINGLE)[f] for f in LISTED}),
    *_cells("guerdon score", "function", {"no such field": "exit 2"}),
    *_cells("training", "function", {f: SINGLE[f] for f in BRIEF} | {"SystemExit": "error"}),
    *_cells("training", "function, pool", {"hang": "timeout", "SIGKILL": "error", "ValueError": "error"}),
    *_cells("training", "watched", dict.fromkeys(BRIEF, "total untouched")),
    *_cells("training", "otherwise", dict.fromkeys(BRIEF, "the other part's value")),
    *_cells("training, many fail", "function", {f: "RewardFailure" if f != "None" else "abstain" for f in BRIEF}),
    *_cells("training, many fail", "watched", dict.fromkeys(("nan", "ValueError"), "total untouched")),
    *_cells("training, many fail", "function, pool", {"hang": "RewardFailure", "SIGKILL": "RewardFailure"}),
    *_cells("evaluation", "function", dict.fromkeys(BRIEF, "not_ok")),
    *_cells("evaluation", "function, pool", {"hang": "not_ok", "SIGKILL": "not_ok"}),
    *_cells("resume", "function", dict.fromkeys(("nan", "None", "ValueError", "text"), "the same run")),
    *_cells("resume", "function, pool", {"SIGKILL": "the same run"}),
    *_cells(
        "environment",
        "step",
        {
            "ValueError": "its episode is cut",
            "SystemExit": "its episode is cut",
            "KeyboardInterrupt": "raises",
            "nan": "its episode is cut",
            "inf": "its episode is cut",
            "None": "its episode is cut",
            "text": "its episode is cut",
            "complex": "its episode is cut",
            "list": "its episode is cut",
            "observation of nan": "its episode is cut",
            "observation of another shape": "its episode is cut",
            "too few": "its episode is cut",
        },
    ),
]  # fmt: skip
