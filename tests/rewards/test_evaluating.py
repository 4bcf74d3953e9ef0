# SPDX-License-Identifier: Apache-2.0
"""Nodes that are computed together say what each says alone: values, statuses, reasons, to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guerdon.errors import InputError
from guerdon.rewards import Reward
from guerdon.rewards.fields import environment, field
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.scores import Component, Status

LENGTH = torch.tensor([4, 2, 0])
X = torch.tensor([[0.1, -0.7, 3.0, 0.25], [1e-3, 2.0, math.nan, math.inf], [9.0, math.nan, 9.0, 9.0]])

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "value": lambda x: x,
    "square": lambda x: x.square(),
    "double": lambda x: x.double() / 3,
    "whole": lambda x: x.nan_to_num(0, 0).long(),
    "positive": lambda x: x > 0,
    "abstains": lambda x: torch.where(x > 1, torch.nan, x),
    "infinite": lambda x: torch.where(x > 1, torch.inf, x),
    "huge": lambda x: x * 1e30,
}


def rows() -> Rollouts:
    mask = torch.tensor([[True] * 4, [False, True, False, False], [False] * 4])
    r = Rollouts(torch.zeros(3, 4), mask, ["a", "b", "c"], length=LENGTH)
    paid = torch.tensor([[1.0, math.inf, 2.0, math.nan], [math.nan, 4.0, 5.0, 6.0], [math.nan] * 4])
    return r.with_field("x", "step", X).with_field("environment_reward", "step", paid)


def term(name: str, bounds: tuple[float, float]) -> Reward:
    @tensor_reward(level="step", bounds=bounds, needs=("x",), name=name)
    def of(rollouts: Rollouts) -> Tensor:
        return FUNCTIONS[name](rollouts.field("x").values)

    return of


def assert_same(a: Component, b: Component) -> None:
    assert a.values.dtype == b.values.dtype and torch.equal(a.values.nan_to_num(99.0), b.values.nan_to_num(99.0))
    assert a.status.dtype == b.status.dtype and torch.equal(a.status, b.status)
    assert (a.reasons, a.name, a.bounds, a.spread, a.version) == (b.reasons, b.name, b.bounds, b.spread, b.version)


terms = st.builds(
    lambda name, bounds, factor: factor * term(name, bounds),
    st.sampled_from(sorted(FUNCTIONS)),
    st.sampled_from([(-math.inf, math.inf), (0, 1), (0, math.inf), (-1, 5)]),
    st.sampled_from([1.0, 1e-3, -2.5, 1e30]),
)


@settings(max_examples=80)
@given(st.lists(terms, min_size=1, max_size=6, unique_by=lambda t: t.name))
def test_tensor_terms_together_are_each_alone(chosen: list[Reward]) -> None:
    scores = sum([*chosen, environment()]).score(rows())
    for one in chosen:
        (alone,) = one.score(rows()).components.values()
        assert_same(scores.components[one.name], alone)
        assert_same(scores.trace[one.name], alone)


def test_statuses_and_reasons_by_hand() -> None:
    scores = (2 * term("abstains", (0, 1)) + term("infinite", (-1, 5)) + 1e30 * term("huge", (-math.inf, math.inf))).score(rows())
    ok, none, abstain, error = (int(Status[s]) for s in ("OK", "NONE", "ABSTAIN", "ERROR"))
    parts = scores.components
    assert parts["abstains"].status.tolist() == [[ok, error, abstain, ok], [ok, abstain, none, none], [none] * 4]
    assert parts["abstains"].reasons == {(0, 1): "value -0.7 is outside its bounds [0, 1]"}
    above = term("value", (-1, 2)).score(rows()).total
    assert above.status[0].tolist() == [ok, ok, error, ok] and above.reasons == {(0, 2): "value 3 is outside its bounds [-1, 2]"}
    assert parts["infinite"].status.tolist() == [[ok, ok, error, ok], [ok, error, none, none], [none] * 4]
    assert parts["infinite"].reasons == dict.fromkeys([(0, 2), (1, 1)], "value inf is not finite")
    assert parts["huge"].status[0].tolist() == [ok] * 4  # times 1e30 it is too large for a float32, and that is an error too
    assert scores.total.status.tolist() == [[error] * 4, [error] * 2 + [none] * 2, [none] * 4]
    assert scores.total.reasons[0, 1] == "abstains: value -0.7 is outside its bounds [0, 1]; value -inf is not finite"


def test_a_field_that_is_not_finite_is_an_error_of_its_taken_steps() -> None:
    found = environment().score(rows()).total
    ok, none, error = int(Status.OK), int(Status.NONE), int(Status.ERROR)
    assert found.status.tolist() == [[ok, error, ok, error], [none, ok, none, none], [none] * 4]
    assert found.reasons == {(0, 1): "`environment_reward` is inf", (0, 3): "`environment_reward` is nan"}
    assert found.values[0, ::2].tolist() == [1.0, 2.0] and found.values[1, 1] == 4.0


def test_the_function_that_writes_is_named_among_several() -> None:
    @tensor_reward(level="step")
    def doubles(rollouts: Rollouts) -> Tensor:
        return rollouts.field("x").values.mul_(2)

    with pytest.raises(InputError, match=r"^doubles: expected the rollouts to be left as they are"):
        (term("value", (-math.inf, math.inf)) + doubles + term("square", (-math.inf, math.inf))).score(rows())


def test_leaves_are_called_in_the_order_of_the_text_whatever_their_depth() -> None:
    order: list[str] = []

    def noted(name: str) -> Any:
        return tensor_reward(level="step", name=name)(lambda r: order.append(name) or torch.zeros_like(r.mask, dtype=torch.float))

    a, b, c, d = map(noted, "abcd")
    (0.5 * (a.clip(0, 1) + 2 * b) + c.gate(on=field("x").otherwise(d)) + a).score(rows())
    assert order == ["a", "b", "c", "d"]
