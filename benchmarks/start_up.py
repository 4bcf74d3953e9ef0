# SPDX-License-Identifier: Apache-2.0
"""How long until something happens: importing, the command's help, and the first points of the quickstart's curve.

python benchmarks/start_up.py run      processes of their own, in turn; the quickstart once, as `make run` runs it
python benchmarks/start_up.py page     its part of docs/performance.md, from the stored results
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from reporting import about, command_line, put, read, said, write

RESULTS = Path(__file__).parent / "results" / "start_up.json"
MAIN = "from guerdon.cli import main; raise SystemExit(main())"
PROCESSES = {
    "nothing": ["-c", ""],
    "import torch": ["-c", "import torch"],
    "import torch, guerdon": ["-c", "import torch, guerdon"],
    "guerdon --help": ["-c", MAIN, "--help"],
}
SEEDS = (0, 1, 2)
GAP, SOON = 0.1, 15
Point = tuple[float, str, int, int, float]
"""Seconds since the start, arm, seed, step, success."""


def processes(rounds: int) -> dict[str, list[float]]:
    """Seconds of wall time of each process, in turn; the first round, which reads files from the disk, is not counted."""
    took: dict[str, list[float]] = {name: [] for name in PROCESSES}
    for i in range(rounds + 1):
        for name, arguments in PROCESSES.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            if i:
                took[name].append(round(time.perf_counter() - start, 4))
    return took


def quickstart() -> dict[str, Any]:
    """Seconds from the start of ``guerdon run quickstart`` at which its arms' evaluations are in their files."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "run"
        command = [sys.executable, "-c", MAIN, "run", "quickstart", f"seeds={','.join(map(str, SEEDS))}", "--out", str(out)]
        start, seen, points = time.perf_counter(), dict[Path, int](), list[Point]()
        with subprocess.Popen(command, cwd=directory, env=os.environ, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                time.sleep(0.1)
                now = time.perf_counter() - start
                for file in out.glob("*-s*/metrics.jsonl"):
                    arm, _, seed = file.parent.name.rpartition("-s")
                    lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
                    for line in map(json.loads, lines[seen.get(file, 0) :]):
                        if "eval/success" in line:
                            points.append((round(now, 1), arm, int(seed), line["step"], line["eval/success"]))
                    seen[file] = len(lines)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit {process.returncode}")
    return {"points": points, "whole": round(time.perf_counter() - start, 1), **milestones(points)}


def milestones(points: Sequence[Point]) -> dict[str, float]:
    """When the dense arm's first point after an update was there, and when the best so far of the other was behind by GAP; before
    the former, when its seed's supervised start began and ended.

    >>> milestones([(1.0, "start", 0, 0, 0.0), (2.0, "start", 0, 4, 0.0), (2.5, "dense", 0, 0, 0.0), (2.5, "outcome", 0, 5, 0.0),
    ...             (3.0, "dense", 0, 5, 0.05), (4.0, "dense", 0, 10, 0.2), (5.0, "dense", 0, 15, 0.3)])
    {'first': 3.0, 'begun': 1.0, 'ended': 2.0, 'gap': 4.0}
    """
    other, found, starts = 0.0, dict[str, float](), dict[int, list[float]]()
    for when, arm, seed, step, success in points:
        if arm == "start":
            starts.setdefault(seed, []).append(when)
        other = max(other, success if arm == "outcome" else 0.0)
        if arm == "dense" and step:
            if "first" not in found:
                found |= {"first": when, "begun": starts[seed][0], "ended": starts[seed][-1]}
            if success >= other + GAP:
                found.setdefault("gap", when)
    return found


def lines(told: dict[str, Any]) -> list[str]:
    took = told["processes"]
    p = {name: median(seconds) for name, seconds in took.items()}
    alone, both = took["import torch"], took["import torch, guerdon"]
    beyond = median(b - a for a, b in zip(alone, both, strict=True))
    q = told["quickstart"]
    late = f"The first point misses its aim of {SOON} s: " if q["first"] > SOON else "Before the first point "
    return [
        "## Start-up",
        "",
        "| | seconds | aim |",
        "|---|---|---|",
        f"| `import guerdon`, beyond PyTorch's own {p['import torch']:.2f} | {beyond:.2f} | 0.3 |",
        f"| `guerdon --help` | {p['guerdon --help']:.2f} | 1 |",
        f"| quickstart, first point of the dense arm's curve | {q['first']:.0f} | {SOON} |",
        f"| quickstart, dense ahead of outcome by {100 * GAP:.0f} points | {q['gap']:.0f} | 60 |",
        f"| quickstart, {len(SEEDS)} seeds of three arms with their report | {q['whole']:.0f} | |",
        "",
        f"Processes of their own, medians of {len(alone)}; the quickstart once, with everything installed.",
        f"{late}{q['begun']:.0f} s pass until the first evaluation of the supervised start (imports, making the model),",
        f"{q['ended'] - q['begun']:.0f} s with its updates, {q['first'] - q['ended']:.0f} s with the arm's first ones.",
        "",
        said(told["about"]),
    ]


def main() -> None:
    parser, commands = command_line(__doc__)
    commands.add_parser("run").add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if options.command == "run":
        write(RESULTS, {"about": about("guerdon", "torch"), "processes": processes(options.rounds), "quickstart": quickstart()})
    else:
        put("start-up", __file__, lines(read(RESULTS)))


if __name__ == "__main__":
    main()
