# SPDX-License-Identifier: Apache-2.0
"""Observers: who is told what happens. A metrics file, the terminal, TensorBoard, Weights & Biases.

A study's runs report at once and out of step; each line says whose it is by ``arm`` and ``seed``, which a run alone leaves out.
"""

from __future__ import annotations

import atexit
import hashlib
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from guerdon.errors import CheckpointError, InputError
from guerdon.training.headline import SUCCESS, called, headline_of, is_share
from guerdon.training.study import START

Points = Sequence[tuple[float, float]]


class Jsonl:
    """Appends each line of metrics to ``metrics.jsonl`` in the run's directory, at once; NaN and infinity become null.

    Started at a step above 0 it first takes away the lines of later steps, and a last line that was cut short, so that a resumed
    run has each step once. Started at step 0 it begins the file anew.
    """

    def __init__(self) -> None:
        self._path: Path | None = None

    def start(self, config: Mapping[str, Any], directory: Path, step: int) -> None:
        path = Path(directory) / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = lines_until(path, step) if step > 0 and path.exists() else []
        shorter = path.with_name(".metrics.jsonl.unfinished")
        shorter.write_text("".join(kept), encoding="utf-8")
        os.replace(shorter, path)
        self._path = path

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        if self._path is None:
            raise CheckpointError(
                "Jsonl: expected start() before metrics(), got metrics first. Usual cause: an observer used again."
            )
        line = {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in {"step": step, **metrics}.items()}
        with self._path.open("a", encoding="utf-8") as file:  # closed at once: nothing is left in a buffer when a run is killed
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def finish(self, result: Mapping[str, Any]) -> None:
        self._path = None


def lines_until(path: Path, step: int) -> list[str]:
    """The whole lines of a metrics file whose ``step`` is at most ``step``, each with its newline."""
    *whole, _cut_short = path.read_text(encoding="utf-8").split("\n")
    try:
        return [f"{line}\n" for line in whole if line and json.loads(line).get("step", 0) <= step]
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{path}: expected one JSON object a line, got {error.doc[:60]!r}. Usual cause: two runs wrote to one directory."
        ) from error


# ---- the terminal


@dataclass
class Stream:
    """What the terminal knows of one training run."""

    arm: str
    seed: int
    first: int | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    curve: list[tuple[float, float]] = field(default_factory=list)
    time: dict[str, float] = field(default_factory=dict)
    headline: str | None = None

    @property
    def step(self) -> int:
        return max(self.train.get("step", 0), self.evaluation.get("step", 0))

    def take(self, step: int, metrics: Mapping[str, Any]) -> None:
        line = {"step": step, **metrics}
        self.first = step if self.first is None else self.first
        if line.get("stage") != "eval":
            self.train = line
            for key in ("time/sample", "time/reward", "time/update"):
                self.time[key] = self.time.get(key, 0.0) + _number(line.get(key), 0.0)
            return
        self.evaluation = line
        self.headline = self.headline or headline_of(line)
        figure = _number(line.get(self.headline or ""), math.nan)
        if not math.isnan(figure):
            self.curve.append((_number(line.get("samples"), float(step)), figure))


