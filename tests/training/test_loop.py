# SPDX-License-Identifier: Apache-2.0
"""The loop: credit, selection, failures and metrics of a step; runs of policies that are no networks, and one that talks."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guerdon.credit import gae, group_relative, return_to_go, variance_shares, weighted_sum, whiten
from guerdon.errors import InputError, RewardFailure, ShapeError
from guerdon.objectives import (
    clipped_surrogate,
    clipped_value_loss,
    dpo,
    kl_penalty,
    negative_log_likelihood,
    pair_mean,
    reinforce,
    token_mean,
    value_loss,
)
from guerdon.protocols import Context, Sampling
from guerdon.rewards import Reward, reward
from guerdon.rewards.checkers import kl
from guerdon.rollouts import Rollouts
from guerdon.scores import Component, Scores, Status, component, scores_of
from guerdon.training import crediting, loop, scoring
from guerdon.training import update as update_module
from guerdon.training.evaluation import Evaluation
from guerdon.training.loop import train
from guerdon.training.recipe import Batch, Recipe, Stage, Term
from guerdon.training.sources import Demonstrations, Pairs, Prompts
from tests.training.table import Letters, Stumps, Table

PROMPTS = ["p", "q"]
CONTEXTS = [Context(p, p, {"letter": x}) for p, x in zip(PROMPTS, "ab", strict=True)]
SAMPLING = Sampling(4)


@reward(bounds=(0, 1))
def mostly(completion: str, letter: str) -> float:
    """How much of the completion is the letter asked for."""
    return completion.count(letter) / max(len(completion), 1)


@reward(bounds=(0, 8))
def long(completion: str) -> float:
    return float(len(completion))


@reward(bounds=(0, 1))
def begins_right(completion: str, letter: str) -> bool:
    return completion[:1] == letter


@dataclass
class Record:
    """An observer that keeps what it is told."""

    def __post_init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.lines: list[dict[str, Any]] = []
        self.result: dict[str, Any] = {}

    def start(self, config: Mapping[str, Any], directory: Path, step: int) -> None:
        self.config = dict(config)

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.lines.append(dict(metrics))

    def finish(self, result: Mapping[str, Any]) -> None:
        self.result = dict(result)

    def of(self, stage: str, key: str) -> list[Any]:
        return [line[key] for line in self.lines if line["stage"] == stage and key in line]


@dataclass
class Given:
    """A source of one batch."""

    rollouts: Rollouts

    def batch(self, step: int, policy: Any, seed: int) -> Batch:
        return Batch(self.rollouts)


@dataclass
class Told:
    """A reward that says what it was told to."""

    scores: Scores
    needs: frozenset[str] = frozenset()

    def score(self, rollouts: Rollouts, *, step: int = 0) -> Scores:
        return self.scores


def stage(steps: int = 1, source: Any = None, terms: Sequence[Term] = (), **settings: Any) -> Stage:
    source = source or Prompts(CONTEXTS, 2, 8, SAMPLING)
    return Stage("train", steps, source, terms or [Term(1.0, clipped_surrogate, token_mean)], **{"lr": 8.0, **settings})


def run(directory: Path, *stages: Stage, policy: Any = None, **settings: Any) -> tuple[Letters, Record]:
    made = policy or Table(PROMPTS)
    told = Record()
    train(Recipe("test", lambda: made, stages, **{"save_rollouts_every": 0, **settings}), directory, [told])
    return made, told


def mean_reward(policy: Letters, wanted: Reward) -> float:
    rows = [replace(c, index=i) for c in CONTEXTS for i in range(64)]
    return wanted.score(policy.sample(rows, SAMPLING, 99)).total.values.mean().item()


# ---- what a run does


def test_a_table_learns(tmp_path: Path) -> None:
    before = mean_reward(Table(PROMPTS), mostly)
    policy, told = run(tmp_path, stage(40, reward=mostly, credit=group_relative))
    assert before < 0.5 and mean_reward(policy, mostly) > 0.9
    assert told.of("train", "step") == list(range(1, 41))
    assert told.of("train", "samples") == [16 * s for s in range(1, 41)]


def test_stumps_fitted_to_the_gradient_of_their_outputs_learn_by_the_same_loop(tmp_path: Path) -> None:
    stumps = Stumps(PROMPTS)
    before = mean_reward(stumps, begins_right)
    terms = [Term(1.0, reinforce, token_mean)]
    run(tmp_path, stage(25, terms=terms, reward=begins_right, credit=group_relative, lr=20.0), policy=stumps)
    assert len(stumps.trees) == 25 * 2 * 4 and before < 0.4 and mean_reward(stumps, begins_right) > 0.9


def test_demonstrations_are_imitated_without_a_reward(tmp_path: Path) -> None:
    shown = Demonstrations([("p", "aca"), ("q", "b")], 2)
    policy, told = run(tmp_path, stage(40, shown, [Term(1.0, negative_log_likelihood, token_mean)], lr=5.0))
    greedy = policy.sample(CONTEXTS, Sampling(4, temperature=0.0), 0)
    assert greedy.field("completion").values == [["aca"], ["b"]]
    assert told.of("train", "samples")[-1] == 0 and told.of("train", "tokens")[-1] == 40 * (4 + 2)
    assert not any(k.startswith(("reward", "share", "status")) for line in told.lines for k in line)


def test_preferences_move_the_policy_from_the_worse_to_the_better(tmp_path: Path) -> None:
    pairs = Pairs([("p", "ab", "ba", 1.0), ("q", "c", "aa", 0.0), ("q", "b", "a", math.nan)], 3)
    start, unjudged = Table(PROMPTS), Table(PROMPTS)
    policy, told = run(tmp_path, stage(30, pairs, [Term(1.0, dpo, pair_mean)], lr=20.0))

    def log_prob(p: Letters, prompt: str, text: str) -> float:
        return p.evaluate(p.encode([prompt], [text]), frozenset({"log_prob"}))["log_prob"].sum().item()

    for better, worse, prompt in (("ab", "ba", "p"), ("aa", "c", "q")):
        lead = [log_prob(p, prompt, better) - log_prob(p, prompt, worse) for p in (start, policy)]
        assert lead[1] > lead[0] + 1
    assert told.of("train", "accuracy")[-1] == 1.0 and told.of("train", "loss")[-1] < math.log(2) / 2
    without, _ = run(tmp_path / "2", stage(30, Pairs(pairs.rows[:2], 2), [Term(1.0, dpo, pair_mean)], lr=20.0), policy=unjudged)
    assert torch.allclose(without.state_dict()["logits"], policy.state_dict()["logits"], atol=1e-12)


def test_a_value_is_learned_beside_the_policy(tmp_path: Path) -> None:
    terms = [Term(1.0, clipped_surrogate, token_mean), Term(1.0, value_loss, token_mean)]
    policy, told = run(tmp_path, stage(60, terms=terms, reward=begins_right, credit=partial(gae, lam=0.95), lr=1.0, updates=2))
    assert mean_reward(policy, begins_right) > 0.9
    assert policy.state_dict()["value"][:, 0].min() > 0.5 and told.of("train", "value_error")[-1] < 0.1


def test_the_value_before_the_update_is_the_old_value(tmp_path: Path) -> None:
    seen: list[tuple[Tensor, ...]] = []

    def spy(value: Tensor, old_value: Tensor, return_: Tensor, advantage: Tensor, mask: Tensor) -> Any:
        seen.append((value.detach(), old_value, return_, advantage, mask))
        return clipped_value_loss(value, old_value, return_, mask)

    policy = Table(PROMPTS)
    with torch.no_grad():
        policy.value += 0.25
    run(tmp_path, stage(terms=[Term(1.0, spy, token_mean)], reward=mostly, credit=gae, rounds=2), policy=policy)
    (first, old, return_, advantage, mask), (second, old_again, *_) = seen
    assert torch.equal(first, old) and torch.equal(old, old_again) and not torch.equal(second, old)
    assert torch.equal(return_[mask], (advantage + old)[mask])


def test_what_was_before_the_update_is_fetched_for_data_without_log_probs(tmp_path: Path) -> None:
    shown = Demonstrations([("p", "aca"), ("q", "b")], 2)
    _, told = run(tmp_path, stage(2, shown, reward=long, credit=return_to_go))
    assert told.of("train", "ratio") == [1.0, 1.0]
    _, told = run(tmp_path / "2", stage(2, shown, reward=long, credit=return_to_go, rounds=2))
    assert all(r != 1.0 for r in told.of("train", "ratio"))


def test_the_references_part_is_fetched_once_a_batch(tmp_path: Path) -> None:
    asked: list[frozenset[str]] = []

    class Watched(Table):
        def evaluate(self, rollouts: Rollouts, want: frozenset[str]) -> dict[str, Tensor]:
            asked.append(want)
            return super().evaluate(rollouts, want)

    terms = [Term(1.0, clipped_surrogate, token_mean), Term(0.1, kl_penalty, token_mean)]
    run(tmp_path, stage(3, terms=terms, reward=mostly, credit=group_relative, rounds=4, micro_rows=8), policy=Watched(PROMPTS))
    assert [want for want in asked if "ref_log_prob" in want] == [frozenset({"ref_log_prob"})] * 6  # 3 batches, 2 micro-batches
    assert [want for want in asked if "ref_log_prob" not in want] == [frozenset({"log_prob"})] * 24


def test_a_reward_is_not_given_again_what_the_rollouts_have() -> None:
    asked: list[frozenset[str]] = []

    class Watched(Table):
        def evaluate(self, rollouts: Rollouts, want: frozenset[str]) -> dict[str, Tensor]:
            asked.append(want)
            return super().evaluate(rollouts, want)

    rollouts = Table(PROMPTS).sample(CONTEXTS, SAMPLING, 0)
    batch, _ = scoring.score(stage(reward=kl()), Batch(rollouts), Watched(PROMPTS), 0)
    assert asked == [frozenset({"ref_log_prob"})] and batch.rollouts.fields.keys() - rollouts.fields.keys() == {"ref_log_prob"}


def test_a_divergence_in_the_reward_draws_the_policy_to_the_reference(tmp_path: Path) -> None:
    def distance(p: Letters) -> float:
        return (p.state_dict()["logits"].softmax(-1) - 0.25).abs().max().item()

    policy = Table(PROMPTS)
    with torch.no_grad():
        policy.logits *= 4
    far = distance(policy)
    settings = {"credit": return_to_go, "lr": 3.0, "source": Prompts(CONTEXTS, 2, 32, SAMPLING)}
    _, told = run(tmp_path, stage(40, reward=-1.0 * kl("k1") + 0.0 * mostly, **settings), policy=policy)
    assert distance(policy) < far / 2
    assert told.of("train", "reward/kl")[-1] < told.of("train", "reward/kl")[0] / 2


# ---- one step, looked at closely


def rows(lengths: Sequence[int] = (3, 1, 2, 3), groups: Sequence[int] = (0, 0, 0, 0)) -> Rollouts:
    texts = ["abc"[:n] for n in lengths]
    rollouts = Table(PROMPTS).encode(["p"] * len(texts), texts)
    return rollouts.replace(group=torch.tensor(groups), log_prob=torch.where(rollouts.mask, -1.0, 0.0).double())


def whole(name: str, values: Sequence[float], weight: float = 1.0, status: Sequence[int] | None = None) -> Component:
    x = torch.tensor(values, dtype=torch.float64)[:, None]
    if status is None:
        return component(name, "episode", x, weight=weight)
    code = torch.tensor(status, dtype=torch.int8)[:, None]
    reasons = {(n, 0): "no verdict" for n, s in enumerate(status) if s}
    return Component(name, "episode", torch.where(code == 0, x, torch.nan), code, weight=weight, reasons=reasons)


def credited(rollouts: Rollouts, components: list[Component], **settings: Any) -> tuple[Any, dict[str, float]]:
    """(ingredients, metrics) of a step's credit."""
    scores = scores_of(rollouts, components)
    one = stage(reward=Told(scores), **{"credit": group_relative, **settings})
    return crediting.Crediting(one, Batch(rollouts), scores, Table(PROMPTS), 0).assign()


