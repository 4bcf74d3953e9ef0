# SPDX-License-Identifier: Apache-2.0
"""Data for flow matching: points on the straight paths from data to noise, with the velocities of these paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import InputError
from guerdon.policies.flow_step import interpolate
from guerdon.policies.token_distribution import stream
from guerdon.rollouts import Field, Rollouts
from guerdon.training.recipe import Batch
from guerdon.training.sources import picks


@dataclass(frozen=True)
class Noised:
    """``size`` data a step, each at a time and with noise of its own: rows of one step for `flow_matching`.

    data     [M, D] what is to be generated
    given    name -> [M, ...] what it is generated from (label, observation), a step field each

    Step fields: ``latent`` x_t, ``time`` t, ``target_velocity`` noise - data. The action is the datum.
    """

    data: Tensor
    size: int
    given: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = [k for k, v in self.given.items() if len(v) != len(self.data)]
        if self.data.dim() != 2 or not len(self.data) or self.size < 1 or wrong:
            raise InputError(
                f"Noised: expected data [M, D], a size of 1 or more and as many entries in `given` as data, got data "
                f"{list(self.data.shape)}, size {self.size}, another length of {wrong or 'none'}."
            )

    def batch(self, step: int, policy: Any, seed: int) -> Batch:
        at = torch.tensor([i for i, _ in picks(len(self.data), self.size, step, seed)])
        data, d = self.data[at], self.data.shape[1]
        drawn = stream(seed, [("noised", step)], self.size * (d + 1)).reshape(self.size, d + 1)
        time = drawn[:, 0].to(data.dtype)
        noise = torch.special.ndtri(drawn[:, 1:] + 2**-54).to(data.dtype)
        made = {"latent": interpolate(data, noise, time), "time": time, "target_velocity": noise - data}
        made |= {k: v[at] for k, v in self.given.items()}
        rollouts = Rollouts(
            action=data[:, None],
            mask=torch.ones(self.size, 1, dtype=torch.bool),
            task=[str(i) for i in at.tolist()],
            source=["data"] * self.size,
            fields={k: Field("step", v[:, None]) for k, v in made.items()},
        )
        return Batch(rollouts)
