# SPDX-License-Identifier: Apache-2.0
"""The arena as a reward, its judge, and how accurate the topologies are at their costs."""

from __future__ import annotations

import dataclasses

import torch
from scipy.stats import kendalltau

from guerdon.credit import group_relative
from guerdon.protocols import Context, Sampling
from guerdon.rewards import brackets
from guerdon.scores import Status
from guerdon.systems.policy.arena_rl import arena, judged_alone, ranking_accuracy
from guerdon.tasks.latent_quality import Judge, make_answers, with_tickets


def answers_of(count: int, questions: int = 2):
    answers = make_answers(0)
    contexts = [
        dataclasses.replace(c, index=i, group=g) for g, c in enumerate(answers.contexts()[:questions]) for i in range(count)
    ]
    return answers, with_tickets(answers.policy(), contexts, Sampling(), 0)


def test_places_follow_quality_and_give_the_papers_advantages() -> None:
    answers, rollouts = answers_of(8)
    found = arena(Judge(answers, sigma=0.2)).score(rollouts).total.values
    for g in (0, 1):
        here = found[8 * g : 8 * g + 8, 0]
        assert here.max() == 1 and ((7 * here - (7 * here).round()).abs() < 1e-5).all() and len(here.unique()) > 4
        tau = kendalltau(found[8 * g : 8 * g + 8, 0], answers.quality(rollouts)[8 * g : 8 * g + 8]).statistic
        assert tau > 0.5
    steps = torch.zeros(rollouts.mask.shape).index_put((torch.arange(16), torch.tensor(3)), found[:, 0].float())
    advantage = group_relative(steps, rollouts.mask, rollouts.group, scale="std", eps=1e-6)
    r = found[:8, 0]
    assert torch.allclose(advantage[:8, 0].double(), ((r - r.mean()) / (r.std() + 1e-6)).double(), atol=1e-5)


def test_a_judge_that_cannot_be_read_leaves_rows_without_a_score() -> None:
    answers, rollouts = answers_of(4)
    silent = arena(Judge(answers, fails=1.0)).score(rollouts).total
    assert (silent.status == Status.ABSTAIN).all() and "could be judged" in silent.reasons[0, 0]
    some = arena(Judge(answers, fails=0.2)).score(rollouts).total
    assert (some.status == Status.OK).sum() >= 6


def test_single_scores_bunch_and_a_score_is_the_same_when_asked_again() -> None:
    answers, rollouts = answers_of(64)
    alone = judged_alone(Judge(answers)).score(rollouts).total.values
    assert torch.equal(alone, judged_alone(Judge(answers)).score(rollouts).total.values)
    wide = judged_alone(Judge(answers, span=10.0)).score(rollouts).total.values
    quality = answers.quality(rollouts)
    assert (
        abs(torch.corrcoef(torch.stack([alone[:, 0].double(), quality]))[0, 1]) + 0.2
        < torch.corrcoef(torch.stack([wide[:, 0].double(), quality]))[0, 1]
    )


def test_seeding_buys_accuracy_at_linear_cost() -> None:
    tau = {t.__name__: ranking_accuracy(t, 0) for t in (brackets.anchor, brackets.single_elimination, brackets.round_robin)}
    assert tau["anchor"] < tau["single_elimination"] < tau["round_robin"]


def test_contexts_name_their_question() -> None:
    assert make_answers(0).contexts()[3] == Context("question 3", "question 3", {"row": 3})
