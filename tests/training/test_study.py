# SPDX-License-Identifier: Apache-2.0
"""Studies: live metrics, how much there is to do, and whose error it was; no process is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from guerdon.cli.run import run as run_command
from guerdon.errors import GuerdonError, InputError
from guerdon.recipes import make
from guerdon.training import workers
from guerdon.training.run import run
from guerdon.training.study import START, _plan
from guerdon.training.workers import cores, run_jobs
from tests.training.dying import LETTERS

MANY = {"kind": "study", "steps": 12, "seeds": [0]}


class Record:
    """Keeps what it is told; at a line of the arm ``at``, does ``then``."""

    def __init__(self, at: str = "", then: Any = None) -> None:
        self.config: dict[str, Any] = {}
        self.lines: list[dict[str, Any]] = []
        self.finished = 0
        self.at, self.then = at, then

    def start(self, config: Mapping[str, Any], directory: Path, step: int) -> None:
        self.config = dict(config)

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.lines.append(dict(metrics))
        if metrics["arm"] == self.at:
            self.then()

    def finish(self, result: Mapping[str, Any]) -> None:
        self.finished += 1


def children() -> list[Any]:
    return multiprocessing.active_children()


def test_an_error_of_a_run_reaches_the_caller_with_its_arm_and_seed_and_the_finished_stay(tmp_path: Path) -> None:
    told = Record()
    with pytest.raises(InputError, match=r"^begins, seed 0: letters: expected a letter, got none\.$"):
        run(make, LETTERS, {**MANY, "nap": 0.02, "breaks": "begins:input"}, tmp_path, [told])
    assert children() == [] and told.finished == 0
    assert (tmp_path / "start-s0" / "result.json").exists() and not (tmp_path / "begins-s0" / "result.json").exists()
    assert told.config["runs"] == 2 and told.config["total_steps"] == 12 and told.config["about"] == {"title": "letters"}
    steps = [line["step"] for line in told.lines if line["arm"] == "start" and line["stage"] == "warm"]
    assert steps == [1, 2, 3] and {line["seed"] for line in told.lines} == {0}


def test_ctrl_c_ends_the_workers_and_the_study_goes_on_later(tmp_path: Path) -> None:
    interrupted = Record("mostly", lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(make, LETTERS, {**MANY, "nap": 0.01}, tmp_path, [interrupted])
    assert children() == [] and interrupted.lines[-1]["arm"] == "mostly"
    assert (tmp_path / "start-s0" / "result.json").exists()  # lines are forwarded while the runs go on
    again = Record()
    result = run(make, LETTERS, {**MANY, "nap": 0.01}, tmp_path, [again])
    assert again.finished == 1 and result["verdict"].keys() == {"mostly", "begins"}
    assert "start" not in {line["arm"] for line in again.lines}
    assert [line["step"] for line in again.lines if line["arm"] == "begins" and line["stage"] == "train"][-1] == 12


def test_a_bug_of_a_recipe_names_the_run_and_carries_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(
        GuerdonError, match=r"^mostly, seed 0: expected the run to finish, got KeyError: 'a bug of the recipe'"
    ) as caught:
        run(make, LETTERS, {**MANY, "breaks": "mostly:bug"}, tmp_path)
    assert children() == [] and "letters.py" in caught.value.__notes__[0]


# ---- jobs in processes


def work(job: str, tell: Any) -> None:
    """A job that says when it begins and ends."""
    tell((job, "begins", os.getpid()))
    time.sleep(0.3 if job in "bcd" else 0.02)
    if job == "fails":
        raise InputError("work: expected another job.")
    tell((job, "ends", os.getpid()))


def test_jobs_wait_until_they_are_ready_and_share_processes() -> None:
    told: list[tuple[str, str, int]] = []

    def ready(job: str) -> bool:
        return job == "first" or ("first", "ends") in [t[:2] for t in told]

    run_jobs(["b", "first", "c", "d"], work, ready, told.append, most=2)
    assert [t[:2] for t in told[:2]] == [("first", "begins"), ("first", "ends")]
    assert sorted(t[0] for t in told if t[1] == "ends") == ["b", "c", "d", "first"]
    assert len({t[2] for t in told}) <= 2 and children() == []


SERVED = """
import os, sys
from pathlib import Path
from guerdon.training import workers

def work(job, tell):
    tell((os.getppid(), sorted(sys.modules)))

if __name__ == "__main__":
    before = set(sys.modules)
    workers.start_server()
    mine = [int(p) for p in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    told = []
    workers.run_jobs(["a"], work, lambda job: True, told.append, 1)
    [(parent, modules)] = told
    assert parent in mine, (parent, mine)
    assert "torch._dynamo" in modules and "torch" not in before
"""


@pytest.mark.skipif(sys.platform != "linux" or cores() < 2, reason="workers are copied elsewhere, or there is one core")
def test_a_server_that_was_started_early_is_the_one_that_workers_are_copied_from(tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(SERVED)
    subprocess.run([sys.executable, tmp_path / "served.py"], check=True)


def test_a_run_starts_the_server_before_its_imports_and_a_finished_one_does_not(tmp_path: Path, monkeypatch) -> None:
    class Asked(Exception):
        pass

    def ask() -> None:
        raise Asked

    monkeypatch.setattr(workers, "start_server", ask)
    with pytest.raises(Asked):
        run_command("no such recipe", {}, tmp_path)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(InputError, match="no recipe named"):
        run_command("no such recipe", {}, tmp_path)


def test_the_first_seeds_arms_come_before_the_next_seeds_start(tmp_path: Path) -> None:
    study = make(LETTERS, {**MANY, "seeds": [3, 5]})
    planned = [(job.seed, job.arm) for job in _plan(study, make, LETTERS, {}, tmp_path)]
    assert planned == [(s, a) for s in (3, 5) for a in (START, *study.arms)] and len(study.arms) == 2


def test_an_error_ends_the_others() -> None:
    told: list[Any] = []
    with pytest.raises(InputError, match=r"^fails: work: expected another job\.$"):
        run_jobs(["fails", *map(str, range(50))], work, lambda job: True, told.append, most=2)
    assert children() == [] and len(told) < 50


def test_jobs_that_can_never_start_are_named() -> None:
    with pytest.raises(GuerdonError, match="expected something to run, but a; b can't start"):
        run_jobs(["a", "b"], work, lambda job: False, lambda what: None, most=2)