class Terminal:
    """Shows how a run or a study goes, in place where the output is a terminal, else as one plain line for each evaluation.

    In place: the figure a run is judged by per arm (mean of the seeds) against samples, speed, where the time goes, each term's
    share of the advantage's variance and of units that are not ok, and the time left, where ``config`` or its ``about`` says how
    much there is to do: ``total_steps`` of a run and ``runs`` of a study (the start that its arms share not counted). In place
    needs ``guerdon[report]``; without it the lines are plain. An alarm that starts has a line of its own.
    """

    def __init__(self, file: TextIO | None = None, console: Any = None, refresh_every: float = 0.25) -> None:
        self._out = file or sys.stdout
        self._console = console
        self._live: Any = None
        self._refresh_every, self._shown = refresh_every, -math.inf
        self._streams: dict[tuple[str, int], Stream] = {}
        self._began, self._name, self._total = time.monotonic(), "", (0, 0)

    def start(self, config: Mapping[str, Any], directory: Path, step: int) -> None:
        told = {**config.get("about", {}), **config}
        self._total = int(told.get("total_steps", 0)), int(told.get("runs", 1))
        self._name, self._began = Path(directory).name, time.monotonic()
        self._console = self._console or _console(self._out)
        if self._console is not None and self._live is None:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
            atexit.register(self._live.stop)  # a run that fails must not leave the terminal without its cursor

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        key = str(metrics.get("arm") or ""), int(metrics.get("seed") or 0)
        stream = self._streams.setdefault(key, Stream(*key))
        stream.take(step, metrics)
        if metrics.get("alarm"):
            self._say(alarm_line(stream, metrics["alarm"]))
        if self._live is None:
            if metrics.get("stage") == "eval":
                self._out.write(plain_line(stream, time.monotonic() - self._began) + "\n")
                self._out.flush()
        elif time.monotonic() - self._shown >= self._refresh_every:
            self._show()

    def finish(self, result: Mapping[str, Any]) -> None:
        if result.get("stopped"):
            self._say(f"stopped: {result['stopped']}")
        if self._live is not None:
            self._show()
            self._live.stop()
            atexit.unregister(self._live.stop)
            self._live = None

    def _say(self, text: str) -> None:
        """A line that stays, above what is drawn in place."""
        if self._live is not None:
            self._live.console.print(text, style="bold red", markup=False, highlight=False)
        else:
            self._out.write(text + "\n")
            self._out.flush()

    def _show(self) -> None:
        self._shown = time.monotonic()
        self._live.update(self.picture(self._live.console.width), refresh=True)

    def picture(self, width: int) -> Any:
        """Everything there is to see, as a rich renderable ``width`` columns wide."""
        from rich.console import Group

        arms = list(dict.fromkeys(arm for arm, _ in self._streams))
        colours = {arm: COLOURS[i % len(COLOURS)] for i, arm in enumerate(arms)}
        by_arm = {arm: [s for s in self._streams.values() if s.arm == arm] for arm in arms}
        blocks = [*_curves(by_arm, colours, width), _speed(by_arm, colours), *_terms(by_arm, colours)]
        return Group(self._head(), *(part for block in blocks for part in (block, "")))

    def _head(self) -> Any:
        from rich.text import Text

        elapsed = time.monotonic() - self._began
        left = time_left([s for s in self._streams.values() if s.arm != START], *self._total, elapsed)
        parts = [duration(elapsed), *([f"about {duration(left)} left"] if left is not None else [])]
        return Text.assemble((self._name, "bold"), "  ", (" · ".join(parts), "dim"))


COLOURS = ("bright_blue", "yellow", "green", "magenta", "cyan", "white")


def time_left(streams: Sequence[Stream], total_steps: int, runs: int, elapsed: float) -> float | None:
    """Seconds until ``runs`` runs of ``total_steps`` steps are done at the pace so far; None while there is no pace to judge by.

    Steps that were done before this process began (``first``) are not part of the pace.
    """
    done = sum(s.step for s in streams)
    paced = done - sum(max((s.first or 0) - 1, 0) for s in streams)
    return elapsed / paced * max(total_steps * runs - done, 0) if total_steps and paced > 0 else None


