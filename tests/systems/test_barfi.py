# SPDX-License-Identifier: Apache-2.0
"""BARFI: the hypergradient against finite differences and the exact inverse, its parts, and the exact dynamics of the whole."""

from functools import partial

import pytest
import torch

from guerdon.errors import InputError, ShapeError
from guerdon.learners.hypergradient import implicit_gradient, neumann_solve
from guerdon.learners.tabular import rounds_of_walks, softmax_gradient
from guerdon.systems.specify.barfi import Alignment, alignment_reward, arm, barfi
from guerdon.worlds import expected_return, grid_table, q_values
from guerdon.worlds.hinted import hinted_grid
from guerdon.worlds.tables import Table, expected_reward, occupancy
from guerdon.worlds.walking import walks

wide = torch.float64


def exact_solve(product, right):
    """M⁻¹ right by forming M from its products."""
    size = right.numel()
    columns = [product(e.view_as(right)).flatten() for e in torch.eye(size, dtype=right.dtype)]
    return torch.linalg.solve(torch.stack(columns, 1), right.flatten()).view_as(right)


@pytest.fixture(scope="module")
def problem():
    """A corridor with a fork, some walks of it, a hint, and weights that are all different."""
    table = grid_table("S.G\n...", gamma=0.9, slip=0.1)
    g = torch.Generator().manual_seed(0)
    rows = walks(table, torch.full((6, 4), 0.25, dtype=wide), episodes=40, limit=30, seed=0)
    hint = torch.rand(6, generator=g, dtype=wide)
    weights = torch.rand(3, 6, generator=g, dtype=wide) + 0.5
    return table, rows, hint, weights


def update(theta, rows, hint, weights, gamma, decay):
    state = rows.fields["state"].values
    reward = alignment_reward(rows.fields["environment_reward"].values, hint[state], state, weights)
    return softmax_gradient(theta, state, rows.action, reward, rows.mask, rows.levels["episode"], gamma, decay=decay)


def fixed_point(rows, hint, weights, gamma, decay):
    """theta with Δ = 0, by Newton's method."""
    theta = torch.zeros(6, 4, dtype=wide)
    for _ in range(30):
        theta.requires_grad_()
        delta = update(theta, rows, hint, weights, gamma, decay)
        if delta.abs().max() < 1e-13:
            break
        rows_of = [torch.autograd.grad(d, theta, retain_graph=True)[0].flatten() for d in delta.flatten()]
        step = torch.linalg.solve(torch.stack(rows_of), delta.detach().flatten())
        theta = (theta - step.view(6, 4)).detach()
    assert delta.abs().max() < 1e-12
    return theta.detach()


def test_the_hypergradient_is_that_of_finite_differences(problem):
    """dJ(θ*(φ, γ))/d(φ, γ) with θ* solved for anew agrees with implicit differentiation by an exact solve to six digits."""
    table, rows, hint, weights = problem
    decay, gamma = 0.05, torch.tensor(0.8, dtype=wide)

    def outer(weights, gamma):
        return expected_return(table, fixed_point(rows, hint, weights, gamma, decay).softmax(-1))

    theta = fixed_point(rows, hint, weights, gamma, decay).requires_grad_()
    gradient = torch.autograd.grad(expected_return(table, theta.softmax(-1)), theta)[0]
    hyper = [weights.clone().requires_grad_(), gamma.clone().requires_grad_()]
    found = implicit_gradient(update(theta, rows, hint, *hyper, decay), theta, hyper, gradient, exact_solve)
    h = 1e-5
    for k, s in [(0, 0), (0, 4), (1, 1), (2, 0), (2, 5)]:
        nudge = torch.zeros_like(weights)
        nudge[k, s] = h
        difference = (outer(weights + nudge, gamma) - outer(weights - nudge, gamma)) / (2 * h)
        assert found[0][k, s].item() == pytest.approx(difference.item(), rel=1e-6, abs=1e-9)
    difference = (outer(weights, gamma + h) - outer(weights, gamma - h)) / (2 * h)
    assert found[1].item() == pytest.approx(difference.item(), rel=1e-6)
    assert found[0].abs().max() > 1e-3


def test_the_truncated_series_goes_to_the_exact_inverse(problem):
    """With more terms the error shrinks, to nothing in the limit; with 5 the direction is already much like the exact one's."""
    table, rows, hint, weights = problem
    theta = fixed_point(rows, hint, weights, 0.8, 0.2).requires_grad_()
    gradient = torch.autograd.grad(expected_return(table, theta.softmax(-1)), theta)[0]
    hyper = [weights.clone().requires_grad_()]

    def by(solve):
        return implicit_gradient(update(theta, rows, hint, hyper[0], 0.8, 0.2), theta, hyper, gradient, solve)[0]

    exact = by(exact_solve)
    errors = [(by(partial(neumann_solve, terms=n, scale=0.05)) - exact).norm() / exact.norm() for n in (0, 5, 50, 1500)]
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 1e-9
    five = by(partial(neumann_solve, terms=5, scale=0.05))
    assert torch.nn.functional.cosine_similarity(five.flatten(), exact.flatten(), dim=0) > 0.9