def test_a_row_that_abstains_leaves_its_groups_statistics_and_gets_no_gradient() -> None:
    rollouts = rows()
    found, metrics = credited(rollouts, [whole("right", [1, 0, 9, 0.5], status=[0, 0, Status.ABSTAIN, 0])])
    assert found["advantage"][:, 0].tolist() == [0.5, -0.5, 0.0, 0.0]
    assert not found["mask"][2].any() and torch.equal(found["mask"][[0, 1, 3]], rollouts.mask[[0, 1, 3]])
    counts = rollouts.mask.sum(1)
    assert metrics["dropped"] == pytest.approx((counts[2] / counts.sum()).item())


def test_no_signal_is_the_share_of_groups_whose_advantages_are_all_zero_before_whitening() -> None:
    rollouts = rows((3, 1, 2, 3, 1, 2), (0, 0, 1, 1, 2, 2))
    for transforms in ((), (whiten,)):
        _, metrics = credited(rollouts, [whole("right", [1, 0, 1, 1, 0, 0])], transforms=transforms)
        assert metrics["no_signal"] == pytest.approx(2 / 3)


def test_a_group_of_one_has_no_signal_and_is_dropped() -> None:
    found, metrics = credited(rows((2, 2, 2), (0, 0, 1)), [whole("right", [1, 0, 1])])
    assert metrics["no_signal"] == 0.5 and metrics["dropped"] == pytest.approx(1 / 3) and not found["mask"][2].any()


