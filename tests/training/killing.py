# SPDX-License-Identifier: Apache-2.0
"""Runs in processes of their own that are killed, and what is compared afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(__file__).parent / "data"
LETTERS = str(DATA / "letters.py")
LIMIT = 120.0  # seconds after which a process counts as stuck


def begin(out: Path, arguments: dict[str, Any], die_at: str = "") -> subprocess.Popen[str]:
    """run_letters.py in a process; those it starts leave their ids in a folder beside ``out``."""
    pids = out.with_name(f"{out.name}-pids")
    pids.mkdir(exist_ok=True)
    more = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PIDS": str(pids)} | ({"DIE_AT": die_at} if die_at else {})
    command = [sys.executable, str(DATA / "run_letters.py"), str(out), json.dumps(arguments)]
    return subprocess.Popen(command, env={**os.environ, **more}, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """(exit code, what it wrote to stderr)."""
    _, errors = process.communicate(timeout=LIMIT)
    return process.returncode, errors


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    until = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < until, "nothing happened"
        assert process is None or process.poll() is None, f"ended too early: {process.communicate()[1] if process else ''}"
        time.sleep(0.002)


def lines_written(out: Path) -> int:
    return sum(path.read_text().count("\n") for path in out.glob("**/metrics.jsonl"))


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def processes_of(out: Path) -> list[int]:
    return [int(p.name) for p in out.with_name(f"{out.name}-pids").iterdir()]


def untimed(x: Any) -> Any:
    """Without what depends on the clock."""
    if isinstance(x, dict):
        timed = ("seconds", "tokens_per_second")
        return {k: untimed(v) for k, v in x.items() if k not in timed and not k.startswith("time/")}
    return x


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return [untimed(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(run: Path, expected: Path) -> None:
    """Metrics, result and policies of two runs are equal but for times; each step is there once."""
    lines = metrics_of(run)
    assert lines == metrics_of(expected)
    keys = [(line["stage"] == "eval", line["step"]) for line in lines]
    assert len(set(keys)) == len(keys) > 20
    results = [untimed(json.loads((r / "result.json").read_text())) for r in (run, expected)]
    assert results[0] == results[1]
    for name in ("policy", "best"):  # numbers in full: equal texts are equal bits
        assert (run / name / "table.json").read_text() == (expected / name / "table.json").read_text()
