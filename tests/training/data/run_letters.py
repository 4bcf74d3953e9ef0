# SPDX-License-Identifier: Apache-2.0
"""Runs letters.py: run_letters.py OUT ARGUMENTS-AS-JSON. Leaves its process id, and dies at the moment that DIE_AT names.

What stands outside of the last lines happens in the workers of a study too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guerdon.recipes import make
from guerdon.training.observers import Jsonl
from guerdon.training.run import run
from tests.training.table import Table

LETTERS = str(Path(__file__).with_name("letters.py"))


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


if "PIDS" in os.environ:
    (Path(os.environ["PIDS"]) / str(os.getpid())).touch()
if "DIE_AT" in os.environ:
    when, _, at = os.environ["DIE_AT"].partition(":")
    dies_at(when, int(at))

if __name__ == "__main__":
    run(make, LETTERS, json.loads(sys.argv[2]), Path(sys.argv[1]))
