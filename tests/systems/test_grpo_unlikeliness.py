# SPDX-License-Identifier: Apache-2.0
"""Unlikeliness by hand, and what it does to groups, failures and the tasks of the claim."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guerdon.protocols import Context, Sampling
from guerdon.rewards.tensors import tensor_reward
from guerdon.scores import Status
from guerdon.systems.policy.grpo_unlikeliness import measure, mixed_groups, right, unlikeliness, unlikely
from guerdon.tasks.many_answers import make_tasks
from guerdon.training.evaluation import pass_at_k


def test_the_rarest_right_answer_is_worth_most() -> None:
    score = torch.tensor([-1.0, -2.0, -3.0, -4.0])
    group = torch.zeros(4, dtype=torch.long)
    assert unlikeliness(torch.tensor([1.0, 0.0, 1.0, 1.0]), score, group, beta=0.5).tolist() == [0.625, 0.0, 0.875, 1.0]
    assert unlikeliness(torch.ones(4), score, torch.tensor([0, 0, 1, 1]), beta=0.5).tolist() == [0.75, 1.0, 0.75, 1.0]


def test_as_a_reward_it_reads_the_samplers_likelihood_and_keeps_failures() -> None:
    tasks = make_tasks(0)
    contexts = [Context("task 0", "task 0", {"row": 0}, index=i) for i in range(64)]
    rollouts = tasks.policy().sample(contexts, Sampling(), 0)
    correct = right.score(rollouts).total.values[:, 0]
    assert torch.equal(correct > 0, tasks.right[0][rollouts.action[:, 0]])
    shaped = unlikely(right, 0.25).score(rollouts).total.values[:, 0]
    assert torch.equal(shaped, unlikeliness(correct, rollouts.log_prob[:, 0], rollouts.group, beta=0.25))
    assert ((shaped == 0) == (correct == 0)).all() and ((shaped > 0.75) | (correct == 0)).all()

    @tensor_reward(bounds=(0, 1))
    def fails_once(rollouts):
        return torch.where(torch.arange(64) == 3, torch.nan, right.function(rollouts))

    scores = unlikely(fails_once).score(rollouts)
    assert scores.total.status[3, 0] == Status.ABSTAIN and (scores.total.status[:3] == Status.OK).all()


def test_only_groups_with_both_outcomes_train() -> None:
    contexts = [Context(f"task {k}", "", {"row": k}, index=i, group=k) for k in range(8) for i in range(4)]
    rollouts = make_tasks(0).policy().sample(contexts, Sampling(), 0)
    scores = (unlikely(right) + right.watch()).score(rollouts)
    correct = right.score(rollouts).total.values[:, 0].reshape(8, 4)
    expected = ((correct.sum(1) > 0) & (correct.sum(1) < 4)).repeat_interleave(4)
    assert torch.equal(mixed_groups(rollouts, scores, success="right"), expected) and expected.any() and not expected.all()


def test_exact_pass_at_k_is_the_expectation_of_the_estimate() -> None:
    tasks, policy = make_tasks(0), make_tasks(0).policy()
    mass = tasks.mass(policy)
    hits = torch.from_numpy(np.random.default_rng(0).binomial(256, mass.numpy()))
    estimate = sum(pass_at_k(int(c), 256, 64) for c in hits) / len(hits)
    assert measure(policy, 0)["eval/pass@64"] == pytest.approx(estimate, abs=0.02)
