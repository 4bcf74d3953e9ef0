# SPDX-License-Identifier: Apache-2.0
"""ArenaRL: rollouts of a group play a knock-out tournament, and the place is the reward.

A judge's scores of open-ended answers, given one at a time, bunch together and drown in its noise. Side by side it tells two
answers apart more easily. N - 1 matches against one of the group seed a bracket, N - 1 more play it: O(N) where every pair would
be O(N^2).

    r_i = 1 - k_i / (N - 1)        A_i = (r_i - mean r) / (std r + 1e-6)   over the group

    k_i     ``place`` [N]: 0 the winner, then the finalist, the losers of the semi-finals, ...; in one round by mean score
    A match is judged in both orders and the scores are added, which cancels the favour for the one named first.

Clipped surrogate and KL, without further normalisation. The bracket, and the anchor, round-robin, Swiss and double-elimination
tournaments, are topologies of ``guerdon.rewards.brackets``.

Zhang et al. 2026, arXiv:2601.06487, and its released code (Alibaba-NLP/qqr, reward_models/arena).
Departures:
1. A match that could not be judged counts for nobody, and the one listed first goes on; the code scores it 5 to 5. A row
   without any judged match abstains.
2. The record keeps half of the difference of a match's two scores for each side, where the code keeps the scores: a comparison
   says by how much, and a judge that is generous to both says nothing by it.
3. Players that leave in the same round with equal scores share the better place; the code has them in the order of listing.
4. The anchor is the first of the group, as in the code; the paper takes a good reference answer.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guerdon.credit import group_relative
from guerdon.errors import check_shape
from guerdon.objectives import clipped_surrogate, kl_penalty, token_mean
from guerdon.protocols import Comparator, Sampling
from guerdon.rewards import brackets
from guerdon.rewards.brackets import Topology
from guerdon.rewards.node import Reward
from guerdon.rewards.ranking import BothOrders, tournament
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.systems.system import Bound, Comparison, Example, Metric, Reduction, System
from guerdon.tasks.latent_quality import Judge, make_answers, with_tickets
from guerdon.training.binding import bind
from guerdon.training.evaluation import Measured
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Prompts


def reward_of_place(place: Tensor, group: Tensor) -> Tensor:
    """[N] 1 - place / (n - 1), n the size of the group; NaN where there is no place or no other member.

    >>> reward_of_place(torch.tensor([0., 2., 1., 0.]), torch.tensor([0, 0, 0, 1])).tolist()
    [1.0, 0.0, 0.5, nan]
    """
    check_shape("reward_of_place", "group", group, tuple(place.shape), "groups of another batch")
    others = (group[:, None] == group).sum(1) - 1
    return torch.where(others > 0, 1 - place / others.clamp(min=1), torch.nan)


def arena(comparator: Comparator, topology: Topology = brackets.single_elimination) -> Reward:
    """The place in a tournament in which each match is judged in both orders."""
    return tournament(BothOrders(comparator), topology, name="arena")


def arena_rl(
    source: Prompts,
    reward: Reward,
    *,
    steps: int,
    kl: float = 0.0,  # in the loss; the released scripts use a small one, which a table does not need
    lr: float = 1e-6,  # for a language model
) -> Stage:
    """GRPO on places: ``reward`` is `arena` of a comparator."""
    terms = [Term(1.0, clipped_surrogate, token_mean)]
    terms += [Term(kl, bind(kl_penalty, estimator="k3"), token_mean)] if kl else []
    how = bind(group_relative, scale="std", eps=1e-6)
    return Stage("train", steps, source, terms, reward=reward, credit=how, lr=lr, updater={"optimiser": "adam"})


# ---- the claims

PROMPTS, GROUP, STEPS = 8, 16, 100
CALLS = 4  # a tournament of 16 asks 2 x 2 x 15 times, 3.75 an answer; the scores of one answer are means of as many


def judged_alone(judge: Judge) -> Reward:
    """The mean of as many scores of each answer by itself as a tournament asks for."""

    @tensor_reward(bounds=(0, 10), needs=("row", "ticket"), name="alone")
    def alone(rollouts: Rollouts) -> Tensor:
        return judge.alone(rollouts, CALLS)

    return alone


def judged_in(topology: Topology) -> Callable[[Judge], Reward]:
    """Judge -> the place in a tournament of another topology."""
    return lambda judge: arena(judge, topology)


def arm(seed: int, start: Any = None, *, how: Callable[[Judge], Reward] = arena, span: float = 2.0, lr: float = 0.1) -> Recipe:
    """GRPO on the reward that ``how`` makes of the judge."""
    answers = make_answers(seed)
    source = Prompts(answers.contexts(), PROMPTS, GROUP, Sampling(), with_tickets)
    stage = arena_rl(source, how(Judge(answers, span=span)), steps=STEPS, lr=lr)
    measured = Measured(10, lambda policy, step: {"eval/quality": answers.expected(policy)})
    return Recipe("arena", answers.policy, [stage], measured, seed, STEPS, 0, best="eval/quality")


def ranking_accuracy(topology: Topology, seed: int, n: int = 16, sigma: float = 0.3, groups: int = 50) -> float:
    """Mean over groups of Kendall's tau between places and true quality, standard normal, when a score has noise ``sigma``."""
    from scipy.stats import kendalltau

    g = torch.Generator().manual_seed(seed)

    def judged(pairs: brackets.Pairs) -> list[tuple[float, float]]:
        noise = sigma * torch.randn(len(pairs), 2, generator=g)
        return [(float(q[a] - q[b] + x) / 2, float(q[b] - q[a] + y) / 2) for (a, b), (x, y) in zip(pairs, noise, strict=True)]

    found = []
    for _ in range(groups):
        q = torch.randn(n, generator=g)
        places, _ = brackets.play(topology(n), judged)
        found.append(kendalltau(-torch.tensor(places), q).statistic)
    return statistics.fmean(found)