def test_transforms_are_applied_in_order() -> None:
    def double(advantage: Tensor) -> Tensor:
        return 2 * advantage

    found, _ = credited(rows(), [whole("right", [1, 0, 0, 3])], transforms=[double, partial(whiten, eps=0.0)])
    x = found["advantage"][found["mask"]]
    assert x.mean().item() == pytest.approx(0, abs=1e-12) and x.std().item() == pytest.approx(1)
    twice, _ = credited(rows(), [whole("right", [1, 0, 0, 3])], transforms=[whiten, double])
    assert torch.allclose(twice["advantage"], 2 * found["advantage"], atol=1e-6)


LINEAR = [group_relative, partial(group_relative, baseline="leave_one_out"), return_to_go, partial(group_relative, level="step")]


@pytest.mark.parametrize("credit", LINEAR)
def test_components_credited_apart_are_the_credit_of_their_sum_where_credit_is_linear(credit) -> None:
    parts = [whole("right", [1, 0, 0, 3], weight=2.0), whole("short", [0.5, 1, 0.25, 0], weight=-0.5)]
    together, shares = credited(rows(), parts, credit=credit)
    apart, other_shares = credited(rows(), parts, credit=credit, combine=weighted_sum)
    assert together["advantage"].abs().max() > 0.5
    assert torch.allclose(together["advantage"], apart["advantage"], atol=1e-12)
    assert shares == pytest.approx(other_shares, abs=1e-9)


