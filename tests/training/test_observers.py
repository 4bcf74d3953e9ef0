# SPDX-License-Identifier: Apache-2.0
"""Observers: the metrics file after interruptions, what the terminal shows, and what the trackers are given."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import CheckpointError, InputError
from guerdon.protocols import Observer
from guerdon.training.observers import Jsonl, Stream, TensorBoard, Terminal, WandB, braille, mean_curve, plain_line, time_left

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("observer", [Jsonl(), Terminal(), TensorBoard(), WandB()])
def test_each_is_an_observer(observer: Observer) -> None:
    assert all(callable(getattr(observer, name)) for name in ("start", "metrics", "finish"))


# ---- Jsonl


def steps_of(directory: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (directory / "metrics.jsonl").read_text().splitlines()]


def write(directory: Path, start: int, steps: list[int], finish: bool = True) -> Jsonl:
    observer = Jsonl()
    observer.start({}, directory, start)
    for step in steps:
        observer.metrics(step, {"step": step, "stage": "train", "loss": step / 2})
    if finish:
        observer.finish({})
    return observer


@given(st.integers(0, 8), st.integers(1, 8))
def test_a_resumed_run_has_each_step_once(tmp_path_factory: pytest.TempPathFactory, checkpoint: int, lost: int) -> None:
    directory = tmp_path_factory.mktemp("run")
    write(directory, 0, list(range(checkpoint + lost + 1)), finish=False)
    write(directory, checkpoint, list(range(checkpoint + 1 if checkpoint else 0, 20)))
    assert steps_of(directory) == list(range(20))


def test_lines_are_there_at_once(tmp_path: Path) -> None:
    write(tmp_path, 0, [1, 2], finish=False)
    assert steps_of(tmp_path) == [1, 2]


def test_a_line_cut_short_by_a_kill_is_taken_away(tmp_path: Path) -> None:
    write(tmp_path, 0, [1, 2, 3])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    write(tmp_path, 3, [4])
    assert steps_of(tmp_path) == [1, 2, 3, 4]


def test_a_fresh_start_begins_the_file_anew(tmp_path: Path) -> None:
    write(tmp_path, 0, [0, 1, 2])
    write(tmp_path, 0, [0, 1])
    assert steps_of(tmp_path) == [0, 1]


def test_numbers_that_json_does_not_have_become_null_and_inputs_stay(tmp_path: Path) -> None:
    given_metrics = {"a": float("nan"), "b": float("inf"), "c": 1.5, "d": None, "e": "text"}
    observer = Jsonl()
    observer.start({}, tmp_path, 0)
    observer.metrics(1, given_metrics)
    observer.finish({})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 1, "a": None, "b": None, "c": 1.5, "d": None, "e": "text"}
    assert list(given_metrics) == ["a", "b", "c", "d", "e"]


def test_a_broken_line_in_the_middle_stops_a_resume_and_loses_nothing(tmp_path: Path) -> None:
    broken = '{"step": 1}\n{"step": {"step": 2}\n{"step": 3}\n'
    (tmp_path / "metrics.jsonl").write_text(broken)
    with pytest.raises(CheckpointError, match="expected one JSON object a line"):
        Jsonl().start({}, tmp_path, 2)
    assert (tmp_path / "metrics.jsonl").read_text() == broken


def test_metrics_before_start_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"expected start\(\) before metrics\(\)"):
        Jsonl().metrics(1, {})


# ---- the terminal


def study_lines(steps: int = 12) -> list[tuple[int, dict]]:
    """What a study of two arms and two seeds tells, out of step."""
    told = []
    for step in range(steps + 1):
        for arm, seed in (("outcome", 0), ("dense", 0), ("outcome", 1), ("dense", 1)):
            where = {"arm": arm, "seed": seed, "step": step, "samples": 100 * step}
            if step:
                parts = {"reward/steps": 0.5, "share/steps": 0.9, "reward/format": 1.0, "share/format": 0.1}
                spent = {"time/sample": 3.0, "time/reward": 1.0, "time/update": 4.0, "tokens_per_second": 1234.0}
                trouble = {"status/steps/timeout": 0.02 if arm == "dense" else 0.0, "status/steps/error": 0.0}
                told.append((step, {**where, "stage": "train", "reward/total": 0.6, **parts, **spent, **trouble}))
            if step % 4 == 0:
                success = step / steps if arm == "dense" else 0.0
                told.append((step, {**where, "stage": "eval", "eval/success": success, "eval/greedy": success}))
    return told


def shown(width: int) -> str:
    from rich.console import Console

    terminal = Terminal(io.StringIO())
    terminal.start({"about": {"total_steps": 24, "runs": 4}}, Path("runs/quickstart"), 0)
    for step, line in study_lines():
        terminal.metrics(step, line)
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None)
    console.print(terminal.picture(width))
    return console.export_text()


def test_the_picture_at_80_columns() -> None:
    text = shown(80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert len(text.splitlines()) <= 24
    assert "…" not in text
    assert re.search(r"quickstart +0 s · about 0 s left", text)
    assert re.search(r"outcome ×2 +1,200 +0\.0% +0\.0% +1,234 +38% +12% +50%", text)  # 3, 1 and 4 of 8 seconds
    assert re.search(r"dense ×2 +1,200 +100\.0% +100\.0%", text)
    assert re.search(r"dense +steps +0\.5 +90\.0% +2\.0% timeout", text)
    assert re.search(r"outcome +steps +0\.5 +90\.0% *\n", text)


def test_the_picture_fits_narrow_terminals() -> None:
    assert max(len(line) for line in shown(50).splitlines()) <= 50


def test_curves_rise_where_success_rises() -> None:
    rows = [line for line in shown(80).splitlines() if re.search("[\u2801-\u28ff]", line)]
    assert rows[0].startswith(" 100%")
    first = [re.search("[\u2801-\u28ff]", row).start() for row in rows[:-1]]  # type: ignore[union-attr]
    assert first == sorted(first, reverse=True)  # dense rises from the left at the bottom to the right at the top
    flat = rows[-1][6:].rstrip()
    assert len(flat) == 72
    assert "\u2800" not in flat  # outcome lies on 0 % all the way


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6), st.integers(1, 20), st.integers(1, 6))
def test_braille_sets_a_dot_for_each_point(line: list[tuple[float, float]], width: int, height: int) -> None:
    rows = braille([line], width, height, (0.0, 1.0), (0.0, 1.0))
    assert [len(row) for row in rows] == [width] * height
    for a, b in line:
        column, row = round(a * (2 * width - 1)), 4 * height - 1 - round(b * (4 * height - 1))
        assert rows[row // 4][column // 2][1] == 0


def test_braille_golden() -> None:
    rows = braille([[(0, 0), (1, 1)], [(0, 0)]], 1, 1, (0, 1), (0, 1))
    assert rows == [[("\u285c", 1)]]  # from the bottom up: 0x40 and 0x04 on the left, 0x10 and 0x08 on the right


def test_time_left_counts_only_what_this_process_did() -> None:
    fresh, resumed = Stream("a", 0), Stream("a", 1)
    for step in range(1, 11):
        fresh.take(step, {"stage": "train"})
    for step in range(41, 51):
        resumed.take(step, {"stage": "train"})
    assert time_left([fresh, resumed], 100, 2, elapsed=20.0) == pytest.approx(140.0)  # 20 steps in 20 s, 140 of 200 to go
    assert time_left([fresh], 0, 1, 20.0) is None
    assert time_left([], 100, 1, 20.0) is None


def test_seeds_that_are_behind_leave_the_mean_where_they_end() -> None:
    assert mean_curve([[(0, 0.0), (5, 1.0)], [(0, 1.0)]]) == [(0, 0.5), (5, 1.0)]


def test_without_a_terminal_there_is_one_line_for_each_evaluation() -> None:
    out = io.StringIO()
    terminal = Terminal(out)
    terminal.start({}, Path("runs/quickstart"), 0)
    for step, line in study_lines():
        terminal.metrics(step, line)
    terminal.finish({})
    lines = out.getvalue().splitlines()
    assert len(lines) == 16  # steps 0, 4, 8 and 12 of four runs
    assert lines[-1].startswith("dense s1  step 12  1,200 samples  success 100.0%  greedy 100.0%  reward 0.6  1,234 tok/s")
    assert "\x1b" not in out.getvalue()


def test_a_run_without_arms_has_no_name_in_its_line() -> None:
    stream = Stream("", 0)
    stream.take(4, {"stage": "eval", "samples": 64, "eval/success": float("nan")})
    assert plain_line(stream, 90.0) == "step 4  64 samples  1 min 30 s"


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from guerdon.training.observers import Terminal
terminal = Terminal(refresh_every=0.0)
terminal.start({{}}, Path("runs/quickstart"), 0)
for step in range(1, 4):
    terminal.metrics(step, {{"stage": "eval", "samples": step, "eval/success": 0.5}})
{end}
"""


