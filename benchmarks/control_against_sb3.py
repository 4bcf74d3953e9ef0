# SPDX-License-Identifier: Apache-2.0
"""PPO of `guerdon train --env` beside Stable-Baselines3's, at the same hyper-parameters and steps, on one thread.

    python benchmarks/control_against_sb3.py speed                 both in turn in one process; steps a second, end to end
    python benchmarks/control_against_sb3.py quality [TASK ...]    ten seeds of both; goes on where it was interrupted
    python benchmarks/control_against_sb3.py page                  writes its parts of docs/control.md and docs/performance.md

Each training run ends in greedy episodes from the same starts, played by the same function, with normalisers frozen.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import about, command_line, put, read, said, write

from guerdon.policies.acting import Acted
from guerdon.recipes.control import recipe
from guerdon.sampling.environments import episodes, stepper_of
from guerdon.training.evaluation import EVALUATION_SEED
from guerdon.training.loop import train
from guerdon.training.observers import Jsonl

HERE = Path(__file__).parent
RESULTS = {kind: HERE / "results" / f"control_{kind}.json" for kind in ("speed", "quality")}
PAGE, MARK = HERE.parent / "docs" / "control.md", "<!-- results: python benchmarks/control_against_sb3.py page -->"

PACKAGES = ("guerdon", "stable-baselines3", "gymnasium", "mujoco", "torch", "numpy")
BATCH = 8 * 256
SHARED = {"environments": 8, "horizon": 256, "minibatch": 256, "rounds": 4, "lr": 3e-4, "gamma": 0.99}
TASKS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {**SHARED, "steps": 25, "normalise": False, "episodes": 20},
    "Pendulum-v1": {**SHARED, "steps": 50, "normalise": True, "episodes": 20, "gamma": 0.9, "lr": 1e-3},
    "HalfCheetah-v5": {**SHARED, "steps": 147, "normalise": True, "episodes": 5},
}
FLOOR_AND_AIM = {"CartPole-v1": (2, 3), "Pendulum-v1": (2, 3), "HalfCheetah-v5": (1.5, 1.5)}
SEEDS = range(10)


# ---- the two trainers: each yields its score after every quarter of the steps


def with_guerdon(task: str, settings: Mapping[str, Any], seed: int, evaluate: bool) -> list[float]:
    quarters = -(-settings["steps"] // 4) if evaluate else settings["steps"] + 1
    made = recipe(task, **{**settings, "seed": seed, "evaluate_every": quarters, "checkpoint_every": settings["steps"]})
    scores: list[float] = []

    class Scores(Jsonl):
        def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
            super().metrics(step, metrics)
            if "eval/return" in metrics and step:
                scores.append(metrics["eval/return"])

    if not evaluate:
        object.__setattr__(made, "evaluation", None)
    with tempfile.TemporaryDirectory() as directory:
        train(made, Path(directory) / "run", [Scores()])
    return scores


def with_sb3(task: str, settings: Mapping[str, Any], seed: int, evaluate: bool) -> list[float]:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    envs: Any = make_vec_env(task, n_envs=settings["environments"], seed=seed)
    if settings["normalise"]:
        envs = VecNormalize(envs, gamma=settings["gamma"])
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=settings["horizon"],
        batch_size=settings["minibatch"],
        n_epochs=settings["rounds"],
        learning_rate=settings["lr"],
        gamma=settings["gamma"],
        seed=seed,
        device="cpu",
    )

    class Actor:
        def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
            return np.zeros(steps)

        def act(self, observation: np.ndarray, noise: np.ndarray, greedy: bool = False) -> Acted:
            seen = envs.normalize_obs(observation) if settings["normalise"] else observation
            action, _ = model.predict(seen, deterministic=True)
            return Acted(action, np.zeros(len(action), np.float32))

    scores, total = [], settings["steps"] * BATCH
    quarter = -(-settings["steps"] // 4) * BATCH if evaluate else total
    while model.num_timesteps < total:
        model.learn(min(quarter, total - model.num_timesteps), reset_num_timesteps=False)
        if evaluate:
            played = episodes(Actor(), task, settings["episodes"], seed=EVALUATION_SEED, greedy=True)
            scores.append((played.field("environment_reward").values * played.mask).sum(1).mean().item())
    envs.close()
    return scores


TRAINERS: dict[str, Callable[[str, Mapping[str, Any], int, bool], list[float]]] = {
    "guerdon": with_guerdon,
    "stable-baselines3": with_sb3,
}


# ---- speed


def speed(rounds: int, batches: int) -> None:
    """Steps a second of wall and of processor time, each trainer in turn, ``rounds`` times; the first round is a warm-up."""
    found: dict[str, Any] = {}
    for task in TASKS:
        settings = {**TASKS[task], "steps": batches}
        runs: dict[str, list[list[float]]] = {name: [] for name in TRAINERS}
        for i in range(rounds + 1):
            for name, run in TRAINERS.items():
                start, used = time.perf_counter(), time.process_time()
                run(task, {**settings, "steps": 2} if i == 0 else settings, i, False)
                took = [time.perf_counter() - start, time.process_time() - used]
                if i:
                    runs[name].append([batches * BATCH / t for t in took])
                    print(task, name, [round(x) for x in runs[name][-1]], flush=True)
        ratios = [a[0] / b[0] for a, b in zip(*runs.values(), strict=True)]
        found[task] = {**runs, "ratio": float(np.median(ratios)), "ratios": ratios, "shares": shares(task, settings)}
        print(f"{task}: {found[task]['ratio']:.2f} times", flush=True)
    write(RESULTS["speed"], {"about": about(*PACKAGES), "batches": batches, "tasks": found})


def shares(task: str, settings: Mapping[str, Any]) -> dict[str, float]:
    """Median milliseconds of a batch of guerdon's: of each part, and of as many steps of the environments alone."""
    lines: list[Mapping[str, float]] = []

    class Laps(Jsonl):
        def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
            super().metrics(step, metrics)
            lines.append({k: v for k, v in metrics.items() if k.startswith("time/")})

    made = recipe(task, **{**settings, "seed": 0, "evaluate_every": settings["steps"] + 1})
    object.__setattr__(made, "evaluation", None)
    with tempfile.TemporaryDirectory() as directory:
        train(made, Path(directory) / "run", [Laps()])
    stepper, alone = stepper_of(task, settings["environments"], ()), []
    stepper.reset(range(stepper.count))
    stepper.action_space.seed(0)
    actions = [np.stack([stepper.action_space.sample() for _ in range(stepper.count)]) for _ in range(settings["horizon"])]
    for _ in range(5):
        start = time.perf_counter()
        for action in actions:
            stepper.step(action)
        alone.append(time.perf_counter() - start)
    stepper.close()
    median = {k.removeprefix("time/"): 1e3 * float(np.median([x[k] for x in lines[1:]])) for k in lines[0]}
    return {"environment": 1e3 * float(np.median(alone)), **median}


