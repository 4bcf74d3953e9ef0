# SPDX-License-Identifier: Apache-2.0
"""Each contract is broken by a reward that breaks it and by no other."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from guerdon.audit.contracts import Poison, PoisonTouched, contracts, without_padding
from guerdon.rewards import Reward, checkers, reward
from guerdon.rewards.fields import environment
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Component, component

TEXTS = ["4", "5", "12 apples", "", "4 4", "seven", "4"]


def rows() -> Rollouts:
    n = len(TEXTS)
    more: dict[str, Any] = {"answer": ["4"] * n, "box": [["a"] for _ in range(n)]}
    return Rollouts.from_text(["2+2"] * n, TEXTS, task=[str(i // 2) for i in range(n)], **more)


def broken(made: Any, rollouts: Rollouts | None = None) -> set[str]:
    found = contracts(made if not isinstance(made, Reward) else lambda: made, rollouts or rows(), lambda row: TEXTS[row])
    assert all(f.names and f.says for c in found for f in c.findings)
    return {c.name for c in found if c.findings}


@reward(bounds=(0, 1))
def right(completion: str, answer: str) -> bool:
    return completion.strip() == answer


@reward
def dice(completion: str) -> float:
    return random.random()


@reward
def infinite(completion: str) -> float:
    return float("inf") if completion == "" else 1.0


@reward(bounds=(0, 1))
def beyond(completion: str) -> float:
    return float(len(completion))


@tensor_reward()
def centred(rollouts: Rollouts) -> Tensor:
    size = torch.tensor([float(len(c[0])) for c in rollouts.field("completion").values])
    return size - size.mean()


@tensor_reward(relation="batch")
def centred_and_said_so(rollouts: Rollouts) -> Tensor:
    size = torch.tensor([float(len(c[0])) for c in rollouts.field("completion").values])
    return size - size.mean()


@tensor_reward(relation="group")
def first_of_group(rollouts: Rollouts) -> Tensor:
    seen: set[int] = set()
    return torch.tensor([float(g not in seen and not seen.add(g)) for g in rollouts.group.tolist()])  # type: ignore[func-returns-value]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Eats(Reward):
    """Writes to what it is given; a function can't, since it gets copies."""

    name: str = "eats"

    def compute(self, rollouts: Rollouts, parts: list[Component], step: int) -> Component:
        boxes = rollouts.field("box").values
        return component(self.name, "episode", torch.tensor([[float(len(b.pop()) if b else 0)] for b in boxes]))


@reward(budget=None)
def slow(completion: str) -> float:
    time.sleep(1.05 if completion == TEXTS[0] else 0)
    return 1.0


@reward
def swallows(completion: str, answer: str) -> float:
    try:
        return float(completion.strip() == answer.strip())
    except Exception:  # noqa: BLE001 - the defect that is to be found
        return 0.0


@reward
def refuses(completion: str, answer: str) -> float | None:
    return float(completion.strip() == answer.strip()) if completion else None


@pytest.mark.parametrize(
    "good", [right, refuses, centred_and_said_so, checkers.numeric(), right.normalise("group"), 2 * right - checkers.length()]
)
def test_sound_rewards_keep_every_contract(good: Reward) -> None:
    assert broken(good) == set()


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        (dice, {"deterministic", "one by one", "order"}),
        (infinite, {"finite"}),
        (beyond, {"bounds"}),
        (centred, {"one by one"}),
        (first_of_group, {"order"}),
        (Eats(), {"deterministic", "unchanged", "one by one", "order"}),
        (slow, {"time"}),
        (swallows, {"loud"}),
        (reward(lambda completion: 1.0), {"picklable"}),
    ],
)
def test_what_breaks_a_contract_is_named(bad: Reward, names: set[str]) -> None:
    assert broken(bad) == names


def test_a_reward_that_cannot_score_the_rows_is_one_finding() -> None:
    (only,) = contracts(lambda: checkers.numeric(answer="gone"), rows(), lambda row: "")
    assert only.name == "scores" and "gone" in only.findings[0].says


def test_what_runs_in_the_pool_is_looked_at_from_inside() -> None:
    found = contracts(lambda: swallows.with_budget(5.0), rows(), lambda row: TEXTS[row], in_process=lambda: swallows)
    assert {c.name for c in found if c.findings} == {"loud"}


def test_poison_raises_whatever_is_done_with_it_and_remembers() -> None:
    for use in (
        str,
        len,
        list,
        bool,
        float,
        lambda x: x + 1,
        lambda x: x == 1,
        lambda x: x.strip(),
        lambda x: {x: 1},
        lambda x: x["a"],
    ):
        p = Poison("answer")
        assert not p.touched
        with pytest.raises(PoisonTouched, match="answer"):
            use(p)
        assert p.touched


def test_rows_without_padding_are_scored_as_in_the_whole() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    paid = Field("step", torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]]))
    whole = Rollouts(torch.zeros(2, 3), mask, ["a", "b"], length=torch.tensor([3, 1]), fields={"environment_reward": paid})
    cut = without_padding(whole.rows([1]))
    assert cut.action.shape == (1, 1) and environment().score(cut).total.values.tolist() == [[4.0]]
    assert environment().score(whole.rows([1])).total.values.tolist() == [[4.0]]
