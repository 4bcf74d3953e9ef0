# SPDX-License-Identifier: Apache-2.0
"""Steps of a flow against closed forms. For Gaussian data everything is known: the velocity, both paths, every marginal."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from guerdon.policies.flow_step import (
    euler_step,
    flow_grpo_sigma,
    gaussian_entropy,
    gaussian_kl,
    gaussian_log_prob,
    interpolate,
    look_ahead_clean,
    look_ahead_steps,
    one_step_clean,
    sde_mean,
    sde_std,
    time_grid,
)

MEAN, STD = 1.5, 0.5
"""Of the data."""


def variance_at(time: Tensor) -> Tensor:
    """Of x_t, whose mean is (1 - t) MEAN."""
    return (1 - time) ** 2 * STD**2 + time**2


def exact_velocity(latent: Tensor, time: Tensor) -> Tensor:
    """E[eps - x_0 | x_t] = Cov(eps - x_0, x_t) / Var(x_t) (x_t - E x_t) - MEAN."""
    t = time[..., None]
    return (t - (1 - t) * STD**2) / variance_at(t) * (latent - (1 - t) * MEAN) - MEAN


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_mean_velocity_is_that_of_the_paths_through_a_point() -> None:
    """Regression of eps - x_0 on x_t over many straight paths finds the closed form."""
    clean, noise = MEAN + STD * random(200_000, 1), random(200_000, 1, seed=1)
    t = torch.full((200_000,), 0.4, dtype=torch.float64)
    latent = interpolate(clean, noise, t)
    columns = torch.cat([latent, torch.ones_like(latent)], 1)
    slope, offset = torch.linalg.lstsq(columns, noise - clean).solution[:, 0].tolist()
    at_zero, at_one = (exact_velocity(torch.tensor([x], dtype=torch.float64), t[0]).item() for x in (0.0, 1.0))
    assert offset == pytest.approx(at_zero, abs=0.02)
    assert slope == pytest.approx(at_one - at_zero, abs=0.02)


def test_one_step_clean_is_the_posterior_mean() -> None:
    latent, t = random(5, 1), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    gain = ((1 - t) * STD**2 / variance_at(t))[:, None]
    expected = MEAN + gain * (latent - (1 - t[:, None]) * MEAN)
    torch.testing.assert_close(one_step_clean(latent, exact_velocity(latent, t), t), expected)


def ode_error(steps: int) -> float:
    """The deterministic path keeps (x_t - E x_t) / std(x_t), so noise x_1 arrives at MEAN + STD x_1."""
    start = random(50, 1)
    latent, grid = start, time_grid(steps)
    for t, after in pairwise(grid):
        latent = euler_step(latent, exact_velocity(latent, t.expand(50)), (t - after).expand(50))
    return (latent - (MEAN + STD * start)).abs().max().item()


def test_the_deterministic_path_arrives_where_it_should_at_first_order() -> None:
    errors = [ode_error(steps) for steps in (100, 200, 400)]
    assert errors[2] < 0.01
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([2, 2], abs=0.1)


def chain_moments(steps: int, sigma: Tensor) -> tuple[float, float]:
    """Mean and variance after a chain of stochastic steps, exactly: each step is affine in the latent plus noise."""
    grid, mean, variance = time_grid(steps), torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    probe = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for k in range(steps):
        t, dt, s = (x.expand(2) for x in (grid[k], grid[k] - grid[k + 1], sigma[k]))
        low, high = sde_mean(probe, exact_velocity(probe, t), t, dt, s)[:, 0]
        mean = low + (high - low) * mean
        variance = (high - low) ** 2 * variance + sde_std(dt, s)[0] ** 2
    return mean.item(), variance.item()


@pytest.mark.parametrize("kind", ["flow-grpo", "constant", "none"])
def test_noise_leaves_the_marginals_alone(kind: str) -> None:
    """Mean and variance of what comes out tend to the data's as steps get shorter, whatever the noise."""

    def error(steps: int) -> float:
        level = {"flow-grpo": torch.tensor(flow_grpo_sigma(steps, 0.7)), "constant": torch.full((steps,), 0.8)}
        mean, variance = chain_moments(steps, level.get(kind, torch.zeros(steps)).double())
        return max(abs(mean - MEAN), abs(variance - STD**2))

    coarse, fine = error(10), error(800)
    assert fine < 0.0015
    assert fine < coarse / 10


