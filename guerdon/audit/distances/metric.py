# SPDX-License-Identifier: Apache-2.0
"""Distances between two rewards of a table: canonical forms, brought to size 1, and how far apart they are.

    s(R) = c(R) / n(c(R)), or c(R) where that is 0        d(R₁, R₂) = ½ n(s(R₁) - s(R₂))   in [0, 1]

    d      c              n                          sees the dynamics
    -----  -------------  -------------------------  ----------------------------------------------------------------
    starc  val, minimal   L1, L2, L∞, weighted by τ  yes; 0 just where all policies are ordered alike, and bounds regret
    epic   epic, centred  L2 of a coverage           no; bounds regret only as far as the coverage is like the visits
    dard   dard, centred  L2 of a coverage of τ's    yes; not invariant to S'-redistribution

EPIC and DARD are Pearson distances √((1 - ρ) / 2) in their papers. That is ½ L2 of the centred forms brought to size 1, and is
computed so: 1 - ρ would lose half of the digits near 0.

A reward that judges all policies alike has c(R) = 0; from any other it is ½ away.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from guerdon.audit.distances import canonical
from guerdon.audit.distances.minimal import minimal
from guerdon.errors import InputError, check_shape

Canonical = Callable[[Tensor, Tensor, float], Tensor]
"""(reward, transition, gamma) -> the canonical form, [..., S, A, S]."""

CANONICAL: dict[str, Canonical] = {
    "val": canonical.val,
    "val_potential": canonical.val_potential,
    "minimal": minimal,
    "epic": lambda reward, transition, gamma: canonical.epic(reward, gamma),
    "dard": canonical.dard,
    "none": lambda reward, transition, gamma: reward,
}
"""Canonical forms by name; "none" is the reward as it is."""

FLOOR = 1e4
"""A canonical form this many roundings of the reward's largest value or smaller is 0."""


def norm(x: Tensor, order: float = 2, weight: Tensor | None = None) -> Tensor:
    """(Σ w |x|^p)^(1/p) over the last three dimensions; p = inf: max w |x|. ``weight`` [S, A, S]; None: 1.

    With w = τ this is the released code's norm; its L∞ is weighted too.

    >>> x, w = torch.tensor([[[3.0, -4.0]]]), torch.tensor([[[1.0, 0.25]]])
    >>> [norm(x, p).item() for p in (1, 2, math.inf)], [round(norm(x, p, w).item(), 4) for p in (1, 2, math.inf)]
    ([7.0, 5.0, 4.0], [4.0, 3.6056, 3.0])
    """
    flat = x.flatten(-3).abs()
    if order == math.inf:
        return (flat if weight is None else weight.flatten(-3) * flat).amax(-1)
    power = flat * flat if order == 2 else flat**order
    return (power.sum(-1) if weight is None else power @ weight.flatten()) ** (1 / order)


def standardised(form: Tensor, reward: Tensor, order: float = 2, weight: Tensor | None = None) -> Tensor:
    """``form`` / its norm, or 0 where it is nothing but what rounding left of ``reward``."""
    size = norm(form, order, weight)[..., None, None, None]
    floor = FLOOR * torch.finfo(form.dtype).eps * norm(reward, order, weight)[..., None, None, None]
    return torch.where(size > floor, form / size.clamp(min=torch.finfo(form.dtype).tiny), 0)


