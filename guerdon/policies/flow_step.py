# SPDX-License-Identifier: Apache-2.0
"""Flow matching as pure functions: the path, its velocity, the steps back along it and their exact probabilities.

    x_t = (1 - t) x_0 + t eps,   v = d x_t / d t = eps - x_0,   eps ~ N(0, 1)

so time 1 is noise and time 0 is data, and generation walks from 1 to 0. A velocity v(x_t, t) is the mean of eps - x_0 given x_t.
Latents and velocities are [..., D]; times, steps of time and sigmas [...], one per latent. Nothing is written to.

Lipman et al. 2022, arXiv:2210.02747; Liu et al. 2022 (rectified flow), arXiv:2209.03003; stochastic steps: Liu et al. 2025
(Flow-GRPO), arXiv:2505.05470, equation 9, and its ``sd3_sde_with_logprob.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(latent [M, D], time [M], condition [M, ...]) -> velocity [M, D]."""


def interpolate(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """x_t = (1 - time) clean + time noise.

    >>> interpolate(torch.tensor([4., 8.]), torch.tensor([0., 4.]), torch.tensor(0.25)).tolist()
    [3.0, 7.0]
    """
    return (1 - time[..., None]) * clean + time[..., None] * noise


def one_step_clean(latent: Tensor, velocity: Tensor, time: Tensor) -> Tensor:
    """The mean of x_0 given x_t, if the velocity is right: latent - time velocity.

    >>> one_step_clean(torch.tensor([3., 7.]), torch.tensor([-4., -4.]), torch.tensor(0.25)).tolist()
    [4.0, 8.0]
    """
    return latent - time[..., None] * velocity


def euler_step(latent: Tensor, velocity: Tensor, time_step: Tensor) -> Tensor:
    """One step of the deterministic path (the ODE) from t to t - time_step: latent - time_step velocity."""
    return latent - time_step[..., None] * velocity


def sde_mean(latent: Tensor, velocity: Tensor, time: Tensor, time_step: Tensor, sigma: Tensor) -> Tensor:
    """The mean of x_{t - dt} in one step of a stochastic path with the same marginals as the deterministic one.

    x_{t - dt} = x_t - dt [v + sigma^2 / (2 t) (x_t + (1 - t) v)] + sigma sqrt(dt) xi,   xi ~ N(0, 1)

    x_t + (1 - t) v is the mean of eps given x_t, and minus it over t is the score of the marginal at t: what the noise of
    scale ``sigma`` (per square root of time) blurs, the drift sharpens again. sigma = 0 gives `euler_step`. ``time`` > 0.

    >>> x, v, t = torch.tensor([1.]), torch.tensor([2.]), torch.tensor(0.5)
    >>> round(sde_mean(x, v, t, torch.tensor(0.1), torch.tensor(0.7)).item(), 6)  # 1 - 0.1 (2 + 0.49 * 2)
    0.702
    """
    noise = latent + (1 - time[..., None]) * velocity
    return latent - time_step[..., None] * (velocity + (sigma**2 / (2 * time))[..., None] * noise)


def sde_std(time_step: Tensor, sigma: Tensor) -> Tensor:
    """Standard deviation of x_{t - dt} in each dimension: sigma sqrt(time_step)."""
    return sigma * time_step.sqrt()


def gaussian_log_prob(action: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log N(action; mean, std^2), summed over the last dimension, in nats, [...].

    ``std`` [...] is that of every dimension. Where it is 0 the step is no choice: its log-probability is 0, without gradient.

    >>> gaussian_log_prob(torch.tensor([1., 0.]), torch.zeros(2), torch.tensor(1.)).item()  # -1/2 - log(2 pi)
    -2.3378...
    """
    drawn = std > 0
    safe = torch.where(drawn, std, 1)
    square = ((action - mean) ** 2).sum(-1) / safe**2
    value = -square / 2 - action.shape[-1] * (safe.log() + math.log(2 * math.pi) / 2)
    return torch.where(drawn, value, 0)


def gaussian_entropy(std: Tensor, dimensions: int) -> Tensor:
    """Nats of N(., std^2) in so many dimensions, [...]; 0 where std is 0, since nothing is drawn there.

    >>> round(gaussian_entropy(torch.tensor(1.), 2).item(), 4)  # 1 + log(2 pi)
    2.8379
    """
    drawn = std > 0
    each = torch.where(drawn, std, 1).log() + (1 + math.log(2 * math.pi)) / 2
    return torch.where(drawn, dimensions * each, 0)


def gaussian_kl(mean: Tensor, ref_mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(ref_mean, std^2)) = |mean - ref_mean|^2 / (2 std^2), in nats, [...]; 0 where std is 0.

    Of two steps of `sde_mean` with velocities v and w it is dt / 2 (1 / sigma + sigma (1 - t) / (2 t))^2 |v - w|^2.

    >>> gaussian_kl(torch.tensor([3., 0.]), torch.tensor([0., 4.]), torch.tensor(5.)).item()
    0.5
    """
    safe = torch.where(std > 0, std, 1)
    return torch.where(std > 0, ((mean - ref_mean) ** 2).sum(-1) / (2 * safe**2), 0)


def time_grid(steps: int) -> Tensor:
    """[steps + 1] times from 1 to 0, equally spaced, float64.

    >>> time_grid(4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


def flow_grpo_sigma(steps: int, noise_level: float = 0.7) -> tuple[float, ...]:
    """sigma of each of `steps` steps from time 1 to 0: noise_level sqrt(t / (1 - t)).

    At t = 1, where it is infinite, the divisor is that of the second time of the grid.

    >>> [round(s, 4) for s in flow_grpo_sigma(4, 0.5)]
    [1.0, 0.866, 0.5, 0.2887]
    """
    time = time_grid(steps)[:-1]
    rest = 1 - torch.where(time == 1, time_grid(steps)[1], time)
    return tuple((noise_level * (time / rest).sqrt()).tolist())


def look_ahead_steps(steps: int, look_ahead: int) -> Tensor:
    """[steps + 1] deterministic steps from each time of the grid to 0: as many as are left, ``look_ahead`` at most.

    >>> look_ahead_steps(4, 4).tolist(), look_ahead_steps(4, 1).tolist()
    ([4, 3, 2, 1, 0], [1, 1, 1, 1, 0])
    """
    return torch.arange(steps, -1, -1).clamp(max=look_ahead)


def look_ahead_clean(velocity: Velocity, latent: Tensor, time: Tensor, steps: Tensor, condition: Tensor) -> Tensor:
    """The clean estimate x_0 that each latent [M, D] at ``time`` [M] leads to deterministically, in ``steps`` [M] equal steps.

    ``condition`` [M, ...] is handed on to ``velocity``. One step is `one_step_clean`; 0 steps leave the latent as it is. Latents
    that are done ask for no more velocities.

    >>> to_data = lambda x, t, data: (x - data) / t[:, None]  # the velocity where the data is always the same
    >>> latent, data = torch.tensor([[5.], [7.]]), torch.tensor([[2.], [3.]])
    >>> look_ahead_clean(to_data, latent, torch.tensor([1., 0.5]), torch.tensor([2, 0]), data).tolist()
    [[2.0], [7.0]]
    """
    for done in range(int(steps.max()) if len(steps) else 0):
        active = steps > done
        here, each = time[active], (time / steps.clamp(min=1))[active]
        v = velocity(latent[active], here - done * each, condition[active])
        latent = latent.masked_scatter(active[:, None], euler_step(latent[active], v, each))
    return latent
