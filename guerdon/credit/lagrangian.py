# SPDX-License-Identifier: Apache-2.0
"""Components held at targets: advantages mixed by multipliers, which rise where a component's mean return is too low.

To maximise J_0 subject to J_i >= target_i, or J_i = target_i, climb in the policy on the mixed advantage and descend in the
multipliers' parameters l on sum_i m(l_i) (J_i - target_i).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from guerdon.credit.groups import whiten
from guerdon.errors import ExpressionError, InputError


def constrained_mix(
    advantages: Mapping[str, Tensor],
    weights: Mapping[str, float],
    mask: Tensor,
    *,
    multipliers: Mapping[str, float],
    objective: str,
) -> Tensor:
    """(n - sum_i m_i) A_0 + sum_i m_i A_i, [N, T], each component's advantage whitened over the counted steps.

    ``advantages`` name -> [N, T]; ``weights`` the components' factors in the reward, of which the sign counts; ``multipliers``
    name -> m_i of the n constrained components; ``objective``: the name of A_0, the component that is maximised.

    Moskovitz et al. 2023, arXiv:2310.04373, section 4.

    >>> advantages, mask = {"kl": torch.tensor([[1., 0.]]), "r": torch.tensor([[4., 0.]])}, torch.tensor([[True, True]])
    >>> weights = {"kl": -0.1, "r": 1.0}
    >>> [round(x, 4) for x in constrained_mix(advantages, weights, mask, multipliers={"r": 0.2}, objective="kl")[0].tolist()]
    [-0.4243, 0.4243]
    """
    if advantages.keys() != {objective, *multipliers} or objective in multipliers:
        raise ExpressionError(
            f"constrained_mix: the reward should have the components {objective} and {', '.join(multipliers)}, got "
            f"{', '.join(advantages)}. Usual cause: a component was renamed or is only watched."
        )
    share = {**multipliers, objective: len(multipliers) - sum(multipliers.values())}
    parts = [share[k] * (1 if weights[k] >= 0 else -1) * whiten(x, mask) for k, x in advantages.items()]
    return torch.stack(parts).sum(0)


SQUASH = {"at_least": torch.sigmoid, "equal": torch.tanh}
"""kind of constraint -> m(l): in (0, 1) for inequalities, in (-1, 1), so that it may push back, for equalities."""


def multiplier_gradient(parameter: Tensor, return_: Tensor, target: Tensor, kind: str) -> Tensor:
    """m'(l) (J - target): the gradient of sum_i m(l_i) (J_i - target_i); ``parameter`` l, ``return_`` J, ``target`` [n].

    >>> one = torch.ones(1)
    >>> multiplier_gradient(0 * one, 0.5 * one, one, "at_least"), multiplier_gradient(0 * one, 0.5 * one, one, "equal")
    (tensor([-0.1250]), tensor([-0.5000]))
    """
    m = SQUASH[kind](parameter)
    return (m * (1 - m) if kind == "at_least" else 1 - m**2) * (return_ - target)


class Multipliers:
    """Learns a multiplier for each target; told after the policy's update. ``kind``: "at_least" or "equal".

    Called with a step, it gives name -> m_i, to be bound as ``constrained_mix``'s ``multipliers``.
    """

    before = False

    def __init__(self, targets: Mapping[str, float], kind: str, *, lr: float = 0.1, momentum: float = 0.1) -> None:
        if kind not in SQUASH:
            raise InputError(f"Multipliers: `kind` should be one of {', '.join(SQUASH)}, got {kind!r}.")
        self.names, self.kind, self.lr, self.momentum = list(targets), kind, lr, momentum
        self.target = torch.tensor(list(targets.values()), dtype=torch.float64)
        self.parameter, self.velocity = torch.zeros_like(self.target), torch.zeros_like(self.target)

    def __call__(self, step: int) -> dict[str, float]:
        return dict(zip(self.names, SQUASH[self.kind](self.parameter).tolist(), strict=True))

    def update(self, told: Any) -> dict[str, float]:
        found = [mean_return(told.scores, name) for name in self.names]
        return_ = torch.tensor(found, dtype=torch.float64)
        known = ~return_.isnan()  # a component that nobody could judge leaves its multiplier as it is
        gradient = multiplier_gradient(self.parameter, return_, self.target, self.kind)
        self.velocity = torch.where(known, self.momentum * self.velocity + gradient, self.velocity)
        self.parameter = torch.where(known, self.parameter - self.lr * self.velocity, self.parameter)
        gap = (return_ - self.target).abs() / self.target.abs()
        told_of = {"return": found, "multiplier": list(self(0).values()), "gap": gap.tolist()}
        return {f"{what}/{k}": x for what, xs in told_of.items() for k, x in zip(self.names, xs, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        return {"parameter": self.parameter, "velocity": self.velocity, "target": self.target}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.parameter, self.velocity, self.target = (state[k].clone() for k in ("parameter", "velocity", "target"))


def mean_return(scores: Any, name: str) -> float:
    """Mean over the rows that are ok of a component's total."""
    c = scores.components[name]
    ok = (c.ok | (c.status < 0)).all(1) & c.ok.any(1)
    return torch.where(c.ok, c.values, 0).sum(1)[ok].mean().item()
