# SPDX-License-Identifier: Apache-2.0
"""Preferences as a matrix: games between policies over a few answers, in which everything can be computed.

``preference`` [A, A]: the probability that answer a is preferred to answer b, P + P^T = 1; it need not be transitive. A policy is
a vector of A probabilities or their logarithms. Against another it wins with P(pi > pi') = pi^T P pi'. Regularised towards a
reference mu with strength ``tau`` (in units of probability per nat) the game is

    P_tau(pi > pi') = pi^T P pi' - tau KL(pi || mu) + tau KL(pi' || mu)
"""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.errors import GuerdonError, check_shape


def win_probability(policy: Tensor, other: Tensor, preference: Tensor) -> Tensor:
    """pi^T P pi', for probabilities [A] or [..., A].

    >>> rock_paper_scissors = torch.tensor([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
    >>> win_probability(torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.5, 0.25, 0.25]), rock_paper_scissors).item()
    0.625
    """
    return torch.einsum("...a,ab,...b->...", policy, preference, other)


def kl(log_policy: Tensor, log_reference: Tensor) -> Tensor:
    """KL(pi || mu) in nats, [...] of [..., A]; an answer that pi never gives adds nothing."""
    p = log_policy.exp()
    return torch.where(p > 0, p * (log_policy - log_reference), 0).sum(-1)


def exploitability(log_policy: Tensor, log_reference: Tensor, preference: Tensor, tau: float) -> Tensor:
    """max over pi' of P_tau(pi' > pi) - 1/2: how much the best opponent gains, 0 only at the equilibrium.

    The best opponent of pi is mu exp((P pi) / tau), normalised, whose value is tau log sum_a mu_a exp((P pi)_a / tau).

    >>> even = torch.full((2,), 0.5).log()
    >>> round(exploitability(even, even, torch.tensor([[0.5, 1.0], [0.0, 0.5]]), 0.5).item(), 4)  # 0.5 log cosh(1/2)
    0.0601
    """
    gain = preference @ log_policy.exp()
    best = tau * (log_reference + gain / tau).logsumexp(-1)
    return best + tau * kl(log_policy, log_reference) - 0.5


def equilibrium(log_reference: Tensor, preference: Tensor, tau: float, *, tolerance: float = 1e-13) -> Tensor:
    """[A] log-probabilities of the regularised game's only equilibrium: log pi = log mu + (P pi) / tau + const.

    By Newton's method, from strong regularisation, where it is the reference, down to ``tau``.
    """
    check_shape("equilibrium", "preference", preference, (len(log_reference),) * 2)
    x, strength = log_reference.log_softmax(-1), max(tau, 4.0)
    while True:
        x = _newton(x, log_reference, preference / strength, tolerance)
        if strength == tau:
            return x
        strength = max(tau, 0.8 * strength)


def _newton(x: Tensor, log_reference: Tensor, pull: Tensor, tolerance: float) -> Tensor:
    """The x = log softmax(log_reference + pull softmax(x)) near ``x``."""

    def gap(x: Tensor) -> Tensor:
        return x - (log_reference + pull @ x.exp()).log_softmax(-1)

    g = gap(x)
    for _ in range(50):
        if g.abs().max() < tolerance * max(1.0, pull.abs().max().item()):
            return x
        p = x.exp()
        slope = torch.eye(len(x), dtype=x.dtype) - pull @ (torch.diag(p) - torch.outer(p, p))
        move, size = torch.linalg.solve(slope, g), 1.0
        while size > 1e-3 and gap((x - size * move).log_softmax(-1)).norm() > (1 - size / 4) * g.norm():
            size /= 2
        x = (x - size * move).log_softmax(-1)
        g = gap(x)
    raise GuerdonError(
        f"equilibrium: expected a gap below {tolerance:g}, got {g.abs().max().item():g}. Usual cause: tau close to 0."
    )


def cyclic_game(seed: int, *, dominated: int = 1) -> tuple[Tensor, Tensor]:
    """(preference, log_reference), float64: three answers that beat each other in a circle, and others that they all beat.

    How clearly they win is drawn, and the reference, which is skewed; ``dominated``: how many others.
    """
    g = torch.Generator().manual_seed(seed)
    n = 3 + dominated
    preference = torch.full((n, n), 0.5, dtype=torch.float64)

    def beats(a: int, b: int, low: float, high: float) -> None:
        preference[a, b] = low + (high - low) * torch.rand((), generator=g, dtype=torch.float64)
        preference[b, a] = 1 - preference[a, b]

    for a in range(3):
        beats(a, (a + 1) % 3, 0.7, 1.0)
        for b in range(3, n):
            beats(a, b, 0.8, 0.95)
    return preference, torch.randn(n, generator=g, dtype=torch.float64).log_softmax(-1)


def random_game(seed: int, answers: int, *, cycle: float = 1.0) -> Tensor:
    """[A, A] float64 preference with logits r_a - r_b + ``cycle`` (u_a v_b - v_a u_b), all standard normal.

    With ``cycle`` 0 it is a Bradley-Terry model; the second part is a general circular advantage.
    """
    g = torch.Generator().manual_seed(seed)
    r, u, v = torch.randn(3, answers, generator=g, dtype=torch.float64)
    return (r[:, None] - r + cycle * (torch.outer(u, v) - torch.outer(v, u))).sigmoid()


def bradley_terry_scores(preference: Tensor, steps: int = 2000) -> Tensor:
    """[A] the scores r that fit best, sigmoid(r_a - r_b) to P_ab, by the likelihood over all pairs alike; mean 0."""
    r = torch.zeros(len(preference), dtype=preference.dtype)
    for _ in range(steps):  # the gradient's Lipschitz constant is at most A / 2
        r = r + 2 / len(r) * (preference - (r[:, None] - r).sigmoid()).sum(1)
    return r - r.mean()
