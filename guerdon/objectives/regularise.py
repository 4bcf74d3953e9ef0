# SPDX-License-Identifier: Apache-2.0
"""Terms that hold a policy near a reference or keep it exploring."""

from __future__ import annotations

from torch import Tensor

from guerdon.errors import ExpressionError
from guerdon.objectives.loss import Loss, counted_only, mean_parts, writes_slope


@writes_slope("log_prob")
def kl_penalty(log_prob: Tensor, ref_log_prob: Tensor, mask: Tensor, *, estimator: str = "k3") -> Loss:
    """An estimate per step, in nats, of KL(policy || reference) from actions of the policy; d = log_prob - ref_log_prob.

    ==  ==============  ==========================  ===========================================================
    ..  estimate        as an estimate              its gradient through log_prob, expected over policy samples
    ==  ==============  ==========================  ===========================================================
    k1  d               unbiased, may be negative   0: no penalty at all (put it in the reward instead)
    k2  d^2 / 2         biased, low variance        that of KL(policy || reference)
    k3  exp(-d) - 1 + d unbiased, never negative    that of KL(reference || policy)
    ==  ==============  ==========================  ===========================================================

    ``log_prob``, ``ref_log_prob``, ``mask`` [N, T]. Metric ``kl``: the mean of the estimate.

    Schulman 2020, Approximating KL divergence, http://joschu.net/blog/kl-approx.html.

    >>> import torch
    >>> d, yes, zero = torch.tensor([[1., -1.]]), torch.tensor([[True, True]]), torch.zeros(1, 2)
    >>> [[round(x, 4) for x in kl_penalty(d, zero, yes, estimator=k).value[0].tolist()] for k in ("k1", "k2", "k3")]
    [[1.0, -1.0], [0.5, 0.5], [0.3679, 0.7183]]
    """
    log_prob, ref_log_prob = counted_only("kl_penalty", mask, log_prob=log_prob, ref_log_prob=ref_log_prob)
    d = log_prob - ref_log_prob
    if estimator == "k1":
        value, slope = d, mask.to(d.dtype)
    elif estimator == "k2":
        value, slope = d**2 / 2, d
    elif estimator == "k3":
        fall = (-d).expm1()
        value, slope = fall + d, -fall
    else:
        raise ExpressionError(f"kl_penalty: `estimator` should be 'k1', 'k2' or 'k3', got {estimator!r}.")
    return Loss(value, "step", mask, {"kl": mean_parts(value, mask)}, None if value.requires_grad else {"log_prob": slope})


@writes_slope("entropy")
def entropy_bonus(entropy: Tensor, mask: Tensor) -> Loss:
    """-entropy per step: descending on it makes the policy more random. ``entropy`` [N, T] in nats. Metric ``entropy``: its mean.

    >>> import torch
    >>> entropy_bonus(torch.tensor([[0.5, 2.]]), torch.tensor([[True, False]])).value.tolist()
    [[-0.5, 0.0]]
    """
    (entropy,) = counted_only("entropy_bonus", mask, entropy=entropy)
    slope = None if entropy.requires_grad else {"entropy": -mask.to(entropy.dtype)}
    return Loss(0 - entropy, "step", mask, {"entropy": mean_parts(entropy, mask)}, slope)
