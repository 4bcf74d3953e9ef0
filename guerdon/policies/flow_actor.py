# SPDX-License-Identifier: Apache-2.0
"""FlowActor: control by a flow. An action comes out of noise in a few steps, each with noise of its own that the policy learns.

The chain of intermediate actions is what is stored and what has a probability; the environment gets its last link. With noise
added the chain is a Markov chain of Gaussians, whose joint density is exact for any number of steps, one included. Without it
the flow is the deterministic one that flow matching learns from demonstrations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guerdon.errors import CheckpointError, InputError
from guerdon.policies.acting import Acted
from guerdon.policies.flow import taken_or
from guerdon.policies.flow_step import euler_step, gaussian_entropy, gaussian_log_prob, time_grid
from guerdon.policies.gradient_updater import GradientUpdater
from guerdon.policies.token_distribution import stream
from guerdon.policies.velocity import TIME_FEATURES, VelocityNetwork, perceptron, time_features
from guerdon.protocols import Context
from guerdon.rollouts import Field, Rollouts

WEIGHTS, CONFIG = "flow_actor.safetensors", "flow_actor.json"


def bounded_std(raw: Tensor, low: float, high: float) -> Tensor:
    """A standard deviation within [low, high], [...]: its logarithm is linear in tanh(raw). Equal ends fix it.

    >>> [round(x, 4) for x in bounded_std(torch.tensor([-9., 0., 9.]), 0.1, 0.4).tolist()]
    [0.1, 0.2, 0.4]
    """
    share = (raw.tanh() + 1) / 2
    return (math.log(low) + (math.log(high) - math.log(low)) * share).exp()


def chain_log_prob(chain: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log N(a_0; 0, 1) + sum_k log N(a_{k+1}; mean_k, std_k^2), each summed over D, in nats, [...].

    ``chain`` [..., K + 1, D] from the start on; ``mean``, ``std`` [..., K, D] of the links after it.

    >>> chain, zero = torch.tensor([[0.], [0.5]]), torch.zeros(1, 1)
    >>> round(chain_log_prob(chain, zero, zero + 0.5).item(), 4)  # -log(2 pi) - log(1 / 2) - 1 / 2
    -1.6447
    """
    start = gaussian_log_prob(chain[..., 0, :], torch.zeros((), dtype=chain.dtype), torch.ones_like(chain[..., 0, 0]))
    links = gaussian_log_prob(chain[..., 1:, :, None], mean[..., None], std)
    return start + links.sum((-2, -1))


