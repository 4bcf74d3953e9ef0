# SPDX-License-Identifier: Apache-2.0
"""VeRPO's weights and advantages against its formulas written out, with programs that are run, and the stage in the loop."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from guerdon.credit import group_relative
from guerdon.errors import InputError
from guerdon.levels import pool, unit_mask
from guerdon.protocols import Context, Sampling
from guerdon.rewards import Reward, reward
from guerdon.rewards.code import code
from guerdon.rollouts import Field, Rollouts
from guerdon.sandbox import SandboxUnavailable
from guerdon.scores import Status
from guerdon.systems.verify import verpo as v
from guerdon.tasks import small_programs as programs
from guerdon.training.sources import Prompts

PROMPT = "below 1 say 2, above 10 say 0, at 4 say 1, double:"
WHOLE = programs.solution(PROMPT)
USUAL_ONLY = "def f(x):\n    x *= 2\n    return x\n"
SOURCE = Prompts([Context("t", PROMPT)], 1, 2, Sampling())


def written_out(passed: Tensor, group: Tensor, alpha: float, sigma: float, delta: float) -> list[float]:
    rewards = []
    for u, g in enumerate(group.tolist()):
        rows = [p for p, h in zip(passed.tolist(), group.tolist(), strict=True) if h == g]
        rate = [sum(column) / len(column) for column in zip(*rows, strict=True)]
        crowd = [sum(math.exp(-((a - b) ** 2) / (2 * sigma**2)) for b in rate) for a in rate]
        weight = [math.exp(-alpha * r) / (n + delta) for r, n in zip(rate, crowd, strict=True)]
        rewards.append(sum(w * p for w, p in zip(weight, passed[u].tolist(), strict=True)))
    return rewards


def random_passes(rows: int = 12, tests: int = 5) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    chance = torch.linspace(0.95, 0.1, tests).double()
    return (torch.rand(rows, tests, generator=g).double() < chance).double(), torch.arange(rows) % 3


@pytest.mark.parametrize("how", [(1.0, 0.1, 1e-6), (2.5, 0.3, 0.5), (0.0, 0.05, 0.0)])
def test_the_dense_reward_is_the_formula_written_out(how: tuple[float, float, float]) -> None:
    passed, group = random_passes()
    found = v.dense_reward(passed, group, alpha=how[0], sigma=how[1], delta=how[2])
    assert found.tolist() == pytest.approx(written_out(passed, group, *how))


def test_a_test_weighs_more_the_rarer_and_the_lonelier() -> None:
    rarer = v.weight_of_tests(torch.tensor([0.9, 0.5, 0.1]), sigma=0.01)
    assert rarer[0] < rarer[1] < rarer[2]
    crowded = v.weight_of_tests(torch.tensor([0.8] * 9 + [0.2] * 3).double(), alpha=0.0)
    assert crowded[:9].sum() == pytest.approx(1, abs=1e-3) and crowded[9:].sum() == pytest.approx(1, abs=1e-3)


def test_tests_that_are_not_there_weigh_nothing_and_crowd_nobody() -> None:
    passed, group = random_passes()
    wider = torch.cat([passed, torch.full((12, 2), torch.nan)], 1)
    torch.testing.assert_close(v.dense_reward(wider, group), v.dense_reward(passed, group))
    failed = passed.clone()
    failed[0] = torch.nan
    found = v.dense_reward(failed, group)
    assert found[0].isnan()
    torch.testing.assert_close(found[1:], v.dense_reward(passed[1:], group[1:]))


def test_the_two_means_are_over_turns_and_over_trajectories() -> None:
    """Written out on rows of two, one, two and two turns; a row of one turn counts once in either."""
    given = v.of_steps(torch.float64)
    given["weights"] = {"outcome": 2.0, "dense": 0.5}
    found, level, mask = v.verpo_advantage(**given), given["level"], given["mask"]
    turns, there = pool(given["advantages"]["dense"], level, "sum"), unit_mask(level)
    whole = given["advantages"]["outcome"].sum(1)
    for n, k in there.nonzero().tolist():
        same = given["group"] == given["group"][n]
        expected = 2.0 * (whole[n] - whole[same].mean()) + 0.5 * (turns[n, k] - turns[same][there[same]].mean())
        assert found[n][level[n] == k].tolist() == pytest.approx([float(expected)] * int((level[n] == k).sum()))
    assert not found[~mask].any()


def test_a_turn_without_a_verdict_is_in_no_mean() -> None:
    given = v.of_steps(torch.float64)
    given["weights"] = {"outcome": 1.0, "dense": 1.0}
    given["advantages"]["dense"][0, 1] = torch.nan  # the first row's first turn
    found = v.verpo_advantage(**given)
    assert found[0, :2].isnan().all() and found[0, 2:].isfinite().all()
    assert float(found[1, 0]) == pytest.approx(-0.5 + 0.7 - (1.5 + 0.7) / 2)


def test_scaled_is_grpo_of_each_part() -> None:
    given = v.of_steps(torch.float64)
    found = v.verpo_advantage(**given, scale="std")
    torch.testing.assert_close(found, group_relative(given["advantages"]["outcome"], given["mask"], given["group"], scale="std"))


def in_turns(*rows: list[str]) -> Rollouts:
    """Conversations in which each turn is a token that holds a program."""
    most = max(map(len, rows))
    turn = torch.tensor([[k if k < len(row) else -1 for k in range(most)] for row in rows])
    return Rollouts(
        action=torch.zeros_like(turn),
        mask=turn >= 0,
        task=["t"] * len(rows),
        length=(turn >= 0).sum(1),
        levels={"turn": turn},
        fields={"completion": Field("turn", list(rows)), "tests": Field("task", [programs.unit_tests(PROMPT)] * len(rows))},
    )


def reward_of(tests: Reward, **how: float) -> Reward:
    stage = v.verpo(SOURCE, 1, tests, **how)  # type: ignore[arg-type]
    assert isinstance(stage.reward, Reward)
    return stage.reward


def test_programs_of_several_turns_are_run_in_the_sandbox() -> None:
    """Rates over the four turns: usual tests 3/4, two special tests 2/4, the third 1/4."""
    better = WHOLE.replace("    if x == 4: return 1\n", "")
    rollouts = in_turns([USUAL_ONLY, better], ["def f(x):\n    raise ValueError\n"], [WHOLE])
    both = reward_of(replace(code(), level="turn"), gamma=0.9, beta=0.5)
    try:
        scores = both.score(rollouts)
    except SandboxUnavailable as missing:
        pytest.skip(str(missing))
    near = [math.exp(-((0.25 * d) ** 2) / 0.02) for d in (1, 2)]
    usual = 9 * math.exp(-0.75) / (9 + 2 * near[0] + near[1])
    special = 2 * math.exp(-0.5) / (2 + 9 * near[0] + near[0])
    third = math.exp(-0.25) / (1 + 2 * near[0] + 9 * near[1])
    dense = scores.components["dense"]
    assert dense.values[dense.ok].tolist() == pytest.approx([usual, usual + special, 0, usual + special + third], abs=1e-5)
    assert scores.components["outcome"].values[:, 0].tolist() == pytest.approx([0, 0, 0.9])
    assert dense.weight == 0.5


def test_a_program_that_cannot_be_judged_has_no_reward() -> None:
    """Tests that can't be read: an error of the row, in both parts, and the others are compared without it."""
    rollouts = in_turns([WHOLE], [USUAL_ONLY], [WHOLE])
    tests = rollouts.fields["tests"].values
    rollouts = rollouts.with_field("tests", "task", [*tests[:2], [{"call": "f(", "result": 1}]])
    try:
        scores = reward_of(replace(code(), level="turn")).score(rollouts)
    except SandboxUnavailable as missing:
        pytest.skip(str(missing))
    for part in scores.components.values():
        assert part.status[:, 0].tolist() == [Status.OK, Status.OK, Status.ERROR]
        assert "a call should be" in part.reasons[2, 0]


