# SPDX-License-Identifier: Apache-2.0
"""The quickstart: a sparse reward and a dense one on the same samples, from the same start.

A tiny language model adds a row of digits one at a time. It is first taught the format by demonstrations that are sloppy on
purpose; then each arm goes on from there with the same number of samples and the same everything but the reward.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.credit import group_relative
from guerdon.objectives import clipped_surrogate, negative_log_likelihood, token_mean
from guerdon.protocols import Sampling
from guerdon.rewards import Reward, reward
from guerdon.rewards.checkers import format
from guerdon.tasks import running_digits
from guerdon.training.binding import bind
from guerdon.training.evaluation import Evaluation
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Demonstrations, Prompts, contexts_of
from guerdon.training.study import Study

if TYPE_CHECKING:
    from guerdon.policies.language import LanguagePolicy

TASK = "Add a row of digits one at a time, writing the last digit of each running total."
SLOPPY = (
    "The demonstrations are sloppy on purpose: each pair of total and digit has one fixed wrong answer, given half the time. "
    "So the start writes the right form, gets half the steps right and almost never a whole chain."
)
PROMPTS, SAMPLES = 16, 16  # per update
DATA = Path(__file__).parent / "data"
LEARNING_RATE = 1e-3  # the choice of quickstart-grid for both arms


@reward(bounds=(0, 1))
def chain_right(completion: str, prompt: str) -> bool:
    """1 if every step of the whole chain is there and right."""
    return running_digits.success(completion, prompt)


@lru_cache(maxsize=4096)
def _ticks(completion: str, prompt: str) -> tuple[bool, ...]:
    return tuple(running_digits.step_is_right(completion, prompt))


@reward(level="segment", split=r"(?=\+)", bounds=(0, 1))
def step_right(index: int, completion: str, prompt: str) -> bool:
    """1 for each step that follows from the total written before it."""
    return _ticks(completion, prompt)[index]


def rewards() -> dict[str, Reward]:
    """The arms' rewards. What an arm does not train on it watches, so that the same curves exist for all."""
    form = format(r"(\+\d=\d)+").named("form")
    dense = chain_right + step_right + 0.1 * form
    return {
        "fraction": chain_right + step_right.pool("sum") + 0.1 * form,
        "outcome": chain_right + step_right.watch() + form.watch(),
        "dense": dense,
        "shuffled": chain_right + step_right.shuffled(over="batch") + 0.1 * form + step_right.watch(),
    }


ABOUT = {
    "outcome": "sees whether the whole chain is right, once, at the end",
    "dense": "sees whether the whole chain is right and, for each step, whether it follows from the total written before it",
    "fraction": "sees how many of the steps are right, as one number at the end",
    "shuffled": "sees the step ticks that its batch earned, dealt out at random: as much reward, without its place",
}


def recipe(
    seeds: Sequence[int] = (0, 1, 2),
    seed: int | None = None,
    length: int = 14,
    samples: int = 16_384,
    arms: Sequence[str] = ("dense", "outcome", "shuffled"),
    lr: float = LEARNING_RATE,
) -> Study:
    """Outcome-only, dense and shuffled rewards from the same start with the same number of samples.

    seeds: which seeds to run (seed=S for one); length: steps in a chain; samples: completions each arm may draw.
    """
    if seed is not None:
        seeds = (seed,)
    seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
    arms = (arms,) if isinstance(arms, str) else tuple(arms)
    return Study(
        "quickstart",
        arms={a: partial(_arm, a, length, samples, lr) for a in arms},
        seeds=seeds,
        prepare=partial(warm_start, length),
        summarise=summarise,
        about=about(length, samples, arms),
    )


def about(length: int, samples: int, arms: Sequence[str]) -> dict[str, Any]:
    trees = rewards()
    example = running_digits.make_tasks(1, 4, 0)[0]
    return {
        "title": "Sparse against dense, on the same samples",
        "task": TASK,
        "example": {"prompt": example.prompt, "completion": "".join(example.fields["steps"])},  # type: ignore[arg-type]
        "notes": [
            f"Each chain has {length} steps; a chain counts as right only if all of them are.",
            SLOPPY,
            f"All arms start from the same policy and draw the same number of samples ({samples:,}).",
            f"In the figure of longer chains, fraction {ABOUT['fraction']}.",
        ],
        "arms": {a: ABOUT[a] for a in arms},
        "reward": {a: str(trees[a]) for a in arms},
        "reward_tree": {a: trees[a].tree() for a in arms},
        "grid": _stored("quickstart_grid.json"),
        "lengths": _stored("quickstart_lengths.json"),
    }


