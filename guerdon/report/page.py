# SPDX-License-Identifier: Apache-2.0
"""Writes the report: one HTML file with everything in it, that asks nothing of the network."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

from guerdon.errors import InputError
from guerdon.report import completions, figures
from guerdon.report.curves import first_reach
from guerdon.report.figures import PALETTE, Series
from guerdon.report.plot import Chart, count, number, percent, seconds
from guerdon.report.reading import Arm, Run, is_number, read_json, read_run
from guerdon.report.verdict import Verdict, compare, final, headline, progress, side_by_side, text_of
from guerdon.report.watching import watching
from guerdon.training.headline import called

_OWN_PLACE = {
    *("schema", "command", "versions", "arm", "arms", "seed", "grid", "chosen", "lengths"),
    *("task", "title", "notes", "example", "sees", "reward", "reward_tree"),
}
"""Keys of a configuration that have a place of their own on the page and are not settings."""


def write_report(directories: Sequence[Path], out: Path | None = None) -> Path:
    """Read one run or study, or two side by side, and write ``report.html``; the path of the page is returned.

    ``directories``: run directories as the loop writes them. ``out``: the file to write (default: ``report.html`` in the first
    directory). Whatever a run did not store is left out of the page with a note. Needs ``guerdon[report]``, and
    ``guerdon[data]`` where rollouts were saved.
    """
    if len(directories) not in (1, 2):
        raise InputError(
            f"report: expected one run directory, or two to compare, got {len(directories)}. "
            "Usual cause: a shell pattern that matches every run; name the study that holds them instead."
        )
    runs = [read_run(Path(d)) for d in directories]
    target = Path(out) if out is not None else Path(directories[0]) / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render(runs), encoding="utf-8")
    return target


def render(runs: Sequence[Run]) -> str:
    """The page as text."""
    try:
        import jinja2
    except ImportError as error:
        raise InputError(
            "report: needs the package `jinja2`, which is not installed. Install it with: pip install 'guerdon[report]'."
        ) from error

    files = resources.files("guerdon.report")
    template, style, script = (
        files.joinpath(name).read_text(encoding="utf-8") for name in ("page.html.j2", "style.css", "hover.js")
    )
    strict = jinja2.StrictUndefined
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=strict, finalize=_unbroken)
    return environment.from_string(template).render(**contents(runs), style=style, script=script)


def _unbroken(x: Any) -> Any:
    """A number and its % stay on one line."""
    return x.replace(" %", "\u00a0%") if isinstance(x, str) else x


def contents(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything the template shows."""
    series = series_of(runs)
    first = runs[0]
    found = verdict(runs, series)
    lengths, origin = stored_lengths(first)
    colours = {s.label: s.colour for s in series} | {s.arm.name: s.colour for s in series}
    return {
        "title": " and ".join(run.name for run in runs),
        "verdict": found,
        "about": {key: first.config.get(key) for key in ("title", "task", "example", "notes")},
        "tiles": [tile(s) for s in series],
        "learning": figures.learning(series),
        "lengths": figures.lengths(lengths, colours) if lengths else None,
        "lengths_origin": origin,
        "lengths_command": _command(lengths.get("command", "")),
        "arms": [arm_section(s) for s in series],
        "training": figures.training(series),
        "trouble": figures.trouble(series),
        "watching": watching(series),
        "table": table(series),
        "settings": [run_settings(run) for run in runs],
        "differences": differences(*runs) if len(runs) == 2 else None,
        "notes": [f"{run.name}: {note}" if len(runs) > 1 else note for run in runs for note in run.notes],
    }


def series_of(runs: Sequence[Run]) -> list[Series]:
    """Every arm with its label and look: colour by arm, or by run where arms have no names; broken lines for the second run."""
    names = list(dict.fromkeys(arm.name for run in runs for arm in run.arms))
    made = []
    for i, run in enumerate(runs):
        for arm in run.arms:
            label = " · ".join(part for part in ((run.name if len(runs) > 1 or not arm.name else ""), arm.name) if part)
            colour = names.index(arm.name) if len(names) > 1 else i
            made.append(Series(label, colour % PALETTE, i > 0, arm))
    return sorted(made, key=lambda s: names.index(s.arm.name))  # the two runs of an arm side by side