def starc(
    first: Tensor,
    second: Tensor,
    transition: Tensor,
    gamma: float,
    *,
    form: str | Canonical = "val",
    order: float = 2,
    weighted: bool = False,
    angle: bool = False,
) -> Tensor:
    """½ n(s(R₁) - s(R₂)), [...], in [0, 1]. ``first``, ``second`` [..., S, A, S]; ``transition`` [S, A, S].

    form      a name of ``CANONICAL`` or a function; "minimal" is minimal for the norm that is asked for
    order     of n: 1, 2 or inf; ``weighted``: by τ, so that what cannot happen does not count
    angle     arccos⟨s(R₁), s(R₂)⟩ / π instead, in [0, 1] too; for order 2

    >>> stay = torch.ones(1, 2, 1, dtype=torch.float64)
    >>> good, bad = torch.tensor([[[[1.0], [3.0]]], [[[3.0], [1.0]]]], dtype=torch.float64)
    >>> [round(starc(good, x, stay, 0.9).item(), 9) for x in (5 * good - 7, bad, 0 * good)]
    [0.0, 1.0, 0.5]
    """
    if angle and order != 2:
        raise InputError(f"starc: the angle belongs to order 2, got order {order}.")
    weight, of = transition if weighted else None, _form(form, order, weighted)
    one, other = (
        standardised(of(reward, transition, gamma), torch.where(transition > 0, reward, 0), order, weight)
        for reward in (first, second)
    )
    apart = norm(one - other, order, weight)
    if not angle:
        return apart / 2
    turned = 2 / math.pi * torch.atan2(apart, norm(one + other, order, weight))
    return torch.where(norm(one, order, weight) + norm(other, order, weight) > 0, turned, 0)


def _form(form: str | Canonical, order: float, weighted: bool) -> Canonical:
    if form == "minimal":
        return lambda reward, transition, gamma: minimal(reward, transition, gamma, order=order, weighted=weighted)
    if isinstance(form, str):
        if form not in CANONICAL:
            raise InputError(f"starc: `form` should be one of {', '.join(CANONICAL)}, or a function, got {form!r}.")
        return CANONICAL[form]
    return form


def pearson(first: Tensor, second: Tensor, weight: Tensor, of: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """√((1 - ρ) / 2), [...], with the correlation ρ over the distribution ``weight`` [S, A, S]; ½ where one of them is constant.

    ``of``: the rewards that the two were made of, which say how small is nothing.

    >>> x = torch.tensor([[[0.0, 1.0, 2.0]]])
    >>> [round(pearson(x, y, torch.full((1, 1, 3), 1 / 3)).item(), 4) for y in (3 * x + 1, -x, x * 0, x**2 - 2 * x)]
    [0.0, 1.0, 0.5, 0.7071]
    """
    check_shape("pearson", "weight", weight, tuple(first.shape[-3:]))
    centred = [x - (weight * x).sum((-3, -2, -1), keepdim=True) for x in (first, second)]
    sizes = of or (first, second)
    one, other = (standardised(c, x, 2, weight) for c, x in zip(centred, sizes, strict=True))
    return norm(one - other, 2, weight) / 2


def epic(
    first: Tensor,
    second: Tensor,
    gamma: float,
    state_weight: Tensor | None = None,
    action_weight: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Pearson distance of the EPIC forms, [...]. ``weight`` [S, A, S]: the coverage of transitions; None: D_S D_A D_S.

    >>> r = torch.tensor([[[0.0, 2.0]], [[1.0, 4.0]]], dtype=torch.float64)
    >>> round(epic(r, -r, 0.9).item(), 9)
    1.0
    """
    states, actions, _ = first.shape[-3:]
    of_state = first.new_full((states,), 1 / states) if state_weight is None else state_weight
    of_action = first.new_full((actions,), 1 / actions) if action_weight is None else action_weight
    weight = of_state[:, None, None] * of_action[:, None] * of_state if weight is None else weight
    one, other = (canonical.epic(x, gamma, of_state, of_action) for x in (first, second))
    return pearson(one, other, weight, (first, second))


def dard(
    first: Tensor,
    second: Tensor,
    transition: Tensor,
    gamma: float,
    action_weight: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Pearson distance of the DARD forms, [...]. ``weight`` [S, A, S]: the coverage; None: τ from a uniform s and an A ~ D_A.

    >>> r = torch.tensor([[[0.0, 2.0]], [[1.0, 4.0]]], dtype=torch.float64)
    >>> round(dard(r, -r, torch.full((2, 1, 2), 0.5, dtype=torch.float64), 0.9).item(), 9)
    1.0
    """
    states, actions, _ = transition.shape
    of_action = transition.new_full((actions,), 1 / actions) if action_weight is None else action_weight
    weight = of_action[:, None] * transition / states if weight is None else weight
    one, other = (canonical.dard(x, transition, gamma, of_action) for x in (first, second))
    return pearson(one, other, weight, (first, second))
