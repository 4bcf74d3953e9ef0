# SPDX-License-Identifier: Apache-2.0
"""Where fine-grained rewards land, that the holistic arm has the same total, and the advantage written out."""

from __future__ import annotations

import math

import pytest
import torch

from guerdon.systems.dense.fine_grained_rlhf import DENSE, example, rescaled, rescaled_gae
from guerdon.tasks import fact_sentences as facts

PROMPT = "A0:"


def truth(relation: str) -> str:
    return relation + facts.facts()["A", relation][0]


def wrong(relation: str) -> str:
    return relation + facts.facts()["A", relation][1]


def answer() -> str:
    """Two sentences: the first is factual; the second has a false value and tells a relation again."""
    return f"{truth('a')}{truth('b')}.{wrong('c')}{truth('a')}."


def rows(name: str) -> torch.Tensor:
    """Rewards per character, which are the tokens of this task."""
    from guerdon.rollouts import Rollouts

    return DENSE[name].score(Rollouts.from_text([PROMPT], [answer()], steps="characters")).reward()


def test_each_verdict_lands_on_its_segments_end() -> None:
    """Ends of clauses: 1, 4 (with the full stop), 6, 9; of sentences: 4, 9; of the answer: 9."""
    required = facts.required("0") & {"a", "b"}
    complete = 0.3 * (len(required) / 5 - 0.4) / 0.2
    expected = torch.zeros(1, 10)
    expected[0, 1], expected[0, 4], expected[0, 6], expected[0, 9] = 0.3, 0.3 + 0.5, 0.3, -0.3 - 0.5 + complete
    torch.testing.assert_close(rows("fine-grained"), expected)


def test_the_holistic_arm_has_the_same_total_at_the_end() -> None:
    holistic = rows("holistic")
    assert not holistic[0, :-1].any()
    torch.testing.assert_close(holistic.sum(1), rows("fine-grained").sum(1))


def test_rescaling_divides_and_does_not_shift() -> None:
    inputs = example(torch.float64)
    reward, mask = inputs["reward"], inputs["mask"]
    found = rescaled(reward, mask, eps=0.0)
    assert found[mask].var(correction=0).item() == pytest.approx(1)
    torch.testing.assert_close(found[mask] * reward[mask].std(correction=0), reward[mask])
    assert found[1, 3] == 0
    assert not rescaled(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)).any()


def test_a_failed_reward_makes_only_what_it_enters_nan() -> None:
    inputs = example(torch.float64)
    inputs["reward"][0, 1] = math.nan
    found = rescaled_gae(**inputs)
    assert found[0].isnan().tolist() == [True, True, False, False]
    assert found[1].isfinite().all()


def test_the_advantage_written_out() -> None:
    inputs = example(torch.float64)
    gamma, lam = 0.9, 0.8
    known = inputs["reward"][inputs["mask"]]
    sigma = (known.var(correction=0) + 1e-8).sqrt().item()
    for n, length in enumerate((4, 3)):
        r, v = (inputs[k][n, :length].tolist() for k in ("reward", "value"))
        later, expected = 0.0, []
        for t in reversed(range(length)):
            beyond = v[t + 1] if t + 1 < length else 0.0
            later = r[t] / sigma + gamma * beyond - v[t] + gamma * lam * later
            expected.insert(0, later)
        found = rescaled_gae(**inputs, gamma=gamma, lam=lam)[n, :length]
        assert found.tolist() == pytest.approx(expected)
