# SPDX-License-Identifier: Apache-2.0
"""A batch that is sampled in parts is the batch that is sampled at once; each part is told as it is drawn."""

from __future__ import annotations

import pytest
import torch

from guerdon.errors import InputError
from guerdon.policies.language import LanguagePolicy
from guerdon.protocols import Context, Policy, Sampling
from guerdon.rollouts import Rollouts
from guerdon.training.sources import Prompts
from tests.training.table import Table

CONTEXTS = [Context(f"task {i}", f"p{i}", {"answer": i}) for i in range(5)]


def batch(contexts: list[Context], policy: Policy, *, step: int = 0, told: list[Rollouts] | None = None, **settings) -> Rollouts:
    source = Prompts(contexts, **{"prompts": 5, "samples": 3, "sampling": Sampling(4), **settings})
    if told is not None:
        source = Prompts(**{**vars(source), "ready": told.append})
    return source.batch(step, policy, seed=1).rollouts


def assert_same(found: Rollouts, whole: Rollouts) -> None:
    """Everything of a step that was taken, and everything of a row."""
    m = whole.mask
    assert torch.equal(found.mask, m)
    for name in ("action", "log_prob", "terminated", "truncated", "weight"):
        mine, other = getattr(found, name), getattr(whole, name)
        assert torch.equal(mine[m], other[m]) if mine.shape == m.shape else torch.equal(mine, other), name
    assert torch.equal(found.group, whole.group) and torch.equal(found.length, whole.length)
    assert (found.task, found.source, found.sampling) == (whole.task, whole.source, whole.sampling)
    assert found.levels.keys() == whole.levels.keys() and found.fields.keys() == whole.fields.keys()
    for name in whole.levels:
        assert torch.equal(found.levels[name], whole.levels[name]), name
    for name, f in whole.fields.items():
        mine = found.field(name)
        assert mine.level == f.level
        assert torch.equal(mine.values[m], f.values[m]) if isinstance(f.values, torch.Tensor) else mine.values == f.values, name


@pytest.mark.parametrize("parts", [2, 3, 5, 9])
def test_parts_are_the_batch(parts: int) -> None:
    policy = Table([c.prompt for c in CONTEXTS])
    for step in range(3):
        found, whole = (batch(CONTEXTS, policy, prompts=7, step=step, parts=p) for p in (parts, 1))
        assert_same(found, whole)
        assert whole.group.tolist() == [g for g in range(7) for _ in range(3)]


def test_parts_of_a_language_model_are_the_batch() -> None:
    """Rows of many lengths, and parts whose longest rows differ."""
    policy = LanguagePolicy.tiny([*"0123456789p"], width=16, layers=1, heads=2, dtype=torch.float64, seed=3)
    found, whole = (batch(CONTEXTS, policy, sampling=Sampling(12, stop=("3", "5")), samples=2, parts=p) for p in (4, 1))
    longest = [int(whole.length[i : i + 2].max()) for i in range(0, 10, 2)]
    assert len(set(longest)) > 1
    torch.testing.assert_close(found.log_prob, whole.log_prob)
    assert_same(found.replace(log_prob=whole.log_prob), whole)


def test_each_part_is_told_before_the_next_is_drawn_and_no_group_is_cut() -> None:
    events: list[tuple[str, list[str]]] = []

    def sample(policy, contexts, sampling, seed):
        events.append(("drawn", [c.task for c in contexts]))
        return policy.sample(contexts, sampling, seed)

    source = Prompts(CONTEXTS, 5, 2, Sampling(4), sample, parts=2, ready=lambda part: events.append(("told", list(part.task))))
    whole = source.batch(0, Table([c.prompt for c in CONTEXTS]), 1).rollouts
    assert [kind for kind, _ in events] == ["drawn", "told"] * 2
    assert events[0][1] == events[1][1] == list(whole.task[:4]) and events[2][1] == events[3][1] == list(whole.task[4:])


def test_one_part_is_told_too() -> None:
    told: list[Rollouts] = []
    found = batch(CONTEXTS, Table([c.prompt for c in CONTEXTS]), told=told)
    assert len(told) == 1 and told[0] is found


def test_a_field_that_a_part_lacks_is_none_there() -> None:
    contexts = [Context("a", "p0", {"answer": 1}), Context("b", "p1", {"answer": 2, "hint": "x"})]
    policy = LanguagePolicy.tiny([*"01p"], width=16, layers=1, heads=2)
    found, whole = (batch(contexts, policy, prompts=2, parts=p) for p in (2, 1))
    assert sorted(map(str, set(found.field("hint").values))) == ["None", "x"]
    assert found.field("hint").values == whole.field("hint").values


def test_less_than_one_part_is_refused() -> None:
    with pytest.raises(InputError, match="Prompts: expected `parts` of 1 or more, got 0"):
        Prompts(CONTEXTS, 1, 1, Sampling(), parts=0)