@pytest.mark.parametrize("nan", [False, True])
def test_a_credit_of_single_rows_is_asked_once_for_all_components_and_says_the_same(nan: bool) -> None:
    parts = [whole("right", [1, 0, 0, 3], weight=2.0), whole("short", [0.5, 1, 0.25, 0], weight=-0.5)]
    parts.append(whole("rare", [1, 2, 3, 4], status=[0, 3 * nan, 0, 0]))
    calls: list[int] = []

    def credit(reward: Tensor, mask: Tensor, episode: Tensor, *, gamma: Any) -> Tensor:
        calls.append(len(reward))
        return return_to_go(reward, mask, episode, gamma=gamma)

    found = []
    for by_row, gamma in ((False, 0.9), (True, 0.9), (True, torch.full((4, 1), 0.9, dtype=torch.float64))):
        credit.by_row = by_row  # type: ignore[attr-defined]
        calls.clear()
        found.append((*credited(rows(), parts, credit=partial(credit, gamma=gamma)), list(calls)))
    assert [counts for *_, counts in found] == [[4] * 5, [4, 16], [4] * 5]  # a setting of the rows would not fit more of them
    for ingredients, metrics, _ in found[1:]:
        assert metrics == pytest.approx(found[0][1], rel=0, abs=0, nan_ok=True)
        assert torch.equal(ingredients["advantage"], found[0][0]["advantage"])


def test_components_that_are_normalised_apart_keep_their_weights() -> None:
    parts = [whole("right", [1, 0, 0, 1], weight=3.0), whole("short", [0, 50, 0, 50], weight=0.5)]
    found, _ = credited(rows(), parts, credit=partial(group_relative, scale="std", ddof=0), combine=weighted_sum)
    assert found["advantage"][:, 0].tolist() == pytest.approx([2.5, -2.5, -3.5, 3.5])


def test_shares_are_those_of_each_components_own_credit_where_it_is_linear() -> None:
    parts = [whole("right", [1, 0, 0, 3], weight=2.0), whole("short", [0.5, 1, 0.25, 0], weight=-0.5)]
    found, metrics = credited(rows(), parts)
    scores = scores_of(rows(), parts)
    own = {k: group_relative(r, rows().mask, rows().group) for k, r in scores.rewards().items()}
    assert {k: metrics[f"share/{k}"] for k in own} == pytest.approx(variance_shares(own, found["mask"]))


