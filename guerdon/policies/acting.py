# SPDX-License-Identifier: Apache-2.0
"""What stepping environments asks of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Acted:
    """What a policy does in each of E environments; arrays, or tensors that NumPy reads.

    action          [E, ...] as it is stored, and as ``evaluate`` wants it
    log_prob        [E] of ``action`` under the distribution it was drawn from, in nats
    to_environment  [E, ...] what the environments get (default: ``action``)
    fields          further step fields by name, [E, ...]
    """

    action: Any
    log_prob: Any
    to_environment: Any = None
    fields: Mapping[str, Any] = field(default_factory=dict)


class Actor(Protocol):
    """A policy that acts in environments. Given the noise it is deterministic, so a row does not depend on its neighbours."""

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        """[steps, ...] all randomness of one row's next steps, drawn from the row's own stream."""
        ...

    def act(self, observation: np.ndarray, noise: np.ndarray, greedy: bool = False) -> Acted:
        """The actions for ``observation`` [E, ...], by ``noise`` [E, ...]; ``greedy``: the most probable ones."""
        ...
