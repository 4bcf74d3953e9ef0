# SPDX-License-Identifier: Apache-2.0
"""Return-to-go and generalised advantage estimation: closed forms, a step-by-step reference, Stable-Baselines3, and the laws."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.credit import gae, lambda_return, return_to_go
from guerdon.credit.scaled import scaled_gae
from guerdon.errors import ExpressionError, ShapeError

NAN = torch.nan


def wide(x):
    return torch.tensor(x, dtype=torch.float64)


def batch(seed, n=5, t=13):
    """Random rows with masked steps (holding garbage), several episodes a row, padding, flags and next values."""
    g = torch.Generator().manual_seed(seed)
    length = torch.randint(1, t + 1, (n, 1), generator=g)
    episode = torch.where(torch.arange(t) < length, (torch.rand(n, t, generator=g) < 0.3).long().cumsum(1), -1)
    mask = (torch.rand(n, t, generator=g) < 0.7) & (episode >= 0)
    data = {"mask": mask, "episode": episode}
    for name in ("reward", "value", "next_value"):
        x = torch.randn(n, t, generator=g, dtype=torch.float64)
        data[name] = torch.where(mask, x, torch.tensor([torch.nan, torch.inf, -1e30])[torch.randint(3, (n, t), generator=g)])
    data["terminated"] = torch.rand(n, t, generator=g) < 0.15
    data["truncated"] = torch.rand(n, t, generator=g) < 0.15
    return data


def slow_gae(reward, value, mask, episode, terminated, truncated, gamma, lam, next_value):
    """The table in gae's docstring, one step at a time."""
    out = torch.zeros_like(reward)
    for i in range(len(reward)):
        for e in set(episode[i].tolist()):
            after, advantage = None, 0.0
            for t in reversed(range(reward.shape[1])):
                if not mask[i, t] or episode[i, t] != e:
                    continue
                if terminated[i, t]:
                    bootstrap, advantage = 0.0, 0.0
                elif truncated[i, t] or after is None:
                    bootstrap, advantage = (0.0 if next_value is None else next_value[i, t].item()), 0.0
                else:
                    bootstrap = after
                delta = reward[i, t].item() + gamma * bootstrap - value[i, t].item()
                advantage = delta + gamma * lam * advantage
                after = value[i, t].item()
                out[i, t] = advantage
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.97, 1.0]), st.sampled_from([0.0, 0.5, 0.95, 1.0]), st.booleans())
def test_gae_is_the_recurrence_of_its_docstring(seed, gamma, lam, bootstrapped):
    data = batch(seed)
    if not bootstrapped:
        data["next_value"] = None
    slow = slow_gae(**data, gamma=gamma, lam=lam)
    torch.testing.assert_close(gae(**data, gamma=gamma, lam=lam), slow, rtol=1e-12, atol=1e-12)


def test_gae_by_hand():
    # delta = (1 + .5*4 - 2, 2 + .5*1 - 4, 3 + .5*10 - 1) = (1, -1.5, 7); advantage backwards with gamma lam = .25
    reward, value = wide([[1, 2, 3]]), wide([[2, 4, 1]])
    yes, no = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)
    how = {"episode": torch.zeros(1, 3, dtype=torch.long), "terminated": no, "gamma": 0.5, "lam": 0.5}
    last = torch.tensor([[False, False, True]])
    got = gae(reward, value, yes, truncated=last, next_value=wide([[99, 99, 10]]), **how)
    assert got.tolist() == [[1.0625, 0.25, 7.0]]
    assert lambda_return(got, value).tolist() == [[3.0625, 4.25, 8.0]]
    # the same without the flag (the row ends), with 0 beyond where no next value is given, and with termination
    assert gae(reward, value, yes, truncated=no, next_value=wide([[99, 99, 10]]), **how).tolist() == got.tolist()
    assert gae(reward, value, yes, truncated=last, **how).tolist() == [[0.75, -1.0, 2.0]]
    how["terminated"] = last
    assert gae(reward, value, yes, truncated=last, next_value=wide([[99, 99, 10]]), **how).tolist() == [[0.75, -1.0, 2.0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.9, 1.0]))
