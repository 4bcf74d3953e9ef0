# SPDX-License-Identifier: Apache-2.0
"""Saved completions token by token, with the reward that fell on each: what the template colours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from guerdon.report.plot import number
from guerdon.report.reading import Seed
from guerdon.rollouts import Rollouts
from guerdon.scores import Scores

LONGEST = 400
"""Tokens shown of one completion; the rest is counted."""


@dataclass(frozen=True)
class Token:
    """``reward`` is None where nothing is known or the unit is not ok; ``state``: taken, ending (a step that
    writes nothing), given (not the policy's), failed."""

    text: str
    reward: float | None
    state: str
    tip: str


@dataclass(frozen=True)
class Sample:
    prompt: str
    tokens: list[Token]
    left_out: int
    total: str


@dataclass(frozen=True)
class Moment:
    """A few completions of one training step."""

    step: int
    when: str
    samples: list[Sample]
    scored: bool


def moments(seed: Seed, each: int = 3) -> list[Moment]:
    """The first, the middle and the last saved step of a run: the first row of each of the first ``each`` groups in the file.

    Rows are taken by their place, never by their reward. Rollouts without text are left out.
    """
    saved = sorted((seed.directory / "rollouts").glob("step-*.parquet"), key=_step_of)
    picked = {_step_of(path): path for path in (saved[:1] + saved[len(saved) // 2 :][:1] + saved[-1:])}
    when = {1: ("only saved step",), 2: ("first", "last")}.get(len(picked), ("first", "middle", "last"))
    found = [_moment(path, step, name, each) for (step, path), name in zip(sorted(picked.items()), when, strict=bool(picked))]
    return [moment for moment in found if moment.samples]


def largest(found: list[Moment]) -> float:
    """The largest |reward| on any shown token, for a scale that all share; 1 if there is none."""
    rewards = [abs(t.reward) for m in found for s in m.samples for t in s.tokens if t.reward is not None]
    return max(rewards, default=0.0) or 1.0


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _moment(path: Path, step: int, when: str, each: int) -> Moment:
    rollouts = Rollouts.load(path)
    if "completion" not in rollouts.fields:
        return Moment(step, when, [], False)
    at = path.parent.parent / "scores" / path.name
    scores = Scores.load(at) if at.exists() else None
    group = rollouts.group.tolist()
    rows = sorted({g: row for row, g in reversed(list(enumerate(group)))}.values())[:each]
    return Moment(step, when, [_sample(rollouts, scores, row) for row in rows], scores is not None)


def _sample(rollouts: Rollouts, scores: Scores | None, row: int) -> Sample:
    prompt = rollouts.fields["prompt"].values[row] if "prompt" in rollouts.fields else ""
    text = "".join(map(str, rollouts.fields["completion"].values[row]))
    length = int(rollouts.length[row])
    spans = rollouts.fields["offset"].values[row, :length].tolist() if "offset" in rollouts.fields else [[0, len(text)]]
    tokens = _tokens(rollouts, scores, row, text, spans[:LONGEST])
    return Sample(_prompt_text(prompt), tokens, max(len(spans) - LONGEST, 0), _total(scores, row))


def _tokens(rollouts: Rollouts, scores: Scores | None, row: int, text: str, spans: list[list[int]]) -> list[Token]:
    """One Token for each step, and one for any text between two steps that no step wrote."""
    reward = scores.reward()[row].tolist() if scores else None
    parts = {name: values[row].tolist() for name, values in scores.rewards().items()} if scores else {}
    tokens, end = [], 0
    for t, (start, stop) in enumerate(spans):
        if start > end:
            tokens.append(Token(text[end:start], None, "given", "written by no step of the policy"))
        end = max(end, stop)
        written = text[start:stop]
        if not written:
            written = "cut" if bool(rollouts.truncated[row, t]) else "end" if bool(rollouts.terminated[row, t]) else "·"
        if not bool(rollouts.mask[row, t]):
            tokens.append(Token(written, None, "given", "not written by the policy"))
            continue
        tokens.append(_token(written, t, reward, parts, "ending" if start == stop else "taken"))
    return tokens


def _token(written: str, t: int, reward: list[float] | None, parts: dict[str, list[float]], state: str) -> Token:
    if reward is None:
        return Token(written, None, state, f"step {t}: no saved scores")
    if math.isnan(reward[t]):
        return Token(written, None, "failed", f"step {t}: the reward is not ok here")
    terms = ", ".join(f"{name} {number(values[t])}" for name, values in parts.items()) if len(parts) > 1 else ""
    return Token(written, reward[t], state, f"step {t}: reward {number(reward[t])}" + (f" = {terms}" if terms else ""))


def _total(scores: Scores | None, row: int) -> str:
    """The sum over the row's steps, or the reason why there is none."""
    if scores is None:
        return ""
    total = float(scores.reward()[row][scores.mask[row]].sum())
    if not math.isnan(total):
        return number(total)
    return next((text for (n, _), text in scores.total.reasons.items() if n == row), "not ok")


def _prompt_text(prompt: object) -> str:
    if isinstance(prompt, str):
        return prompt
    messages = prompt if isinstance(prompt, list) else []
    return "\n".join(f"{m.get('role', '')}: {m.get('content', '')}" for m in messages if isinstance(m, dict)) or str(prompt)