def test_what_a_component_brings_is_its_credit_without_the_baseline() -> None:
    rollouts = rows()
    value = torch.arange(16.0, dtype=torch.float64).reshape(4, 4)

    def credit(x: Tensor) -> Tensor:
        return gae(x, value, rollouts.mask, rollouts.level("episode"), rollouts.terminated, rollouts.truncated)

    rewards = scores_of(rollouts, [whole("right", [1, 0, 0, 3]), whole("short", [0.5, 1, 0.25, 0])]).rewards()
    whole_credit = credit(sum(rewards.values()))
    found = crediting.attributed(lambda xs: list(map(credit, xs)), rewards, whole_credit, rollouts.mask, rollouts.group)
    for name, x in rewards.items():
        assert torch.allclose(found[name], return_to_go(x, rollouts.mask, rollouts.level("episode")), atol=1e-12)


def test_a_value_baseline_is_no_components_share() -> None:
    rollouts, policy = rows(), Table(PROMPTS)
    with torch.no_grad():
        policy.value += torch.tensor([5.0, -3.0, 2.0, 1.0])
    parts = [whole("right", [1, 0, 0, 3]), whole("flat", [1, 1, 1, 1], weight=1e-9)]
    scores = scores_of(rollouts, parts)
    one = stage(reward=Told(scores), credit=gae)
    _, metrics = crediting.Crediting(one, Batch(rollouts), scores, policy, 0).assign()
    assert metrics["share/right"] == pytest.approx(1.0, abs=1e-6)


def test_dividing_by_a_deviation_makes_no_share_of_a_whisper() -> None:
    noise, credit = [1e-3, 3e-3, 2e-3, 0.0], partial(group_relative, scale="std")
    _, metrics = credited(rows((2, 2, 2, 2)), [whole("right", [1, 0, 0, 1]), whole("noise", noise)], credit=credit)
    assert metrics["share/right"] == pytest.approx(1.002, abs=1e-3)  # they are correlated: -0.002 of the sum's variance
    assert metrics["share/right"] + metrics["share/noise"] == pytest.approx(1)
    _, alone = credited(rows(), [whole("right", [1, 1, 1, 1]), whole("noise", noise)], credit=credit)
    assert alone["share/noise"] == pytest.approx(1)  # where nothing else speaks, all of it is the noise


def select_rows(chosen: Tensor):
    return lambda rollouts, scores: chosen


@pytest.mark.parametrize("chosen", [torch.tensor([True, False, True, True]), torch.tensor([0.5, 0.0, 2.0, torch.nan])])
def test_select_weighs_the_rows(chosen: Tensor) -> None:
    rollouts = rows().replace(weight=torch.tensor([1.0, 1.0, 3.0, 1.0]))
    scores = scores_of(rollouts, [whole("right", [1, 0, 0, 3])])
    one = stage(reward=Told(scores), credit=group_relative, select=select_rows(chosen))
    batch, _ = scoring.score(one, Batch(rollouts), Table(PROMPTS), 0)
    weight = chosen.nan_to_num(0.0) if chosen.is_floating_point() else chosen.float()
    assert batch.rollouts.weight.tolist() == (weight * rollouts.weight).tolist()
    assert rollouts.weight.tolist() == [1.0, 1.0, 3.0, 1.0]


def test_selected_rows_alone_are_trained_on(tmp_path: Path) -> None:
    def best(rollouts: Rollouts, scores: Scores) -> Tensor:
        return scores.total.values[:, 0] == 1

    imitate = [Term(1.0, negative_log_likelihood, token_mean)]
    policy, told = run(tmp_path, stage(40, terms=imitate, reward=begins_right, select=best, lr=3.0))
    assert mean_reward(policy, begins_right) > 0.9
    assert told.of("train", "kept") == pytest.approx(told.of("train", "reward/begins_right"))


@pytest.mark.parametrize(
    ("chosen", "error", "says"),
    [(torch.ones(3), ShapeError, r"select: `the result` should have shape \[4\]"), (-torch.ones(4), InputError, "got -1.0")],
)
def test_a_wrong_choice_is_refused(chosen: Tensor, error: type[Exception], says: str) -> None:
    scores = scores_of(rows(), [whole("right", [1, 0, 0, 3])])
    with pytest.raises(error, match=says):
        scoring.score(stage(reward=Told(scores), select=select_rows(chosen)), Batch(rows()), Table(PROMPTS), 0)