def test_gae_without_a_value_is_the_return_to_go(seed, gamma):
    data = batch(seed)
    data["value"], data["next_value"] = torch.zeros_like(data["value"]), None
    data["terminated"] = data["truncated"] = torch.zeros_like(data["mask"])
    want = return_to_go(data["reward"], data["mask"], data["episode"], gamma=gamma)
    torch.testing.assert_close(gae(**data, gamma=gamma), want, rtol=1e-12, atol=1e-12)


def test_gae_with_lam_one_telescopes_to_return_minus_value():
    data = batch(3)
    data["next_value"] = None
    data["terminated"] = data["truncated"] = torch.zeros_like(data["mask"])
    returns = return_to_go(data["reward"], data["mask"], data["episode"], gamma=0.9)
    want = torch.where(data["mask"], returns - data["value"], 0)
    torch.testing.assert_close(gae(**data, gamma=0.9), want, rtol=1e-12, atol=1e-12)


def test_geometric_series():
    t, gamma = 4096, 0.99
    one = torch.ones(1, t, dtype=torch.float64)
    got = return_to_go(one, one.bool(), one.long(), gamma=gamma)
    want = (1 - gamma ** torch.arange(t, 0, -1, dtype=torch.float64)) / (1 - gamma)
    torch.testing.assert_close(got[0], want, rtol=1e-12, atol=0)


def test_interleaved_episodes_stay_apart():
    # two players alternate in one row
    reward, episode = wide([[1, 10, 2, 20, 4]]), torch.tensor([[0, 1, 0, 1, 0]])
    assert return_to_go(reward, torch.ones(1, 5, dtype=torch.bool), episode, gamma=0.5).tolist() == [[3, 20, 4, 20, 4]]


def test_level_decays_per_unit_and_skips_masked_steps():
    # turns of 2, 3 and 1 steps; the tool's step in the middle one does not count; rewards (1 + 2), (4 + 8), 16
    reward = wide([[1, 2, 4, NAN, 8, 16]])
    mask = torch.tensor([[True, True, True, False, True, True]])
    turn, one = torch.tensor([[0, 0, 1, 1, 1, 2]]), torch.zeros(1, 6, dtype=torch.long)
    assert return_to_go(reward, mask, one, gamma=0.5, level=turn).tolist() == [[13, 13, 20, 0, 20, 16]]
    # value at the first counted step of the unit: 1, 2, 3; delta = (3 + .5*2 - 1, 12 + .5*3 - 2, 16 - 3)
    value, no = wide([[1, 50, 2, 50, 50, 3]]), torch.zeros(1, 6, dtype=torch.bool)
    got = gae(reward, value, mask, one, no, no, gamma=0.5, lam=0.0, level=turn)
    assert got.tolist() == [[3, 3, 11.5, 0, 11.5, 13]]
    # cut at the last step of the second unit: its next value is read at its last counted step
    cut, beyond = torch.tensor([[False] * 4 + [True, False]]), wide([[7, 7, 7, 7, 100, 0]])
    got = gae(reward, value, mask, one, no, cut, gamma=0.5, lam=1.0, next_value=beyond, level=turn)
    assert got.tolist() == [[33, 33, 60, 0, 60, 13]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_level_of_single_steps_is_no_level(seed):
    data = batch(seed)
    step = torch.where(data["episode"] >= 0, torch.arange(data["mask"].shape[1]), -1)
    torch.testing.assert_close(gae(**data, gamma=0.9, lam=0.8, level=step), gae(**data, gamma=0.9, lam=0.8))
    some = {k: data[k] for k in ("reward", "mask", "episode")}
    torch.testing.assert_close(return_to_go(**some, gamma=0.9, level=step), return_to_go(**some, gamma=0.9))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.9, 1.0]), st.sampled_from([0.0, 1.0]), st.sampled_from([NAN, torch.inf]))
