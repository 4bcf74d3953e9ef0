# SPDX-License-Identifier: Apache-2.0
"""Scores of agents that are not trained but drawn, and tests to measure others by: what is true of them is known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from guerdon.systems.intervals import t_quantile

Draw = Callable[[tuple[int, ...], torch.Generator], Tensor]


def gaussian(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def bimodal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Half of the seeds fail: -1 or 1, with a little noise."""
    return 2.0 * torch.randint(2, shape, generator=generator) - 1 + 0.1 * gaussian(shape, generator)


def share_declared(seed: int, declares: Callable[[Tensor, int], bool], draw: Draw, shape: tuple[int, ...], repeats: int) -> float:
    """Of ``repeats`` draws of scores, the share of which a test ``declares(scores, seed)`` something."""
    generator = torch.Generator().manual_seed(seed)
    return sum(declares(draw(shape, generator), seed * repeats + i) for i in range(repeats)) / repeats


def repeated_t_error(seed: int, agents_looks_seeds: tuple[int, int, int], alpha: float, repeats: int) -> float:
    """How often two identical Gaussian agents are told apart by a t-test at ``alpha`` after every block of seeds."""
    generator = torch.Generator().manual_seed(seed)
    scores = gaussian((repeats, *agents_looks_seeds), generator)
    beyond = torch.zeros(repeats, dtype=torch.bool)
    for looks in range(1, agents_looks_seeds[1] + 1):
        a, b = scores[:, :2, :looks].flatten(2).unbind(1)
        t = (a.mean(1) - b.mean(1)) / ((a.var(1) + b.var(1)) / a.shape[1]).sqrt()
        beyond |= t.abs() > t_quantile(1 - alpha / 2, 2 * a.shape[1] - 2)
    return beyond.double().mean().item()


def permutation_p(a: Tensor, b: Tensor, draws: int, generator: torch.Generator) -> float:
    """p of the absolute difference of means: the share of ``draws`` relabellings, the observed among them, that are as far apart.

    >>> permutation_p(torch.zeros(9), torch.ones(9), 100, torch.Generator().manual_seed(0))
    0.01
    """
    both, n = torch.cat([a, b]), len(a)
    order = torch.rand(draws - 1, len(both), generator=generator).argsort(1)
    apart = (both[order[:, :n]].mean(1) - both[order[:, n:]].mean(1)).abs()
    return ((apart >= (a.mean() - b.mean()).abs() - 1e-12).sum().item() + 1) / draws