# ---- failures


def failing(status: Sequence[int], weight: float | None = 1.0) -> Scores:
    part = whole("checker", [1.0] * len(status), status=status)
    found = scores_of(rows((1,) * len(status), (0,) * len(status)), [whole("fine", [1.0] * len(status))])
    if weight is None:
        return replace(found, trace={**found.trace, "checker": part.replace(weight=None)})
    return replace(found, components={**found.components, "checker": part})


def test_a_run_stops_when_more_of_a_term_fails_than_is_allowed(tmp_path: Path) -> None:
    @reward(bounds=(0, 1))
    def breaks(completion: str) -> float:
        return 1 / completion.count("a")

    says = r"term `breaks`: at most 10.0% of its units may.*, \d+ of 16 did. Most often: \d+ x .*ZeroDivisionError"
    with pytest.raises(RewardFailure, match=says):
        run(tmp_path, stage(3, reward=mostly + breaks, credit=group_relative))
    run(tmp_path / "2", stage(3, reward=mostly + breaks, credit=group_relative, max_failed=1.0))


@pytest.mark.parametrize(
    ("bad", "stops"),
    [([], False), ([2], False), ([2, 3], True), ([3, 3], True), ([2, 2], True), ([1] * 9, False), ([1, 2], False)],
)
def test_a_tenth_may_fail_and_abstaining_is_not_failing(bad: list[int], stops: bool) -> None:
    scores = failing([*bad, *[0] * (10 - len(bad))])
    if not stops:
        return scoring.refuse_failures(scores, 0.1)
    with pytest.raises(RewardFailure, match=r"`checker`.* 2 of 10 did. Most often: 2 x no verdict"):
        scoring.refuse_failures(scores, 0.1)


def test_what_is_only_watched_may_fail() -> None:
    scoring.refuse_failures(failing([3] * 10, weight=None), 0.1)


def test_units_that_a_row_does_not_have_are_no_units() -> None:
    there = torch.tensor([[0, 3], [0, -1], [0, -1], [0, -1]], dtype=torch.int8)
    part = Component("steps", "turn", torch.where(there == 0, 1.0, torch.nan).double(), there)
    scores = replace(scores_of(rows(), [whole("fine", [1.0] * 4)]), components={"steps": part})
    with pytest.raises(RewardFailure, match=r"1 of 5 did\. Most often: 1 x no reason given"):
        scoring.refuse_failures(scores, 0.15)


# ---- metrics, files, stages


def test_metrics_are_those_of_the_rollouts_and_scores_that_were_saved(tmp_path: Path) -> None:
    @reward(bounds=(0, 8))
    def picky(completion: str) -> float | None:
        return None if completion.startswith("c") else float(len(completion))

    composed = mostly + 0.1 * picky + long.watch()
    _, told = run(tmp_path, stage(3, reward=composed, credit=group_relative), save_rollouts_every=1)
    for step in (1, 2, 3):
        line = told.lines[step - 1]
        rollouts = Rollouts.load(tmp_path / "rollouts" / f"step-{step:06d}.parquet")
        texts = [t[0] for t in rollouts.field("completion").values]
        letters = rollouts.field("letter").values
        ok = [not t.startswith("c") for t in texts]
        right = [t.count(x) / max(len(t), 1) for t, x in zip(texts, letters, strict=True)]
        totals = [r + 0.1 * len(t) for r, t, fine in zip(right, texts, ok, strict=True) if fine]
        assert line["reward/mostly"] == pytest.approx(sum(right) / 16)
        assert line["reward/picky"] == pytest.approx(sum(len(t) for t, fine in zip(texts, ok, strict=True) if fine) / sum(ok))
        assert line["reward/long"] == pytest.approx(sum(map(len, texts)) / 16)
        assert line["reward/total"] == pytest.approx(sum(totals) / len(totals))
        assert line["status/picky/abstain"] == pytest.approx(1 - sum(ok) / 16) and line["status/mostly/abstain"] == 0
        assert "share/long" not in line and line["share/mostly"] + line["share/picky"] == pytest.approx(1)
        assert line["length"] == pytest.approx(rollouts.mask.sum().item() / 16)
        dropped = rollouts.mask[[n for n in range(16) if not ok[n]]].sum() / rollouts.mask.sum()
        assert line["dropped"] == pytest.approx(dropped.item(), abs=1e-6)
        scores = Scores.load(tmp_path / "scores" / f"step-{step:06d}.parquet")
        assert scores.trace["long"].weight is None and scores.trace["mostly"].values[:, 0].tolist() == pytest.approx(right)
    assert {"loss", "loss/clipped_surrogate", "grad_norm", "tokens_per_second", "time/sample", "time/update"} <= told.lines[
        0
    ].keys()


