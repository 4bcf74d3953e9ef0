# SPDX-License-Identifier: Apache-2.0
"""Of images: how bright, how many edges, how many different inks. An image is a field with one value an episode."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from guerdon.audit.watches.quantities import Quantity
from guerdon.errors import InputError
from guerdon.rollouts import Rollouts

INKS = 16


def pixels(rollouts: Rollouts, shape: tuple[int, int, int], low: float, high: float, field: str) -> Tensor:
    """[N, height, width, channels] in [0, 1] of the row's first image, whose values lie in [low, high]."""
    x = torch.as_tensor(rollouts.field(field).values)[:, 0].double()
    if x[0].numel() != shape[0] * shape[1] * shape[2]:
        raise InputError(f"images: `{field}` should have {' x '.join(map(str, shape))} values an image, got {list(x.shape[1:])}.")
    return ((x.reshape(len(x), *shape) - low) / (high - low)).clamp(0, 1)


def brightness(rollouts: Rollouts, **how: Any) -> Tensor:
    """[N] mean of the pixels, 0 to 1."""
    return pixels(rollouts, **how).flatten(1).mean(1)


def edge_density(rollouts: Rollouts, above: float = 0.25, **how: Any) -> Tensor:
    """[N] share of the pairs of neighbouring pixels, side by side or one below the other, that differ by more than ``above``.

    Colours differ by the largest difference of a channel.
    """
    x = pixels(rollouts, **how)
    steps = [(x[:, 1:] - x[:, :-1]), (x[:, :, 1:] - x[:, :, :-1])]
    differ = [(s.abs().amax(-1) > above).double().flatten(1) for s in steps]
    return torch.cat(differ, 1).mean(1)


def ink_entropy(rollouts: Rollouts, **how: Any) -> Tensor:
    """[N] -sum_c p_c log p_c, nats; p_c the share of the image's pixels of ink c, each channel cut into 16 equal parts."""
    x = (pixels(rollouts, **how) * INKS).long().clamp(max=INKS - 1)
    colours = (x * INKS ** torch.arange(x.shape[-1])).sum(-1).flatten(1)
    out = []
    for row in colours:
        p = row.unique(return_counts=True)[1].double() / len(row)
        out.append(float(-(p * p.log()).sum()))
    return torch.tensor(out, dtype=torch.float64)


def images(
    height: int, width: int, channels: int = 1, low: float = -1.0, high: float = 1.0, field: str = "sample"
) -> tuple[Quantity, ...]:
    """Brightness, edge density and ink entropy of the images in a field, channels last, as quantities to watch.

    >>> [q.name for q in images(8, 8)]
    ['brightness', 'edges', 'inks']
    """
    how: dict[str, Any] = {"shape": (height, width, channels), "low": low, "high": high, "field": field}
    of, made = frozenset({field}), []
    for name, function, unit in (
        ("brightness", brightness, "0 to 1"),
        ("edges", edge_density, "share of neighbours"),
        ("inks", ink_entropy, "nats"),
    ):
        made.append(Quantity(name, partial(function, **how), of, unit))
    return tuple(made)
