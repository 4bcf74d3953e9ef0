# SPDX-License-Identifier: Apache-2.0
"""A killed run goes on to the result of an uninterrupted one, whenever it was killed."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from guerdon.errors import CheckpointError, InputError
from guerdon.recipes import make
from guerdon.training.run import run, run_recipe
from tests.training.dying import (
    LETTERS,
    assert_same_run,
    begin,
    ended,
    error_of,
    left_running,
    lines_written,
    pids_of,
    told,
    wait_for,
)

ONE = {"kind": "run", "steps": 40, "nap": 0.004}
MANY = {"kind": "study", "steps": 16, "seeds": [0, 1], "nap": 0.004}
MOMENTS = ["line:1", "renaming:6", "line:9", "renaming:18", "half a line:26", "removing:18", "saving the best:0", "line:50"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    run(make, LETTERS, ONE, out)
    return out


def test_a_run_killed_at_random_moments(tmp_path: Path, uninterrupted: Path) -> None:
    out, chance = tmp_path / "run", random.Random(0)
    for part in (0.1, 0.4, 0.8):
        process, at = begin(out, ONE), (part + chance.uniform(0, 0.15)) * 58
        wait_for(lambda at=at: lines_written(out) >= at, process)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        assert ended(process) == -9
    assert not (out / "result.json").exists()
    run(make, LETTERS, told(out, ONE), out)
    assert_same_run(out, uninterrupted)


def test_a_run_killed_at_the_worst_moments(tmp_path: Path, uninterrupted: Path) -> None:
    """One after another in one directory."""
    out = tmp_path / "run"
    for moment in MOMENTS:
        assert ended(begin(out, ONE, moment)) == -9, moment
    run(make, LETTERS, told(out, ONE), out)
    assert_same_run(out, uninterrupted)


def test_a_study_whose_processes_are_killed(tmp_path: Path) -> None:
    """The parent twice at random moments, and a worker while it writes a checkpoint. Nothing is left running, nothing is lost."""
    out, chance = tmp_path / "study", random.Random(1)
    for part in (0.2, None, 0.6):
        process = begin(out, MANY, die_at="" if part else "renaming:12")
        if part is None:
            assert ended(process) == 0
            assert "seed 0: expected its process to finish, but it ended with exit code -9" in error_of(out).read_text()
        else:
            at = (part + chance.uniform(0, 0.1)) * 90
            wait_for(lambda at=at: lines_written(out) >= at, process)
            process.kill()
            assert ended(process) == -9
        wait_for(lambda: not left_running(out))
    assert len(list(pids_of(out).iterdir())) >= 8  # parents and workers: there was something to look at
    before = lines_written(out)
    result = run(make, LETTERS, told(out, MANY), out)
    assert 0 < before < lines_written(out)

    study = make(LETTERS, MANY)
    for seed in MANY["seeds"]:
        runs = {"start": study.prepare(seed), **{a: made(seed, tmp_path / f"start-s{seed}") for a, made in study.arms.items()}}
        for arm, recipe in runs.items():
            alone = tmp_path / f"{arm}-s{seed}"
            run_recipe(recipe, alone, [], {"recipe": "", "arguments": {}}, {"arm": arm, "seed": seed})
            if arm == "start":
                assert (alone / "policy/table.json").read_text() == (out / alone.name / "policy/table.json").read_text()
            else:
                assert_same_run(out / alone.name, alone)
                figures = json.loads((alone / "result.json").read_text())
                for key in ("success", "success_start", "success_best", "greedy"):
                    assert result["arms"][arm][key][seed] == figures[f"eval/{key}"]
                assert result["arms"][arm]["step_best"][seed] == figures["step_best"]
    assert result["verdict"] == {arm: sum(result["arms"][arm]["success"]) for arm in ("mostly", "begins")}
    assert json.loads((out / "result.json").read_text()) == result
    lines = lines_written(out)
    assert run(make, LETTERS, told(out, MANY), out) == result and lines_written(out) == lines  # finished: nothing is run again


def test_workers_in_the_middle_of_a_long_step_end_with_their_parent(tmp_path: Path) -> None:
    out = tmp_path / "study"
    process = begin(out, {**MANY, "seeds": [0], "nap": 3600.0})
    wait_for(lambda: (out / "mostly-s0" / "metrics.jsonl").exists(), process)
    assert len(left_running(out)) >= 2
    process.kill()
    assert ended(process) == -9
    wait_for(lambda: not left_running(out))


def test_a_directory_left_before_its_config_was_there_can_be_used(tmp_path: Path) -> None:
    (tmp_path / ".config.json.unfinished").write_text('{"schema"')
    run(make, LETTERS, {"kind": "run", "steps": 4}, tmp_path)
    assert (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("file", "text", "error", "says"),
    [
        ("other.txt", "", InputError, "expected an empty or new directory"),
        (
            "config.json",
            '{"schema": 1, "recipe": "other", "arguments": {"lr": 1}}',
            InputError,
            r"holds another run \(other lr=1\)",
        ),
        ("config.json", '{"schema": 1,', CheckpointError, "config.json: expected JSON"),
    ],
)
def test_another_runs_directory_is_refused_untouched(
    tmp_path: Path, file: str, text: str, error: type[Exception], says: str
) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(error, match=says):
        run(make, LETTERS, {"kind": "run", "steps": 4}, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [file] and (tmp_path / file).read_text() == text


def test_a_damaged_checkpoint_stops_the_resume_and_is_named(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(make, LETTERS, {"kind": "run", "steps": 8}, out)
    (out / "result.json").unlink()
    newest = max((out / "checkpoint").iterdir()) / "state.json"
    newest.write_text(newest.read_text()[:100])
    with pytest.raises(CheckpointError, match=rf"^{newest}: "):
        run(make, LETTERS, {"kind": "run", "steps": 8}, out)
