# SPDX-License-Identifier: Apache-2.0
"""Exact tables: closed forms, brute force, duality, shaping, gradients; and our credit against exact advantages."""

import math

import pytest
import torch

from guerdon.credit import gae, return_to_go
from guerdon.errors import InputError, ShapeError
from guerdon.worlds import (
    Table,
    advantages,
    expected_return,
    expected_reward,
    four_rooms,
    grid_table,
    occupancy,
    optimal_policy,
    policy_evaluation,
    q_values,
    shaped,
    value_iteration,
)
from guerdon.worlds.hinted import hinted_grid
from guerdon.worlds.walking import walks

wide = torch.float64


def random_table(seed, states=7, actions=3, gamma=0.9, terminal=(6,), per_successor=False):
    g = torch.Generator().manual_seed(seed)
    transition = torch.rand(states, actions, states, generator=g, dtype=wide) ** 3
    reward = torch.randn(states, actions, *([states] if per_successor else []), generator=g, dtype=wide)
    start = torch.rand(states, generator=g, dtype=wide)
    ends = torch.zeros(states, dtype=torch.bool)
    ends[list(terminal)] = True
    start[ends] = 0
    return Table(transition / transition.sum(-1, keepdim=True), reward, start / start.sum(), gamma, ends)


def random_policy(seed, table):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(table.states, table.actions, generator=g, dtype=wide).softmax(-1)


def loop(gamma):
    """One state that returns 2 for ever."""
    one = torch.ones(1, dtype=wide)
    return Table(one[:, None, None], 2 * one[:, None], one, gamma, torch.tensor([False]))


def test_a_loop_is_worth_its_geometric_sum():
    policy = torch.ones(1, 1, dtype=wide)
    assert policy_evaluation(loop(0.75), policy).item() == pytest.approx(8, abs=1e-13)
    assert occupancy(loop(0.75), policy).item() == pytest.approx(4, abs=1e-13)
    assert value_iteration(loop(0.75)).item() == pytest.approx(8, abs=1e-12)


def test_the_gamblers_ruin():
    """A fair walk on 0..n, paid 1 at n: the chance to end there from i is i / n, by gamma = 1."""
    n = 6
    transition = torch.zeros(n + 1, 1, n + 1, dtype=wide)
    for i in range(1, n):
        transition[i, 0, i - 1] = transition[i, 0, i + 1] = 0.5
    reward = torch.zeros(n + 1, 1, n + 1, dtype=wide)
    reward[:, :, n] = 1
    ends = torch.tensor([i in (0, n) for i in range(n + 1)])
    table = Table(transition, reward, torch.eye(n + 1, dtype=wide)[2], 1.0, ends)
    value = policy_evaluation(table, torch.ones(n + 1, 1, dtype=wide))
    assert value.tolist() == pytest.approx([0, *(i / n for i in range(1, n)), 0], abs=1e-12)
    assert expected_return(table, torch.ones(n + 1, 1, dtype=wide)).item() == pytest.approx(2 / n, abs=1e-12)
    # visits of a fair walk from 2 on 0..6: min(i, 2) (6 - max(i, 2)) / 3
    visits = [min(i, 2) * (n - max(i, 2)) / 3 for i in range(n + 1)]
    assert occupancy(table, torch.ones(n + 1, 1, dtype=wide))[:, 0].tolist() == pytest.approx(visits, abs=1e-12)


@pytest.mark.parametrize("per_successor", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99])
def test_value_equations_hold_to_1e_10(gamma, per_successor):
    table = random_table(1, gamma=gamma, per_successor=per_successor)
    policy = random_policy(2, table)
    value = policy_evaluation(table, policy)
    assert value.dtype == wide and value[-1] == 0
    residual = (policy * q_values(table, value)).sum(-1) - value
    assert residual.abs().max() < 1e-10
    odd = torch.where(table.terminal, 99, value)
    assert torch.equal(q_values(table, odd), q_values(table, value))  # what stands in a terminal state is not read
    best = value_iteration(table)
    assert (q_values(table, best).amax(-1) - best).abs().max() < 1e-10
    assert (policy * advantages(table, policy)).sum(-1).abs().max() < 1e-10


