# SPDX-License-Identifier: Apache-2.0
"""Eight modes in the plane: data to generate, and rewards for it that are known in closed form.

The data are a mixture of eight equally likely Gaussians of standard deviation ``SPREAD``, whose means lie on a circle of radius
``RADIUS``, mode k at angle k pi / 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MODES = 8
RADIUS = 2.0
SPREAD = 0.2


def centres(dtype: torch.dtype = torch.float32) -> Tensor:
    """[8, 2] means of the modes."""
    angle = torch.arange(MODES, dtype=dtype) * (2 * math.pi / MODES)
    return RADIUS * torch.stack([angle.cos(), angle.sin()], -1)


def sample_modes(count: int, seed: int, confusion: float = 0.0) -> tuple[Tensor, Tensor]:
    """(points [count, 2], labels [count]): a label is its point's mode, or, with probability ``confusion``, any mode at all.

    >>> points, labels = sample_modes(1000, seed=0)
    >>> bool(((points - centres()[labels]).norm(dim=-1) < 5 * SPREAD).all())
    True
    """
    g = torch.Generator().manual_seed(seed)
    mode, any_mode = torch.randint(MODES, (2, count), generator=g)
    points = centres()[mode] + SPREAD * torch.randn(count, 2, generator=g)
    return points, torch.where(torch.rand(count, generator=g) < confusion, any_mode, mode)


def mode_probability(points: Tensor, label: Tensor) -> Tensor:
    """P(mode = label | point) under the mixture, [...], for ``points`` [..., 2] and ``label`` [...].

    >>> mode_probability(torch.zeros(2), torch.tensor(3)).item(), round(mode_probability(centres()[1], torch.tensor(1)).item(), 4)
    (0.125, 1.0)
    """
    square = ((points[..., None, :] - centres(points.dtype)) ** 2).sum(-1)
    return (-square / (2 * SPREAD**2)).softmax(-1).gather(-1, label[..., None])[..., 0]


def roundness(points: Tensor) -> Tensor:
    """exp(-(|x| - RADIUS)^2 / (2 SPREAD^2)), [...]: 1 on the circle the modes lie on, less off it.

    >>> round(roundness(torch.tensor([RADIUS + SPREAD, 0.])).item(), 4)
    0.6065
    """
    return (-((points.norm(dim=-1) - RADIUS) ** 2) / (2 * SPREAD**2)).exp()