def test_a_stochastic_step_is_flow_grpos() -> None:
    """Its code's arrangement of the terms, with dt negative there."""
    x, v, t, after, a = random(3, 2), random(3, 2, seed=1), 0.6, 0.5, 0.7
    s, dt = a * (t / (1 - t)) ** 0.5, after - t
    expected = x * (1 + s**2 / (2 * t) * dt) + v * (1 + s**2 * (1 - t) / (2 * t)) * dt
    given = [torch.full((3,), y, dtype=torch.float64) for y in (t, -dt, s)]
    torch.testing.assert_close(sde_mean(x, v, *given), expected)
    assert flow_grpo_sigma(10, a)[4] == pytest.approx(s)
    assert flow_grpo_sigma(10, a)[0] == pytest.approx(a * (1 / (1 - 0.9)) ** 0.5)  # its guard at t = 1


def test_without_noise_a_stochastic_step_is_the_deterministic_one() -> None:
    x, v, t, dt = random(3, 2), random(3, 2, seed=1), torch.full((3,), 0.6).double(), torch.full((3,), 0.1).double()
    torch.testing.assert_close(sde_mean(x, v, t, dt, torch.zeros(3).double()), euler_step(x, v, dt))


def test_probabilities_are_those_of_torch() -> None:
    action, mean, other = (random(4, 3, seed=k) for k in range(3))
    std = torch.tensor([0.1, 1.0, 2.0, 5.0]).double()
    normal = Normal(mean, std[:, None])
    torch.testing.assert_close(gaussian_log_prob(action, mean, std), normal.log_prob(action).sum(-1))
    torch.testing.assert_close(gaussian_entropy(std, 3), normal.entropy().sum(-1))
    torch.testing.assert_close(gaussian_kl(mean, other, std), kl_divergence(normal, Normal(other, std[:, None])).sum(-1))


def test_divergence_in_terms_of_velocities() -> None:
    x, v, w = random(3, 2), random(3, 2, seed=1), random(3, 2, seed=2)
    t, dt, s = (torch.full((3,), y, dtype=torch.float64) for y in (0.6, 0.1, 0.8))
    kl = gaussian_kl(sde_mean(x, v, t, dt, s), sde_mean(x, w, t, dt, s), sde_std(dt, s))
    torch.testing.assert_close(kl, dt / 2 * (1 / s + s * (1 - t) / (2 * t)) ** 2 * ((v - w) ** 2).sum(-1))


def test_a_step_without_noise_is_no_choice() -> None:
    mean = random(2, 3).requires_grad_()
    log_prob = gaussian_log_prob(random(2, 3, seed=1), mean, torch.tensor([0.0, 1.0]).double())
    log_prob.sum().backward()
    assert log_prob[0] == 0 and (mean.grad[0] == 0).all() and (mean.grad[1] != 0).all()  # type: ignore[index]
    assert gaussian_entropy(torch.zeros(1), 3).item() == 0


def test_looking_ahead_takes_the_steps_that_are_left() -> None:
    steps, x, t = torch.tensor([3, 1, 0]), random(3, 2), torch.tensor([0.9, 0.5, 0.2]).double()

    def velocity(latent: Tensor, time: Tensor, scale: Tensor) -> Tensor:
        return scale[:, None] * latent * time[:, None]

    scale = torch.tensor([1.0, 2.0, 3.0]).double()
    by_hand = x.clone()
    for here in (0.9, 0.6, 0.3):
        by_hand[0] = by_hand[0] - 0.3 * by_hand[0] * here
    by_hand[1] = one_step_clean(x[1], 2 * x[1] * 0.5, t[1])
    before = x.clone()
    torch.testing.assert_close(look_ahead_clean(velocity, x, t, steps, scale), by_hand)
    assert torch.equal(x, before)
    assert look_ahead_steps(4, 2).tolist() == [2, 2, 2, 1, 0]


def test_looking_ahead_in_full_is_the_deterministic_path() -> None:
    grid, x = time_grid(8), random(1, 1)
    path = [x]
    for t, after in pairwise(grid):
        path.append(euler_step(path[-1], exact_velocity(path[-1], t.expand(1)), (t - after).expand(1)))
    latents = torch.cat(path)
    clean = look_ahead_clean(lambda z, t, _: exact_velocity(z, t), latents, grid, look_ahead_steps(8, 8), grid)
    torch.testing.assert_close(clean, path[-1].expand(9, 1))
