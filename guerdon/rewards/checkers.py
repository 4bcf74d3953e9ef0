# SPDX-License-Identifier: Apache-2.0
"""Rewards that come with the library. The public factories here are the names of the expression language.

    exact     the completion is the gold answer, as text        episode  0 or 1
    numeric   its number is the gold number                     episode  0 or 1
    math      it is mathematically the gold answer              episode  0 or 1
    format    it matches a regular expression                   episode  0 or 1
    overlap   BLEU or chrF against a reference text             episode  0 .. 1
    length    characters, words or tokens                       episode  0 ..
    length_penalty  penalty near and above a length limit             episode  -1 .. 0
    steps     a check for each segment of the completion        segment  as the check
    judge     a language model's score by a rubric, over HTTP            episode  0 .. 1
    judge_wins      how often it beats its group, by a language model   episode  0 .. 1
    code      unit tests of the program in it, in the sandbox   episode  0 .. 1
    program   a reward program, in the sandbox                  step     any
    kl        estimate of the divergence from the reference     step     any
    environment     what the environment itself gave                  step     any
    field     any number that the rollouts carry                any      any

All but ``math`` run in this process unless given a ``budget`` in seconds an item; ``math`` has one from the start, since
algebra can take for ever. ``answer`` names the field that holds the gold answer.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from math import inf, isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import ExpressionError, InputError
from guerdon.judges.absolute import judge
from guerdon.judges.pairwise import judge_wins
from guerdon.rewards import checks, mathematics
from guerdon.rewards.code import code
from guerdon.rewards.fields import environment, field
from guerdon.rewards.function import DERIVED, FunctionReward, checked_budget, reward
from guerdon.rewards.node import Reward
from guerdon.rewards.parse import load
from guerdon.rewards.programs import program
from guerdon.rewards.splitters import compiled
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Component, Status

__all__ = [
    "code",
    "environment",
    "exact",
    "field",
    "format",
    "judge",
    "judge_wins",
    "kl",
    "length",
    "length_penalty",
    "math",
    "numeric",
    "overlap",
    "program",
    "steps",
]

_VERSION = hashlib.sha256(b"".join(Path(str(m.__file__)).read_bytes() for m in (checks, mathematics))).hexdigest()[:8]


def _written(factory: Callable[..., Any], **given: Any) -> str:
    """The factory's call as text, with the arguments that differ from their defaults."""
    said = []
    for name, value in given.items():
        p = inspect.signature(factory).parameters[name]
        if value != p.default:
            text = repr(str(value) if isinstance(value, Reward) else value)
            said.append(text if p.kind is p.POSITIONAL_OR_KEYWORD else f"{name}={text}")
    return f"{factory.__name__}({', '.join(said)})" if said else factory.__name__


def _checker(
    check: Callable[..., Any], written: str, budget: float | None, bounds: tuple[float, float], answer: str = "", **bound: Any
) -> FunctionReward:
    """The reward of a check with values bound to some arguments; the rest are fields."""
    reads = {a: answer if a == "answer" else a for a in inspect.signature(check).parameters if a not in bound}
    name = written.partition("(")[0]
    return FunctionReward(
        name=name,
        bounds=Bounds(*bounds),
        needs=frozenset(reads.values()) - set(DERIVED),
        budget=checked_budget(budget, name),
        version=_VERSION,
        function=partial(check, **bound) if bound else check,
        reads=reads,
        written=written,
    )


def _one_of(value: str, allowed: tuple[str, ...], whose: str, name: str) -> None:
    if value not in allowed:
        raise ExpressionError(f"{whose}: `{name}` should be one of {', '.join(allowed)}, got {value!r}.")


def _installed(module: str, whose: str) -> None:
    if find_spec(module) is None:
        raise InputError(f"{whose}: needs {module}, which is not installed here. Install it with: pip install 'guerdon[check]'.")


def _at_least_0(whose: str, **numbers: float) -> None:
    for name, value in numbers.items():
        if not (isinstance(value, (int, float)) and isfinite(value) and value >= 0):
            raise ExpressionError(f"{whose}: `{name}` should be a number of at least 0, got {value!r}.")


def exact(*, strip: bool = True, case: bool = True, answer: str = "answer", budget: float | None = None) -> FunctionReward:
    """1 where the completion is the gold answer as text; ``strip``: but for space around it; ``case=False``: but for capitals.

    >>> exact()(completions=[" 4", "5"], answer=["4", "4"]).total.values.tolist()
    [[1.0], [0.0]]
    """
    written = _written(exact, strip=strip, case=case, answer=answer, budget=budget)
    return _checker(checks.same_text, written, budget, (0, 1), answer, strip=strip, case=case)


