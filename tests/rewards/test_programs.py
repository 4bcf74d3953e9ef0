# SPDX-License-Identifier: Apache-2.0
"""Reward programs: the same numbers as the formula on tensors, state within an episode, errors of their step alone."""

from __future__ import annotations

import math

import pytest
import torch

from guerdon.errors import ExpressionError, InputError
from guerdon.rewards.checkers import environment
from guerdon.rewards.parse import parse
from guerdon.rewards.programs import program, terms
from guerdon.rollouts import Rollouts
from guerdon.sandbox import Sandbox, SandboxUnavailable
from guerdon.scores import Status

PLACES = {"angle": 2, "place": (0, 2)}


@pytest.fixture(scope="module", autouse=True)
def _sandbox():
    try:
        with Sandbox(1) as box:
            box.layers()
    except SandboxUnavailable as error:
        pytest.skip(f"not run: {error}")


def rollouts(n=3, t=4, *, mask=None, episode=None, action=None):
    generator = torch.Generator().manual_seed(0)
    made = Rollouts(
        action=torch.randint(0, 2, (n, t), generator=generator) if action is None else action,
        mask=torch.ones(n, t, dtype=torch.bool) if mask is None else mask,
        task=[str(i) for i in range(n)],
        levels={} if episode is None else {"episode": episode},
    )
    for name in ("observation", "next_observation"):
        made = made.with_field(name, "step", torch.randn(n, t, 4, generator=generator, dtype=torch.float64))
    return made


def test_it_computes_what_the_formula_says():
    source = """
import numpy as np
def reward(obs, action, next_obs):
    near = -np.linalg.norm(next_obs["place"])
    return near - 0.1 * abs(obs["angle"]) + action, {"near": near, "angle": obs["angle"]}
"""
    r = rollouts()
    scores = program(source, observations=PLACES).score(r)
    before, after = r.field("observation").values, r.field("next_observation").values
    near = -after[..., :2].norm(dim=-1)
    torch.testing.assert_close(scores.total.values.double(), near - 0.1 * before[..., 2].abs() + r.action, rtol=1e-6, atol=1e-6)
    assert scores.total.level == "step"
    found = terms(scores.trace["program"])
    torch.testing.assert_close(found["near"].double(), near, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found["angle"].double(), before[..., 2], rtol=1e-6, atol=1e-6)


COUNT = """
count = 0
def reward(obs, action, next_obs):
    global count
    count += 1
    return count
"""


def test_state_lasts_for_one_episode_and_steps_of_others_are_not_seen():
    mask = torch.tensor([[True, False, True, True, True], [True, True, False, False, False]])
    episode = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]])
    found = program(COUNT).score(rollouts(2, 5, mask=mask, episode=episode)).total
    nan = math.nan
    torch.testing.assert_close(found.values, torch.tensor([[1, nan, 2, 1, 2], [1, 2, nan, nan, nan]]), equal_nan=True)
    assert (found.status == Status.NONE).equal(~mask)


def test_chance_starts_the_same_in_each_episode():
    source = "import random, numpy\ndef reward(obs, action, next_obs):\n    return random.random() + numpy.random.rand()"
    found = program(source).score(rollouts(4, 3)).total.values
    assert found[0].unique().numel() == 3
    assert found.eq(found[0]).all()


def test_an_error_is_of_its_step_and_names_the_line():
    source = """
seen = 0
def reward(obs, action, next_obs):
    global seen
    seen += 1
    if seen == 2:
        return 1 / 0
    return {3: float("nan"), 4: None, 5: "1", 6: (1.0, {"a": float("inf")})}.get(seen, seen)
"""
    found = program(source).score(rollouts(1, 7)).total
    error = Status.ERROR
    assert found.status[0].tolist() == [Status.OK, error, error, Status.ABSTAIN, error, error, Status.OK]
    assert found.reasons == {
        (0, 1): "ZeroDivisionError: division by zero (line 7)",
        (0, 2): "returned nan, expected a finite number",
        (0, 3): "returned None",
        (0, 4): "returned str '1', expected a number, a bool or None",
        (0, 5): "the term 'a' is inf, expected a finite number with a name",
    }


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def reward(:", "SyntaxError: invalid syntax (line 1)"),
        ("\nimport nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name' (line 2)"),
        ("x = 1", "NameError: the program defines no `reward`"),
    ],
)
def test_a_program_that_is_none_is_an_error_of_every_step(source, reason):
    found = program(source).score(rollouts(2, 2)).total
    assert found.reasons == {(n, t): reason for n in range(2) for t in range(2)}
    assert found.status.eq(int(Status.ERROR)).all()


