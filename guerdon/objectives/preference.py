# SPDX-License-Identifier: Apache-2.0
"""Learning from which of two is better: a policy (`dpo`) or a reward model (`bradley_terry`)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from guerdon.errors import ShapeError, check_shape
from guerdon.levels import pool
from guerdon.objectives.loss import Loss, Metrics, counted_only, mean_parts


def dpo(
    log_prob: Tensor,
    ref_log_prob: Tensor,
    mask: Tensor,
    first: Tensor,
    second: Tensor,
    target: Tensor,
    *,
    beta: float | Tensor = 0.1,
    level: Tensor | None = None,
    average: bool = False,
) -> Loss:
    """-target log sigmoid(h) - (1 - target) log sigmoid(-h) per pair, h = beta (s_first - s_second).

    s is the sum over a row's counted steps of log_prob - ref_log_prob, and their mean with ``average``.

    ``log_prob``, ``ref_log_prob``, ``mask`` [N, T]; ``first``, ``second`` [P] int64, rows; ``target`` [P], the probability that
    the first is better (1/2 a tie, NaN not judged: that pair does not count). With ``level`` [N, T] pairs are of units: s is
    summed over a unit, and ``first``, ``second`` are [P, 2], (row, unit).

    Metrics: ``margin`` the mean of (2 target - 1) h, how far the better one leads; ``accuracy`` the share of pairs, ties left
    out, where it leads at all.

    Rafailov et al. 2023, arXiv:2305.18290, equation 7; a target that is not 0 or 1: Mitchell 2023, conservative DPO; pairs of
    denoising steps: Yang et al. 2023 (D3PO), arXiv:2311.13231.

    >>> log_prob, yes = torch.tensor([[-1., -1.], [-2., -3.]]), torch.ones(2, 2, dtype=torch.bool)
    >>> first, second = torch.tensor([0]), torch.tensor([1])
    >>> loss = dpo(log_prob, torch.zeros(2, 2), yes, first, second, torch.tensor([1.]), beta=1.0)
    >>> round(loss.value.item(), 4), loss.metrics["margin"][0].item()
    (0.0486, 3.0)
    """
    log_prob, ref_log_prob = counted_only("dpo", mask, log_prob=log_prob, ref_log_prob=ref_log_prob)
    unit = torch.where(mask, 0, -1) if level is None else level
    score = pool(log_prob - ref_log_prob, unit, "sum", mask)
    if average:
        score = score / pool(mask.to(score.dtype), unit, "sum", mask).clamp(min=1)
    if level is None:
        score = score.sum(1)  # one unit a row; none at all where no step counts
    h = beta * (_pick("dpo", "first", score, first) - _pick("dpo", "second", score, second))
    judged, target = _targets("dpo", target, h)
    value = torch.where(judged, -target * logsigmoid(h) - (1 - target) * logsigmoid(-h), 0)
    return Loss(value, "pair", judged, _pair_metrics(h, target, judged))


def bradley_terry(score: Tensor, first: Tensor, second: Tensor, target: Tensor, *, margin: float | Tensor | None = None) -> Loss:
    """-target log sigmoid(d - margin) - (1 - target) log sigmoid(-d - margin) per pair, d = score_first - score_second.

    ``score`` [N]; ``first``, ``second`` [P] int64, rows; ``target`` [P], the probability that the first is better (NaN: not
    judged, does not count); ``margin`` a number or [P], how far the better one should lead (None: 0). Metrics as in `dpo`, with h
    = d.

    Bradley and Terry 1952; margins: Touvron et al. 2023 (Llama 2), arXiv:2307.09288, equation 2.

    >>> score, first, second = torch.tensor([2., 1.]), torch.tensor([0, 1]), torch.tensor([1, 0])
    >>> [round(x, 4) for x in bradley_terry(score, first, second, torch.tensor([1., 1.])).value.tolist()]
    [0.3133, 1.3133]
    """
    check_shape("bradley_terry", "score", score, (None,), "a score per step instead of per row")
    d = _pick("bradley_terry", "first", score, first) - _pick("bradley_terry", "second", score, second)
    judged, target = _targets("bradley_terry", target, d)
    lead = 0.0 if margin is None else margin
    value = torch.where(judged, -target * logsigmoid(d - lead) - (1 - target) * logsigmoid(-d - lead), 0)
    return Loss(value, "pair", judged, _pair_metrics(d, target, judged))


def _pick(whose: str, name: str, score: Tensor, index: Tensor) -> Tensor:
    """score at rows [P], or at (row, unit) [P, 2]."""
    shape = (None,) if score.dim() == 1 else (None, 2)
    check_shape(whose, name, index, shape, "(row, unit) pairs go with `level`, rows alone without it")
    size = torch.tensor(score.shape, device=index.device)
    if ((index < 0) | (index >= (size if score.dim() == 2 else size[0]))).any():
        raise ShapeError(
            f"{whose}: `{name}` should be indices into {list(score.shape)}, got {index.min().item()} to {index.max().item()}. "
            "Usual cause: pairs of another batch, or of the batch where a micro-batch was passed."
        )
    return score[index] if score.dim() == 1 else score[index[:, 0], index[:, 1]]


def _targets(whose: str, target: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs were judged, and the target with 1/2 in the others."""
    check_shape(whose, "target", target, tuple(h.shape), "targets of other pairs")
    judged = ~target.isnan()
    target = torch.where(judged, target, 0.5).to(h.dtype)
    if ((target < 0) | (target > 1)).any():
        raise ShapeError(
            f"{whose}: `target` should be a probability, got {target.min().item()} to {target.max().item()}. "
            "Usual cause: labels -1 and 1; use (1 + label) / 2."
        )
    return judged, target


def _pair_metrics(h: Tensor, target: Tensor, judged: Tensor) -> Metrics:
    margin = (2 * target - 1) * h
    return {"margin": mean_parts(margin, judged), "accuracy": mean_parts((margin > 0).to(h.dtype), judged & (target != 0.5))}
