# SPDX-License-Identifier: Apache-2.0
"""A run that is judged by something else than success: an episode's return."""

from __future__ import annotations

import io
import json
from pathlib import Path

from guerdon.report import write_report
from guerdon.report.reading import read_run
from guerdon.report.verdict import compare, progress
from guerdon.training.observers import Stream, Terminal, plain_line


def written(directory: Path, returns: dict[str, list[float]]) -> Path:
    for arm, values in returns.items():
        path = directory / f"{arm}-s0"
        path.mkdir(parents=True)
        lines = [{"arm": arm, "seed": 0, "stage": "eval", "step": i, "samples": 8 * i, "seconds": 1.0 * i, "eval/return": x,
                  "eval/length": 2 * x} for i, x in enumerate(values)]  # fmt: skip
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


def test_the_page_is_about_returns_and_not_about_shares(tmp_path: Path) -> None:
    run = written(tmp_path, {"plain": [20.0, 150.5, 180.0], "shaped": [21.0, 300.0, 487.0]})
    page = write_report([run]).read_text()
    assert "shaped reached a return of 487; plain 180." in page.replace("\u00a0", " ")
    assert "Held-out success" not in page
    assert "rows sampled" in page and ">return<" in page


def test_a_single_run_says_where_its_return_went(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    lines = [{"stage": "eval", "step": i, "samples": i, "eval/return": x} for i, x in enumerate([-1200.0, -150.0])]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert progress(read_run(tmp_path).arms[0]).headline == "Return went from -1,200 to -150."


def test_arms_are_compared_by_their_worst_seeds() -> None:
    assert compare({"a": [10.0, 12.0], "b": [2.0, 3.0]}, "eval/return").details == [
        "a is ahead of b by 8.5 on average, and on every one of 2 seeds: its worst seed (10) lies above the best of b (3)."
    ]


def test_the_terminal_draws_returns_between_the_lowest_and_the_highest() -> None:
    stream = Stream("", 0)
    stream.take(5, {"stage": "eval", "samples": 40, "eval/return": 123.4567, "eval/length": 50.0})
    assert plain_line(stream, 3.0) == "step 5  40 samples  return 123.5  3 s"
    from rich.console import Console

    terminal = Terminal(io.StringIO())
    for step, x in enumerate([-1500.0, -200.0]):
        terminal.metrics(step, {"stage": "eval", "samples": step, "eval/return": x})
    console = Console(file=io.StringIO(), width=80)
    console.print(terminal.picture(80))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(x in shown for x in ("-200", "-850", "-1500", "steps/s", "return")) and "success" not in shown
