# SPDX-License-Identifier: Apache-2.0
"""Learning curves before and after: the same trainings, seed by seed, by an earlier revision and by the code as it is.

    python benchmarks/same_curves.py run REVISION [WHAT ...]    trains what is not stored yet; WHAT as in TRAINED
    python benchmarks/same_curves.py page                       its part of docs/performance.md, from the stored results

Samples are drawn with random numbers of each row's own, so two versions start alike and part only by rounding: each curve says
how long it was the same, and the ends say whether the parting was more than noise.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from reporting import about, command_line, put, read, said, write

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "same_curves.json"
CLOSE = 1e-4
MAIN = "from guerdon.cli import main; raise SystemExit(main())"


class Training(NamedTuple):
    """``command`` of guerdon with {seed}; it leaves ``metrics.jsonl`` in each of ``runs``, of which ``metric`` is compared."""

    command: str
    runs: dict[str, str]
    metric: str
    seeds: int


def system(slug: str, arm: str, metric: str, choice: str, seeds: int) -> Training:
    return Training(f"systems run {slug} --arm {arm} --seed {{seed}} --out runs/arm {choice}", {arm: "runs/arm"}, metric, seeds)


TRAINED = {
    "quickstart": Training(
        "run quickstart seeds={seed} --out runs/all",
        {arm: f"runs/all/{arm}-s{{seed}}" for arm in ("outcome", "dense")},
        "eval/success",
        8,
    ),
    "prime": system("prime", "online", "eval/success", "lr=1e-3", 6),
    "gated-reward-accum": system("gated-reward-accum", "edited", "eval/resolution", "lr=1e-2", 6),
    "CartPole-v1": Training(
        "train --env CartPole-v1 --reward environment --seed {seed} --out runs/arm steps=25 normalise=false evaluate_every=5",
        {"PPO": "runs/arm"},
        "eval/return",
        6,
    ),
    "densegrpo": system("densegrpo", "densegrpo", "eval/reward", "", 6),
}


@contextlib.contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """The project's files as they were."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", directory, revision], check=True)
        try:
            yield Path(directory)
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", directory], check=True)


def curves(tree: Path, training: Training, seed: int) -> dict[str, list[float]]:
    """arm -> the metric at every evaluation, the start's first."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-c", MAIN, *training.command.format(seed=seed).split()]
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} in {tree}: exit {done.returncode}\n{done.stdout[-500:]}{done.stderr[-2000:]}")
        found = {}
        for arm, run in training.runs.items():
            lines = (Path(directory) / run.format(seed=seed) / "metrics.jsonl").read_text().splitlines()
            found[arm] = [line[training.metric] for line in map(json.loads, lines) if training.metric in line]
    return found


def short(revision: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", revision], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def run(revision: str, names: Sequence[str]) -> None:
    before, stored = short(revision), read(RESULTS)
    if stored.get("before", before) != before:
        raise SystemExit(f"{RESULTS}: holds curves of {stored['before']}, not of {before}; delete it first.")
    stored = {
        "about": about("guerdon", "torch"),
        "before": before,
        "after": stored.get("after", []),
        "curves": stored.get("curves", {}),
    }
    with tree_of(revision) as old:
        for name in names or TRAINED:
            for seed in range(TRAINED[name].seeds):
                for when, tree in (("before", old), ("after", ROOT)):
                    here = stored["curves"].setdefault(name, {}).setdefault(str(seed), {})
                    if when not in here:
                        here[when] = curves(tree, TRAINED[name], seed)
                        if when == "after":
                            stored["after"] = sorted({*stored["after"], short("HEAD")})
                        print(name, seed, when, {arm: round(curve[-1], 4) for arm, curve in here[when].items()}, flush=True)
                        write(RESULTS, stored)


# ---- the page


def same_for(a: Sequence[float], b: Sequence[float]) -> int:
    """Evaluations until the curves part by more than CLOSE.

    >>> same_for([0.0, 0.5, 0.7], [0.0, 0.5, 0.8]), same_for([0.1], [0.1])
    (2, 1)
    """
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if abs(x - y) > CLOSE), len(a))


def lines(told: dict[str, Any]) -> list[str]:
    rows = []
    for name, seeds in told["curves"].items():
        pairs = [x for x in seeds.values() if {"before", "after"} <= x.keys()]
        for arm in pairs[0]["before"]:
            before, after = ([x[when][arm] for x in pairs] for when in ("before", "after"))
            alike = [same_for(a, b) for a, b in zip(before, after, strict=True)]
            count = len(before[0])
            ends = [[curve[-1] for curve in side] for side in (before, after)]
            apart = [b - a for a, b in zip(*ends, strict=True)]
            half = 1.96 * stdev(apart) / math.sqrt(len(apart))
            same = f"{min(alike)} to {max(alike)}" if min(alike) < max(alike) else f"{alike[0]}"
            rows.append(
                f"| {name}, {arm} | {len(pairs)} | {same} of {count} | {fmean(ends[0]):.3f} | {fmean(ends[1]):.3f} | "
                f"{fmean(apart):+.3f} ± {half:.3f} |"
            )
    return [
        "## The same curves",
        "",
        f"Trainings by revision {told['before']} and by {', '.join(told['after'])}, seed by seed, one thread. The random numbers",
        "of a row are its own, so both draw the same until rounding, which training amplifies, tips a first draw the other way.",
        "From there the curves are two samples of one thing, and the differences of their ends should be noise around 0.",
        "",
        f"| training, arm | seeds | evaluations the same to {CLOSE:g} | end before | end now | difference (95 %) |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        said(told["about"]),
    ]


def main() -> None:
    parser, commands = command_line(__doc__)
    train = commands.add_parser("run")
    train.add_argument("revision")
    train.add_argument("what", nargs="*", metavar="WHAT", help=", ".join(TRAINED))
    options = parser.parse_args()
    if options.command == "run":
        run(options.revision, options.what)
    else:
        put("curves", __file__, lines(read(RESULTS)))


if __name__ == "__main__":
    main()