def verdict(runs: Sequence[Run], series: Sequence[Series]) -> Verdict:
    if len(series) == 1:
        return progress(series[0].arm)
    key = headline(s.arm for s in series)
    name = key.removeprefix("eval/")
    finals = [{arm.name: found for arm in run.arms if (found := final(arm, name))} for run in runs]
    shared = [a for a in finals[0] if a and all(a in other for other in finals[1:])]
    if len(runs) == 2 and shared:
        return side_by_side(runs[0].name, runs[1].name, {a: (finals[0][a], finals[1][a]) for a in shared}, key)
    return compare({s.label: final(s.arm, name) for s in series}, key)


# ---- parts of the page


def tile(s: Series) -> dict[str, Any]:
    """The final numbers of an arm in large type."""
    key = headline([s.arm])
    found, greedy, text = final(s.arm, key.removeprefix("eval/")), final(s.arm, "greedy"), text_of(key)
    spread = f"{text(min(found))} to {text(max(found))} over {len(found)} seeds" if len(found) > 1 else ""
    return {
        "label": s.label,
        "colour": s.colour,
        "value": text(fmean(found)) if found else "no evaluation",
        "spread": spread,
        "greedy": f"greedy {percent(fmean(greedy))}" if greedy else "",
        "sees": s.arm.texts["sees"],
    }


@dataclass(frozen=True)
class ArmSection:
    label: str
    colour: int
    sees: str
    reward: str
    tree: str
    charts: list[Chart]
    moments: list[completions.Moment]
    scale: float
    seed: int


def arm_section(s: Series) -> ArmSection:
    seed = s.arm.seeds[0]
    moments = completions.moments(seed)
    text = s.arm.texts
    return ArmSection(
        s.label, s.colour, text["sees"], text["reward"], text["reward_tree"],
        figures.parts(s), moments, completions.largest(moments), seed.seed,
    )  # fmt: skip


@dataclass(frozen=True)
class Table:
    head: list[str]
    rows: list[tuple[int, str, list[tuple[str, str]]]]


def table(series: Sequence[Series]) -> Table:
    """The final numbers of every arm; a column nobody has a number for is left out."""
    columns: dict[str, Callable[[Arm], tuple[str, str] | None]] = {
        "success, sampled": lambda arm: _spread(final(arm, "success"), percent),
        "success, greedy": lambda arm: _spread(final(arm, "greedy"), percent),
        **{called(key): partial(_final, key) for key in others(series)},
        "samples to 50 %": _to_half,
        "seeds": lambda arm: (str(len(arm.seeds)), ""),
        "samples a seed": lambda arm: _spread(_last(arm, "samples"), count),
        "time a seed": lambda arm: _spread(_last(arm, "seconds"), seconds),
        "tokens a second": lambda arm: _spread(_last(arm, "tokens_per_second"), number),
        "reward at the end": lambda arm: _spread(_last(arm, "reward/total"), number),
        "groups without signal": lambda arm: _spread(_last(arm, "no_signal"), percent),
    }
    cells = {head: [column(s.arm) for s in series] for head, column in columns.items()}
    kept = {head: column for head, column in cells.items() if any(column)}
    rows = [(s.colour, s.label, [column[i] or ("–", "") for column in kept.values()]) for i, s in enumerate(series)]
    return Table(list(kept), rows)


def others(series: Sequence[Series]) -> list[str]:
    """The evaluation's figures that are no shares."""
    return list(dict.fromkeys(k for s in series for k in s.arm.keys("eval") if k in figures.measured(s.arm)))


def _final(key: str, arm: Arm) -> tuple[str, str] | None:
    return _spread(final(arm, key.removeprefix("eval/")), number)


