# SPDX-License-Identifier: Apache-2.0
"""Search at sampling time: the best of n rows, and a tree whose rows fork from prefixes of one another.

What comes out are ordinary Rollouts. ``BestOf`` stands in for ``policy.sample`` wherever that can be replaced; ``Tree`` is a
source around another one, whose rows are the roots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import InputError
from guerdon.policies.prefix import Prefix
from guerdon.protocols import Batch, Context, Scorer
from guerdon.rollouts import Field, Rollouts

Sample = Callable[[Any, Sequence[Context], Any, int], Rollouts]
"""(policy, contexts, sampling, seed) -> one row per context."""


def plain(policy: Any, contexts: Sequence[Context], sampling: Any, seed: int) -> Rollouts:
    return policy.sample(contexts, sampling, seed)


@dataclass(frozen=True)
class BestOf:
    """Of ``n`` rows for each context, the one with the highest ``reward``; the first of equals, or of all where none is ok.

    The rows drawn for a context with index i have the indices i n to i n + n - 1, so n = 1 is plain sampling. The field ``drawn``
    says n. ``log_prob`` stays that of the policy, under which the best is not a fair sample: imitate these rows rather than
    weigh them by ratios.
    """

    n: int
    reward: Scorer
    sample: Sample = plain

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"BestOf: expected `n` of 1 or more, got {self.n}.")

    def __call__(self, policy: Any, contexts: Sequence[Context], sampling: Any, seed: int) -> Rollouts:
        asked = [dataclasses.replace(c, index=c.index * self.n + i) for c in contexts for i in range(self.n)]
        rows = self.sample(policy, asked, sampling, seed)
        worth = whole(self.reward, rows).reshape(-1, self.n)
        best = torch.where(worth.isnan(), -torch.inf, worth).argmax(1) + self.n * torch.arange(len(contexts))
        return rows.rows(best).with_field("drawn", "task", [self.n] * len(contexts))


@dataclass(frozen=True)
class Tree:
    """A source: rows of ``roots``, then ``rounds`` times, in each group, ``forks`` new rows from its most promising prefix.

    ``promise`` scores prefixes (rows cut short, see ``cut``) as whole episodes. A prefix ends between two steps that its row's
    policy took, is forked once, and the first of equals goes first. ``sampling``, ``sample``: how forks are drawn; ``sample``
    must know ``Prefix`` contexts, as ``TablePolicy.sample`` does. Forks have negative indices, which roots don't use.
    """

    roots: Any
    promise: Scorer
    rounds: int
    forks: int
    sampling: Any
    sample: Sample = plain

    def batch(self, step: int, policy: Any, seed: int) -> Batch:
        batch = self.roots.batch(step, policy, seed)
        with torch.no_grad():
            return dataclasses.replace(batch, rollouts=self.grown(step, policy, seed, batch.rollouts))

    def grown(self, step: int, policy: Any, seed: int, tree: Rollouts) -> Rollouts:
        groups = tree.group.unique().tolist()
        number = -1 - step * self.rounds * self.forks * len(groups)
        row, at, worth = (torch.empty(0, dtype=torch.long),) * 3
        new = range(len(tree))
        for _ in range(self.rounds):
            more_row, more_at = cuts(tree, new)
            found = whole(self.promise, cut(tree, more_row, more_at)) if len(more_row) else torch.empty(0)
            row, at, worth = torch.cat([row, more_row]), torch.cat([at, more_at]), torch.cat([worth.to(found.dtype), found])
            best = [i for g in groups if (i := _best(worth, tree.group[row] == g)) is not None]
            if not best:
                return tree
            asked = [
                prefix(tree, int(row[i]), int(at[i]), number - k)
                for k, i in enumerate(b for b in best for _ in range(self.forks))
            ]
            number -= len(asked)
            worth[best] = torch.nan
            new = range(len(tree), len(tree) + len(asked))
            tree = joined(tree, self.sample(policy, asked, self.sampling, seed))
        return tree


def _best(worth: Tensor, mine: Tensor) -> int | None:
    usable = mine & ~worth.isnan()
    return int(torch.where(usable, worth, -torch.inf).argmax()) if usable.any() else None


def whole(reward: Scorer, rollouts: Rollouts) -> Tensor:
    """[N] the reward of each row as an episode; NaN where it is not ok."""
    total = reward.score(rollouts).total
    if total.level != "episode" or total.values.shape[1] != 1:
        raise InputError(
            f"search: the reward should have one value per row (level episode), got level `{total.level}` with up to "
            f"{total.values.shape[1]}. Usual cause: a per-step reward; pool it with .pool('sum', 'episode')."
        )
    return total.values[:, 0]


def cuts(tree: Rollouts, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(row, steps kept) of every prefix of ``rows`` that ends between two steps the policy took."""
    mask = tree.mask[list(rows)]
    row, before = (mask[:, :-1] & mask[:, 1:]).nonzero(as_tuple=True)
    return torch.as_tensor(list(rows))[row], before + 1


def cut(rollouts: Rollouts, rows: Tensor, steps: Tensor) -> Rollouts:
    """``rows`` [M] with their first ``steps`` [M] steps only, as if no more had happened yet; neither terminated nor truncated.

    Task and step fields stay, the completion is cut where there are ``offset``s, and whatever else may tell of later is left out.
    """
    some = rollouts.rows(rows)
    kept = torch.arange(some.mask.shape[1]) < steps[:, None]
    fields = {k: f for k, f in some.fields.items() if f.level in ("task", "step")}
    if "completion" in some.fields and "offset" in fields:
        ends = fields["offset"].values[torch.arange(len(some)), steps - 1, 1].tolist()
        texts = [[row[0][:end]] for row, end in zip(some.field("completion").values, ends, strict=True)]
        fields["completion"] = Field("episode", texts)
    return some.replace(
        mask=some.mask & kept,
        log_prob=None if some.log_prob is None else torch.where(kept, some.log_prob, 0),
        terminated=some.terminated & False,
        truncated=some.truncated & False,
        length=steps,
        levels={k: torch.where(kept, ids, -1) for k, ids in some.levels.items()},
        fields=fields,
    )


def prefix(tree: Rollouts, row: int, steps: int, index: int) -> Prefix:
    """The context that continues the first ``steps`` steps of a row."""
    fields = {k: f.values[row] for k, f in tree.fields.items() if f.level == "task" and k != "prompt"}
    return Prefix(
        tree.task[row],
        tree.field("prompt").values[row],
        fields,
        index,
        int(tree.group[row]),
        action=tree.action[row, :steps],
        parent=(row, steps),
    )


def joined(tree: Rollouts, forks: Rollouts) -> Rollouts:
    """The rows of both, in one set of groups; parents of ``forks`` are rows of ``tree``."""
    both = Rollouts.concat([tree, forks])
    return both.replace(group=torch.cat([tree.group, forks.group]), parent=torch.cat([tree.parent, forks.parent]))