def test_evaluation_is_the_limit_of_sums_along_time():
    table = random_table(3, gamma=0.8)
    policy = random_policy(4, table)
    at, total = table.start.clone(), 0.0
    for t in range(200):
        at = torch.where(table.terminal, 0, at)
        total += 0.8**t * (at[:, None] * policy * expected_reward(table)).sum().item()
        at = torch.einsum("s,sa,sat->t", at, policy, table.transition)
    assert expected_return(table, policy).item() == pytest.approx(total, abs=1e-12)


def test_the_best_of_all_deterministic_policies_is_value_iterations():
    table = random_table(5, states=5, actions=2, terminal=(4,), gamma=0.95)
    every = []
    for code in range(2**5):
        policy = torch.eye(2, dtype=wide)[[code >> s & 1 for s in range(5)]]
        every.append(policy_evaluation(table, policy))
    best = torch.stack(every).amax(0)
    assert torch.allclose(value_iteration(table), best, atol=1e-11, rtol=0)
    assert torch.allclose(policy_evaluation(table, optimal_policy(table)), best, atol=1e-10, rtol=0)


def test_the_return_is_rewards_summed_over_visits():
    table = random_table(6, per_successor=True)
    policy = random_policy(7, table)
    visits = occupancy(table, policy)
    assert (visits * expected_reward(table)).sum().item() == pytest.approx(expected_return(table, policy).item(), abs=1e-11)
    endless = random_table(6, terminal=())
    assert occupancy(endless, policy).sum().item() == pytest.approx(1 / (1 - 0.9), abs=1e-10)
    # what flows in flows out: d(s) = start(s) + γ Σ d(s', a) P(s|s', a)
    inflow = endless.start + 0.9 * torch.einsum("sa,sat->t", occupancy(endless, policy), endless.transition)
    assert torch.allclose(occupancy(endless, policy).sum(-1), inflow, atol=1e-11, rtol=0)


@pytest.mark.parametrize("per_successor", [False, True])
def test_shaping_moves_values_by_the_potential_and_nothing_else(per_successor):
    table = random_table(8, per_successor=per_successor)
    potential = torch.randn(7, generator=torch.Generator().manual_seed(9), dtype=wide)
    after = shaped(table, potential)
    policy = random_policy(10, table)
    shift = torch.where(table.terminal, 0, potential)
    assert torch.allclose(policy_evaluation(after, policy), policy_evaluation(table, policy) - shift, atol=1e-11, rtol=0)
    assert torch.allclose(value_iteration(after), value_iteration(table) - shift, atol=1e-10, rtol=0)
    assert torch.equal(optimal_policy(after)[:-1], optimal_policy(table)[:-1])
    assert torch.allclose(advantages(after, policy)[:-1], advantages(table, policy)[:-1], atol=1e-10, rtol=0)


def test_a_bonus_that_is_no_potential_can_change_the_best_policy():
    table = grid_table("S..G")
    bonus = torch.zeros(4, 4, 4, dtype=wide)
    bonus[:, :, 0] = 1
    hacked = Table(table.transition, table.reward + bonus, table.start, table.gamma, table.terminal)
    assert expected_return(table, optimal_policy(hacked)).item() < 1e-9 < expected_return(table, optimal_policy(table)).item()


def test_gradients_through_the_solve():
    """In the reward it is the occupancy; in the policy's logits d(s) π(a|s) advantage(s, a); both against differences too."""
    table = random_table(11)
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(12), dtype=wide, requires_grad=True)

    def of(logits, reward):
        return expected_return(Table(table.transition, reward, table.start, table.gamma, table.terminal), logits.softmax(-1))

    reward = table.reward.clone().requires_grad_()
    by_logits, by_reward = torch.autograd.grad(of(logits, reward), (logits, reward))
    policy = logits.detach().softmax(-1)
    visits = occupancy(table, policy)
    assert torch.allclose(by_reward, visits, atol=1e-11, rtol=0)
    assert torch.allclose(by_logits, visits * advantages(table, policy), atol=1e-11, rtol=0)
    assert torch.autograd.gradcheck(of, (logits, reward))
    assert torch.autograd.gradgradcheck(of, (logits, reward))