def test_a_reward_without_verdicts_is_refused() -> None:
    @reward
    def number(completion: str) -> float:
        return 1.0

    with pytest.raises(InputError, match="expected the verdict on each test in the reasons of `number`"):
        reward_of(number)(completions=["a", "b"])


def test_a_later_turn_that_succeeds_is_worth_less_with_gamma() -> None:
    rollouts = in_turns([USUAL_ONLY, WHOLE], [WHOLE])
    try:
        outcome = reward_of(replace(code(), level="turn"), gamma=0.5).score(rollouts).components["outcome"]
    except SandboxUnavailable as missing:
        pytest.skip(str(missing))
    assert outcome.values[:, 0].tolist() == [0.25, 0.5]


@pytest.mark.parametrize("name", v.ARMS)
def test_every_arm_trains_for_a_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from guerdon.policies.language import LanguagePolicy
    from guerdon.training.loop import train

    monkeypatch.setattr(v, "STEPS", 1)
    LanguagePolicy.tiny(programs.TOKENS, width=8, layers=1, heads=2, max_length=24, seed=0).save(tmp_path / "policy")
    recipe = replace(v.arm(name, 0, tmp_path), evaluation=None)
    assert train(recipe, tmp_path / "run")["samples"] == v.PROMPTS * v.SAMPLES


def test_arms_differ_as_they_say() -> None:
    """One program passes all, one the usual tests, one nothing: what each is paid, whole and dense."""
    nothing = "def f(x):\n    x -= 3\n"
    rollouts = Rollouts.from_text([PROMPT] * 3, [WHOLE, USUAL_ONLY, nothing], task=["t"] * 3)

    def paid(name: str) -> list[float]:
        how = {k: x for k, x in v.ARMS[name].items() if k != "scale"}
        return reward_of(programs.Interpreted(), **how).score(rollouts).total.values[:, 0].tolist()

    usual, special = math.exp(-2 / 3), math.exp(-1 / 3)
    assert paid("outcome") == [1, 0, 0]
    assert paid("pass-rate") == pytest.approx([1, 0.75, 0], abs=1e-5)
    assert paid("pass-rate and outcome") == pytest.approx([2, 0.75, 0], abs=1e-5)
    assert paid("difficulty") == pytest.approx([1 + (9 * usual + 3 * special) / 12, 9 * usual / 12, 0], abs=1e-5)
    assert paid("verpo") == pytest.approx([1 + usual + special, usual, 0], abs=0.02)  # exp(-(1/3)² / 0.02) = 0.004 of the others
    assert paid("without outcome") == pytest.approx([x - y for x, y in zip(paid("verpo"), [1, 0, 0], strict=True)])