def test_the_series_of_a_matrix_in_closed_form():
    g = torch.Generator().manual_seed(3)
    half = torch.randn(5, 5, generator=g, dtype=wide)
    matrix = half @ half.T / 5 + 0.5 * torch.eye(5, dtype=wide) + 0.1 * (half - half.T)  # not symmetric
    right = torch.randn(5, generator=g, dtype=wide)
    left = torch.eye(5, dtype=wide) - 0.2 * matrix
    powers = sum(torch.linalg.matrix_power(left, i) for i in range(8))
    assert torch.allclose(
        neumann_solve(lambda v: matrix @ v, right, terms=7, scale=0.2), 0.2 * powers @ right, atol=1e-13, rtol=0
    )
    limit = neumann_solve(lambda v: matrix @ v, right, terms=3000, scale=0.2)
    assert torch.allclose(limit, torch.linalg.solve(matrix, right), atol=1e-10, rtol=0)
    for bad in ({"terms": -1, "scale": 1.0}, {"terms": 1, "scale": 0.0}):
        with pytest.raises(InputError, match="expected `terms` of 0 or more"):
            neumann_solve(lambda v: v, right, **bad)


def test_an_update_that_is_no_gradient():
    """Δ = b(φ) - B θ with B not symmetric: θ* = B⁻¹ b, so that dJ/dφ is known; a missing transpose would show."""
    matrix = torch.tensor([[2.0, 1.0], [0.0, 1.0]], dtype=wide)
    phi = torch.tensor([0.3, 0.7], dtype=wide, requires_grad=True)
    unused = torch.ones(1, dtype=wide, requires_grad=True)
    theta = torch.linalg.solve(matrix, phi.detach() ** 2).requires_grad_()
    outer = torch.tensor([1.0, 3.0], dtype=wide)
    found = implicit_gradient(phi**2 - matrix @ theta, theta, [phi, unused], outer, exact_solve)
    expected = (outer @ torch.linalg.inv(matrix)) * 2 * phi.detach()
    assert torch.allclose(found[0], expected, atol=1e-14, rtol=0) and found[1].tolist() == [0.0]
    with pytest.raises(ShapeError, match="`outer` should have shape"):
        implicit_gradient(phi**2 - matrix @ theta, theta, [phi], outer[:1], exact_solve)


def test_the_sampled_gradient_is_unbiased_for_the_exact_one():
    """Σ over visits of π advantage, not discounted along the visits; means of 100 batches within 4.5 standard errors."""
    table = grid_table("S..\n.#.\n..G", gamma=0.9, slip=0.2)
    logits = 0.5 * torch.randn(table.states, 4, generator=torch.Generator().manual_seed(1), dtype=wide)
    policy = logits.softmax(-1)
    visits = occupancy(Table(table.transition, table.reward, table.start, 1.0, table.terminal), policy)
    returns = q_values(table, torch.linalg.solve(*system(table, policy)))
    exact = visits * (returns - (policy * returns).sum(-1, keepdim=True))
    batches = []
    for seed in range(100):
        rows = walks(table, policy, episodes=50, limit=500, seed=seed)
        assert rows.terminated.any(1).all()
        fields = (rows.fields["state"].values, rows.action, rows.fields["environment_reward"].values)
        batches.append(softmax_gradient(logits, *fields, rows.mask, rows.levels["episode"], 0.9))
    batches = torch.stack(batches)
    off = (batches.mean(0) - exact).abs() / (batches.std(0) / 100**0.5).clamp(min=1e-12)
    assert off[~table.terminal].max() < 4.5
    assert exact.abs().max() > 0.01


def system(table, policy):
    live = ~table.terminal
    moves = torch.einsum("sa,sat->st", policy, table.transition) * live[:, None] * live
    return torch.eye(table.states, dtype=wide) - table.gamma * moves, (policy * expected_reward(table)).sum(-1)


def test_masked_steps_and_padding_change_nothing(problem):
    _, rows, hint, weights = problem
    theta = torch.randn(6, 4, generator=torch.Generator().manual_seed(5), dtype=wide)
    state, mask, one = rows.fields["state"].values, rows.mask, rows.levels["episode"]
    reward = alignment_reward(rows.fields["environment_reward"].values, hint[state], state, weights)
    garbage = torch.where(mask, reward, torch.nan), torch.where(mask, state, -7), torch.where(mask, rows.action, 99)
    assert not mask.all()
    plain = softmax_gradient(theta, state, rows.action, reward, mask, one, 0.9)
    assert torch.equal(softmax_gradient(theta, garbage[1], garbage[2], garbage[0], mask, one, 0.9), plain)