def duration(seconds: float) -> str:
    """
    >>> duration(7), duration(75), duration(4040)
    ('7 s', '1 min 15 s', '1 h 07 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plain_line(stream: Stream, elapsed: float) -> str:
    """One evaluation as text.

    >>> stream = Stream("dense", 1)
    >>> stream.take(5, {"stage": "eval", "samples": 1280, "eval/success": 0.431, "eval/greedy": 0.5})
    >>> plain_line(stream, 12.0)
    'dense s1  step 5  1,280 samples  success 43.1%  greedy 50.0%  12 s'
    """
    keys = dict.fromkeys([stream.headline or SUCCESS, "eval/greedy"])
    parts = [f"{stream.arm} s{stream.seed}"] if stream.arm else []
    parts += [f"step {stream.step}", f"{int(_number(stream.evaluation.get('samples'), 0)):,} samples"]
    figures = {k: _number(stream.evaluation.get(k), math.nan) for k in keys}
    parts += [f"{k.removeprefix('eval/')} {_figure(k, x)}" for k, x in figures.items() if not math.isnan(x)]
    reward, speed = (_number(stream.train.get(key), math.nan) for key in ("reward/total", "tokens_per_second"))
    parts += [f"reward {reward:.3g}"] if not math.isnan(reward) else []
    parts += [f"{speed:,.0f} {_pace([stream])}"] if not math.isnan(speed) else []
    return "  ".join([*parts, duration(elapsed)])


def alarm_line(stream: Stream, alarm: str) -> str:
    """An alarm that started, as text.

    >>> stream = Stream("", 0)
    >>> stream.take(40, {"stage": "train"})
    >>> alarm_line(stream, "length rises")
    'step 40  ALARM  length rises'
    """
    whose = [f"{stream.arm} s{stream.seed}"] if stream.arm else []
    return "  ".join([*whose, f"step {stream.step}", "ALARM", alarm])


def braille(
    lines: Sequence[Points], width: int, height: int, x: tuple[float, float], y: tuple[float, float]
) -> list[list[tuple[str, int]]]:
    """Lines as ``height`` rows of ``width`` characters of 2 x 4 dots, each with the number of the last line in it (-1: none).

    >>> for row in braille([[(0, 0), (3, 1)]], 2, 1, (0, 3), (0, 1)):
    ...     print("".join(character for character, _ in row))
    ⡠⠊
    """
    dots = [[0] * width for _ in range(height)]
    owner = [[-1] * width for _ in range(height)]
    for number, line in enumerate(lines):
        places = [(_place(a, *x, 2 * width), 4 * height - 1 - _place(b, *y, 4 * height)) for a, b in line]
        for column, row in _between(places):
            dots[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
            owner[row // 4][column // 2] = number
    return [[(chr(0x2800 + d), o) for d, o in zip(*row, strict=True)] for row in zip(dots, owner, strict=True)]


_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # Unicode's numbering of the eight dots, by row and column


def _place(value: float, low: float, high: float, cells: int) -> int:
    return min(max(round((value - low) / ((high - low) or 1.0) * (cells - 1)), 0), cells - 1)


def _between(places: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Every dot on the straight lines from place to place."""
    yield from places[:1]
    for (a, b), (c, d) in itertools.pairwise(places):
        n = max(abs(c - a), abs(d - b), 1)
        yield from ((a + round(i * (c - a) / n), b + round(i * (d - b) / n)) for i in range(1, n + 1))


def mean_curve(curves: Sequence[Points]) -> list[tuple[float, float]]:
    """The mean over the curves that have a point at each x; runs of a study evaluate at the same samples.

    >>> mean_curve([[(0, 0.0), (5, 0.5)], [(0, 0.5)]])
    [(0, 0.25), (5, 0.5)]
    """
    at: dict[float, list[float]] = {}
    for curve in curves:
        for a, b in curve:
            at.setdefault(a, []).append(b)
    return [(a, sum(at[a]) / len(at[a])) for a in sorted(at)]


