# SPDX-License-Identifier: Apache-2.0
"""Runs in processes of their own that die at a chosen moment or are killed from outside, and what is compared afterwards."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from guerdon.errors import GuerdonError
from guerdon.recipes import make
from guerdon.training.observers import Jsonl
from guerdon.training.run import run
from tests.training.table import Table

LETTERS = str(Path(__file__).parent / "data" / "letters.py")
LIMIT = 120.0  # seconds after which a process counts as stuck


# ---- in the process


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at(moment: str, step: int) -> None:
    replace, remove, write, save = os.replace, shutil.rmtree, Jsonl.metrics, Table.save

    def before_the_rename(source: Any, target: Any) -> None:
        if Path(target).name == f"step-{step:06d}":
            die()
        replace(source, target)

    def while_removing(path: Any, *rest: Any, **more: Any) -> None:
        if Path(path).name == f"step-{step:06d}":
            next(Path(path).iterdir()).unlink()
            die()
        remove(path, *rest, **more)

    def after_the_line(self: Jsonl, at: int, metrics: Mapping[str, Any]) -> None:
        write(self, at, metrics)
        if at == step:
            die()

    def in_the_line(self: Jsonl, at: int, metrics: Mapping[str, Any]) -> None:
        write(self, at, metrics)
        if at == step and self._path is not None:
            os.truncate(self._path, self._path.stat().st_size - 40)
            die()

    def in_the_policy(self: Table, path: Path) -> None:
        save(self, path)
        if Path(path).name == "best":
            os.truncate(Path(path) / "table.json", 20)
            die()

    if moment == "renaming":
        os.replace = before_the_rename  # type: ignore[assignment]
    elif moment == "removing":
        shutil.rmtree = while_removing  # type: ignore[assignment]
    elif moment == "line":
        Jsonl.metrics = after_the_line  # type: ignore[method-assign]
    elif moment == "half a line":
        Jsonl.metrics = in_the_line  # type: ignore[method-assign]
    elif moment == "saving the best":
        Table.save = in_the_policy  # type: ignore[method-assign]


def register(folder: str) -> None:
    """Called by the recipe where it is made: the process leaves its id, and prepares to die if it is told to."""
    if folder:
        (Path(folder) / str(os.getpid())).touch()
        when, _, at = (Path(folder) / "die-at").read_text().partition(":")
        if when:
            dies_at(when, int(at))


def _run(out: Path, arguments: dict[str, Any]) -> None:
    try:
        run(make, LETTERS, arguments, out)
    except GuerdonError as e:
        error_of(out).write_text(f"{type(e).__name__}: {e}")


# ---- outside


def told(out: Path, arguments: dict[str, Any], die_at: str = "") -> dict[str, Any]:
    """The arguments with a folder where each process of the run leaves its id, and reads when to die."""
    pids_of(out).mkdir(exist_ok=True)
    (pids_of(out) / "die-at").write_text(die_at)
    return {**arguments, "pids": str(pids_of(out))}


def begin(out: Path, arguments: dict[str, Any], die_at: str = "") -> BaseProcess:
    """letters.py in a process, begun by a server that has imported torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["guerdon.training.run", __name__])
    process = context.Process(target=_run, args=(out, told(out, arguments, die_at)))
    process.start()
    return process


def pids_of(out: Path) -> Path:
    return out.with_name(f"{out.name}-pids")


def error_of(out: Path) -> Path:
    return out.with_name(f"{out.name}-error")


def ended(process: BaseProcess) -> int | None:
    """Its exit code."""
    process.join(LIMIT)
    return process.exitcode


def wait_for(happened: Callable[[], bool], process: BaseProcess | None = None) -> None:
    until = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < until, "nothing happened"
        assert process is None or process.is_alive(), "ended too early"
        time.sleep(0.01)


def lines_written(out: Path) -> int:
    files = [out / "metrics.jsonl", *out.glob("*/metrics.jsonl")]  # not those below, which come and go
    return sum(path.read_text().count("\n") for path in files if path.exists())


def left_running(out: Path) -> list[int]:
    """Those of its processes that still run; one that nobody has waited for is dead all the same."""
    pids = [p.name for p in pids_of(out).iterdir() if p.name.isdigit()]
    shown = subprocess.run(["ps", "-o", "pid=,stat=", "-p", ",".join(pids)], capture_output=True, text=True).stdout
    return [int(pid) for pid, state in map(str.split, shown.splitlines()) if not state.startswith("Z")]


def untimed(x: dict[str, Any]) -> dict[str, Any]:
    """Without what depends on the clock."""
    return {k: v for k, v in x.items() if k not in ("seconds", "tokens_per_second") and not k.startswith("time/")}


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return [untimed(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(run: Path, expected: Path) -> None:
    """Metrics, result and policies of two runs are equal but for times; each step is there once."""
    lines = metrics_of(run)
    assert lines == metrics_of(expected)
    keys = [(line["stage"] == "eval", line["step"]) for line in lines]
    assert len(set(keys)) == len(keys) >= 20
    results = [untimed(json.loads((r / "result.json").read_text())) for r in (run, expected)]
    assert results[0] == results[1]
    for name in ("policy", "best"):  # numbers in full: equal texts are equal bits
        assert (run / name / "table.json").read_text() == (expected / name / "table.json").read_text()
