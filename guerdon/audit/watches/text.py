# SPDX-License-Identifier: Apache-2.0
"""Of text: how long it is, how much it repeats itself, how alike the answers to a prompt are, how undecided the policy was."""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.audit.watches.quantities import Quantity, row_mean
from guerdon.rollouts import Rollouts


def length(rollouts: Rollouts) -> Tensor:
    """[N] steps (tokens) that the policy took in the row: sum_t mask_t."""
    return rollouts.mask.sum(1).double()


def repetition(rollouts: Rollouts, n: int = 3) -> Tensor:
    """[N] share of a row's n-grams that it had written before: 1 - distinct / all. NaN where it is shorter than n.

    An n-gram is n tokens in a row, or words where the rollouts hold text without tokens.

    >>> repetition(Rollouts.from_text(["", ""], ["a b a b a b", "a b c d"])).tolist()
    [0.5, 0.0]
    """
    found = [_grams(row, n) for row in pieces(rollouts)]
    return torch.tensor([1 - len(set(g)) / len(g) if g else torch.nan for g in found], dtype=torch.float64)


def distinct(rollouts: Rollouts, n: int = 2) -> Tensor:
    """[N] distinct n-grams / n-grams over the rows of a group together, at the group's first row; NaN at its others.

    It falls where the answers to a prompt become one answer, which no single row shows. Source: distinct-n of Li et al. 2016,
    arXiv 1510.03055, over the answers to one prompt.

    >>> distinct(Rollouts.from_text(["", ""], ["a b c", "a b d"], group=[0, 0])).tolist()
    [0.75, nan]
    """
    first: dict[int, int] = {}
    grams: dict[int, list[tuple[object, ...]]] = {}
    for row, (g, said) in enumerate(zip(rollouts.group.tolist(), pieces(rollouts), strict=True)):
        first.setdefault(g, row)
        grams.setdefault(g, []).extend(_grams(said, n))
    out = torch.full((len(rollouts),), torch.nan, dtype=torch.float64)
    for g, row in first.items():
        if grams[g]:
            out[row] = len(set(grams[g])) / len(grams[g])
    return out


def entropy(rollouts: Rollouts) -> Tensor:
    """[N] -mean_t log_prob_t, nats a token: an unbiased estimate of the sampling distribution's entropy on the row's steps."""
    assert rollouts.log_prob is not None  # it is in `fields`
    return -row_mean(rollouts.log_prob.double(), rollouts.mask)


def pieces(rollouts: Rollouts) -> list[list[object]]:
    """What a row's n-grams are made of: the tokens the policy took, or the words of its text where a row is a single step."""
    if rollouts.action.dim() == 2 and rollouts.action.shape[1] > 1 and not rollouts.action.is_floating_point():
        return [row[m].tolist() for row, m in zip(rollouts.action, rollouts.mask, strict=True)]
    texts = rollouts.field("completion").values
    return [list(" ".join(map(str, row)).split()) for row in texts]


def _grams(said: list[object], n: int) -> list[tuple[object, ...]]:
    return [tuple(said[i : i + n]) for i in range(len(said) - n + 1)]


_TEXT = frozenset({"completion"})
_SHORT = frozenset({"length", "length_penalty", "step_count"})

LENGTH = Quantity("length", length, _TEXT, "tokens", measures=_SHORT)
REPETITION = Quantity("repetition", repetition, _TEXT, "share of 3-grams", harm=1)
DISTINCT = Quantity("distinct", distinct, _TEXT, "share of 2-grams", harm=-1)
ENTROPY = Quantity("entropy", entropy, frozenset({"log_prob"}), "nats a token", harm=-1, change=0.9)

TEXT = (LENGTH, REPETITION, DISTINCT, ENTROPY)
