# SPDX-License-Identifier: Apache-2.0
"""The table policy: exact probabilities, own streams, prefixes, shared weights, and the whole loop."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from guerdon.credit import group_relative
from guerdon.errors import CheckpointError, InputError, ShapeError
from guerdon.objectives import reinforce, sequence_mean
from guerdon.policies.counter_stream import counter_stream
from guerdon.policies.prefix import Prefix
from guerdon.policies.table import TablePolicy
from guerdon.protocols import Context, Policy, Sampling
from guerdon.rewards import reward
from guerdon.training.binding import bind
from guerdon.training.evaluation import Measured
from guerdon.training.loop import train
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Prompts

ALL = frozenset({"log_prob", "log_probs", "entropy", "value", "ref_log_prob"})


def random_table(**settings) -> TablePolicy:
    """3 actions, 4 steps, with history: every state of two tasks has logits of its own."""
    g = torch.Generator().manual_seed(0)
    start = torch.randn(2, 4, 4, 3, generator=g, dtype=torch.float64)
    return TablePolicy(["a", "b"], 3, length=4, history=True, start=start, dtype=torch.float64, **settings)


def contexts(count: int, task: str = "a") -> list[Context]:
    return [Context(task, task, {"answer": i}, index=i, group=7) for i in range(count)]


def test_it_is_a_policy() -> None:
    assert isinstance(random_table(), Policy)


def test_counted_numbers_are_uniform_and_unrelated() -> None:
    u = counter_stream(3, [(f"t{i % 50}", i // 50) for i in range(50_000)], 4)
    assert u.min() >= 0 and u.max() < 1
    assert (torch.histc(u, 100) / u.numel() - 0.01).abs().max() < 0.001  # 4.5 standard errors
    neighbours = torch.stack([u[:-50, 0], u[50:, 0], u[:-50, 1], u[:-50, 3], u[1:-49, 0]])
    correlation = torch.corrcoef(neighbours) - torch.eye(5)
    assert correlation.abs().max() < 0.02  # 4.5 standard errors
    again = counter_stream(3, [("t7", 2)], 4)
    assert torch.equal(again[0], u[107]) and not torch.equal(counter_stream(4, [("t7", 2)], 4), again)


def test_actions_come_with_the_probabilities_of_the_table() -> None:
    policy, n = random_table(), 20_000
    rollouts = policy.sample(contexts(n), Sampling(), 0)
    p = policy.probabilities()[0]
    first = torch.bincount(rollouts.action[:, 0], minlength=3) / n
    assert torch.allclose(first.double(), p[0, 3], atol=0.015)
    pairs = torch.bincount(rollouts.action[:, 1] * 3 + rollouts.action[:, 2], minlength=9).reshape(3, 3).double()
    assert torch.allclose(pairs / pairs.sum(1, keepdim=True), p[2, :3], atol=0.03)
    by_hand = [p[t, int(rollouts.action[0, t - 1]) if t else 3, rollouts.action[0, t]].log().item() for t in range(4)]
    assert rollouts.log_prob[0].tolist() == pytest.approx(by_hand, abs=1e-12)
    assert rollouts.terminated[:, 3].all() and not rollouts.terminated[:, :3].any() and not rollouts.truncated.any()


def test_who_else_is_in_the_batch_changes_nothing() -> None:
    policy = random_table()
    together = policy.sample([*contexts(5), *contexts(5, "b")], Sampling(), 1)
    alone = policy.sample(contexts(5, "b")[3:4], Sampling(), 1)
    assert torch.equal(together.action[8], alone.action[0]) and torch.equal(together.log_prob[8], alone.log_prob[0])
    assert not torch.equal(policy.sample(contexts(5, "b"), Sampling(), 2).action, together.action[5:])


def test_evaluate_gives_every_output_as_autograd_and_the_table_say() -> None:
    policy = random_table()
    with torch.no_grad():
        policy.weight += torch.randn(policy.weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        policy.values += torch.arange(policy.values.numel()).reshape(policy.values.shape)
    rollouts = policy.sample(contexts(6) + contexts(6, "b"), Sampling(temperature=0.7), 0)
    out = policy.evaluate(rollouts, ALL)
    assert torch.allclose(out["log_prob"], rollouts.log_prob)
    assert torch.allclose(out["log_probs"].gather(-1, rollouts.action[..., None])[..., 0], out["log_prob"])
    assert torch.allclose(out["entropy"], -(out["log_probs"].exp() * out["log_probs"]).sum(-1))
    before = torch.cat([torch.full((12, 1), 3), rollouts.action[:, :-1]], 1)
    task = torch.tensor([0] * 6 + [1] * 6)[:, None]
    assert torch.equal(out["value"], policy.values[task, torch.arange(4), before])
    frozen = (policy.start / 0.7).log_softmax(-1)[task, torch.arange(4), before, rollouts.action]
    assert torch.allclose(out["ref_log_prob"], frozen) and not out["ref_log_prob"].requires_grad
    (gradient,) = torch.autograd.grad(out["log_prob"][0, 1], policy.weight)
    expected = torch.zeros(3, dtype=torch.float64)
    expected[rollouts.action[0, 1]] = 1
    expected -= out["log_probs"][0, 1].exp().detach()
    assert torch.allclose(gradient[0, 1, before[0, 1]], expected / 0.7)
    assert gradient.abs().sum() == pytest.approx((expected / 0.7).abs().sum().item())


def test_a_prefix_is_given_and_the_rest_drawn() -> None:
    policy = random_table()
    rows = policy.sample(contexts(3), Sampling(), 0)
    own = Prefix("a", "a", index=1, action=rows.action[1, :2], parent=(1, 2))
    fork = Prefix("a", "a", index=100, action=(rows.action[1, :2] + 1) % 3, parent=(1, 2))
    plain = Context("a", "a", index=2)
    made = policy.sample([own, fork, plain], Sampling(), 0)
    assert torch.equal(made.action[0], rows.action[1]) and torch.equal(made.action[2], rows.action[2])
    assert torch.equal(made.action[1, :2], (rows.action[1, :2] + 1) % 3)
    assert made.mask.tolist() == [[False, False, True, True]] * 2 + [[True] * 4]
    assert made.parent.tolist() == [[1, 2], [1, 2], [-1, -1]]
    assert (made.log_prob[1, :2] == 0).all() and torch.allclose(made.log_prob[0, 2:], rows.log_prob[1, 2:])
    assert torch.allclose(policy.evaluate(made, ALL)["log_prob"], made.log_prob)
    with pytest.raises(InputError, match="fewer than the 4 steps"):
        policy.sample([Prefix("a", "a", action=rows.action[1])], Sampling(), 0)


def test_a_row_cut_short_is_truncated() -> None:
    rollouts = random_table().sample(contexts(2), Sampling(max_new_tokens=3), 0)
    assert rollouts.action.shape == (2, 3) and rollouts.truncated[:, 2].all() and not rollouts.terminated.any()


def test_greedy_takes_the_likeliest() -> None:
    policy = random_table()
    row = policy.sample(contexts(1), Sampling(temperature=0.0), 0)
    assert row.action[0, 0] == policy.probabilities()[0, 0, 3].argmax()


def test_features_share_weights_between_tasks() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.0, 1.0]], dtype=torch.float64)
    policy = TablePolicy(["a", "b", "c"], 2, features=features, dtype=torch.float64)
    rollouts = policy.sample([Context("b", "b")], Sampling(), 0)
    (gradient,) = torch.autograd.grad(policy.evaluate(rollouts, ALL)["log_prob"].sum(), policy.weight)
    assert torch.allclose(gradient[1], 2 * gradient[0]) and gradient[0].abs().sum() == pytest.approx(1.0)
    with torch.no_grad():
        policy.weight -= gradient
        policy.values += torch.tensor([1.0, 10.0]).reshape(2, 1, 1)
    assert torch.allclose(policy.table(), torch.einsum("kd,dtha->ktha", features, -gradient))
    assert policy.evaluate(rollouts, ALL)["value"].tolist() == [[21.0]]


def test_encode_is_what_was_done() -> None:
    policy = random_table()
    rollouts = policy.encode(["b", "a"], [[0, 1, 2, 0], [2, 2, 2, 2]])
    assert rollouts.action.tolist() == [[0, 1, 2, 0], [2, 2, 2, 2]] and rollouts.log_prob is None
    assert rollouts.mask.all() and rollouts.task == ["b", "a"] and set(rollouts.source) == {"demonstration"}
    assert rollouts.field("completion").values == [["0 1 2 0"], ["2 2 2 2"]]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    features = torch.eye(2, dtype=torch.float64)
    policy = random_table(features=features)
    with torch.no_grad():
        policy.weight += 1.5 * torch.arange(policy.weight.numel()).reshape(policy.weight.shape)
    policy.set_reference()
    policy.save(tmp_path)
    loaded = TablePolicy.load(tmp_path)
    rollouts = policy.sample(contexts(5), Sampling(), 0)
    for k, x in policy.evaluate(rollouts, ALL).items():
        assert torch.equal(x, loaded.evaluate(rollouts, ALL)[k]), k
    with pytest.raises(CheckpointError, match="weight"):
        TablePolicy(["a"], 3, length=4, history=True).load_state_dict(policy.state_dict())


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: TablePolicy([], 2), InputError, "one or more"),
        (lambda: TablePolicy(["a", "a"], 2), InputError, "different"),
        (lambda: TablePolicy(["a"], 2, start=torch.zeros(3, 2)), ShapeError, r"\[1, 1, 1, 2\], got \[3, 2\]"),
        (lambda: TablePolicy(["a"], 2).sample([Context("b", "b")], Sampling(), 0), InputError, "got 'b'"),
        (lambda: TablePolicy(["a"], 2).sample(contexts(1), Sampling(top_k=1), 0), InputError, "top_k"),
        (lambda: TablePolicy(["a"], 2).encode(["a"], [[1, 1]]), ShapeError, "completions"),
    ],
)
def test_what_cannot_be_is_refused(make, error, text) -> None:
    with pytest.raises(error, match=text):
        make()


@reward(bounds=(0, 1))
def second_follows(completion: str) -> bool:
    """1 if every action is one more than the one before, modulo 3."""
    actions = [int(x) for x in completion.split()]
    return all((b - a) % 3 == 1 for a, b in itertools.pairwise(actions))


def test_it_learns_in_the_loop(tmp_path: Path) -> None:
    tasks = ["a", "b"]

    def measure(policy: TablePolicy, step: int) -> dict[str, float]:
        p = policy.probabilities()
        right = sum(p[0, 0, 3, a] * p[0, 1, a, (a + 1) % 3] for a in range(3))
        return {"eval/success": float(right)}

    recipe = Recipe(
        "table",
        lambda: TablePolicy(tasks, 3, length=2, history=True),
        [
            Stage(
                "train",
                30,
                Prompts([Context(t, t) for t in tasks], 2, 32, Sampling()),
                [Term(1.0, reinforce, sequence_mean)],
                reward=second_follows,
                credit=bind(group_relative),
                lr=0.3,
                updater={"optimiser": "adam"},
            )
        ],
        Measured(30, measure),
    )
    result = train(recipe, tmp_path)
    assert result["eval/success_start"] == pytest.approx(1 / 3) and result["eval/success"] > 0.9
    assert TablePolicy.load(tmp_path / "policy").probabilities().shape == (2, 2, 4, 3)
