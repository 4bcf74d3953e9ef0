# SPDX-License-Identifier: Apache-2.0
"""Writes run directories as the loop does, from an invented learner, so that the report can be tested without training.

Rollouts are running-digits completions of a writer whose steps are right with a probability that grows; scores are made of
which steps are those of the task.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random

import torch

from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Component, Scores, component, scores_of
from guerdon.tasks import running_digits

STEPS, EVERY, BATCH = 40, 5, 64
LENGTH = 4

ARMS = {
    "outcome": ("0 or 1 at the end: whether the last digit is right.", "exact(answer)", "exact(answer)  episode  self  [0, 1]"),
    "dense": (
        "For each step, whether it is right.",
        "steps() + 0.1 * format('(\\+[0-9]=[0-9])*')",
        "+\n├── steps()  step  self  [0, 1]\n└── 0.1 * format('(\\+[0-9]=[0-9])*')  episode  self  [0, 1]",
    ),
    "shuffled": ("The step rewards of another completion.", "steps().shuffled()", "shuffled\n└── steps()  step  batch  [0, 1]"),
}


def skill(arm: str, step: int, seed: int) -> float:
    """Probability that the invented learner gets a step right."""
    if arm == "dense":
        return 0.5 + 0.49 / (1 + math.exp(-(step - 15 - 2 * seed) / 3))
    return 0.5 + (0.02 * seed if arm == "shuffled" else 0.0)


def rollouts_of(arm: str, step: int, seed: int, rows: int = 16) -> tuple[Rollouts, Scores]:
    """A batch of completions in groups of four, cut into tokens of one digit or sign and digit, and its scores."""
    random = Random(f"{arm} {step} {seed}")
    tasks = [task for task in running_digits.make_tasks(rows // 4, LENGTH, seed) for _ in range(4)]
    written = [_write(task.fields["steps"], skill(arm, step, seed), random) for task in tasks]
    texts = ["".join(steps) for steps in written]
    size = 2 * LENGTH + 1  # the end token is a step too
    start = torch.arange(size - 1) * 2
    offset = torch.cat([torch.stack([start, start + 2], -1), torch.full((1, 2), 4 * LENGTH)]).expand(rows, size, 2)
    ends = torch.zeros(rows, size, dtype=torch.bool)
    ends[:, -1] = True
    rollouts = Rollouts(
        action=torch.randint(0, 30, (rows, size), generator=torch.Generator().manual_seed(step)),
        mask=torch.ones(rows, size, dtype=torch.bool),
        task=[task.key for task in tasks],
        terminated=ends,
        levels={"line": (torch.arange(size) // 2).clamp(max=LENGTH - 1).expand(rows, size).clone()},
        group=torch.arange(rows) // 4,
        fields={
            "prompt": Field("task", [task.prompt for task in tasks]),
            "completion": Field("episode", [[text] for text in texts]),
            "offset": Field("step", offset.clone()),
            "answer": Field("task", [task.fields["answer"] for task in tasks]),
        },
    )
    return rollouts, scores_of(rollouts, _components(arm, tasks, written, random))


def _write(steps: list[str], right: float, random: Random) -> list[str]:
    """The right steps, each with another last digit where the writer errs."""
    return [step if random.random() < right else step[:-1] + str((int(step[-1]) + random.randint(1, 9)) % 10) for step in steps]


def _components(arm: str, tasks: list, written: list[list[str]], random: Random) -> list[Component]:
    pairs = [(steps, task.fields["steps"]) for steps, task in zip(written, tasks, strict=True)]
    if arm == "outcome":
        return [component("exact", "episode", torch.tensor([[float(steps[-1] == right[-1])] for steps, right in pairs]))]
    ticks = [[float(a == b) - 0.25 for a, b in zip(steps, right, strict=True)] for steps, right in pairs]
    if arm == "shuffled":
        random.shuffle(ticks)
        return [component("steps", "line", torch.tensor(ticks))]
    form = component("format", "episode", torch.ones(len(written), 1), weight=0.1)
    return [component("steps", "line", torch.tensor(ticks)), form]


def write_seed(directory: Path, arm: str, seed: int, tags: bool = True, timeouts: float = 0.0) -> dict[str, float]:
    """One training run's directory; its result is returned too."""
    directory.mkdir(parents=True)
    sees, reward, tree = ARMS[arm]
    about = {} if tags else {"sees": sees, "reward": reward, "reward_tree": tree}  # a study tells it once for all arms
    config = {"schema": 1, "recipe": "quickstart", "arguments": {"steps": STEPS, "lr": 0.001 * (seed + 1)}, "about": about}
    (directory / "config.json").write_text(json.dumps({**config, "versions": {"torch": "2.13.0"}}))
    random, tag, seconds = Random(f"run {arm} {seed}"), {"arm": arm, "seed": seed} if tags else {}, 0.0
    with (directory / "metrics.jsonl").open("w") as file:
        for step in range(STEPS + 1):
            where = {**tag, "step": step, "samples": step * BATCH, "tokens": step * BATCH * 9, "seconds": seconds}
            if step:
                file.write(json.dumps({**where, "stage": "train", **_train_line(arm, step, seed, random, timeouts)}) + "\n")
                seconds += 0.4 + 0.1 * random.random()
            if step % EVERY == 0:
                found = _evaluation(arm, step, seed, random)
                file.write(json.dumps({**where, "stage": "eval", **found}) + "\n")
    for step in (1, STEPS // 2, STEPS):
        for kind, what in zip(("rollouts", "scores"), rollouts_of(arm, step, seed), strict=True):
            (directory / kind).mkdir(exist_ok=True)
            what.save(directory / kind / f"step-{step:06d}.parquet")
    result = {"samples": STEPS * BATCH, "seconds": seconds, **found}
    (directory / "result.json").write_text(json.dumps({"schema": 1, **result}))
    return result


def _evaluation(arm: str, step: int, seed: int, random: Random) -> dict[str, float]:
    chain = skill(arm, step, seed) ** LENGTH
    share = sum(random.random() < chain for _ in range(400)) / 400
    return {"eval/success": share, "eval/greedy": min(1.0, share * 1.2), "eval/pass@4": 1 - (1 - share) ** 4, "eval/length": 9.0}


def _train_line(arm: str, step: int, seed: int, random: Random, timeouts: float) -> dict[str, float]:
    right, noise = skill(arm, step, seed), random.gauss(0, 0.01)
    steps = {"steps": right + noise, "format": 1.0} if arm == "dense" else {"steps": right + noise}
    parts = {"exact": right**LENGTH + 0.1 + noise} if arm == "outcome" else steps
    shares = {"steps": 0.97 + noise / 3, "format": 0.03 - noise / 3} if arm == "dense" else dict.fromkeys(parts, 1.0)
    return {
        "time/sample": 0.2, "time/reward": 0.02, "time/update": 0.2, "tokens_per_second": 1300 + 100 * noise,
        "loss": noise, "grad_norm": 0.5, "entropy": 1.2 - right, "length": 9.0, "reward/total": sum(parts.values()),
        **{f"reward/{name}": value for name, value in parts.items()},
        **{f"share/{name}": value for name, value in shares.items()},
        **{f"status/{name}/timeout": timeouts for name in parts},
        **{f"status/{name}/{kind}": 0.0 for name in parts for kind in ("abstain", "error")},
        "no_signal": 0.3 - 0.2 * right + noise, "dropped": timeouts,
    }  # fmt: skip


def write_study(directory: Path, seeds: int = 3, lengths: bool = True) -> Path:
    """A study of three arms; the shared start has a directory too, as the loop leaves it."""
    arms: dict[str, dict[str, list[float]]] = {}
    for arm in ARMS:
        results = [write_seed(directory / f"{arm}-s{seed}", arm, seed) for seed in range(seeds)]
        arms[arm] = {key.removeprefix("eval/"): [r[key] for r in results] for key in results[0]}
    write_seed(directory / "start-s0", "outcome", 0, tags=False)
    result: dict = {"schema": 1, "seeds": list(range(seeds)), "arms": arms, "chosen": {"lr": 0.001}}
    if lengths:
        result["lengths"] = stored_lengths()
    (directory / "result.json").write_text(json.dumps(result))
    config = {
        "schema": 1, "command": ["guerdon", "run", "quickstart", f"seeds={seeds}"], "recipe": "quickstart",
        "arguments": {"seeds": seeds},
        "about": {
            "title": "Sparse against dense, on the same samples",
            "task": "Add a row of digits one at a time, writing the last digit of each running total.",
            "example": {"prompt": "6+8+8:", "completion": "+8=4+8=2"},
            "notes": ["The demonstrations are sloppy on purpose: half of their steps are wrong."],
            "arms": {arm: sees for arm, (sees, _, _) in ARMS.items()},
            "reward": {arm: reward for arm, (_, reward, _) in ARMS.items()},
            "reward_tree": {arm: tree for arm, (_, _, tree) in ARMS.items()},
            "grid": {"lr": [0.0003, 0.001], "points": [{"lr": 0.0003, "success": 0.41}, {"lr": 0.001, "success": 0.93}]},
            "lengths": None,
        },
        "versions": {"python": "3.12", "torch": "2.13.0", "guerdon": "0.1.0"},
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def stored_lengths() -> dict:
    """Dense needs a little more with each step, outcome only ever more; beyond five steps it does not arrive."""
    random, points = Random("lengths"), []
    for length in range(2, 9):
        for seed in range(3):
            needed = {"dense": 500 * length**0.8, "outcome": 700 * 3.2 ** (length - 2)}
            for arm, samples in needed.items():
                n = round(samples * random.uniform(0.8, 1.25))
                points.append({"arm": arm, "length": length, "seed": seed, "samples_to_half": n if n <= 60_000 else None})
    return {"command": "guerdon run lengths", "budget": 60_000, "points": points}
