# SPDX-License-Identifier: Apache-2.0
"""Every cell of the grid: no failure is a zero, no other item is lost, nothing hangs. ``cells`` says what has to happen."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from tests.faults import others, rows, runs, table
from tests.faults.cells import CELLS, Cell

torch.set_num_threads(1)

LONGEST = 60.0  # seconds; a cell takes a few tenths, and a machine may be busy


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_cell(cell: Cell, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    assert outcome(cell, tmp_path, capsys, monkeypatch) == cell.outcome
    assert time.monotonic() - began < LONGEST


def outcome(cell: Cell, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    if cell.place == "call":
        special = {"tensor of steps": others.tensor, "win rate": others.ranking, "served": others.serving_it}
        if cell.kind == "judge":
            return others.judging(cell, monkeypatch)
        return special.get(cell.kind, rows.play)(cell)
    if cell.place == "guerdon score":
        return runs.command(cell, tmp_path, capsys)
    if cell.place.startswith("training"):
        return runs.training(cell, tmp_path)
    if cell.place == "environment":
        return others.environment(cell)
    return runs.evaluation(cell) if cell.place == "evaluation" else runs.resume(cell, tmp_path)


def test_the_grid_is_as_large_as_promised_and_no_cell_is_twice() -> None:
    keys = [(c.place, c.kind, c.fault) for c in CELLS]
    assert len(set(keys)) == len(keys) >= 200


def test_the_page_shows_the_grid_that_ran() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), "run: python -m tests.faults.table"
