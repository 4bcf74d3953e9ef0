# SPDX-License-Identifier: Apache-2.0
"""Learning curves before and after: the same trainings, seed by seed, by an earlier revision and by the code as it is.

    python benchmarks/same_curves.py run REVISION [WHAT ...]       trains what is not stored yet; WHAT as in TRAINED
    python benchmarks/same_curves.py precise REVISION [WHAT ...]   the same in double precision, each pair from one start
    python benchmarks/same_curves.py page                          its part of docs/performance.md, from the stored results

Samples are drawn with random numbers of each row's own, so two versions start alike and part only by rounding: each curve says
how long it was the same, and the ends say whether the parting was more than noise. In double precision rounding is 10^9 times
smaller; what differs then is not rounding, or has been amplified as much.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from reporting import about, command_line, put, read, said, write

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "same_curves.json"
CLOSE = 1e-4
MAIN = "from guerdon.cli import main; raise SystemExit(main())"
PRECISE = """
import torch
torch.set_default_dtype(torch.float64)
torch.float32, torch.Tensor.float = torch.float64, torch.Tensor.double
torch.backends.mkldnn.is_available = lambda: False
"""
"""What a process imports before all else: whoever asks for single precision gets double, which oneDNN does not multiply."""


class Training(NamedTuple):
    """``command`` of guerdon with {seed}; it leaves ``metrics.jsonl`` in each of ``runs``, of which ``metric`` is compared.

    ``start``: what of it is the policy that learning starts from.
    """

    command: str
    runs: dict[str, str]
    metric: str
    seeds: int
    start: tuple[str, ...] = ()


def system(slug: str, arm: str, metric: str, choice: str, seeds: int, start: tuple[str, ...] = ()) -> Training:
    command = f"systems run {slug} --arm {arm} --seed {{seed}} --out runs/arm {choice}"
    return Training(command, {arm: "runs/arm"}, metric, seeds, start)


TRAINED = {
    "quickstart": Training(
        "run quickstart seeds={seed} --out runs/all",
        {arm: f"runs/all/{arm}-s{{seed}}" for arm in ("outcome", "dense")},
        "eval/success",
        8,
        ("runs/all/config.json", "runs/all/start-s{seed}"),
    ),
    "prime": system("prime", "online", "eval/success", "lr=1e-3", 6, ("runs/start-s{seed}",)),
    "gated-reward-accum": system("gated-reward-accum", "edited", "eval/resolution", "lr=1e-2", 6),
    "CartPole-v1": Training(
        "train --env CartPole-v1 --reward environment --seed {seed} --out runs/arm steps=25 normalise=false evaluate_every=5",
        {"PPO": "runs/arm"},
        "eval/return",
        6,
    ),
    "densegrpo": system("densegrpo", "densegrpo", "eval/reward", "", 6, ("runs/start-s{seed}",)),
}
STARTS = {
    "quickstart's start": Training(
        "run quickstart seeds={seed} arms=outcome samples=256 --out runs/all",
        {"loss of each update": "runs/all/start-s{seed}"},
        "loss/negative_log_likelihood",
        8,
    ),
}
"""What is trained in double precision besides: the pairs of TRAINED have one start there."""


@contextlib.contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """The project's files as they were."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", directory, revision], check=True)
        try:
            yield Path(directory)
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", directory], check=True)


def curves(tree: Path, directory: Path, training: Training, seed: int, more: Sequence[Path] = ()) -> dict[str, list[float]]:
    """arm -> the metric at every evaluation, the start's first. Trained in ``directory``; ``more``: where other modules are."""
    command = [sys.executable, "-c", MAIN, *training.command.format(seed=seed).split()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*more, tree])), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} in {tree}: exit {done.returncode}\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    found = {}
    for arm, run in training.runs.items():
        lines = (directory / run.format(seed=seed) / "metrics.jsonl").read_text().splitlines()
        found[arm] = [line[training.metric] for line in map(json.loads, lines) if training.metric in line]
    return found


def one(tree: Path, training: Training, seed: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as directory:
        return curves(tree, Path(directory), training, seed)


def pair(old: Path, training: Training, seed: int) -> dict[str, dict[str, list[float]]]:
    """Before and after in double precision, from the start that the former trained."""
    with tempfile.TemporaryDirectory() as directory:
        first, second, modules = (Path(directory) / name for name in ("before", "after", "modules"))
        for folder in (first, second, modules):
            folder.mkdir()
        (modules / "sitecustomize.py").write_text(PRECISE)
        before = curves(old, first, training, seed, [modules])
        for path in (Path(name.format(seed=seed)) for name in training.start):
            (second / path).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (first / path).is_dir() else shutil.copy)(first / path, second / path)
        return {"before": before, "after": curves(ROOT, second, training, seed, [modules])}