def in_a_terminal(end: str, term: str) -> str:
    """What a script that trains and ends with ``end`` writes to a pseudo-terminal."""
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": term, "COLUMNS": "80", "LINES": "24"}
    script = SCRIPT.format(root=str(ROOT), end=end)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=theirs, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # how Linux says that the other side was closed
        pass
    os.close(ours)
    process.wait()
    return written.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("end", ["terminal.finish({})", "raise SystemExit('out of memory')"], ids=["finishes", "fails"])
def test_a_terminal_is_drawn_in_place_and_gets_its_cursor_back(end: str) -> None:
    written = in_a_terminal(end, "xterm-256color")
    assert "held-out success" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # shown again after it was last hidden


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_dumb_terminal_gets_plain_lines() -> None:
    written = in_a_terminal("terminal.finish({})", "dumb")
    assert "\x1b" not in written
    assert len(written.splitlines()) == 3


# ---- trackers


def test_tensorboard_has_every_number_of_every_run(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs guerdon[tensorboard]"
    )
    observer = TensorBoard()
    observer.start({}, tmp_path, 0)
    for step, line in study_lines():
        observer.metrics(step, line)
    observer.finish({})
    assert sorted(p.name for p in (tmp_path / "tensorboard").iterdir()) == ["dense-s0", "dense-s1", "outcome-s0", "outcome-s1"]
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "dense-s1")).Reload()
    success = events.Scalars("eval/success")
    assert [(e.step, round(e.value, 4)) for e in success] == [(0, 0.0), (4, 0.3333), (8, 0.6667), (12, 1.0)]
    assert "arm" not in events.Tags()["scalars"]


def test_tensorboard_hides_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs guerdon[tensorboard]"
    )
    for start, steps in ((0, range(1, 7)), (4, range(5, 9))):
        observer = TensorBoard()
        observer.start({}, tmp_path, start)
        for step in steps:
            observer.metrics(step, {"loss": 10.0 * start + step})
        observer.finish({})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 4),
        (5, 45),
        (6, 46),
        (7, 47),
        (8, 48),
    ]


@pytest.mark.parametrize(("observer", "package"), [(TensorBoard, "tensorboard"), (WandB, "wandb")])
def test_a_missing_tracker_is_named_when_the_run_starts(
    observer: type, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"needs the package `{package}`.*pip install 'guerdon\[{package}\]'"):
        observer().start({}, tmp_path, 0)


def test_wandb_offline_keeps_a_run_per_arm_and_seed(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs guerdon[wandb]")
    observer = WandB(mode="offline")
    observer.start({"recipe": "quickstart"}, tmp_path, 0)
    for step, line in study_lines(4):
        observer.metrics(step, line)
    observer.finish({})
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 4
