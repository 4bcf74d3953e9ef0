# SPDX-License-Identifier: Apache-2.0
"""Batches: each item once an epoch, groups, sample numbers that never repeat, and nothing but (seed, step) behind them."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import InputError
from guerdon.protocols import Context, Sampling
from guerdon.scores import Status
from guerdon.tasks.task import Task
from guerdon.training.sources import Demonstrations, Pairs, Prompts, contexts_of, order, picks, split
from tests.training.table import Table

CONTEXTS = [Context(f"task {i}", f"p{i}", {"answer": str(i)}) for i in range(5)]


def table() -> Table:
    return Table([c.prompt for c in CONTEXTS])


@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 3))
def test_every_item_comes_once_an_epoch(count: int, size: int, seed: int) -> None:
    steps = count * 2  # size epochs twice over
    seen = Counter(pick for step in range(steps) for pick in picks(count, size, step, seed))
    assert set(seen.values()) == {1}
    assert set(seen) == {(item, epoch) for item in range(count) for epoch in range(2 * size)}


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(order(20, epoch, seed).tolist()) for epoch in (0, 1) for seed in (0, 1)}
    assert len(orders) == 4 and all(sorted(o) == list(range(20)) for o in orders)


def test_prompts_make_groups_of_samples_whose_numbers_never_repeat() -> None:
    source = Prompts(CONTEXTS, prompts=2, samples=3, sampling=Sampling(max_new_tokens=4))
    keys, policy = Counter(), table()
    asked: list[Context] = []
    watched = Prompts(CONTEXTS, 2, 3, Sampling(4), lambda p, rows, s, seed: asked.extend(rows) or p.sample(rows, s, seed))
    for step in range(10):
        rollouts = watched.batch(step, policy, seed=1).rollouts
        assert rollouts.group.tolist() == [0, 0, 0, 1, 1, 1] and len(set(rollouts.task[:3])) == 1
        assert rollouts.field("answer").values == [t.removeprefix("task ") for t in rollouts.task]
        assert torch.equal(rollouts.action, source.batch(step, policy, seed=1).rollouts.action)
    keys.update((c.task, c.index) for c in asked)
    assert set(keys.values()) == {1} and keys.keys() == {(c.task, i) for c in CONTEXTS for i in range(12)}


def test_a_stand_in_for_sample_is_told_the_policy_the_settings_and_the_seed() -> None:
    told = []

    def sample(policy, contexts, sampling, seed):
        told.append((type(policy), len(contexts), sampling.max_new_tokens, seed, torch.is_grad_enabled()))
        return policy.sample(contexts, sampling, seed)

    Prompts(CONTEXTS, 2, 2, Sampling(7), sample).batch(0, table(), 3)
    assert told == [(Table, 4, 7, 3, False)]


def test_demonstrations_are_what_was_written() -> None:
    rows = [(f"p{i}", "abc"[: i % 3 + 1]) for i in range(5)]
    seen = []
    for step in range(5):
        rollouts = Demonstrations(rows, 2).batch(step, table(), 0).rollouts
        assert rollouts.log_prob is None and set(rollouts.source) == {"demonstration"}
        seen += zip(rollouts.field("prompt").values, (x[0] for x in rollouts.field("completion").values), strict=True)
    assert Counter(seen) == Counter(dict.fromkeys(rows, 2))


def test_pairs_compare_two_rows_each_and_an_unknown_answer_abstains() -> None:
    rows = [("p0", "ab", "a", 1.0), ("p1", "b", "c", 0.25), ("p2", "", "cc", math.nan)]
    batch = Pairs(rows, 3).batch(0, table(), 0)
    c = batch.comparisons
    assert c is not None and c.first[:, 0].tolist() == [0, 2, 4] and c.second[:, 0].tolist() == [1, 3, 5]
    prompts, texts = batch.rollouts.field("prompt").values, [x[0] for x in batch.rollouts.field("completion").values]
    for pair in range(3):
        prompt, first, second, target = rows[int(prompts[2 * pair][1])]
        assert texts[2 * pair : 2 * pair + 2] == [first, second] and prompts[2 * pair + 1] == prompt
        assert c.target[pair].item() == pytest.approx(target, nan_ok=True)
        assert c.status[pair] == (Status.ABSTAIN if math.isnan(target) else Status.OK)


def test_contexts_carry_key_prompt_and_fields() -> None:
    assert contexts_of([Task("k", "p", {"answer": "4"})]) == [Context("k", "p", {"answer": "4"})]


@given(st.integers(2, 12), st.data())
def test_split_parts_without_losing_any(count: int, data: st.DataObject) -> None:
    held = data.draw(st.integers(1, count - 1))
    learned, kept = split(range(count), held, seed=4)
    assert len(kept) == held and sorted([*learned, *kept]) == list(range(count))


@pytest.mark.parametrize("held", [0, 3, 9])
def test_a_split_needs_something_on_both_sides(held: int) -> None:
    with pytest.raises(InputError, match=f"0 < held_out < 3 items, got held_out={held}"):
        split("abc", held, 0)


@pytest.mark.parametrize(
    "make", [lambda: Prompts([], 1, 1, Sampling()), lambda: Demonstrations([], 1), lambda: Pairs([], 1), lambda: contexts_of([])]
)
def test_no_data_is_refused_by_name(make) -> None:
    with pytest.raises(InputError, match=r"(Prompts|Demonstrations|Pairs|contexts_of): expected"):
        make()