class FlowActor:
    """A flow over actions in [-1, 1]^D given an observation [O], the noise of its steps, and a value.

    steps      K, from noise to action: a_{k+1} = clip(a_k - v(a_k, 1 - k / K, s) / K, -1, 1) + sigma_k xi, a_0 ~ N(0, 1)
    sigma      (least, largest) noise, learnt in between per dimension from time and observation; equal: fixed
    cut        normal numbers beyond it are clipped to it, those of the start excepted

    ``action`` is the chain [K + 1, D]; the environment gets its last link, clipped to [-1, 1]. ``greedy`` adds no noise and keeps
    the start's. Outputs: ``log_prob`` of the chain, its start included; ``entropy``, nats per step of the chain; ``value``,
    ``next_value``; ``velocity`` [N, T, D] at the step fields ``latent`` and ``time``, for flow matching.

    Zhang et al. 2025 (ReinFlow), arXiv:2505.22094, and its ``ppoflow.py``; numbers that are cut are scored as if they weren't, as
    there. Time runs as in ``flow_step``, from 1 to 0.
    """

    outputs = frozenset({"log_prob", "entropy", "value", "next_value", "velocity"})

    def __init__(
        self,
        observation: int,
        action: int,
        *,
        steps: int = 4,
        sigma: tuple[float, float] = (0.1, 0.24),
        cut: float = 3.0,
        width: int = 64,
        layers: int = 2,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if steps < 1 or not 0 < sigma[0] <= sigma[1]:
            raise InputError(f"FlowActor: expected steps of 1 or more and 0 < least <= largest sigma, got {steps}, {sigma}.")
        self.shape = {"observation": observation, "action": action, "width": width, "layers": layers}
        self.dimensions, self.steps, self.sigma, self.cut, self.dtype = action, steps, tuple(sigma), cut, dtype
        self.flow = VelocityNetwork(action, observation, width, layers, seed).to(dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.spread = perceptron(TIME_FEATURES + observation, action, width, layers, nn.Tanh).to(dtype)
            self.critic = perceptron(observation, 1, width, layers, nn.Tanh).to(dtype)

    # ---- acting

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        """[steps, K + 1, D] normal numbers."""
        return rng.standard_normal((steps, self.steps + 1, self.dimensions))

    @torch.no_grad()
    def act(self, observation: np.ndarray, noise: np.ndarray, greedy: bool = False) -> Acted:
        seen = torch.as_tensor(np.asarray(observation), dtype=self.dtype)
        drawn = torch.as_tensor(noise, dtype=self.dtype)
        chain, means, stds = [drawn[:, 0]], [], []
        for k in range(self.steps):
            mean, std = self._step(chain[-1], torch.full((len(seen),), 1 - k / self.steps, dtype=self.dtype), seen)
            chain.append(mean if greedy else mean + std * drawn[:, k + 1].clamp(-self.cut, self.cut))
            means.append(mean)
            stds.append(std)
        action = torch.stack(chain, 1)
        return Acted(action, chain_log_prob(action, torch.stack(means, 1), torch.stack(stds, 1)), chain[-1].clamp(-1, 1))

    def _step(self, latent: Tensor, time: Tensor, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [..., D] of the next link."""
        dt = torch.full_like(time, 1 / self.steps)
        mean = euler_step(latent, self.flow(latent, time, observation), dt).clamp(-1, 1)
        raw = self.spread(torch.cat([time_features(time), observation], -1))
        return mean, bounded_std(raw, *self.sigma)

    # ---- the policy protocol

    def sample(self, contexts: Sequence[Context], sampling: Any, seed: int) -> Rollouts:
        """One decision for each context, whose prompt is an observation; episodes are ``guerdon.sampling.environments``' affair.

        ``sampling`` has a ``temperature``, of which only 0, the deterministic flow, means anything here.
        """
        observation = np.stack([np.asarray(c.prompt) for c in contexts])
        uniform = stream(seed, [(c.task, c.index) for c in contexts], (self.steps + 1) * self.dimensions)
        noise = torch.special.ndtri(uniform + 2**-54).reshape(len(contexts), self.steps + 1, self.dimensions)
        acted = self.act(observation, noise.numpy(), greedy=getattr(sampling, "temperature", 1.0) == 0)
        ones = torch.ones(len(contexts), 1, dtype=torch.bool)
        return Rollouts(
            action=acted.action[:, None],
            mask=ones,
            task=[c.task for c in contexts],
            log_prob=acted.log_prob[:, None],
            terminated=ones,
            group=torch.tensor([c.group for c in contexts]),
            fields={"observation": Field("step", torch.as_tensor(observation)[:, None])},
        )

    def evaluate(self, rollouts: Rollouts, want: frozenset[str]) -> dict[str, Tensor]:
        mask, out = rollouts.mask, dict[str, Tensor]()
        seen = taken_or(0, rollouts.field("observation").values, mask).to(self.dtype)
        if want & {"log_prob", "entropy"}:
            chain = taken_or(0, rollouts.action, mask)
            time = time_grid(self.steps)[:-1].to(self.dtype).expand(*chain.shape[:-2], self.steps)
            spread_out = seen[..., None, :].expand(*time.shape, seen.shape[-1])
            mean, std = self._step(chain[..., :-1, :], time, spread_out)
            out["log_prob"] = chain_log_prob(chain, mean, std)
            out["entropy"] = gaussian_entropy(std, 1).sum(-1).mean(-1)
        if "value" in want:
            out["value"] = self.critic(seen)[..., 0]
        if "next_value" in want:
            out["next_value"] = self.critic(taken_or(0, rollouts.field("next_observation").values, mask).to(self.dtype))[..., 0]
        if "velocity" in want:
            latent, time = (taken_or(0, rollouts.field(k).values, mask) for k in ("latent", "time"))
            out["velocity"] = self.flow(latent, time, seen)
        return {k: v if k == "velocity" else torch.where(mask, v, 0) for k, v in out.items() if k in want}

    # ---- learning

    def parameters(self) -> dict[str, Tensor]:
        """name -> trained parameter."""
        parts = {"flow": self.flow, "spread": self.spread, "critic": self.critic}
        return {f"{part}.{k}": p for part, network in parts.items() for k, p in network.named_parameters()}

    def updater(self, *, lr: float = 3e-4, **settings: Any) -> GradientUpdater:
        """Gradient descent on all three networks; ``settings`` as in ``GradientUpdater``."""
        return GradientUpdater(self.parameters(), lr=lr, **settings)

    def state_dict(self) -> dict[str, Tensor]:
        return {k: p.detach().clone() for k, p in self.parameters().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        mine = self.parameters()
        wrong = sorted(mine.keys() ^ state.keys()) or [k for k, p in mine.items() if p.shape != state[k].shape]
        if wrong:
            raise CheckpointError(
                f"FlowActor: expected a state of the same {len(mine)} parameters, got one that differs in {len(wrong)}, first "
                f"{wrong[0]}. Usual cause: another environment or other widths."
            )
        with torch.no_grad():
            for k, p in mine.items():
                p.copy_(state[k])

    def save(self, path: Path | str) -> None:
        """Write the weights in safetensors and everything else in JSON."""
        from safetensors.torch import save_file

        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, directory / WEIGHTS)
        config = {"schema": 1, **self.shape, "steps": self.steps, "sigma": list(self.sigma), "cut": self.cut}
        (directory / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str, **changes: Any) -> FlowActor:
        """What `save` wrote; ``changes`` replace settings that no weight depends on: steps, sigma, cut, dtype."""
        from safetensors.torch import load_file

        directory = Path(path)
        if not (directory / CONFIG).exists():
            raise CheckpointError(f"{directory}: expected {CONFIG} and {WEIGHTS}, got none. Usual cause: not a saved FlowActor.")
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        del config["schema"]
        policy = cls(**{**config, "sigma": tuple(config["sigma"]), **changes})
        policy.load_state_dict(load_file(directory / WEIGHTS))
        return policy