def numeric(
    tolerance: float = 0.0, *, relative: float = 0.0, extract: str = "last", answer: str = "answer", budget: float | None = None
) -> FunctionReward:
    """1 where the completion's number is within ``tolerance + relative * |gold|`` of the gold number.

    ``extract``: "last" number of the text, the "whole" text, or the last "boxed" content. What counts as a number is said in
    ``checks.read_number``. A completion without one is wrong: 0. A gold answer that is none is an error.

    >>> numeric(0.01)(completions=["so it is 3.14", "three"], answer=["3.1416", "3"]).total.values.tolist()
    [[1.0], [0.0]]
    """
    _at_least_0("numeric", tolerance=tolerance, relative=relative)
    _one_of(extract, ("last", "whole", "boxed"), "numeric", "extract")
    written = _written(numeric, tolerance=tolerance, relative=relative, extract=extract, answer=answer, budget=budget)
    return _checker(checks.same_number, written, budget, (0, 1), answer, tolerance=tolerance, relative=relative, extract=extract)


def math(*, answer: str = "answer", budget: float | None = 5.0) -> FunctionReward:
    """1 where the completion states what the gold answer is, as math-verify judges; needs ``guerdon[check]``.

    Most answers are compared without it, at its verdict: ``guerdon.rewards.mathematics``. Gold mathematics is best between dollar
    signs: of a bare ``2x + 3`` math-verify reads the 3. ``budget``: seconds an item may take (in the worker pool, from outside: a
    hung simplification is a timeout of its item and nothing else). None: in this process, without any limit.
    """
    _installed("math_verify", "math")
    return _checker(mathematics.same_math, _written(math, answer=answer, budget=budget), budget, (0, 1), answer)


def format(pattern: str, *, where: str = "full", budget: float | None = None) -> FunctionReward:
    """1 where the whole completion (where="full") or a part of it (where="search") matches the regular expression.

    Patterns that backtrack without end need a ``budget``.

    >>> format(r"<answer>\\d+</answer>")(completions=["<answer>4</answer>", "4"]).total.values.tolist()
    [[1.0], [0.0]]
    """
    compiled(pattern, "format")
    _one_of(where, ("full", "search"), "format", "where")
    written = _written(format, pattern=pattern, where=where, budget=budget)
    return _checker(checks.matches, written, budget, (0, 1), pattern=pattern, where=where)


def overlap(metric: str = "bleu", *, answer: str = "answer", budget: float | None = None) -> FunctionReward:
    """sacrebleu's sentence BLEU or chrF against the gold text (or several), 0 to 1; needs ``guerdon[check]``."""
    _one_of(metric, ("bleu", "chrf"), "overlap", "metric")
    _installed("sacrebleu", "overlap")
    written = _written(overlap, metric=metric, answer=answer, budget=budget)
    return _checker(checks.overlap_score, written, budget, (0, 1), answer, metric=metric)


UNITS = ("characters", "words", "tokens")


def length(unit: str = "characters", *, budget: float | None = None) -> FunctionReward:
    """How long the completion is, in characters, words, or tokens (steps the policy took).

    >>> length("words")(completions=["two words"]).total.values.tolist()
    [[2.0]]
    """
    _one_of(unit, UNITS, "length", "unit")
    written = _written(length, unit=unit, budget=budget)
    if unit == "tokens":
        return _checker(checks.step_length, written, budget, (0, inf))
    return _checker(checks.text_length, written, budget, (0, inf), unit=unit)


def length_penalty(limit: float, *, soft: float = 0.0, unit: str = "tokens", budget: float | None = None) -> FunctionReward:
    """Penalty: 0 up to ``limit - soft``, then down in a straight line to -1 at ``limit`` and beyond (DAPO, equation 13).

    >>> length_penalty(4, soft=2, unit="characters")(completions=["ab", "abc", "abcde"]).total.values.tolist()
    [[0.0], [-0.5], [-1.0]]
    """
    _at_least_0("length_penalty", limit=limit, soft=soft)
    _one_of(unit, UNITS, "length_penalty", "unit")
    if soft > limit:
        raise ExpressionError(f"length_penalty: `soft` should be at most the limit {limit:g}, got {soft:g}.")
    written = _written(length_penalty, limit=limit, soft=soft, unit=unit, budget=budget)
    if unit == "tokens":
        return _checker(checks.overlong_steps, written, budget, (-1, 0), limit=limit, soft=soft)
    return _checker(checks.overlong_text, written, budget, (-1, 0), limit=limit, soft=soft, unit=unit)


