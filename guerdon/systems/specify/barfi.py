# SPDX-License-Identifier: Apache-2.0
"""BARFI: behaviour alignment via reward function optimisation.

A designer's hint may help or mislead, and adding it to the reward that counts is a gamble. Here the learner is given a blend of
both, and the blend itself is learnt: so that the policy which the blend leads to earns more of the reward that counts.

    r_φ(s, a) = φ₁(s) + φ₂(s) r_p(s, a) + φ₃(s) r_aux(s, a)                            `alignment_reward`
    Δ(θ, φ) = E[ Σ_t ∇log π_θ(a_t|s_t) Σ_{j ≥ t} γ_ϕʲ⁻ᵗ r_φ(s_j, a_j) ] - λ θ         `softmax_gradient`; θ ← θ + lr Δ
    dJ/dφ = -(∇_θ J)ᵀ H⁻¹ A,   H = ∂Δ/∂θ,   A = ∂Δ/∂φ                                 `implicit_gradient`; φ ← Adam
    (-H)⁻¹ v ≈ η Σ_{i = 0..n} (I + ηH)ⁱ v                                              `neumann_solve`: n `terms`, η `scale`

    θ    `logits` [S, A] of a tabular policy        r_p, r_aux  `primary`, `auxiliary` [N, T], higher is better
    φ    `weights` [3, S], (0, 1, 1) to begin with  J           the return by r_p and the true γ
    γ_ϕ  `gamma`, learnt with φ, its logistic       λ           `decay`

Gupta, Chandak, Jordan, Thomas, Castro da Silva 2023, arXiv:2310.19007.
Departures:
1. The inner learner takes one step a round, on that round's episodes, where the paper takes several from a buffer: with older
   episodes, uncorrected, it did not learn here. H and A are of the round before, ∇J of the fresh one: independent factors.
2. No cost on γ_ϕ. Rates, decay and η are ours; the paper's were not at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guerdon.credit import return_to_go
from guerdon.errors import check_shape
from guerdon.learners.hypergradient import implicit_gradient, neumann_solve
from guerdon.learners.tabular import rounds_of_walks, softmax_gradient
from guerdon.objectives import reinforce
from guerdon.rollouts import Rollouts
from guerdon.systems.system import Bound, Comparison, Example, Metric, Reduction, Start, System
from guerdon.training.recipe import Learning
from guerdon.worlds.hinted import hinted_grid
from guerdon.worlds.tables import Table, expected_return, shaped

Weights = tuple[float, float, float]


def alignment_reward(primary: Tensor, auxiliary: Tensor, state: Tensor, weights: Tensor) -> Tensor:
    """r_φ = φ₁(s) + φ₂(s) r_p + φ₃(s) r_aux, [N, T].

    ``primary``, ``auxiliary`` [N, T]; ``state`` [N, T] int64; ``weights`` [3, S].

    >>> weights = torch.tensor([[0., 5.], [1., 1.], [1., 0.]])
    >>> alignment_reward(torch.tensor([[1., 1.]]), torch.tensor([[.5, .5]]), torch.tensor([[0, 1]]), weights).tolist()
    [[1.5, 6.0]]
    """
    check_shape("alignment_reward", "auxiliary", auxiliary, tuple(primary.shape))
    check_shape("alignment_reward", "weights", weights, (3, None), "one weight for all states")
    own, of_primary, of_auxiliary = weights[:, state]
    return own + of_primary * primary + of_auxiliary * auxiliary


class Alignment:
    """φ and γ_ϕ, and how they learn: given (logits, rows), improve them and return Δ. With an ``lr`` of 0 they stay."""

    def __init__(
        self, table: Table, auxiliary: Tensor, weights: Weights, lr: float, terms: int, scale: float, decay: float
    ) -> None:
        one = torch.ones(table.states, dtype=torch.float64)
        self.weights = torch.stack([w * one for w in weights]).requires_grad_()
        self.gamma_logit = torch.tensor(table.gamma, dtype=torch.float64).logit().requires_grad_()
        self.primary_only = torch.stack([w * one for w in (0, 1, 0)])
        self.auxiliary, self.true_gamma, self.decay = auxiliary, table.gamma, decay
        self.hyper = [self.weights, self.gamma_logit]
        self.solve = partial(neumann_solve, terms=terms, scale=scale)
        self.optimiser = torch.optim.Adam(self.hyper, lr=lr, maximize=True) if lr else None
        self.before: Rollouts | None = None

    def __call__(self, logits: Tensor, rows: Rollouts) -> Tensor:
        if self.optimiser is not None and self.before is not None:
            theta = logits.clone().requires_grad_()
            outer = self.gradient(logits, rows, self.primary_only, self.true_gamma, 0.0)
            found = implicit_gradient(self.inner(theta, self.before), theta, self.hyper, outer, self.solve)
            for x, gradient in zip(self.hyper, found, strict=True):
                x.grad = gradient
            self.optimiser.step()
        self.before = rows
        return self.inner(logits, rows)

    def inner(self, logits: Tensor, rows: Rollouts) -> Tensor:
        return self.gradient(logits, rows, self.weights, self.gamma_logit.sigmoid(), self.decay)

    def gradient(self, logits: Tensor, rows: Rollouts, weights: Tensor, gamma: float | Tensor, decay: float) -> Tensor:
        state, primary = rows.fields["state"].values, rows.fields["environment_reward"].values
        reward = alignment_reward(primary, self.auxiliary[state], state, weights)
        return softmax_gradient(logits, state, rows.action, reward, rows.mask, rows.levels["episode"], gamma, decay=decay)


def barfi(
    table: Table,
    auxiliary: Tensor,
    *,
    lr: float,
    seed: int = 0,
    align_lr: float = 0.03,  # ours, the steadiest of 0.02, 0.03, 0.05 and 0.1 on development seeds
    weights: Weights = (0, 1, 1),  # to begin with: the designer's sum
    terms: int = 5,  # about the paper's
    scale: float = 0.1,  # ours, below 1 / the largest eigenvalue of -H in the first rounds
    decay: float = 1e-3,  # ours
    episodes: int = 100,
    rounds: int = 50,
    limit: int = 100,
    judge: Table | None = None,
) -> Iterator[Mapping[str, Any]]:
    """A line a round: the policy's exact return, φ₃ where ``auxiliary`` [S] is largest, and γ_ϕ.

    With an ``align_lr`` of 0 this is REINFORCE with the reward that ``weights`` say. ``judge``: the table that the return is of,
    where it is another.
    """
    aligned = Alignment(table, auxiliary, weights, align_lr, terms, scale, decay)
    largest = auxiliary == auxiliary.max()
    walked = rounds_of_walks(table, aligned, lr=lr, seed=seed, rounds=rounds, episodes=episodes, limit=limit)
    for k, logits in enumerate(walked, 1):
        yield {
            "samples": k * episodes,
            "eval/return": float(expected_return(judge or table, logits.softmax(-1))),
            "eval/hint": float(aligned.weights[2, largest].detach().mean()),
            "eval/gamma": float(aligned.gamma_logit.detach().sigmoid()),
        }


# ---- the claims


def arm(kind: str, name: str, seed: int, start: Start, lr: float = 100) -> Learning:
    """BARFI; REINFORCE with the ``sum`` of both rewards, with what counts ``alone``, or with the hint as a ``potential``."""
    table, hint = hinted_grid(kind)
    lines = {
        "barfi": partial(barfi, table, hint),
        "sum": partial(barfi, table, hint, align_lr=0),
        "alone": partial(barfi, table, hint, align_lr=0, weights=(0, 1, 0)),
        "potential": partial(barfi, shaped(table, hint), hint, align_lr=0, weights=(0, 1, 0), judge=table),
    }[name]
    return Learning(f"{kind} {name}", partial(lines, lr=lr, seed=seed), seed, total_steps=50)


def last(kind: str, name: str, seed: int, lr: float, figure: str = "eval/return") -> float:
    """A figure of an arm's last line."""
    return float(list(arm(kind, name, seed, None, lr).lines())[-1][figure])


