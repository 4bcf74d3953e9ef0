# SPDX-License-Identifier: Apache-2.0
"""A small network for velocities: a multilayer perceptron that sees the latent, the time and a condition."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

FREQUENCIES = 4
TIME_FEATURES = 1 + 2 * FREQUENCIES


def time_features(time: Tensor) -> Tensor:
    """[..., 9]: t, and sin and cos of pi k t for k = 1 to 4, which tell times in [0, 1] apart.

    >>> [round(x, 4) for x in time_features(torch.tensor(0.25)).tolist()[:4]]
    [0.25, 0.7071, 1.0, 0.7071]
    """
    angle = time[..., None] * torch.arange(1, FREQUENCIES + 1, dtype=time.dtype, device=time.device) * math.pi
    return torch.cat([time[..., None], angle.sin(), angle.cos()], -1)


def perceptron(inputs: int, outputs: int, width: int, layers: int, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """``layers`` hidden layers of ``width``; the last layer is linear and starts at a tenth of its usual size."""
    sizes = [inputs] + [width] * layers
    hidden = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), activation())]
    last = nn.Linear(sizes[-1], outputs)
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.zero_()
    return nn.Sequential(*hidden, last)


class VelocityNetwork(nn.Module):
    """(latent [..., D], time [...], condition [..., C]) -> velocity [..., D]. The weights depend on ``seed`` alone."""

    def __init__(self, dimensions: int, conditions: int, width: int, layers: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = perceptron(dimensions + TIME_FEATURES + conditions, dimensions, width, layers)

    def forward(self, latent: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return self.layers(torch.cat([latent, time_features(time), condition], -1))
