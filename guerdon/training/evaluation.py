# SPDX-License-Identifier: Apache-2.0
"""Held-out evaluation: greedy, k samples, pass@k."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import InputError
from guerdon.protocols import Context, Policy, Sampling, Scorer
from guerdon.rollouts import Rollouts
from guerdon.scores import Status
from guerdon.training.recipe import Sample, at_least

EVALUATION_SEED = 0x5EED  # fixed: successive evaluations, arms and seeds meet the same random streams


@dataclass(frozen=True)
class Evaluation:
    """Held-out tasks scored in the loop: ``samples`` draws per task (pass@k) and one greedy, always with the same random numbers.

    ``success`` scores whole completions, above 1/2 is a success; ``sample`` stands in for ``policy.sample``.
    """

    contexts: Sequence[Context]
    success: Scorer
    every: int
    samples: int = 4
    sampling: Sampling = Sampling()
    greedy: bool = True
    sample: Sample | None = None

    def __post_init__(self) -> None:
        at_least("evaluation", 1, contexts=len(self.contexts), every=self.every, samples=self.samples)

    def measure(self, policy: Policy, step: int) -> dict[str, float]:
        return evaluate(policy, self, step)


@dataclass(frozen=True)
class Measured:
    """A function (policy, step) -> figures, as an evaluation."""

    every: int
    function: Callable[[Any, int], dict[str, float]]

    def measure(self, policy: Any, step: int) -> dict[str, float]:
        return self.function(policy, step)


def pass_at_k(correct: int, samples: int, k: int) -> float:
    """Probability that k of ``samples`` draws, taken without replacement, hold a correct one: 1 - C(n - c, k) / C(n, k).

    Unbiased for pass@k. Source: Chen et al. 2021, arXiv 2107.03374, equation 1.

    >>> pass_at_k(1, 4, 1), pass_at_k(1, 4, 4), round(pass_at_k(2, 5, 3), 4)
    (0.25, 1.0, 0.9)
    """
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise InputError(
            f"pass_at_k: expected 0 <= correct <= samples and 1 <= k <= samples, got correct={correct}, samples={samples}, k={k}."
        )
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


@torch.no_grad()
def evaluate(policy: Policy, evaluation: Evaluation, step: int) -> dict[str, float]:
    """eval/success (mean over samples), eval/pass@k, eval/greedy, eval/length; eval/not_ok, the share that could not be judged.

    Completions that are not ok leave every figure but ``eval/not_ok``; a task with one leaves pass@k. NaN where nothing is left.
    """
    k = evaluation.samples
    rollouts = _draw(policy, evaluation, [dataclasses.replace(c, index=i) for c in evaluation.contexts for i in range(k)])
    values = _judge(evaluation, rollouts, step)
    out = {
        "eval/success": _mean(values),
        "eval/not_ok": values.isnan().float().mean().item(),
        "eval/length": rollouts.mask.sum(1).float().mean().item(),
    }
    if k > 1:
        tasks = [v for v in values.reshape(-1, k) if not v.isnan().any()]
        out[f"eval/pass@{k}"] = _mean(torch.tensor([pass_at_k(int((v > 0.5).sum()), k, k) for v in tasks]))
    if evaluation.greedy:
        sampling = dataclasses.replace(evaluation.sampling, temperature=0.0)
        out["eval/greedy"] = _mean(_judge(evaluation, _draw(policy, evaluation, evaluation.contexts, sampling), step))
    return out


def _draw(policy: Policy, evaluation: Evaluation, contexts: Sequence[Context], sampling: Sampling | None = None) -> Rollouts:
    sampling = sampling or evaluation.sampling
    if evaluation.sample is not None:
        return evaluation.sample(policy, contexts, sampling, EVALUATION_SEED)
    return policy.sample(contexts, sampling, EVALUATION_SEED)


def _judge(evaluation: Evaluation, rollouts: Rollouts, step: int) -> Tensor:
    """[N] success, NaN where it could not be judged."""
    total = evaluation.success.score(rollouts, step=step).total
    if total.level != "episode" or total.values.shape[1] != 1 or (total.status == Status.NONE).any():
        raise InputError(
            "evaluation: the success reward should have one value per completion (level episode), got up to "
            f"{total.values.shape[1]} a row at level `{total.level}`. Usual cause: a per-step reward; pool it with "
            ".pool('min', 'episode')."
        )
    return total.values[:, 0]


def _mean(x: Tensor) -> float:
    known = x[~x.isnan()]
    return known.mean().item() if len(known) else math.nan