# ---- quality


def quality(tasks: list[str], seeds: list[int]) -> None:
    stored = {"tasks": {}, **read(RESULTS["quality"])}
    for task in tasks or list(TASKS):
        here = stored["tasks"].setdefault(task, {"settings": TASKS[task], "returns": {name: {} for name in TRAINERS}})
        if here["settings"] != TASKS[task]:
            raise SystemExit(f"{RESULTS['quality']}: {task} was run with other settings; delete its part first.")
        for seed in seeds:
            for name, run in TRAINERS.items():
                if str(seed) not in here["returns"][name]:
                    start = time.process_time()
                    here["returns"][name][str(seed)] = run(task, TASKS[task], seed, True)
                    print(task, name, seed, here["returns"][name][str(seed)], f"{time.process_time() - start:.0f} s", flush=True)
                    write(RESULTS["quality"], {"about": about(*PACKAGES), **{k: v for k, v in stored.items() if k != "about"}})


def interquartile_mean(x: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the last axis, an eighth of ten at either end counted by part.

    >>> float(interquartile_mean(np.array([0.0, 1.0, 2.0, 100.0])))
    1.5
    """
    n = x.shape[-1]
    edges = np.arange(n + 1)
    weight = np.clip(np.minimum(edges[1:], 0.75 * n) - np.maximum(edges[:-1], 0.25 * n), 0, None)
    return (np.sort(x, -1) * weight).sum(-1) / weight.sum()


def interval(x: np.ndarray, draws: int = 20_000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the interquartile mean over seeds."""
    drawn = np.random.default_rng(0).choice(x, (draws, len(x)))
    low, high = np.quantile(interquartile_mean(drawn), [0.025, 0.975])
    return float(low), float(high)


# ---- the page


def page() -> None:
    q, s = (read(RESULTS[k]) for k in ("quality", "speed"))
    if s:
        put("control", __file__, speed_lines(s))
    lines = [PAGE.read_text().partition(MARK)[0] + MARK, ""]
    lines += ["Speed beside Stable-Baselines3, and where a batch's time goes: [Performance](performance.md).", ""]
    if q:
        lines += [
            "## Quality beside Stable-Baselines3",
            "",
            "Mean return of greedy episodes after training; interquartile mean over seeds and its 95 % ",
        ]
        lines[-1] += "bootstrap interval."
        lines += ["", "| task | steps | seeds | guerdon | Stable-Baselines3 | below its interval |", "|---|---|---|---|---|---|"]
        for task, r in q["tasks"].items():
            last = {name: np.array([x[-1] for x in r["returns"][name].values()]) for name in TRAINERS}
            if min(map(len, last.values())) < 2:
                continue
            cells = [f"{interquartile_mean(x):.1f} [{interval(x)[0]:.1f}, {interval(x)[1]:.1f}]" for x in last.values()]
            below = interquartile_mean(last["guerdon"]) < interval(last["stable-baselines3"])[0]
            count, steps = "/".join(str(len(x)) for x in last.values()), r["settings"]["steps"] * BATCH
            lines.append(f"| {task} | {steps:,} | {count} | {' | '.join(cells)} | {'yes' if below else 'no'} |")
        lines += ["", "Settings, the same for both (the others are Stable-Baselines3's defaults):", ""]
        lines += [f"- {task}: " + ", ".join(f"{k}={v}" for k, v in r["settings"].items()) for task, r in q["tasks"].items()]
        lines += ["", said(q["about"])]
    PAGE.write_text("\n".join(lines).rstrip() + "\n")


def speed_lines(s: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Control beside Stable-Baselines3",
        "",
        "PPO from end to end, one thread, steps a second; medians of interleaved runs, range of rounds in brackets.",
        "",
        "| task | guerdon | Stable-Baselines3 | times as fast | in processor time | floor, aim | were all else free |",
        "|---|---|---|---|---|---|---|",
    ]
    missed = []
    for task, r in s["tasks"].items():
        (aw, ac), (bw, bc) = (np.median(np.array(r[name]), 0) for name in TRAINERS)
        ratio = f"{r['ratio']:.2f} [{min(r['ratios']):.2f}, {max(r['ratios']):.2f}]"
        floor, aim = FLOOR_AND_AIM[task]
        ms, theirs = r["shares"], 1e3 * BATCH / bw
        lines.append(
            f"| {task} | {aw:,.0f} | {bw:,.0f} | {ratio} | {ac / bc:.2f} | {floor}, {aim} | {theirs / ms['environment']:.1f} |"
        )
        if r["ratio"] < aim:
            missed += [
                "",
                f"{task} misses its aim: a batch would have to take {theirs / aim:.1f} ms, of which its environments are ",
            ]
            missed[-1] += f"{ms['environment']:.1f} and the update alone {ms['update']:.1f}."
    lines += missed
    lines += [
        "",
        "Where a batch of guerdon's goes, in milliseconds; the environments alone, with random actions, are the limit.",
        "",
    ]
    lines += ["| task | environments | policy and records | reward | credit | update | batch over environments |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for task, r in s["tasks"].items():
        ms = r["shares"]
        cells = [ms["environment"], ms["sample"] - ms["environment"], ms["reward"], ms["credit"], ms["update"]]
        whole = sum(v for k, v in ms.items() if k != "environment")
        lines.append(f"| {task} | {' | '.join(f'{x:.1f}' for x in cells)} | {whole / ms['environment']:.1f} |")
    return [*lines, "", said(s["about"])]


def main() -> None:
    parser, commands = command_line(__doc__)
    fast = commands.add_parser("speed")
    fast.add_argument("--rounds", type=int, default=5)
    fast.add_argument("--batches", type=int, default=20)
    good = commands.add_parser("quality")
    good.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    good.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "speed":
        speed(options.rounds, options.batches)
    elif options.command == "quality":
        quality(options.tasks, options.seeds)
    else:
        page()


if __name__ == "__main__":
    main()
