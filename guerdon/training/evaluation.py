# SPDX-License-Identifier: Apache-2.0
"""Held-out evaluation: greedy, k samples, pass@k."""

from __future__ import annotations

import dataclasses
import math

import torch

from guerdon.protocols import Policy
from guerdon.rollouts import Rollouts
from guerdon.scores import Status
from guerdon.training.recipe import Evaluation


def pass_at_k(correct: int, samples: int, k: int) -> float:
    """Probability that k of ``samples`` draws, taken without replacement, hold a correct one: 1 - C(n - c, k) / C(n, k).

    Unbiased for pass@k. Source: Chen et al. 2021, arXiv 2107.03374, equation 1.

    >>> pass_at_k(1, 4, 1), pass_at_k(1, 4, 4), round(pass_at_k(2, 5, 3), 4)
    (0.25, 1.0, 0.9)
    """
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass_at_k: expected 0 <= correct <= samples and 1 <= k <= samples, got correct={correct}, samples={samples}, k={k}.")
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def evaluate(policy: Policy, evaluation: Evaluation, step: int) -> dict[str, float]:
    """eval/success (mean over samples), eval/pass@k, eval/greedy, eval/length, and eval/not_ok: the share that could not be judged.

    Units that are not ok leave every figure but ``eval/not_ok``.
    """
    k = evaluation.samples
    draw = evaluation.sample or policy.sample
    contexts = [dataclasses.replace(c, index=i) for c in evaluation.contexts for i in range(k)]
    out: dict[str, float] = {}
    with torch.no_grad():
        rollouts = draw(contexts, evaluation.sampling, seed=EVALUATION_SEED)
        values, not_ok = _judge(evaluation, rollouts, step)
        out["eval/success"] = values[~values.isnan()].mean().item() if not_ok < 1 else math.nan
        out["eval/not_ok"] = not_ok
        out["eval/length"] = rollouts.mask.sum(1).float().mean().item()
        if k > 1:
            rows = [v for v in values.reshape(-1, k) if not v.isnan().any()]
            out[f"eval/pass@{k}"] = sum(pass_at_k(int((v > 0.5).sum()), k, k) for v in rows) / len(rows) if rows else math.nan
        if evaluation.greedy:
            greedy = draw(evaluation.contexts, dataclasses.replace(evaluation.sampling, temperature=0.0), seed=EVALUATION_SEED)
            values, not_ok = _judge(evaluation, greedy, step)
            out["eval/greedy"] = values[~values.isnan()].mean().item() if not_ok < 1 else math.nan
    return out


EVALUATION_SEED = 0x5EED  # fixed: successive evaluations, arms and seeds meet the same random streams


def _judge(evaluation: Evaluation, rollouts: Rollouts, step: int) -> tuple[torch.Tensor, float]:
    total = evaluation.success.score(rollouts, step=step).total
    if total.level != "episode" or total.values.shape[1] != 1:
        raise ValueError(
            f"evaluation: the success reward should have one value per completion (level episode), got level {total.level} with "
            f"{total.values.shape[1]} units a row. Usual cause: a per-step reward; pool it with .pool('min', 'episode')."
        )
    there = total.status[:, 0] != Status.NONE
    return total.values[:, 0], (total.values[:, 0].isnan() & there).float().mean().item()