def short(revision: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", revision], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def run(revision: str, names: Sequence[str]) -> None:
    stored = kept(revision)
    with tree_of(revision) as old:
        for name in names or TRAINED:
            for seed in range(TRAINED[name].seeds):
                for when, tree in (("before", old), ("after", ROOT)):
                    here = stored["curves"].setdefault(name, {}).setdefault(str(seed), {})
                    if when not in here:
                        here[when] = one(tree, TRAINED[name], seed)
                        if when == "after":
                            stored["after"] = sorted({*stored["after"], short("HEAD")})
                        print(name, seed, when, {arm: round(curve[-1], 4) for arm, curve in here[when].items()}, flush=True)
                        write(RESULTS, stored)


def precise(revision: str, names: Sequence[str], seeds: int) -> None:
    """As many pairs at a time as there are cores: a pair's time does not matter."""
    stored, all_of_them = kept(revision), TRAINED | STARTS
    found = stored["precise"].setdefault("curves", {})
    waiting = [(name, seed) for name in names or all_of_them for seed in range(min(seeds, all_of_them[name].seeds))]
    with tree_of(revision) as old, ThreadPoolExecutor(os.cpu_count()) as pool:
        missing = [(name, seed) for name, seed in waiting if str(seed) not in found.get(name, {})]
        jobs = {pool.submit(pair, old, all_of_them[name], seed): (name, seed) for name, seed in missing}
        for job in as_completed(jobs):
            name, seed = jobs[job]
            found.setdefault(name, {})[str(seed)] = both = job.result()
            stored["precise"]["after"] = sorted({*stored["precise"].get("after", []), short("HEAD")})
            print(name, seed, {arm: same_for(both["before"][arm], both["after"][arm]) for arm in both["before"]}, flush=True)
            write(RESULTS, stored)


def kept(revision: str) -> dict[str, Any]:
    """What is stored beside ``revision``."""
    before, stored = short(revision), read(RESULTS)
    if stored.get("before", before) != before:
        raise SystemExit(f"{RESULTS}: holds curves of {stored['before']}, not of {before}; delete it first.")
    empty: dict[str, Any] = {"after": [], "curves": {}, "precise": {}}
    return empty | stored | {"about": about("guerdon", "torch"), "before": before}


# ---- the page


def same_for(a: Sequence[float], b: Sequence[float]) -> int:
    """Evaluations until the curves part by more than CLOSE.

    >>> same_for([0.0, 0.5, 0.7], [0.0, 0.5, 0.8]), same_for([0.1], [0.1])
    (2, 1)
    """
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if abs(x - y) > CLOSE), len(a))


def same(pairs: Sequence[Mapping[str, Mapping[str, Sequence[float]]]], arm: str) -> str:
    """How many of an arm's evaluations are the same, least to most over seeds."""
    alike = [same_for(x["before"][arm], x["after"][arm]) for x in pairs]
    least = f"{min(alike)} to {max(alike)}" if min(alike) < max(alike) else f"{alike[0]}"
    return f"{least} of {len(pairs[0]['before'][arm])}"


def lines(told: dict[str, Any]) -> list[str]:
    rows = []
    for name, seeds in told["curves"].items():
        pairs = [x for x in seeds.values() if {"before", "after"} <= x.keys()]
        for arm in pairs[0]["before"]:
            ends = [[x[when][arm][-1] for x in pairs] for when in ("before", "after")]
            apart = [b - a for a, b in zip(*ends, strict=True)]
            half = 1.96 * stdev(apart) / math.sqrt(len(apart))
            rows.append(
                f"| {name}, {arm} | {len(pairs)} | {same(pairs, arm)} | {fmean(ends[0]):.3f} | {fmean(ends[1]):.3f} | "
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
        *(in_double(told["before"], **told["precise"]) if told["precise"] else []),
        "",
        said(told["about"]),
    ]


def in_double(before: str, after: Sequence[str], curves: Mapping[str, Any]) -> list[str]:
    exact = [
        f"| {name}, {arm} | {len(seeds)} | {same(list(seeds.values()), arm)} |"
        for name, seeds in curves.items()
        for arm in next(iter(seeds.values()))["before"]
    ]
    return [
        "",
        f"The same in double precision, by {before} and by {', '.join(after)}, both from the start",
        "that the former trained. Rounding is 10^9 times smaller there; a difference of another kind would part them as early as",
        "above. PRIME divides its process reward by the largest, at its start 0 or rounding. The earlier revision made an",
        "advantage of such rounding, so a seed can part in the first step; now `implicit` pays nothing for it.",
        "",
        f"| training, arm | seeds | evaluations the same to {CLOSE:g} |",
        "|---|---|---|",
        *exact,
    ]


def main() -> None:
    parser, commands = command_line(__doc__)
    for name, which in {"run": TRAINED, "precise": TRAINED | STARTS}.items():
        train = commands.add_parser(name)
        train.add_argument("revision")
        train.add_argument("what", nargs="*", metavar="WHAT", help=", ".join(which))
    train.add_argument("--seeds", type=int, default=8, help="at most so many of each")
    options = parser.parse_args()
    known = TRAINED | STARTS if options.command == "precise" else TRAINED
    if unknown := [name for name in getattr(options, "what", ()) if name not in known]:
        parser.error(f"WHAT should be of {', '.join(known)}, got {', '.join(unknown)}")
    if options.command == "run":
        run(options.revision, options.what)
    elif options.command == "precise":
        precise(options.revision, options.what, options.seeds)
    else:
        put("curves", __file__, lines(read(RESULTS)))


if __name__ == "__main__":
    main()