def margin(kind: str, than: str, lr: float, its_lr: float, seed: int) -> float:
    """By how much BARFI's final policy is better."""
    return last(kind, "barfi", seed, lr) - last(kind, than, seed, its_lr)


DIFFERENCES = (
    "5000 episodes instead of 2000, 100 a round: from fewer BARFI's gradient is too noisy to undo the hint in time",
    "one inner step a round in all arms, see departure 1",
)


def better(kind: str, statement: str, than: str, lr: float, its_lr: float) -> Comparison:
    """BARFI's final policy against another arm's, by the reward that counts."""
    return Comparison(
        statement,
        arms={name: partial(arm, kind, name) for name in ("barfi", "sum", "alone", "potential")},
        better="barfi",
        than=than,
        metric=Metric("eval/return", "last"),
        budget="5000 episodes",
        grid={"lr": (1, 3, 10, 30, 100, 300)},
        chosen={"barfi": {"lr": lr}, than: {"lr": its_lr}},
        differences=DIFFERENCES,
    )


def no_worse(kind: str, statement: str, than: str, lr: float, its_lr: float) -> Bound:
    """The same with a margin."""
    measure = partial(margin, kind, than, lr, its_lr)
    return Bound(
        f"{statement} (final return, less 0.01)",
        measure,
        limit=-0.01,
        above=True,
        differences=DIFFERENCES,
        tried="Run once, on ten seeds; the margin of 0.01 is ours, not the paper's.",
    )