def warm_start(length: int, seed: int, *, updates: int = 400) -> Recipe:
    """Supervised learning on sloppy demonstrations: teaches the form and half the steps."""
    return Recipe(
        "warm start", partial(_fresh, length, seed), [_teach(length, seed, updates)], evaluation(length, 200), seed=seed
    )


def _teach(length: int, seed: int, updates: int) -> Stage:
    shown = running_digits.demonstrations(4096, length, seed)
    return Stage(
        "warm",
        updates,
        Demonstrations(shown, 24),
        [Term(1.0, negative_log_likelihood, token_mean)],
        lr=lambda s: 4e-3 * (1 - s / updates),
    )


def _arm(arm: str, length: int, samples: int, lr: float, seed: int, start: Path | None) -> Recipe:
    assert start is not None
    return Recipe(
        arm, partial(_load, start / "policy"), [improve(arm, length, samples, lr, seed)], evaluation(length, 5), seed=seed
    )


def improve(arm: str, length: int, samples: int, lr: float, seed: int) -> Stage:
    """The stage that the arms share but for their reward: group-relative returns-to-go, clipped surrogate."""
    contexts = contexts_of(running_digits.make_tasks(4096, length, seed))
    return Stage(
        "train",
        samples // (PROMPTS * SAMPLES),
        Prompts(contexts, PROMPTS, SAMPLES, Sampling(max_new_tokens=2 * length + 2)),
        [Term(1.0, clipped_surrogate, token_mean)],
        reward=rewards()[arm],
        credit=bind(group_relative, level="step"),
        lr=lr,
    )


def evaluation(length: int, every: int) -> Evaluation:
    contexts = contexts_of(running_digits.held_out_tasks(64, length, 0))
    return Evaluation(contexts, chain_right, every, samples=4, sampling=Sampling(max_new_tokens=2 * length + 2))


def _fresh(length: int, seed: int) -> LanguagePolicy:
    from guerdon.policies.language import LanguagePolicy

    return LanguagePolicy.tiny(running_digits.TOKENS, width=64, layers=2, heads=4, max_length=4 * length + 8, seed=seed)


def _load(path: Path) -> LanguagePolicy:
    from guerdon.policies.language import LanguagePolicy

    return LanguagePolicy.load(path)


def summarise(result: dict[str, Any], out: Path) -> dict[str, Any]:
    """The verdict, from the numbers: by how many points of success dense is ahead of each other arm, at worst over seeds."""
    arms = result["arms"]
    if "dense" not in arms or len(arms) < 2:
        return {}
    gaps = {
        other: {m: [100 * (d - o) for d, o in zip(arms["dense"][m], arms[other][m], strict=True)] for m in ("success", "greedy")}
        for other in arms
        if other != "dense"
    }
    worst = {other: min(min(g["success"]), min(g["greedy"])) for other, g in gaps.items()}
    parts = [
        f"{a} {100 * statistics.mean(arms[a]['success']):.0f} % (greedy {100 * statistics.mean(arms[a]['greedy']):.0f} %)"
        for a in arms
    ]
    n = len(result["seeds"])
    text = f"Held-out success after the same number of samples, mean of {n} seed{'s' * (n > 1)}: {', '.join(parts)}. "
    ahead = ", ".join(f"{w:+.0f} points against {o}" for o, w in worst.items())
    text += f"Dense on its worst seed, sampled or greedy: {ahead}."
    return {"gap_points": gaps, "verdict": {"text": text, "worst_gap_points": worst, "holds": worst.get("outcome", -100) >= 60}}


def _stored(name: str) -> Any:
    path = DATA / name
    return json.loads(path.read_text()) if path.exists() else None