def _curves(by_arm: Mapping[str, Sequence[Stream]], colours: Mapping[str, str], width: int, height: int = 8) -> list[Any]:
    from rich.text import Text

    curves = {arm: mean_curve([s.curve for s in streams]) for arm, streams in by_arm.items() if arm != START}
    curves = {arm: curve for arm, curve in curves.items() if curve}
    if not curves:
        return []
    end = max(curve[-1][0] for curve in curves.values()) or 1.0
    key = _headline(s for streams in by_arm.values() for s in streams)
    values = [y for curve in curves.values() for _, y in curve]
    low, high = (0.0, 1.0) if is_share(key) else (min(values), max(values))
    ticks = ["100%", " 50%", "  0%"] if is_share(key) else [f"{y:.4g}" for y in (high, (low + high) / 2, low)]
    side = max(5, *map(len, ticks))
    columns, arms = min(width - side - 3, 100), list(curves)
    text = Text.assemble((called(key), "dim"))
    for i, row in enumerate(braille(list(curves.values()), columns, height, (0.0, end), (low, high))):
        text.append(f"\n{ {0: ticks[0], height // 2: ticks[1], height - 1: ticks[2]}.get(i, ''):>{side}} ", "dim")
        for owner, cells in itertools.groupby(row, key=lambda cell: cell[1]):
            text.append("".join(character for character, _ in cells), colours[arms[owner]] if owner >= 0 else "")
    ending = f"{end:,.0f} samples"
    text.append(f"\n{'0':>{side + 2}}{ending:>{columns - 1}}", "dim")
    return [text]


def _speed(by_arm: Mapping[str, Sequence[Stream]], colours: Mapping[str, str]) -> Any:
    from rich.text import Text

    every = [s for streams in by_arm.values() for s in streams]
    keys = list(dict.fromkeys([_headline(every), *(k for s in every for k in s.evaluation if k == "eval/greedy")]))
    heads = [k.removeprefix("eval/") for k in keys]
    table = _table("", "samples", *heads, _pace(every), "time: sample", "reward", "update")
    for arm, streams in by_arm.items():
        spent = [sum(s.time.get(f"time/{k}", 0.0) for s in streams) for k in ("sample", "reward", "update")]
        samples = _mean(max(_number(x.get("samples"), 0.0) for x in (s.train, s.evaluation)) for s in streams)
        table.add_row(
            Text((arm or "run") + (f" ×{len(streams)}" if len(streams) > 1 else ""), colours[arm]),
            f"{samples:,.0f}",
            *(_figure(k, _mean(_number(s.evaluation.get(k), math.nan) for s in streams)) for k in keys),
            _text(_mean(_number(s.train.get("tokens_per_second"), math.nan) for s in streams), ",.0f"),
            *(f"{t / sum(spent):.0%}" if sum(spent) else "" for t in spent),
        )
    return table


def _terms(by_arm: Mapping[str, Sequence[Stream]], colours: Mapping[str, str]) -> list[Any]:
    """A row for each part of each arm's reward: mean, share of the advantage's variance, what was not ok."""
    from rich.text import Text

    table = _table("", "part", "mean", "share of variance", "not ok")
    for arm, streams in by_arm.items():
        names = list(dict.fromkeys(k.removeprefix("reward/") for s in streams for k in s.train if k.startswith("reward/")))
        for name in (n for n in names if n != "total"):
            values = {k: _mean(_number(s.train.get(f"{k}/{name}"), math.nan) for s in streams) for k in ("reward", "share")}
            failed = {
                k: _mean(_number(s.train.get(f"status/{name}/{k}"), 0.0) for s in streams)
                for k in ("abstain", "timeout", "error")
            }
            bad = ", ".join(f"{share:.1%} {kind}" for kind, share in failed.items() if share > 0)
            first = name == next(n for n in names if n != "total")
            table.add_row(
                Text((arm or "run") if first else "", colours[arm]),
                name,
                _text(values["reward"], ".3g"),
                _percent(values["share"]),
                Text(bad, "bold red"),
            )
    return [table] if table.row_count else []


def _table(*heads: str) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for i, head in enumerate(heads):
        table.add_column(head, justify="left" if i == 0 or head in ("part", "not ok") else "right", no_wrap=True)
    return table


