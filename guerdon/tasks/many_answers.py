# SPDX-License-Identifier: Apache-2.0
"""Tasks with many right answers: one of A actions, of which 10 to 20 are right, some likely at the start and some rare.

Of a task the policy sees a point x [D] and not a second one, z [H]. Action a fits by x . v_a + z . w_a, and those that fit best
are right: what is right is partly a matter of what can't be seen, so that no policy solves a task by a single answer, and one
that has narrowed to its favourites fails where they are wrong. The policy to begin with knows the visible part with an error.
It shares its weights between tasks, so training on some moves the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from guerdon.policies.table import TablePolicy
from guerdon.protocols import Context


@dataclass(frozen=True, eq=False)
class ManyAnswers:
    """``features`` [K, D]; ``right`` [K, A] bool; ``start`` [K, A] the first policy's logits; the last ``held_out`` are not for
    training."""

    features: Tensor
    right: Tensor
    start: Tensor
    held_out: int

    @property
    def keys(self) -> list[str]:
        return [f"task {k}" for k in range(len(self.right))]

    def contexts(self) -> list[Context]:
        """Of the tasks to train on; the field ``row`` says which row of ``right`` is theirs."""
        return [Context(key, key, {"row": k}) for k, key in enumerate(self.keys[: len(self.keys) - self.held_out])]

    def policy(self) -> TablePolicy:
        return TablePolicy(self.keys, self.right.shape[1], start=self.start[:, None, None], features=self.features)

    def mass(self, policy: TablePolicy) -> Tensor:
        """[held_out] float64 probability of a right answer in each held-out task."""
        return torch.where(self.right, policy.probabilities()[:, 0, 0].double(), 0).sum(1)[-self.held_out :]


@lru_cache(maxsize=4)
def make_tasks(
    seed: int,
    *,
    tasks: int = 1024,
    held_out: int = 512,
    actions: int = 128,
    visible: int = 8,
    hidden: int = 32,
    noise: float = 3.0,
) -> ManyAnswers:
    """Both parts of the fit have variance 1; ``noise`` is the standard deviation of the error in the first logits."""
    g = torch.Generator().manual_seed(seed)
    seen, unseen = (torch.randn(tasks + held_out, d, generator=g) / d**0.5 for d in (visible, hidden))
    fit, luck = (x @ torch.randn(x.shape[1], actions, generator=g) for x in (seen, unseen))
    error = seen @ torch.randn(visible, actions, generator=g)
    many = torch.randint(10, 21, (tasks + held_out, 1), generator=g)
    rank = (fit + luck).argsort(1, descending=True).argsort(1)
    return ManyAnswers(seen, rank < many, fit + noise * error, held_out)


def pass_at(mass: Tensor, k: int) -> float:
    """Mean over tasks of 1 - (1 - mass)^k: the expectation of the unbiased estimate of pass@k, from the probabilities themselves.

    >>> round(pass_at(torch.tensor([0.5, 0.1]), 2), 4)
    0.47
    """
    return (1 - (1 - mass) ** k).mean().item()
