# SPDX-License-Identifier: Apache-2.0
"""What to audit on, from files and names: JSONL of tasks, a Gymnasium environment, the digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guerdon.audit.subject import Episodes, Images, Texts
from guerdon.errors import InputError
from guerdon.rewards import Reward
from guerdon.tasks import read_jsonl
from guerdon.tasks.digits import images

OF_A_STEP = {"observation", "next_observation", "environment_reward", "action", "terminated", "truncated", "log_prob"}


def texts(path: Path, malformed: str = "wrong") -> Texts:
    """Tasks of a JSONL file: ``prompt``, ``right`` and ``wrong`` and ``malformed`` completions (one, or a list), and fields.

    A task without ``right`` has its ``answer`` as the right completion.
    """
    rows = []
    for number, line in enumerate(read_jsonl(path, ["prompt"]), start=1):
        row = {k: v for k, v in line.items() if k not in Texts.OWN} | {"prompt": line["prompt"]}
        for name in ("right", "wrong", "malformed"):
            if name in line:
                row[name] = line[name] if isinstance(line[name], list) else [line[name]]
        if "right" not in row:
            if "answer" not in row:
                raise InputError(
                    f"{path}, task {number}: expected `right`, a completion or a list of them, or an `answer`; it has "
                    f"{', '.join(f'`{k}`' for k in line)}. Usual cause: a file of prompts alone."
                )
            row["right"] = [str(row["answer"])]
        rows.append(row)
    return Texts(rows, malformed)


def episodes(env: str, rewards: list[Reward], limit: int) -> Episodes:
    """The environment of a Gymnasium id, with the numbers of its steps' info that the rewards read."""
    needs = frozenset[str]().union(*(r.needs for r in rewards))
    return Episodes(env, tuple(sorted(needs - OF_A_STEP)), limit)


def digits() -> Images:
    """Real digits, each asked for by its label; every fifth of scikit-learn's."""
    pixels, labels = images()
    return Images(pixels[::5], labels[::5])


def describe(subject: Any) -> str:
    """In a few words."""
    if isinstance(subject, Texts):
        return f"{len(subject.rows)} tasks"
    if isinstance(subject, Images):
        return f"{len(subject.right)} digits"
    return f"{subject.make if isinstance(subject.make, str) else 'an environment'}, {subject.limit} steps at most"
