# SPDX-License-Identifier: Apache-2.0
"""What one sees while a claim's arms are trained: each arm's seeds, steps and metric, in place where there is a terminal."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guerdon.training.observers import duration


class Progress:
    """An observer of studies that follow one another, one for each look at the scores; ``say`` prints a line above the table."""

    def __init__(self, title: str, metric: str) -> None:
        self.title, self.metric = title, metric
        self._lines: dict[str, dict[int, Mapping[str, Any]]] = {}
        self._began, self._shown, self._live = time.monotonic(), 0.0, _live()
        if self._live:
            self._live.start()

    def start(self, config: Mapping[str, Any], directory: Path, step: int) -> None:
        if config["runs"] and not self._live:
            _plain(f"{self.title}: {config['runs']} trainings")

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        told = self._lines.setdefault(metrics["arm"], {}).setdefault(metrics["seed"], {})
        self._lines[metrics["arm"]][metrics["seed"]] = {**told, **metrics}
        if self._live and time.monotonic() - self._shown > 0.25:
            self._shown = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def finish(self, result: Mapping[str, Any]) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)

    def say(self, line: str) -> None:
        if self._live:
            self._live.console.print(line, highlight=False, markup=False)
        else:
            _plain(line)

    def end(self) -> None:
        if self._live:
            self._live.stop()

    def _table(self) -> Any:
        from rich.table import Table

        title = f"{self.title}  {duration(time.monotonic() - self._began)}"
        table = Table(title=title, title_justify="left", title_style="dim", box=None, header_style="dim", pad_edge=False)
        for head in ("", "seeds", "step", self.metric):
            table.add_column(head, justify="right" if head else "left")
        for arm, seeds in self._lines.items():
            values = [v for line in seeds.values() if isinstance(v := line.get(self.metric), int | float)]
            steps = round(statistics.fmean(line.get("step", 0) for line in seeds.values()))
            table.add_row(arm, str(len(seeds)), f"{steps:,}", f"{statistics.fmean(values):.4g}" if values else "")
        return table


def _plain(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _live() -> Any:
    """rich's, if standard output is a terminal and rich is there."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.live import Live
    except ImportError:
        return None
    return Live(auto_refresh=False, transient=True)