def steps(
    check: FunctionReward | Callable[..., Any] | str, *, split: str = r"\n", level: str = "segment", budget: float | None = None
) -> FunctionReward:
    """``check`` for each segment of the completion: one value a segment, on its last token.

    ``split``: pattern of what separates segments. ``check`` has by name: ``segment`` (the text; called as ``level`` is),
    ``index`` (0, 1, ...), ``completion`` and any field; in an expression it is ``'path.py:name'``. A segment in which no token
    begins joins the one before it.

    >>> def positive(segment):
    ...     return "-" not in segment
    >>> scores = steps(positive)(completions=["x = 1\\ny = -1"])
    >>> scores.components["steps"].values.tolist()
    [[1.0, 0.0]]
    """
    compiled(split, "steps")
    if isinstance(check, str):
        check = load(check)
    if not isinstance(check, FunctionReward) and (isinstance(check, Reward) or not callable(check)):
        raise ExpressionError(f"steps: `check` should be a function of a segment, or one with @reward, got {check!r:.80}.")
    base = check if isinstance(check, FunctionReward) else reward(check)
    return replace(
        base,
        name="steps",
        level=level,
        split=split,
        needs=(base.needs - {level}) | {"completion", "offset"},
        budget=checked_budget(base.budget if budget is None else budget, "steps"),
        reference="",
        written=_written(steps, check=base, split=split, level=level, budget=budget),
    )


# ---- the divergence from the reference, on tensors


ESTIMATORS = ("k1", "k2", "k3")


def kl_estimate(log_prob: Tensor, ref_log_prob: Tensor, estimator: str = "k1") -> Tensor:
    """Per-step estimate of KL(policy || reference) from an action that the policy drew; same shape as the inputs, in nats.

    With d = log_prob - ref_log_prob:

        k1  d                  unbiased, of either sign
        k2  d² / 2             biased, of low variance
        k3  exp(-d) - 1 + d    unbiased, never negative

    Source: J. Schulman, "Approximating KL divergence" (2020).

    >>> d = torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> [kl_estimate(d, torch.zeros_like(d), k).tolist() for k in ESTIMATORS]
    [[0.0, 1.0], [0.0, 0.5], [0.0, 0.36787944117144233]]
    """
    d = log_prob - ref_log_prob
    if estimator == "k1":
        return d
    if estimator == "k2":
        return d.square() / 2
    return torch.expm1(-d) + d


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Kl(Reward):
    """Estimate of the divergence from the reference on every step the policy took; higher is further away."""

    estimator: str = "k1"

    def expression(self) -> str:
        return _written(kl, estimator=self.estimator)

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        log_prob, mask = rollouts.log_prob, rollouts.mask & (rollouts.level("step") >= 0)
        assert log_prob is not None  # it is in `needs`
        reference = torch.as_tensor(rollouts.field("ref_log_prob").values).to(log_prob)
        values = torch.where(mask, kl_estimate(log_prob.detach(), reference.detach(), self.estimator), torch.nan)
        status = torch.where(mask, int(Status.OK), int(Status.NONE)).to(torch.int8)
        broken = mask & ~torch.isfinite(values)
        reasons = {
            (n, t): f"log_prob {log_prob[n, t].item():g} against ref_log_prob {reference[n, t].item():g} has no finite estimate"
            for n, t in broken.nonzero().tolist()
        }
        values = torch.where(broken, torch.nan, values)
        status = torch.where(broken, int(Status.ERROR), status).to(torch.int8)
        return Component(self.name, "step", values, status, reasons, self.bounds, self.spread, version=self.version)


def kl(estimator: str = "k1") -> Kl:
    """Estimate of KL(policy || reference) at each step: further away is *higher*, so a penalty is ``-0.05 * kl()``.

    Reads ``log_prob`` of the policy that sampled and the field ``ref_log_prob``; the formulas are in ``kl_estimate``. Steps
    that the policy did not take have no value and are not read.
    """
    _one_of(estimator, ESTIMATORS, "kl", "estimator")
    return Kl(
        name="kl",
        level="step",
        relation="reference",
        bounds=Bounds(-inf if estimator == "k1" else 0.0, inf),
        needs=frozenset({"log_prob", "ref_log_prob"}),
        causal=True,
        version=_VERSION,
        estimator=estimator,
    )
