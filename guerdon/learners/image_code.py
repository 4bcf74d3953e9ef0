# SPDX-License-Identifier: Apache-2.0
"""An autoencoder of small images, as the behaviour space of a search: how a picture is coded, and how badly it is known."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray


class ImageCode(nn.Module):
    """Images [B, F, H, W] (F frames each) to codes [B, F ``width``], and back: 64 units between, SELU.

    The generator that initialises it is seeded by ``seed``.
    """

    def __init__(self, pixels: int, width: int = 10, hidden: int = 64, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.SELU(), nn.Linear(hidden, width))
            self.decoder = nn.Sequential(nn.Linear(width, hidden), nn.SELU(), nn.Linear(hidden, pixels))
        self.optimiser = torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)

    @torch.no_grad()
    def describe(self, images: Array) -> tuple[Array, Array]:
        """(code [B, F width], surprise [B]): surprise = sum over frames of the mean squared error of the reconstruction."""
        x = torch.from_numpy(images).flatten(2)
        code = self.encoder(x)
        surprise = ((self.decoder(code) - x) ** 2).mean(-1).sum(-1)
        return code.flatten(1).double().numpy(), surprise.double().numpy()

    def fit(self, images: Array, rng: np.random.Generator, epochs: int = 100, batch: int = 128, patience: int = 3) -> int:
        """Train on 4/5 of the frames until the error on the others rose more than ``patience`` times in a row; epochs taken."""
        x = torch.from_numpy(images).flatten(2).flatten(0, 1)
        x = x[torch.from_numpy(rng.permutation(len(x)))]
        held_out, train = x[: len(x) // 5], x[len(x) // 5 :]
        least, rises = math.inf, 0
        for epoch in range(1, epochs + 1):
            for part in train[torch.from_numpy(rng.permutation(len(train)))].split(batch):
                self.optimiser.zero_grad()
                self._error(part).backward()
                self.optimiser.step()
            with torch.no_grad():
                error = self._error(held_out).item() if len(held_out) else math.inf
            least, rises = (least, rises + 1) if error > least else (error, 0)
            if rises > patience:
                return epoch
        return epochs

    def _error(self, x: Tensor) -> Tensor:
        return ((self.decoder(self.encoder(x)) - x) ** 2).mean()