def test_a_failed_reward_spoils_exactly_the_returns_it_enters(seed, gamma, lam, failure):
    data = batch(seed)
    counted = data["mask"].nonzero()
    row, step = counted[seed % len(counted)].tolist() if len(counted) else (0, 0)
    clean = gae(**data, gamma=gamma, lam=lam)
    # entering means: changing that reward changes the advantage
    nudged = {**data, "reward": data["reward"].clone()}
    nudged["reward"][row, step] += 1.0 if data["mask"][row, step] else 0.0
    enters = (gae(**nudged, gamma=gamma, lam=lam) - clean).abs() > 1e-9
    failed = {**data, "reward": data["reward"].clone()}
    failed["reward"][row, step] = failure
    got = gae(**failed, gamma=gamma, lam=lam)
    assert torch.equal(got.isnan(), enters)
    torch.testing.assert_close(got[~enters], clean[~enters])


@pytest.mark.parametrize("failure", [NAN, torch.inf])
def test_a_failed_reward_spoils_earlier_units_only(failure):
    reward, one = wide([[1, failure, 2, 4]]), torch.zeros(1, 4, dtype=torch.long)
    for level in (None, torch.tensor([[0, 0, 1, 2]])):
        got = return_to_go(reward, torch.ones(1, 4, dtype=torch.bool), one, level=level)
        assert got[0, :2].isnan().all()
        assert got[0, 2:].tolist() == [6, 4]


def test_padding_row_order_and_dtype_change_nothing():
    data = batch(5)
    n, t = data["mask"].shape
    base = gae(**data, gamma=0.9, lam=0.8)
    fill = {"mask": False, "episode": -1, "terminated": True, "truncated": True}
    padded = {k: torch.cat([x, torch.full((n, 4), fill.get(k, NAN), dtype=x.dtype)], 1) for k, x in data.items()}
    longer = gae(**padded, gamma=0.9, lam=0.8)
    assert torch.equal(longer[:, :t], base)
    assert torch.equal(longer[:, t:], torch.zeros(n, 4, dtype=torch.float64))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    assert torch.equal(gae(**{k: x[order] for k, x in data.items()}, gamma=0.9, lam=0.8), base[order])
    for dtype in (torch.float32, torch.bfloat16):
        narrow = {k: x.to(dtype) if x.is_floating_point() else x for k, x in data.items()}
        assert gae(**narrow, gamma=torch.tensor(0.9, dtype=torch.float64)).dtype == dtype
    assert gae(**{k: x[:, :0] for k, x in data.items()}).shape == (n, 0)


def test_inputs_are_not_written_to():
    data = batch(6)
    before = {k: x.clone() for k, x in data.items()}
    gae(**data, gamma=0.9)
    return_to_go(data["reward"], data["mask"], data["episode"], level=data["episode"])
    for k, x in data.items():
        assert torch.equal(x.nan_to_num(7.5), before[k].nan_to_num(7.5)), k


@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_gradients_by_finite_differences(gamma):
    data = batch(8, n=3, t=6)
    floats = [torch.nan_to_num(data[k], posinf=0.0).requires_grad_() for k in ("reward", "value", "next_value")]
    gamma, lam = wide(gamma).requires_grad_(), wide(0.6).requires_grad_()
    flags = data["mask"], data["episode"], data["terminated"], data["truncated"]

    def f(reward, value, beyond, gamma, lam):
        return gae(reward, value, *flags, gamma=gamma, lam=lam, next_value=beyond)

    assert torch.autograd.gradcheck(f, (*floats, gamma, lam))


def test_garbage_in_masked_places_gives_finite_gradients():
    data = batch(9)
    floats = {k: data[k].clone().requires_grad_() for k in ("reward", "value", "next_value")}
    lam = wide(0.6).requires_grad_()
    gae(**{**data, **floats}, gamma=0.9, lam=lam).sum().backward()
    for k, x in floats.items():
        assert x.grad.isfinite().all(), k
        assert (x.grad[~data["mask"]] == 0).all(), k
    assert lam.grad.isfinite()