def test_four_rooms():
    table = four_rooms(slip=0.0, gamma=0.9)
    assert table.states == 104 and int(table.terminal.sum()) == 1 and table.actions == 4
    corner = value_iteration(table)[0]  # (0, 0) to the hallway (6, 8): through (2, 5) or (5, 1), 14 steps by either
    assert corner.item() == pytest.approx(0.9 ** (14 - 1), abs=1e-12)
    slippery = four_rooms()
    assert (value_iteration(slippery)[~slippery.terminal] > 0).all()
    assert torch.equal(slippery.transition.sum(-1).round(decimals=12), torch.ones(104, 4, dtype=wide))
    with pytest.raises(InputError, match="open cell"):
        four_rooms(goal=(5, 0))


def test_exact_values_agree_with_sampled_returns():
    table = four_rooms(gamma=0.95)
    policy = 0.9 * optimal_policy(table) + 0.025
    rows = walks(table, policy, episodes=4000, limit=400, seed=0)
    assert rows.terminated.any(1).float().mean() > 0.999
    returns = return_to_go(rows.fields["environment_reward"].values, rows.mask, rows.levels["episode"], gamma=0.95)[:, 0]
    exact = expected_return(table, policy).item()
    assert abs(returns.mean().item() - exact) < 4 * returns.std().item() / math.sqrt(4000)
    assert 4 * returns.std().item() / math.sqrt(4000) < 0.02


@pytest.fixture(scope="module")
def sampled():
    """A small table with slips, walked 6000 times by a lopsided policy, long enough that all but a few end."""
    table = grid_table("S..\n.#.\n..G", gamma=0.9, slip=0.2)
    policy = random_policy(20, table)
    return table, policy, walks(table, policy, episodes=6000, limit=300, seed=1)


@pytest.mark.parametrize(("lam", "off"), [(1.0, 0.0), (1.0, 1.0), (0.7, 0.0)])
def test_gae_is_unbiased_for_the_exact_advantage(sampled, lam, off):
    """At lam = 1 with any value function, and at any lam with the exact one: means lie within 4.5 standard errors everywhere."""
    table, policy, rows = sampled
    value = policy_evaluation(table, policy) + off * torch.arange(table.states, dtype=wide)
    value[table.terminal] = 0
    state, action, mask = rows.fields["state"].values, rows.action, rows.mask
    estimate = gae(
        rows.fields["environment_reward"].values,
        value[state],
        mask,
        rows.levels["episode"],
        rows.terminated,
        rows.truncated,
        gamma=0.9,
        lam=lam,
        next_value=value[rows.fields["next_state"].values],
    )
    # against what the estimator promises: q(s, a) - (the value function that was given)(s)
    expected = advantages(table, policy) + (policy_evaluation(table, policy) - value)[:, None]
    assert largest_miss(table, estimate, expected, state, action, mask) < 4.5


def test_a_biased_value_and_lam_below_1_is_seen(sampled):
    table, policy, rows = sampled
    value = policy_evaluation(table, policy) + torch.arange(table.states, dtype=wide)
    value[table.terminal] = 0
    state, mask = rows.fields["state"].values, rows.mask
    estimate = gae(
        rows.fields["environment_reward"].values,
        value[state],
        mask,
        rows.levels["episode"],
        rows.terminated,
        rows.truncated,
        gamma=0.9,
        lam=0.7,
        next_value=value[rows.fields["next_state"].values],
    )
    expected = advantages(table, policy) + (policy_evaluation(table, policy) - value)[:, None]
    assert largest_miss(table, estimate, expected, state, rows.action, mask) > 4.5


