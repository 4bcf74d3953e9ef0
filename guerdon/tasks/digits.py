# SPDX-License-Identifier: Apache-2.0
"""Digits of 8 x 8 pixels: data to generate, and rewards for it. The images are scikit-learn's, which come with the package.

A pixel is -1 where there is no ink and 1 where there is most; an image is its 64 pixels in rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SIDE, CLASSES = 8, 10


def images() -> tuple[Tensor, Tensor]:
    """(images [1797, 64], labels [1797]).

    >>> pixels, labels = images()
    >>> pixels.shape, pixels.min().item(), pixels.max().item(), labels[:5].tolist()
    (torch.Size([1797, 64]), -1.0, 1.0, [0, 1, 2, 3, 4])
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32) / 8 - 1, torch.tensor(found.target, dtype=torch.long)


def classifier(pixels: Tensor, labels: Tensor, penalty: float = 1e-2) -> Callable[[Tensor, Tensor], Tensor]:
    """(images [..., 64], labels [...]) -> P(label | image), by multinomial logistic regression with a squared ``penalty``.

    The loss is convex, so the classifier depends on the data alone.
    """
    weight = torch.zeros(SIDE * SIDE + 1, CLASSES, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def logits(x: Tensor) -> Tensor:
        return x.double() @ weight[:-1] + weight[-1]

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(logits(pixels), labels) + penalty * (weight[:-1] ** 2).sum() / 2
        value.backward()
        return value

    optimiser.step(loss)
    weight.requires_grad_(False)

    def probability(x: Tensor, label: Tensor) -> Tensor:
        return logits(x).softmax(-1).gather(-1, label[..., None])[..., 0].to(x.dtype)

    return probability


def roundness(pixels: Tensor) -> Tensor:
    """4 det M / (tr M)^2 for the matrix M of the second moments of the ink about its centre, [...]; 1 for a disc, 0 for a line.

    An image without ink has no shape: 0.

    >>> line, ring = torch.full((8, 8), -1.), torch.full((8, 8), -1.)
    >>> line[3] = 1; ring[1:7, 1:7] = 1; ring[3:5, 3:5] = -1
    >>> [round(roundness(x.flatten()).item(), 4) for x in (line, ring)]
    [0.0, 1.0]
    """
    ink = (pixels.clamp(-1, 1) + 1).reshape(*pixels.shape[:-1], SIDE, SIDE)
    at = torch.arange(SIDE, dtype=pixels.dtype, device=pixels.device)
    total = ink.sum((-2, -1)).clamp(min=1e-6)
    down, right = ink.sum(-1), ink.sum(-2)
    y, x = (down * at).sum(-1) / total, (right * at).sum(-1) / total
    yy, xx = (down * (at - y[..., None]) ** 2).sum(-1), (right * (at - x[..., None]) ** 2).sum(-1)
    xy = (ink * (at[:, None] - y[..., None, None]) * (at - x[..., None, None])).sum((-2, -1))
    return torch.where(xx + yy > 0, 4 * (xx * yy - xy**2) / (xx + yy).clamp(min=1e-12) ** 2, 0).clamp(0, 1)


def drawn_as_text(pixels: Tensor, across: int = 10) -> str:
    """A grid of images [M, 64] for a terminal, ``across`` in a row, two characters a pixel."""
    shades = " .:-=+*#%@"
    level = ((pixels.clamp(-1, 1) + 1) / 2 * (len(shades) - 1)).round().long().reshape(-1, SIDE, SIDE)
    lines = []
    for start in range(0, len(level), across):
        some = level[start : start + across]
        lines += ["  ".join("".join(shades[v] * 2 for v in image[r].tolist()) for image in some) for r in range(SIDE)] + [""]
    return "\n".join(lines)
