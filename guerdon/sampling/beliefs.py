# SPDX-License-Identifier: Apache-2.0
"""What a policy believes on the way: how probable the known answer is to it after each turn, by teacher forcing.

The answer is put after what was said so far and a fixed suffix that calls for it; nothing is sampled, and no gradient passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guerdon.policies.language import LanguagePolicy
from guerdon.rollouts import Field, Rollouts


@torch.no_grad()
def answer_likelihood(policy: LanguagePolicy, contexts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Tensor:
    """[M] exp((1/L) sum_j log policy(answer_j | context, answer_<j)): the geometric mean of an answer's token probabilities.

    ``contexts`` and ``answers``: M sequences of token ids, an answer of L >= 1 each.
    """
    longest = max(len(a) for a in answers)
    length = torch.tensor([len(a) for a in answers], device=policy.device)
    asked = Rollouts(
        action=torch.tensor([[*a, *[0] * (longest - len(a))] for a in answers], device=policy.device),
        mask=torch.arange(longest, device=policy.device) < length[:, None],
        task=[""] * len(answers),
        fields={"context_ids": Field("task", contexts)},
    )
    return (policy.evaluate(asked, frozenset({"log_prob"}))["log_prob"].sum(1) / length).exp()


def with_beliefs(policy: LanguagePolicy, rollouts: Rollouts, *, suffix: str, answer: str = "answer") -> Rollouts:
    """The rollouts with turn fields ``belief``, the likelihood of the task's ``answer`` after the turn and the reply to it, and
    ``belief_before``, that before the turn.

    ``suffix`` calls for the answer; it is read, not judged. After a row's last turn, which nobody replied to, nothing new was
    read: its belief is that before it.
    """
    suffix_ids, answers = policy.tokens(suffix), [policy.tokens(text) for text in rollouts.field(answer).values]
    turns, contexts = rollouts.unit_counts("turn"), rollouts.field("context_ids").values
    steps, turn = rollouts.action.tolist(), rollouts.level("turn").tolist()
    asked: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    place = []
    for n, count in enumerate(turns):
        ends = [0, *(sum(0 <= u < k for u in turn[n]) for k in range(1, count))]
        read = [(*contexts[n], *steps[n][:end], *suffix_ids) for end in ends]
        place.append([asked.setdefault((context, tuple(answers[n])), len(asked)) for context in read])
    found = answer_likelihood(policy, [c for c, _ in asked], [a for _, a in asked]).tolist()
    before = [[found[i] for i in row] for row in place]
    after = [[*row[1:], row[-1]] for row in before]
    return rollouts.with_field("belief_before", "turn", before).with_field("belief", "turn", after)