def test_a_hang_costs_its_episode_and_nothing_else():
    source = "import time\ndef reward(obs, action, next_obs):\n    if action == 9: time.sleep(99)\n    return action"
    action = torch.tensor([[1, 9, 1], [1, 1, 1]])
    found = program(source, seconds=1.0).score(rollouts(2, 3, action=action)).total
    assert found.status.tolist() == [[Status.OK, Status.TIMEOUT, Status.ERROR], [Status.OK] * 3]
    assert found.reasons[0, 1] == "took longer than 1 s"
    assert found.reasons[0, 2].startswith("not reached: an earlier item timeout")


def test_what_a_program_does_elsewhere_it_does_not(tmp_path):
    source = f"def reward(obs, action, next_obs):\n    return len(open({str(tmp_path / 'mine')!r}).read())"
    (tmp_path / "mine").write_text("secret")
    assert program(source).score(rollouts(1, 1)).total.status.tolist() == [[Status.ERROR]]


def test_a_program_may_change_what_it_is_given():
    source = """
def reward(obs, action, next_obs):
    obs["observation"] *= 0
    obs.clear()
    return float(next_obs["observation"].sum())
"""
    r = rollouts()
    found = program(source).score(r).total.values.double()
    torch.testing.assert_close(found, r.field("next_observation").values.sum(-1), rtol=1e-6, atol=1e-6)


def test_actions_are_numbers_or_arrays_as_the_policys_are():
    kinds = """
def reward(obs, action, next_obs):
    return {int: 1, float: 2}.get(type(action), 10 * len(getattr(action, "shape", ())))
"""
    assert program(kinds).score(rollouts(1, 1)).total.values.item() == 1
    assert program(kinds).score(rollouts(1, 1, action=torch.ones(1, 1))).total.values.item() == 2
    assert program(kinds).score(rollouts(1, 1, action=torch.ones(1, 1, 3))).total.values.item() == 10


def test_it_is_a_reward_among_others_and_reads_back(tmp_path):
    (tmp_path / "mine.py").write_text(COUNT)
    names = {"program": program, "environment": environment}
    r = parse(f"environment + 0.5*program('{tmp_path / 'mine.py'}', observations={{'x': 0, 'v': (1, 3)}}, seconds=2.0)", names)
    assert parse(str(r), names) == r
    scores = r.score(rollouts(1, 3).with_field("environment_reward", "step", torch.ones(1, 3)))
    assert scores.total.values.tolist() == [[1.5, 2.0, 2.5]]
    (tmp_path / "mine.py").write_text(COUNT + "\n")
    assert parse(str(r), names) != r  # another version


def test_no_step_no_value():
    assert program(COUNT).score(rollouts(1, 2, mask=torch.zeros(1, 2, dtype=torch.bool))).total.status.tolist() == [[-1, -1]]


@pytest.mark.parametrize("places", [{"x": -1}, {"x": True}, {"x": (2, 2)}, {"x": "0"}, {"x": (0, 1, 2)}, {"x": 1.0}])
def test_places_are_checked(places):
    with pytest.raises(ExpressionError, match="`observations` should give an index"):
        program(COUNT, observations=places)


def test_what_the_observation_does_not_have_is_said():
    with pytest.raises(InputError, match=r"`x` should be number 4 of `observation`, which has the shape \[4\] a step"):
        program(COUNT, observations={"x": 4}).score(rollouts())
    with pytest.raises(ExpressionError, match="got nothing"):
        program(" ")
    with pytest.raises(ExpressionError, match="`seconds` should be"):
        program(COUNT, seconds=0)