def evaluation(every: int = 5, **settings: Any) -> Evaluation:
    return Evaluation(CONTEXTS, begins_right, every, samples=4, sampling=SAMPLING, **settings)


def test_observers_and_the_result_are_told_where_the_run_began_and_was_best(tmp_path: Path) -> None:
    up = stage(10, reward=begins_right, credit=group_relative, lr=8.0)
    down = replace(up, reward=-1.0 * begins_right)
    policy, told = run(tmp_path, up, down, evaluation=evaluation(), about={"title": "t"})
    assert told.config["total_steps"] == 20 and told.config["runs"] == 1 and told.config["about"] == {"title": "t"}
    curve = told.of("eval", "eval/success")
    assert told.of("eval", "step") == [0, 5, 10, 15, 20] and told.of("eval", "during") == ["start"] + ["train"] * 4
    assert told.result["eval/success_start"] == curve[0] and told.result["eval/success"] == curve[-1]
    assert told.result["eval/success_best"] == max(curve) > curve[-1]
    assert told.result["step_best"] == 5 * curve.index(max(curve))
    assert told.result["steps"] == 20 and told.result["samples"] == 320
    best, last = (Table(PROMPTS).load(tmp_path / name) for name in ("best", "policy"))
    assert torch.equal(last.logits, policy.state_dict()["logits"]) and mean_reward(best, begins_right) > mean_reward(
        last, begins_right
    )


def test_stages_draw_other_samples_and_read_schedules_from_their_own_start(tmp_path: Path) -> None:
    rates: list[int] = []
    seen: list[list[int]] = []

    def sample(policy: Any, contexts: Sequence[Context], sampling: Sampling, seed: int) -> Rollouts:
        rollouts = policy.sample(contexts, sampling, seed)
        seen.append(rollouts.action.flatten().tolist())
        return rollouts

    def rate(step: int) -> float:
        rates.append(step)
        return 0.0  # the policy stays as it is

    one = stage(3, Prompts(CONTEXTS, 2, 8, SAMPLING, sample), reward=mostly, credit=group_relative, lr=rate)
    run(tmp_path, one, one)
    assert rates == [0, 1, 2, 0, 1, 2] and len(set(map(tuple, seen))) == 6
    seen.clear()
    run(tmp_path / "again", one, one)
    run(tmp_path / "other", one, one, seed=1)
    assert len(set(map(tuple, seen))) == 12


def test_stop_ends_a_stage_and_the_next_begins(tmp_path: Path) -> None:
    first = replace(stage(50, reward=begins_right, credit=group_relative, lr=8.0), name="first")
    _, told = run(
        tmp_path, first, replace(first, name="second", steps=7), evaluation=evaluation(), stop=lambda m: m["eval/success"] > 0.8
    )
    steps = len(told.of("first", "step"))
    assert 5 <= steps < 50 and steps % 5 == 0 and len(told.of("second", "step")) in (5 - steps % 5, 7)
    assert told.of("eval", "eval/success")[-1] > 0.8


def test_a_finished_stage_is_not_begun_again(tmp_path: Path) -> None:
    one = stage(4, reward=mostly, credit=group_relative)
    policy, _ = run(tmp_path, one, checkpoint_every=3)
    again, told = run(tmp_path, one, checkpoint_every=3)
    assert told.lines == [] and torch.equal(policy.state_dict()["logits"], again.state_dict()["logits"])