def _console(file: TextIO) -> Any:
    """A rich console if ``file`` is a terminal that can be drawn on, else None."""
    if not file.isatty() or os.environ.get("TERM", "") in ("", "dumb"):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=file)


def _number(x: Any, otherwise: float) -> float:
    return float(x) if isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) else otherwise


def _mean(values: Iterable[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def _text(x: float, form: str) -> str:
    return "" if math.isnan(x) else format(x, form)


def _percent(x: float) -> str:
    """A share; a number beyond 1, a success term that is no share, as it is."""
    return _text(x, ".1%" if abs(x) <= 1 else ".3g")


def _headline(streams: Iterable[Stream]) -> str:
    return next((s.headline for s in streams if s.headline), SUCCESS)


def _figure(key: str, x: float) -> str:
    return _percent(x) if is_share(key) else _text(x, ".4g")


def _pace(streams: Iterable[Stream]) -> str:
    """What the steps of such a run are called: those that text is judged by are tokens."""
    return "tok/s" if is_share(_headline(streams)) else "steps/s"


# ---- trackers


class TensorBoard:
    """Writes every number to ``tensorboard/`` in the run's directory, a log per arm and seed; needs ``guerdon[tensorboard]``."""

    def __init__(self) -> None:
        self._writers: dict[str, Any] = {}
        self._directory, self._step = Path(), 0

    def start(self, config: Mapping[str, Any], directory: Path, step: int) -> None:
        _needs("tensorboard", "tensorboard", "TensorBoard")
        self._directory, self._step = Path(directory) / "tensorboard", step

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        name = _stream_name(metrics)
        if name not in self._writers:
            later = self._step + 1 if self._step else None  # what an interrupted run wrote beyond its checkpoint is hidden
            self._writers[name] = SummaryWriter(str(self._directory / name), purge_step=later)
        for key, value in _numbers(metrics).items():
            self._writers[name].add_scalar(key, value, step)

    def finish(self, result: Mapping[str, Any]) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


class WandB:
    """Logs every number to Weights & Biases, one run there per arm and seed, grouped by directory; needs ``guerdon[wandb]``.

    ``settings`` go to ``wandb.init`` (``mode="offline"``, ``entity=...``). A resumed run goes on under the same id, which is made
    of the directory, arm and seed.
    """

    def __init__(self, project: str = "guerdon", **settings: Any) -> None:
        self._project, self._settings = project, settings
        self._runs: dict[str, Any] = {}
        self._config: Mapping[str, Any] = {}
        self._directory = Path()

    def start(self, config: Mapping[str, Any], directory: Path, step: int) -> None:
        _needs("wandb", "wandb", "WandB")
        self._config, self._directory = config, Path(directory)

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        name = _stream_name(metrics)
        if name not in self._runs:
            self._runs[name] = self._open(name)
        self._runs[name].log(_numbers(metrics), step=step)

    def finish(self, result: Mapping[str, Any]) -> None:
        for run in self._runs.values():
            run.finish()
        self._runs.clear()

    def _open(self, name: str) -> Any:
        import wandb

        where = self._directory.resolve()
        return wandb.init(
            project=self._project,
            group=where.name,
            name=f"{where.name} {name}".strip(),
            id=hashlib.sha256(f"{where} {name}".encode()).hexdigest()[:16],
            dir=str(where),
            config=dict(self._config),
            resume="allow",
            reinit="create_new",
            **self._settings,
        )


def _stream_name(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['arm']}-s{metrics.get('seed', 0)}" if metrics.get("arm") else ""


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {k: x for k, v in metrics.items() if k not in ("step", "seed") and not math.isnan(x := _number(v, math.nan))}


def _needs(package: str, extra: str, whose: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"{whose}: needs the package `{package}`, which is not installed. Install it with: pip install 'guerdon[{extra}]'."
        )
