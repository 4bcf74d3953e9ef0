# SPDX-License-Identifier: Apache-2.0
"""Best-of-n against its closed form, trees that share their prefixes to the bit, and both in the loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from guerdon.credit import group_relative
from guerdon.errors import InputError
from guerdon.objectives import negative_log_likelihood, reinforce, sequence_mean
from guerdon.policies.table import TablePolicy
from guerdon.protocols import Context, Sampling
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.sampling.search import BestOf, Tree, cut, cuts
from guerdon.training.binding import bind
from guerdon.training.evaluation import Measured
from guerdon.training.loop import train
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Prompts

TASKS = [Context("a", "a"), Context("b", "b")]


@tensor_reward()
def worth(rollouts: Rollouts) -> torch.Tensor:
    """The sum of the actions of the steps there are; only those of the row's prefix count, also where others took them."""
    kept = torch.arange(rollouts.action.shape[1]) < rollouts.length[:, None]
    return torch.where(kept, rollouts.action, 0).sum(1).double()


def policy(length: int = 1, actions: int = 4) -> TablePolicy:
    g = torch.Generator().manual_seed(0)
    start = torch.randn(2, length, actions + 1, actions, generator=g, dtype=torch.float64)
    return TablePolicy(["a", "b"], actions, length=length, history=True, start=start, dtype=torch.float64)


def contexts(count: int, task: str = "a") -> list[Context]:
    return [Context(task, task, index=i) for i in range(count)]


def test_the_best_of_one_is_plain_sampling() -> None:
    one, plain = BestOf(1, worth)(policy(3), contexts(9), Sampling(), 0), policy(3).sample(contexts(9), Sampling(), 0)
    assert torch.equal(one.action, plain.action) and torch.equal(one.log_prob, plain.log_prob)


@pytest.mark.parametrize("n", [2, 5])
def test_the_best_of_n_is_distributed_as_the_maximum(n: int) -> None:
    count, p = 20_000, policy().probabilities()[0, 0, 4]
    below = p.cumsum(0)
    expected = below**n - torch.cat([torch.zeros(1, dtype=p.dtype), below[:-1]]) ** n  # worth rises with the action's number
    rows = BestOf(n, worth)(policy(), contexts(count), Sampling(), 0)
    found = torch.bincount(rows.action[:, 0], minlength=4) / count
    assert torch.allclose(found.double(), expected, atol=0.015)
    assert len(rows) == count and set(rows.field("drawn").values) == {n}


def test_a_row_that_could_not_be_judged_is_not_chosen() -> None:
    @tensor_reward()
    def abstains_on_threes(rollouts: Rollouts) -> torch.Tensor:
        x = rollouts.action[:, 0].double()
        return torch.where(x == 3, torch.nan, x)

    rows = BestOf(4, abstains_on_threes)(policy(), contexts(500), Sampling(), 0)
    whole = policy().sample([Context("a", "a", index=i) for i in range(2000)], Sampling(), 0).action.reshape(500, 4)
    only_threes = (whole == 3).all(1)
    assert torch.equal(rows.action[:, 0] == 3, only_threes) and only_threes.any()


def test_a_tree_forks_from_the_most_promising_prefix_and_shares_it() -> None:
    table = policy(4)
    roots = Prompts(TASKS, 2, 3, Sampling())
    tree = Tree(roots, worth, rounds=2, forks=2, sampling=Sampling()).batch(0, table, 5).rollouts
    plain = roots.batch(0, table, 5).rollouts
    assert len(tree) == 6 + 2 * 2 * 2 and torch.equal(tree.action[:6], plain.action)
    assert tree.group.tolist() == [0, 0, 0, 1, 1, 1] + [0, 0, 1, 1] * 2
    row, at = cuts(plain, range(6))
    promise = worth.score(cut(plain, row, at)).total.values[:, 0]
    for g, child in ((0, 6), (1, 8)):
        best = torch.where(plain.group[row] == g, promise, -1).argmax()
        assert tree.parent[child].tolist() == tree.parent[child + 1].tolist() == [row[best], at[best]]
    for n in range(6, len(tree)):
        parent, steps = tree.parent[n].tolist()
        assert torch.equal(tree.action[n, :steps], tree.action[parent, :steps])
        assert tree.mask[n].tolist() == [t >= steps for t in range(4)]
    taken = [tuple(p) for p in tree.parent[6:].tolist()]
    assert all(taken.count(p) == 2 for p in taken)  # each prefix once, two forks of it
    assert torch.allclose(table.evaluate(tree, frozenset({"log_prob"}))["log_prob"], tree.log_prob)


def test_forks_never_draw_the_same_numbers_twice() -> None:
    asked: list[tuple[str, int]] = []

    def watched(table, contexts, sampling, seed):
        asked.extend((c.task, c.index) for c in contexts)
        return table.sample(contexts, sampling, seed)

    source = Tree(Prompts(TASKS, 2, 3, Sampling(), watched), worth, 3, 2, Sampling(), watched)
    for step in range(4):
        source.batch(step, policy(4), 0)
    assert len(asked) == len(set(asked)) == 4 * (6 + 12)


def test_a_prefix_tells_nothing_of_later() -> None:
    rows = policy(3).sample(contexts(2), Sampling(), 0)
    rows = rows.with_field("offset", "step", torch.tensor([[[0, 1], [1, 3], [3, 5]]] * 2)).with_field(
        "judged", "episode", [[1], [2]]
    )
    some = cut(rows, torch.tensor([1, 0]), torch.tensor([2, 1]))
    assert some.mask.tolist() == [[True, True, False], [True, False, False]] and not some.terminated.any()
    assert [x[0] for x in some.field("completion").values] == [
        rows.field("completion").values[1][0][:3],
        rows.field("completion").values[0][0][:1],
    ]
    assert "judged" not in some.fields and some.levels["episode"].tolist() == [[0, 0, -1], [0, -1, -1]]


def test_both_train_in_the_loop(tmp_path: Path) -> None:
    measured = Measured(20, lambda table, step: {"eval/success": table.probabilities()[:, 0, 4, 3].mean().item()})

    def run(name: str, source, term: Term, **more) -> float:
        stage = Stage("train", 20, source, [term], lr=0.1, updater={"optimiser": "adam"}, **more)
        return train(Recipe(name, lambda: policy(3), [stage], measured), tmp_path / name)["eval/success"]

    start = policy(3).probabilities()[:, 0, 4, 3].mean().item()
    imitated = run(
        "imitate", Prompts(TASKS, 2, 8, Sampling(), BestOf(4, worth)), Term(1.0, negative_log_likelihood, sequence_mean)
    )
    tree = Tree(Prompts(TASKS, 2, 8, Sampling()), worth, 2, 4, Sampling())
    grown = run("tree", tree, Term(1.0, reinforce, sequence_mean), reward=worth, credit=bind(group_relative))
    assert imitated > start + 0.2 and grown > start + 0.2


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="1 or more, got 0"):
        BestOf(0, worth)
    by_step = tensor_reward(level="step")(lambda rollouts: rollouts.action.double())
    with pytest.raises(InputError, match="level `step`"):
        BestOf(2, by_step)(policy(2), contexts(1), Sampling(), 0)