def example(dtype: torch.dtype) -> dict[str, Any]:
    """Four rows of six steps in three states."""
    g = torch.Generator().manual_seed(0)
    state = torch.randint(0, 3, (4, 6), generator=g)
    primary, auxiliary, weights = (torch.randn(*shape, generator=g).to(dtype) for shape in ((4, 6), (4, 6), (3, 3)))
    return {"primary": primary, "auxiliary": auxiliary, "state": state, "weights": weights}


def parent() -> tuple[Tensor, Tensor]:
    """Δ, and the gradient of the library's objective with the same returns, summed over steps and averaged over episodes."""
    x = example(torch.float64)
    mask, one = torch.arange(6) < torch.tensor([[6], [4], [1], [5]]), torch.zeros(4, 6, dtype=torch.long)
    plain = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64).expand(3, 3)
    reward = alignment_reward(x["primary"], x["auxiliary"], x["state"], plain)
    logits = x["weights"][:, :2].clone().requires_grad_()
    action = (x["auxiliary"] > 0).long()
    returns = return_to_go(x["primary"], mask, one, gamma=0.9)
    loss = reinforce(logits.log_softmax(-1)[x["state"], action], returns, mask).value.sum() / 4
    found = softmax_gradient(logits, x["state"], action, reward, mask, one, 0.9)
    return found.detach(), -torch.autograd.grad(loss, logits)[0]


SYSTEM = System(
    title="Behaviour alignment via reward function optimisation",
    paper="Gupta 2023",
    arxiv="2310.19007",
    roles=("reward-shaping", "reward-combination", "policy-objective"),
    claims=(
        better("misleading", "With a misleading hint, BARFI learns the task and adding the hint does not", "sum", 3, 300),
        better("helpful", "With a helpful hint, BARFI ends better than the reward that counts alone", "alone", 3, 100),
        better("loop", "With a bonus for circling, BARFI learns the task and adding it does not", "sum", 3, 300),
        no_worse("misleading", "With a misleading hint, BARFI ends no worse than the reward that counts alone", "alone", 3, 100),
        no_worse("helpful", "With a helpful hint, BARFI ends no worse than adding it", "sum", 3, 100),
        Bound(
            "The weight of a misleading hint, 1 at first, falls where it is paid",
            partial(last, "misleading", "barfi", lr=3, figure="eval/hint"),
            limit=1.0,
            above=False,
            differences=DIFFERENCES,
        ),
    ),
    built_from=("rounds_of_walks", "softmax_gradient", "implicit_gradient", "neumann_solve", "hinted_grid", "expected_return"),
    examples=(Example(alignment_reward, example, rows=("primary", "auxiliary", "state")),),
    reductions=(Reduction("with weights (0, 1, 0) the inner update is REINFORCE", parent),),
    extras=("control",),
)
