# SPDX-License-Identifier: Apache-2.0
"""An evaluation of several objectives at once: what all that was measured so far dominates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guerdon.rewards.pareto import hypervolume


class Front:
    """Measures a policy's objectives, each higher is better, and the volume above ``reference`` that the points so far dominate.

    ``measure(policy)`` -> name -> figure. Gives ``eval/NAME`` of each and ``eval/hypervolume``. It has state: list it among the
    stage's ``evolving`` too, so that a resumed run goes on with the points it had.
    """

    def __init__(self, every: int, measure: Callable[[Any], Mapping[str, float]], reference: Sequence[float]) -> None:
        self.every, self.of = every, measure
        self.reference = torch.tensor(reference, dtype=torch.float64)
        self.points = list[Tensor]()

    def measure(self, policy: Any, step: int) -> dict[str, float]:
        found = self.of(policy)
        self.points.append(torch.tensor(list(found.values()), dtype=torch.float64))
        volume = hypervolume(torch.stack(self.points), self.reference).item()
        return {"eval/hypervolume": volume, **{f"eval/{name}": x for name, x in found.items()}}

    def state_dict(self) -> dict[str, Any]:
        return {"points": list(self.points)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.points = list(state["points"])
