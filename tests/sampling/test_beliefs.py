# SPDX-License-Identifier: Apache-2.0
"""Beliefs by teacher forcing: against the model asked directly, and where they stand in a conversation."""

import pytest
import torch

from guerdon.policies.language import LanguagePolicy
from guerdon.policies.tokenizer import word_tokenizer
from guerdon.protocols import Sampling
from guerdon.sampling.beliefs import answer_likelihood, with_beliefs
from guerdon.sampling.conversation import converse
from guerdon.tasks import lookup
from guerdon.training.sources import contexts_of

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def policy() -> LanguagePolicy:
    tokenizer = word_tokenizer(lookup.TOKENS, chat_template=lookup.TEMPLATE)
    return LanguagePolicy.tiny(tokenizer, width=16, heads=2, max_length=40, seed=3, dtype=torch.float64)


@torch.no_grad()
def directly(policy: LanguagePolicy, context: list[int], answer: list[int]) -> float:
    logits = policy.model(torch.tensor([context + answer])).logits[0].log_softmax(-1)
    found = [logits[len(context) + j - 1, token].item() for j, token in enumerate(answer)]
    return torch.tensor(found, dtype=torch.float64).mean().exp().item()


def test_the_geometric_mean_of_the_answers_token_probabilities(policy: LanguagePolicy) -> None:
    contexts = [policy.tokens(t) for t in ("2a0=", "3b5?b5c1=", "2a0=")]
    answers = [policy.tokens(t) for t in ("c1", "d2e0", "a1")]
    found = answer_likelihood(policy, contexts, answers)
    expected = [directly(policy, c, a) for c, a in zip(contexts, answers, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert len({round(x, 6) for x in expected}) == 3


def test_beliefs_stand_before_and_after_each_turn(policy: LanguagePolicy) -> None:
    tasks = contexts_of(lookup.make_tasks(6, [2, 3], seed=0))
    talks = converse(policy, [lookup.Tool() for _ in tasks], tasks, Sampling(max_new_tokens=2), 0, max_turns=3)
    found = with_beliefs(policy, talks, suffix="=")
    for n, count in enumerate(talks.unit_counts("turn")):
        before, after = (found.field(k).values[n] for k in ("belief_before", "belief"))
        assert len(before) == len(after) == count
        assert after[:-1] == before[1:] and after[-1] == before[-1]  # nothing was read after the last turn
        text, turn = talks.action[n].tolist(), talks.level("turn")[n].tolist()
        answer = policy.tokens(tasks[n].fields["answer"])
        for t in range(count):
            read = [token for token, u in zip(text, turn, strict=True) if 0 <= u < t]
            context = [*talks.field("context_ids").values[n], *read, *policy.tokens("=")]
            assert before[t] == pytest.approx(directly(policy, context, answer), abs=1e-12)
    assert max(talks.unit_counts("turn")) == 3


def test_no_gradient_passes(policy: LanguagePolicy) -> None:
    assert not answer_likelihood(policy, [policy.tokens("2a0=")], [policy.tokens("c1")]).requires_grad
