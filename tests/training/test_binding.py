# SPDX-License-Identifier: Apache-2.0
"""Needs are parameter names: what is fetched, what is bound, what a missing one says."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from guerdon.comparisons import Comparisons
from guerdon.credit import gae, group_relative
from guerdon.errors import InputError
from guerdon.objectives import clipped_surrogate, dpo
from guerdon.rollouts import Field, Rollouts
from guerdon.training.binding import Ingredients, at, name_of, names_of, needs_of, needs_of_all


def rollouts() -> Rollouts:
    return Rollouts(
        action=torch.tensor([[1, 2], [3, 4], [5, 6]]),
        mask=torch.tensor([[True, True], [True, False], [True, True]]),
        task=["a", "a", "b"],
        log_prob=torch.tensor([[-1.0, -2.0], [-3.0, 0.0], [-4.0, -5.0]]),
        levels={"line": torch.tensor([[0, 1], [0, -1], [0, 0]])},
        fields={"heat": Field("step", torch.arange(6.0).reshape(3, 2)), "answer": Field("task", ["x", "y", "z"])},
    )


@pytest.mark.parametrize(
    ("part", "needs"),
    [
        (group_relative, {"reward", "mask", "group"}),
        (partial(gae, gamma=0.9), {"reward", "value", "mask", "episode", "terminated", "truncated"}),
        (partial(partial(clipped_surrogate, clip_low=0.1), clip_high=0.3), {"log_prob", "old_log_prob", "advantage", "mask"}),
        (lambda *args, **more: 0, set()),
    ],
)
def test_needs_are_the_parameters_without_a_default(part, needs) -> None:
    assert needs_of(part) == needs


def test_needs_of_all_is_the_union() -> None:
    assert needs_of_all([lambda mask: 0, lambda mask, group: 0]) == {"mask", "group"} and needs_of_all([]) == frozenset()


def test_names_go_through_partials_and_are_numbered() -> None:
    inner = partial(partial(gae, gamma=1), lam=0.5)
    assert name_of(inner) == "gae" and names_of([inner, group_relative, gae, gae]) == ["gae", "group_relative", "gae_2", "gae_3"]


def test_a_part_is_called_with_what_it_names() -> None:
    def part(action, heat, old_log_prob, group, *, factor):
        return action * factor, heat, old_log_prob, group

    r = rollouts()
    action, heat, old, group = Ingredients(r).call(partial(part, factor=2), 0)
    assert torch.equal(action, 2 * r.action) and torch.equal(heat, r.field("heat").values)
    assert old is r.log_prob and group.tolist() == [0, 0, 1]


def test_a_bound_schedule_is_read_at_the_step_and_a_levels_name_becomes_its_tensor() -> None:
    def part(mask, *, weight, level, how):
        return weight, level, how

    bound = partial(part, weight=lambda step: step / 10, level="line", how="mean")
    weight, level, how = Ingredients(rollouts()).call(bound, 7)
    assert weight == 0.7 and how == "mean" and level.tolist() == [[0, 1], [0, -1], [0, 0]]


def test_what_is_given_by_hand_comes_first() -> None:
    assert Ingredients(rollouts()).call(lambda mask: mask, 0, mask="mine") == "mine"


def test_a_missing_need_names_the_part_and_what_there_is() -> None:
    with pytest.raises(InputError, match=r"gae: needs `reward`, `value`.*there are action.*heat.*without reference"):
        Ingredients(rollouts()).call(gae, 0)


def test_an_unknown_level_names_those_there_are() -> None:
    with pytest.raises(InputError, match=r"group_relative: `level` should be one of.*line.*'paragraph'"):
        Ingredients(rollouts()).call(partial(group_relative, level="paragraph"), 0, reward=torch.zeros(3, 2))


def test_pairs_of_episodes_are_rows_and_pairs_of_finer_units_row_and_unit() -> None:
    one, two = torch.tensor([[0, 0]]), torch.tensor([[2, 1]])
    whole = Ingredients(rollouts(), Comparisons(one, two, torch.tensor([1.0])))
    fine = Ingredients(rollouts(), Comparisons(one, two, torch.tensor([1.0]), level="line"))
    assert whole["first"].tolist() == [0] and whole["second"].tolist() == [2]
    assert fine["first"].tolist() == [[0, 0]] and fine["second"].tolist() == [[2, 1]]
    assert needs_of(dpo) <= {*whole, "log_prob", "ref_log_prob"}


def test_some_rows_of_everything() -> None:
    everything = Ingredients(rollouts(), Comparisons(torch.tensor([2]), torch.tensor([1]), torch.tensor([1.0])))
    rows = torch.tensor([1, 2])
    some = everything.at(rows, Comparisons(torch.tensor([1]), torch.tensor([0]), torch.tensor([1.0])))
    assert some["heat"].tolist() == [[2.0, 3.0], [4.0, 5.0]] and some.levels["line"].tolist() == [[0, -1], [0, 0]]
    assert some["first"].tolist() == [1] and some["second"].tolist() == [0]
    assert some.keys() == everything.keys() and everything["heat"].shape == (3, 2)


def test_at_reads_numbers_and_schedules() -> None:
    assert at(3.0, 5) == 3.0 and at(lambda step: step + 1, 5) == 6