def test_first_weights_drawn_from_the_global_generator_depend_on_the_seed_alone(tmp_path: Path) -> None:
    class Drawn(Table):
        def __init__(self) -> None:
            super().__init__(PROMPTS)
            with torch.no_grad():
                self.logits += torch.rand_like(self.logits)

    made, state = [], torch.random.get_rng_state()
    for i, seed in enumerate((0, 0, 1)):
        recipe = Recipe("r", lambda: made.append(Drawn()) or made[-1], [stage(0, reward=mostly)], seed=seed)
        train(recipe, tmp_path / str(i))
    assert torch.equal(made[0].logits, made[1].logits) and not torch.equal(made[0].logits, made[2].logits)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: stage(-1), "stage `train`: expected `steps` of 0 or more, got -1"),
        (lambda: stage(updates=0), "`updates` of 1 or more"),
        (lambda: stage(credit=group_relative), "`credit` needs a reward"),
        (lambda: evaluation(every=0), "evaluation: expected `every` of 1 or more"),
        (lambda: Recipe("r", lambda: Table(PROMPTS), []), "recipe `r`: expected `stages` of 1 or more"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused_when_it_is_made(make, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


def test_an_unknown_best_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`best` should be one of eval/success.*eval/pass@4.*got 'succes'"):
        run(tmp_path, stage(reward=mostly), evaluation=evaluation(), best="succes")


# ---- a policy that talks


TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class Countdown:
    """Asks three times for a digit below 5 and pays for each by itself; ends at once when none is written."""

    def reset(self, task: Context) -> list[dict[str, str]]:
        self.turn = 0
        return [{"role": "user", "content": "go"}]

    def step(self, message: Mapping[str, Any]) -> Any:
        from guerdon.sampling.conversation import Step

        self.turn += 1
        said = message["content"][:1]
        if not said.isdigit():
            return Step(terminated=True, reward=0.0)
        return Step([{"role": "user", "content": "go"}], terminated=self.turn == 3, reward=float(int(said) < 5))


@pytest.mark.parametrize("credit", [partial(group_relative, level="turn"), partial(return_to_go, level="turn")])
def test_turns_of_a_conversation_are_credited_through_the_loop(tmp_path: Path, credit) -> None:
    from guerdon.policies.language import LanguagePolicy
    from guerdon.policies.tokenizer import word_tokenizer
    from guerdon.sampling.conversation import converse

    @reward(level="turn", bounds=(0, 1))
    def paid(environment_reward: float) -> float:
        return environment_reward

    def talk(policy: Any, contexts: Sequence[Context], sampling: Sampling, seed: int) -> Rollouts:
        return converse(policy, [Countdown() for _ in contexts], contexts, sampling, seed, max_turns=3)

    tokens = word_tokenizer([*"0123456789", "go"], special=["<user>", "<assistant>"], chat_template=TEMPLATE)
    policy = LanguagePolicy.tiny(tokens, width=16, heads=2)
    tasks = [Context(f"t{i}", "go") for i in range(4)]
    source = Prompts(tasks, 2, 8, Sampling(max_new_tokens=2), talk)
    judged = Evaluation(tasks, paid.pool("mean"), 100, samples=4, sampling=Sampling(max_new_tokens=2), sample=talk)
    seen: list[Any] = []

    def spy(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, mask: Tensor) -> Any:
        seen.append((advantage, mask))
        return clipped_surrogate(log_prob, old_log_prob, advantage, mask)

    one = stage(12, source, [Term(1.0, spy, token_mean)], reward=paid, credit=credit, lr=1e-2, updates=2)
    _, told = run(tmp_path, one, policy=policy, evaluation=judged, save_rollouts_every=1)
    last = Rollouts.load(tmp_path / "rollouts" / "step-000012.parquet")
    turns, (advantage, mask) = last.level("turn")[8:], seen[-1]  # the second half of the rows was the last minibatch
    assert int(turns.max()) == 2 and not last.mask.all()
    for n in range(8):
        for turn in range(3):
            assert len(set(advantage[n][(turns[n] == turn) & mask[n]].tolist())) <= 1  # one number a turn
    assert not advantage[~mask].any() and len({round(x, 6) for x in advantage[mask].tolist()}) > 2
    assert told.result["eval/success"] > told.result["eval/success_start"] + 0.15


# ---- the loop stays ignorant


@pytest.mark.parametrize("module", [loop, update_module])
def test_the_loop_is_short_and_imports_no_method(module: Any) -> None:
    source = Path(module.__file__).read_text()
    imported = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    rooms = {name.split(".")[1] for name in imported if name and name.startswith("guerdon.")}
    assert rooms <= {"comparisons", "errors", "protocols", "rollouts", "scores", "training"}
    assert len(source.splitlines()) < 250


def test_lines_of_metrics_can_be_written_as_json(tmp_path: Path) -> None:
    _, told = run(tmp_path, stage(reward=mostly + long, credit=group_relative), evaluation=evaluation())
    assert json.loads(json.dumps(told.lines)) == told.lines