def test_what_stays_fixed_without_a_rate_and_learns_with_one():
    table, hint = hinted_grid("misleading", size=4)
    for lr, moves in ((0.0, False), (0.05, True)):
        aligned = Alignment(table, hint, (0, 1, 1), lr, 5, 0.1, 1e-3)
        list(rounds_of_walks(table, aligned, lr=1.0, seed=0, rounds=3, episodes=20, limit=30))
        start = torch.tensor([0.0, 1.0, 1.0], dtype=wide)[:, None].expand(3, 16)
        assert torch.equal(aligned.weights.detach(), start) is not moves
        assert (aligned.gamma_logit.detach().sigmoid() - table.gamma).abs().item() < 1e-12 or moves


def test_a_seed_reproduces_and_another_differs():
    table, hint = hinted_grid("loop", size=4)
    runs = [list(barfi(table, hint, lr=1.0, seed=s, rounds=4, episodes=10, limit=20)) for s in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]
    assert [line["samples"] for line in runs[0]] == [10, 20, 30, 40]


@pytest.mark.parametrize("kind", ["misleading", "helpful", "loop"])
def test_with_exact_gradients_it_undoes_every_hint_that_misleads(kind):
    """The same dynamics without sampling: the return comes near the optimum with each hint, where the sum collapses with two."""
    table, hint = hinted_grid(kind)
    by_barfi, weight = exactly(table, hint, 0.05)
    by_sum, _ = exactly(table, hint, 0.0)
    assert by_barfi > 0.49  # the optimum is 0.95^13 = 0.513
    assert (by_sum > 0.3) == (kind == "helpful") and (by_sum < 0.01) == (kind != "helpful")
    assert weight < 0.6 or kind == "helpful"


def exactly(table, hint, rate, lr=1.0, rounds=100):
    """BARFI with expectations in place of means over walks of 100 steps; (return, weight of the hint where it is largest)."""
    start = torch.zeros(3, table.states, dtype=wide)
    start[1:] = 1
    weights, gamma = start.requires_grad_(), torch.tensor(table.gamma, dtype=wide).logit().requires_grad_()
    optimiser = torch.optim.Adam([weights, gamma], lr=rate or 1.0, maximize=True)
    theta, primary = torch.zeros(table.states, 4, dtype=wide), expected_reward(table)

    def delta(theta, weights, gamma, decay):
        policy = theta.detach().softmax(-1)
        moves = torch.einsum("sa,sat->st", policy, table.transition) * ~table.terminal[:, None] * ~table.terminal
        at, visits = table.start, table.start.clone()
        for _ in range(99):
            at = at @ moves
            visits = visits + at
        reward = (weights[0] + weights[2] * hint)[:, None] + weights[1][:, None] * primary
        reward = reward * ~table.terminal[:, None]
        value = torch.linalg.solve(torch.eye(table.states, dtype=wide) - gamma * moves, (policy * reward).sum(-1))
        q = reward + gamma * (table.transition @ (value * ~table.terminal))
        pushed = visits[:, None] * policy * q
        return pushed - theta.softmax(-1) * pushed.sum(-1, keepdim=True) - decay * theta

    for k in range(rounds):
        if rate and k:
            theta.requires_grad_()
            outer = delta(theta, torch.stack([0 * hint, 1 + 0 * hint, 0 * hint]), table.gamma, 0.0).detach()
            inner = delta(theta, weights, gamma.sigmoid(), 1e-3)
            solve = partial(neumann_solve, terms=5, scale=0.1)
            weights.grad, gamma.grad = implicit_gradient(inner, theta, [weights, gamma], outer, solve)
            optimiser.step()
        theta = (theta + lr * delta(theta, weights, gamma.sigmoid(), 1e-3)).detach()
    return expected_return(table, theta.softmax(-1)).item(), weights[2, hint.argmax()].item()


def test_a_potential_leaves_the_expected_update_as_it_is():
    """What the paper says of shaping by a potential: at the optimum nothing changes, and a baseline arm is just that."""
    made = arm("misleading", "potential", 0, None, 1.0)
    assert made.total_steps == 50 and made.name == "misleading potential"
    plain, shaped_ = (next(iter(arm("misleading", name, 0, None, 1.0).lines()))["eval/return"] for name in ("alone", "potential"))
    assert plain == pytest.approx(shaped_, abs=0.02) and plain != shaped_