def test_a_tensor_of_discounts_is_one_per_row():
    data = batch(10, n=2)
    some = {k: data[k] for k in ("reward", "mask", "episode")}
    both = return_to_go(**some, gamma=wide([[0.5], [0.9]]))
    for i, gamma in enumerate((0.5, 0.9)):
        torch.testing.assert_close(both[i], return_to_go(**some, gamma=gamma)[i])


def test_gae_matches_stable_baselines3():
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    from gymnasium import spaces

    t, n, gamma, lam = 64, 3, 0.97, 0.9
    rng = np.random.default_rng(0)
    buffer = buffers.RolloutBuffer(t, spaces.Discrete(2), spaces.Discrete(2), "cpu", gae_lambda=lam, gamma=gamma, n_envs=n)
    for name in ("rewards", "values"):
        setattr(buffer, name, rng.normal(size=(t, n)))
    buffer.advantages = np.zeros((t, n))
    buffer.episode_starts = (rng.random((t, n)) < 0.1).astype(np.float64)
    last_value, done = torch.from_numpy(rng.normal(size=n)), np.array([True, False, False])
    buffer.compute_returns_and_advantage(last_value, done)

    starts = torch.from_numpy(buffer.episode_starts).T.bool()
    reward, value = (torch.from_numpy(x).T for x in (buffer.rewards, buffer.values))
    terminated = torch.cat([starts[:, 1:], torch.from_numpy(done)[:, None]], 1)
    beyond = torch.cat([torch.full((n, t - 1), NAN), last_value[:, None]], 1)
    yes = torch.ones_like(starts)
    got = gae(reward, value, yes, starts.long().cumsum(1), terminated, ~yes, gamma=gamma, lam=lam, next_value=beyond)
    np.testing.assert_allclose(got.T, buffer.advantages, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(lambda_return(got, value).T, buffer.returns, rtol=1e-12, atol=1e-12)


def test_mistakes_are_named():
    x, yes, one = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ShapeError, match=r"gae: `value` should have shape \[2, 3\], got \[2\]"):
        gae(x, x[:, 0], yes, one, ~yes, ~yes)
    with pytest.raises(ShapeError, match=r"`mask` should be bool, got torch\.float32"):
        return_to_go(x, x, one)
    with pytest.raises(ShapeError, match=r"6 have `episode` -1 \(the first: row, step \[0, 0\]\)"):
        return_to_go(x, yes, one - 1)
    with pytest.raises(ExpressionError, match=r"2 counted steps of no unit have one \(the first: row, step \[0, 2\]\)"):
        return_to_go(x, yes, one, level=torch.tensor([[0, 0, -1]] * 2))
    with pytest.raises(ExpressionError, match=r"1 reach over several \(the first: row, unit \[1, 0\]\)"):
        return_to_go(x, yes, torch.tensor([[0, 0, 0], [0, 1, 1]]), level=one)


def test_steps_of_no_unit_and_no_reward_get_zero():
    reward = wide([[0, 1]])
    yes, one = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.long)
    got = return_to_go(reward, yes, one, level=torch.tensor([[-1, 0]]))
    assert got.tolist() == [[0, 1]]


@pytest.mark.parametrize("credit", [return_to_go, gae, partial(scaled_gae, scale=0.5)])
def test_credits_that_say_so_are_of_each_row_alone(credit: Any) -> None:
    assert getattr(credit, "func", credit).by_row
    generator = torch.Generator().manual_seed(0)
    reward, value, next_value = torch.randn(3, 4, 6, generator=generator)
    mask, ended = torch.rand(2, 4, 6, generator=generator) > 0.2
    given = {"mask": mask, "episode": (~ended).long().cumsum(1)}
    if credit is not return_to_go:
        given |= {"value": value, "terminated": ~ended, "truncated": torch.zeros_like(ended), "next_value": next_value}
    together = credit(reward, **given, gamma=0.9)
    for n in range(4):
        alone = credit(reward[n : n + 1], **{k: x[n : n + 1] for k, x in given.items()}, gamma=0.9)
        torch.testing.assert_close(together[n : n + 1], alone, rtol=0, atol=1e-6)