def _last(arm: Arm, key: str) -> list[float]:
    return [x for x in (seed.last("train", key) for seed in arm.seeds) if x is not None]


def _spread(values: Sequence[float], text: Callable[[float], str]) -> tuple[str, str] | None:
    """The mean over seeds, and the lowest and highest where they differ."""
    if not values:
        return None
    low, high = text(min(values)), text(max(values))
    return text(fmean(values)), "" if low == high else f"{low} to {high}"


def _to_half(arm: Arm) -> tuple[str, str] | None:
    points = [seed.points("eval", "samples", "eval/success") for seed in arm.seeds]
    if not any(x for x, _ in points):
        return None
    reached = [n for n in (first_reach(p, 0.5) for p in points) if n is not None]
    found = _spread(reached, count)
    if found is None:
        return "not reached", ""
    return found if len(reached) == len(points) else (found[0], f"{len(reached)} of {len(points)} seeds arrived")


def stored_lengths(run: Run) -> tuple[Mapping[str, Any], str]:
    """Points of the longer study over chain lengths and where they come from; {} where there are none.

    The result's ``lengths`` (the points, or the path of a JSON file beside ``result.json``) come before the configuration's.
    """
    own, known = run.result.get("lengths"), run.config.get("lengths")
    if isinstance(own, str):
        return read_json(run.directory / own, []), f"Stored with {run.name} in {own}."
    if isinstance(own, Mapping):
        return own, f"Measured in {run.name}."
    if isinstance(known, Mapping):
        return known, "Measured beforehand in a longer study; not part of this run."
    return {}, ""


# ---- settings


def run_settings(run: Run) -> dict[str, Any]:
    """Settings, versions, the grid and the choice, and the command of one run."""
    config = run.config or run.arms[0].seeds[0].config
    both = {**config, **run.result}
    searched = {k: both[k] for k in ("grid", "chosen") if both.get(k)}
    return {
        "name": run.name,
        "command": _command(config.get("command", "")),
        "settings": [(k, _text(v)) for k, v in flat({k: v for k, v in config.items() if k not in _OWN_PLACE})],
        "versions": [(k, _text(v)) for k, v in flat(config.get("versions", {}))],
        "grid": [(k, _text(v)) for k, v in flat(searched) if not is_table(v)],
        "tables": [(k, table_of(v)) for k, v in flat(searched) if is_table(v)],
        "stored_verdict": [(k, _text(v)) for k, v in flat(run.result.get("verdict", {}))],
    }


def is_table(value: Any) -> bool:
    """A list of objects."""
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def table_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """
    >>> table_of([{"lr": 0.001, "success": 0.5}, {"lr": 0.003}])
    (['lr', 'success'], [['0.001', '0.5'], ['0.003', '–']])
    """
    head = list(dict.fromkeys(key for row in rows for key in row))
    return head, [[_text(row.get(key, "–")) for key in head] for row in rows]


def _command(stored: str | Sequence[str]) -> str:
    return stored if isinstance(stored, str) else shlex.join(map(str, stored))


def _compared(run: Run) -> Mapping[str, Any]:
    config = run.config or run.arms[0].seeds[0].config
    return {k: v for k, v in config.items() if k != "lengths"}


def differences(a: Run, b: Run) -> list[tuple[str, str, str]]:
    """Every setting and version in which two runs differ."""
    left, right = (dict(flat(_compared(run))) for run in (a, b))
    keys = list(dict.fromkeys([*left, *right]))
    return [(k, _text(left.get(k, "–")), _text(right.get(k, "–"))) for k in keys if left.get(k) != right.get(k)]


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names.

    >>> list(flat({"arguments": {"seeds": 3, "lr": [0.1, 0.2]}}))
    [('arguments.seeds', 3), ('arguments.lr', [0.1, 0.2])]
    """
    if not isinstance(value, Mapping):
        yield prefix or "value", value
        return
    for key, inner in value.items():
        yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))


def _text(value: Any) -> str:
    if is_number(value):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
