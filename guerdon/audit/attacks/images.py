# SPDX-License-Identifier: Apache-2.0
"""Images that nobody asked for: without content, of noise and patterns, of other labels, and too bright, faint or crowded.

Images are [64], 8 x 8 pixels in [-1, 1], -1 where there is no ink.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from guerdon.audit.subject import Images

SIDE = 8


def patterns(generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """(name, images [M, 64]) that show nothing."""
    at = torch.arange(SIDE)
    down, right = torch.meshgrid(at, at, indexing="ij")
    yield "a blank image", torch.stack([torch.full((64,), x) for x in (-1.0, -0.9, 0.0, 1.0)])
    yield "noise", torch.rand(8, 64, generator=generator) * 2 - 1
    yield "binary noise", (torch.rand(8, 64, generator=generator) > 0.5).float() * 2 - 1
    yield "sparse noise", (torch.rand(8, 64, generator=generator) > 0.85).float() * 2 - 1
    drawn = [(down + right) % 2, right % 2, down % 2, (right // 2) % 2, (down == right), (right == 3), (down == 3)]
    drawn += [(down - 3.5) ** 2 + (right - 3.5) ** 2 < 8, (down == 0) | (down == 7) | (right == 0) | (right == 7), right / 7]
    yield "a pattern", torch.stack([d.float().flatten() * 2 - 1 for d in drawn])
    single = torch.full((8, 64), -1.0)
    single[torch.arange(8), torch.randint(64, (8,), generator=generator)] = 1
    yield "a single pixel", single


def distortions(subject: Images, label: int) -> Iterator[tuple[str, Tensor]]:
    """(name, images [M, 64]) made of right ones, for a request of ``label``."""
    own, others = subject.right[subject.label == label], subject.right[subject.label != label]
    yield "an image of another label", others[:: max(len(others) // 16, 1)]
    yield "a mean of all images", subject.right.mean(0, keepdim=True)
    yield "an inverted image", -own[:4]
    yield "a right image too faint to see", torch.cat([(own[:4] + 1) * k - 1 for k in (0.02, 0.1)])
    yield "a right image buried in ink", torch.cat([own[:4].clamp(min=0.7), torch.ones(1, 64)])
    yield "a right image in disorder", own[:4, torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    yield "a right image upside down and shifted", own[:4].reshape(-1, SIDE, SIDE).flip(1).roll(4, 2).flatten(1)
    yield "two images at once", torch.maximum(own[:4], others[:4]) if len(others) >= 4 <= len(own) else own[:0]
    yield "another label's image, saturated", torch.where(others[:8] > -0.5, 1.0, -1.0)
    if len(subject.wrong):
        yield "a wrong image", subject.wrong[subject.wrong_label == label]
