# SPDX-License-Identifier: Apache-2.0
"""SRPO's identities, its optimum by brute force, the loss on rows against the residuals, and its source."""

from __future__ import annotations

import pytest
import torch

from guerdon.errors import ShapeError
from guerdon.objectives.squared_log_ratio import squared_log_ratio
from guerdon.systems.preference.srpo import BETA, Revisions, draft, game, identities, policy, residuals, solution, srpo
from guerdon.tasks.preference_game import kl, random_game


def test_the_solution_satisfies_both_identities_and_others_do_not() -> None:
    assert all(abs(found) < 1e-12 for found, _ in identities().values())
    assert residuals(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.rand(4), beta=BETA).abs().max() > 0.05


def test_the_solution_is_that_of_the_game() -> None:
    """Minimising over pi the maximum over q, by gradient, gives the closed form."""
    n, beta, g = 4, 0.3, torch.Generator().manual_seed(0)
    preference = random_game(0, n, cycle=2.0)
    reference = torch.randn(1 + n, n, generator=g, dtype=torch.float64).log_softmax(-1)
    pi, q = solution(preference, reference, beta)
    x = torch.zeros(n, dtype=torch.float64, requires_grad=True)

    def worst(log_pi):
        gain = (q.exp() * preference.T).sum(1) - beta * kl(q, reference[1:])
        return log_pi.exp() @ gain + beta * kl(log_pi, reference[0])

    search = torch.optim.LBFGS([x], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        search.zero_grad()
        value = worst(x.log_softmax(-1))
        value.backward()
        return value

    search.step(loss)
    assert torch.allclose(x.log_softmax(-1), pi, atol=1e-3)
    for other in torch.randn(20, n, n, generator=g, dtype=torch.float64).log_softmax(-1):  # no reviser gains more
        mine, theirs = ((r.exp() * preference.T).sum(1) - beta * kl(r, reference[1:]) for r in (q, other))
        assert (mine >= theirs).all()


def test_the_loss_reads_six_rows_of_each_pair() -> None:
    table = policy()
    with torch.no_grad():
        table.weight += torch.randn(table.weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    source = Revisions([("first", 3, 7, 0.8), ("second", 1, 1, 0.5), ("first", 2, 9, 0.1)], 3, draft)
    batch = source.batch(0, table, 0).rollouts
    pairs = [
        (t, a, b) for t, a, b in zip(batch.task[::6], batch.action[::6, 0].tolist(), batch.action[1::6, 0].tolist(), strict=True)
    ]
    assert sorted(pairs) == [("first", 2, 9), ("first", 3, 7), ("second", 1, 1)]
    for k, (task, a, b) in enumerate(pairs):
        rows = list(zip(batch.task[6 * k : 6 * k + 6], batch.action[6 * k : 6 * k + 6, 0].tolist(), strict=True))
        after_a, after_b = draft(task, a), draft(task, b)
        assert rows == [(task, a), (task, b), (after_a, b), (after_a, a), (after_b, a), (after_b, b)]
    out = table.evaluate(batch, frozenset({"log_prob", "ref_log_prob"}))
    beats = batch.field("beats").values
    loss = srpo(**out, mask=batch.mask, group=batch.group, beats=beats, beta=0.2, share=0.25)
    ratio = (out["log_prob"] - out["ref_log_prob"])[:, 0].reshape(3, 6)
    r = residuals(ratio, beats[::6, 0], beta=0.2) ** 2
    assert torch.allclose(loss.value.reshape(3, 6), (0.75 * r[:, :1] + 0.25 * r[:, 1:].mean(1, keepdim=True)).expand(3, 6))
    with pytest.raises(ShapeError, match="micro_rows"):
        srpo(**{k: v[1:7] for k, v in out.items()}, mask=batch.mask[1:7], group=batch.group[1:7], beats=beats[1:7])


def test_swapping_a_pair_changes_nothing() -> None:
    ratio = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    beats = torch.rand(5, generator=torch.Generator().manual_seed(2))
    one, other = residuals(ratio, beats), residuals(ratio[:, [1, 0, 4, 5, 2, 3]], 1 - beats)
    assert torch.allclose(one[:, 0], -other[:, 0]) and torch.allclose(one[:, 1:], other[:, [2, 1]])


def test_squared_log_ratio_is_ipo() -> None:
    log_prob = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mask = torch.tensor([[True, True, False]]).expand(6, 3)
    first, second = torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5])
    loss = squared_log_ratio(log_prob, torch.zeros(6, 3), mask, first, second, torch.tensor([1.0, 0.0, torch.nan]), beta=0.3)
    h = (log_prob * mask).sum(1)
    h = h[first] - h[second]
    assert torch.allclose(loss.value[:2], 0.3**2 * torch.stack([h[0] - 1 / 0.6, h[1] + 1 / 0.6]) ** 2)
    assert loss.mask.tolist() == [True, True, False] and loss.value[2] == 0
    loss.value.sum().backward()
    assert (log_prob.grad[:, 2] == 0).all() and (log_prob.grad[4:] == 0).all()


def test_the_writers_differ_and_the_preferences_go_in_circles() -> None:
    preference, writers = game(0)
    assert (writers[0] - writers[1]).abs().sum() > 0.5
    beats = preference > 0.5
    assert (beats[:, :, None] & beats[None] & beats.T[:, None]).any()  # a > b > c > a