def ahead_of_unseeded(seed: int) -> float:
    """By how much seeding raises the accuracy of a knock-out."""
    unseeded = partial(brackets.single_elimination, seeded=False)
    return ranking_accuracy(brackets.single_elimination, seed) - ranking_accuracy(unseeded, seed)


def ahead_of_anchor(seed: int) -> float:
    """By how much the bracket raises the accuracy over its seeds."""
    return ranking_accuracy(brackets.single_elimination, seed) - ranking_accuracy(brackets.anchor, seed)


def _example(dtype: torch.dtype) -> dict[str, Tensor]:
    return {"place": torch.tensor([2, 0, 1, 1, 0], dtype=dtype), "group": torch.tensor([0, 0, 0, 1, 1])}


def _without_matches() -> tuple[Tensor, Tensor]:
    """Places in the order of a score are, as advantages, group-relative ranks of that score."""
    score, group = torch.tensor([0.3, 2.0, -1.0, 5.0], dtype=torch.float64), torch.zeros(4, dtype=torch.long)
    credit = partial(group_relative, mask=torch.ones(4, 1, dtype=torch.bool), group=group, scale="std")
    by_place = reward_of_place((score[:, None] < score).sum(1).double(), group)
    ranks = (score[:, None] > score).sum(1).double()
    return credit(by_place[:, None]), credit(ranks[:, None])


SYSTEM = System(
    title="ArenaRL",
    paper="Zhang 2026",
    arxiv="2601.06487",
    roles=("judge", "generative-reward", "reward-comparison", "policy-objective", "agents", "evaluation"),
    claims=(
        Comparison(
            statement="With a judge whose scores of single answers bunch together, GRPO on places in a seeded knock-out reaches "
            "answers of higher true quality than GRPO on its scores, at the same number of samples and judgements.",
            arms={
                "tournament": arm,
                "scores": partial(arm, how=judged_alone),
                "anchor": partial(arm, how=judged_in(brackets.anchor)),
                "round-robin": partial(arm, how=judged_in(brackets.round_robin)),
                "tournament-wide-scale": partial(arm, span=10.0),
                "scores-wide-scale": partial(arm, how=judged_alone, span=10.0),
            },
            better="tournament",
            than="scores",
            metric=Metric("eval/quality"),
            budget=f"{STEPS * PROMPTS * GROUP:,} samples and about {CALLS} judgements of each",
            grid={"lr": (0.1, 0.3, 1)},
            chosen={"tournament": {"lr": 0.3}, "scores": {"lr": 0.3}},
            differences=(
                "A table policy on answers of four actions and a simulated judge, for an 8B agent judged by a language model.",
                "That scores bunch is the paper's observation and assumed here: 2 points for single answers, 10 side by side.",
                "The arms on the wide scale show what remains without it.",
                "Single answers are judged four times and averaged, so that both arms ask as often; the paper's ask once.",
                "The training decides, not the simulation of rankings: better answers are the paper's headline.",
            ),
        ),
        Bound(
            statement="Kendall's tau between places and true quality of 16 players is higher in a seeded knock-out than in an "
            "unseeded one.",
            measure=ahead_of_unseeded,
            limit=0.0,
            above=True,
        ),
        Bound(
            statement="It is higher in a seeded knock-out than by the scores against the anchor alone.",
            measure=ahead_of_anchor,
            limit=0.0,
            above=True,
        ),
    ),
    built_from=("tournament", "group_relative", "clipped_surrogate", "token_mean"),
    examples=(Example(reward_of_place, _example, rows=("place", "group")),),
    reductions=(Reduction("places in the order of a score give the group-relative advantage of its ranks", _without_matches),),
    follows="code",
)