def test_return_to_go_is_unbiased_for_q(sampled):
    table, policy, rows = sampled
    estimate = return_to_go(rows.fields["environment_reward"].values, rows.mask, rows.levels["episode"], gamma=0.9)
    expected = q_values(table, policy_evaluation(table, policy))
    assert largest_miss(table, estimate, expected, rows.fields["state"].values, rows.action, rows.mask) < 4.5


def largest_miss(table, estimate, expected, state, action, mask):
    """Largest |mean - expected| in standard errors over (s, a), the first visit of each in a row so that rows are independent."""
    worst = 0.0
    for s in range(table.states):
        for a in range(table.actions):
            here = mask & (state == s) & (action == a)
            first = here & (here.long().cumsum(1) == 1)
            x = estimate[first]
            if len(x) >= 200:
                worst = max(worst, ((x.mean() - expected[s, a]).abs() / (x.std() / math.sqrt(len(x)))).item())
    assert worst > 0
    return worst


def test_what_is_wrong_with_a_table_is_said():
    table = loop(0.5)
    with pytest.raises(InputError, match=r"`transition` should hold probabilities that sum to 1, got a sum of 0\.5"):
        Table(table.transition / 2, table.reward, table.start, 0.5, table.terminal)
    with pytest.raises(InputError, match="`gamma` should lie"):
        Table(table.transition, table.reward, table.start, 1.5, table.terminal)
    with pytest.raises(ShapeError, match=r"`reward` should have shape \[1, 1\]"):
        Table(table.transition, torch.zeros(1, 2, dtype=wide), table.start, 0.5, table.terminal)
    with pytest.raises(ShapeError, match=r"`policy` should have shape"):
        policy_evaluation(table, torch.ones(2, 1, dtype=wide))
    with pytest.raises(InputError, match="for ever"):
        policy_evaluation(loop(1.0), torch.ones(1, 1, dtype=wide))
    with pytest.raises(InputError, match="settle within 50 sweeps"):
        value_iteration(loop(1.0), most=50)
    with pytest.raises(InputError, match="got no S"):
        grid_table("..G")


def test_a_walk_depends_on_its_own_seed_and_number(sampled):
    table, policy, _ = sampled
    many, few = (walks(table, policy, episodes=n, limit=50, seed=7) for n in (5, 2))
    for i in range(2):
        assert (steps := int(few.length[i])) == int(many.length[i])
        assert torch.equal(few.action[i, :steps], many.action[i, :steps])
    other = walks(table, policy, episodes=5, limit=50, seed=8)
    assert not torch.equal(other.action[:, :5], many.action[:, :5])
    # log_prob is that of the actions taken, and 0 where none was
    state = many.fields["state"].values
    assert torch.allclose(many.log_prob.exp()[many.mask], policy[state, many.action][many.mask])
    assert (many.log_prob[~many.mask] == 0).all()
    with pytest.raises(ShapeError, match="`policy` should have shape"):
        walks(table, policy[:3], episodes=1, limit=5, seed=0)


def test_hinted_grids():
    for kind in ("helpful", "misleading", "loop"):
        table, hint = hinted_grid(kind)
        best = optimal_policy(table)
        assert expected_return(table, best).item() == pytest.approx(0.95**13, abs=1e-12)
        added = Table(table.transition, table.reward + hint[:, None, None], table.start, table.gamma, table.terminal)
        lured = expected_return(table, optimal_policy(added)).item()
        assert lured == pytest.approx(0.95**13 if kind == "helpful" else 0, abs=1e-9)
    assert hinted_grid("helpful")[1][[0, -1]].tolist() == pytest.approx([-0.1, 0])
    assert hinted_grid("loop")[1].nonzero().flatten().tolist() == [18, 19, 26, 27]
    with pytest.raises(InputError, match="expected a kind of helpful, misleading, loop"):
        hinted_grid("kind")
