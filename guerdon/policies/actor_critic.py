# SPDX-License-Identifier: Apache-2.0
"""An actor and a critic for control: two small networks on one observation, trained by the same loop as every other policy."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guerdon.errors import CheckpointError, InputError
from guerdon.policies.acting import Acted
from guerdon.policies.action_distribution import Categorical, Distribution, Gaussian, distribution_of
from guerdon.policies.gradient_updater import GradientUpdater
from guerdon.policies.normaliser import RunningMoments
from guerdon.protocols import Context
from guerdon.rollouts import Field, Rollouts

SCHEMA = 1
CONFIG, TENSORS = "config.json", "policy.safetensors"


class ActorCritic:
    """A distribution of actions and a value from the step field ``observation`` [N, T, ...]; no step reads another.

    size        numbers in an observation, flattened; or, with ``one_hot``, how many observations there are
    actions     the distribution, see ``action_distribution``
    hidden      widths of the hidden layers of either network, tanh between them
    log_std     where the logarithm of a Gaussian's standard deviation starts; it is trained, and the same in every state
    normalise   centre and scale observations by their running statistics, then clip them to [-``clip``, ``clip``]

    Outputs: ``log_prob``, ``entropy``, ``value``, and ``next_value``, the value of the field ``next_observation``.
    """

    outputs = frozenset({"log_prob", "entropy", "value", "next_value"})

    def __init__(
        self,
        size: int,
        actions: Distribution,
        *,
        one_hot: bool = False,
        hidden: Sequence[int] = (64, 64),
        log_std: float = 0.0,
        normalise: bool = False,
        clip: float = 10.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.size, self.actions, self.one_hot, self.hidden, self.clip = size, actions, one_hot, tuple(hidden), clip
        self.normaliser = RunningMoments((size,)) if normalise else None
        self.actor = layers((size, *self.hidden, actions.width), 0.01, dtype, device)
        self.critic = layers((size, *self.hidden, 1), 1.0, dtype, device)
        self.log_std = nn.Parameter(torch.full((actions.width,), log_std, dtype=dtype, device=device))

    @classmethod
    def of(cls, observation_space: Any, action_space: Any, **settings: Any) -> ActorCritic:
        """For Gymnasium spaces: observations are a Box, flattened, or Discrete; actions Discrete or a Box of real numbers."""
        kind, actions = type(observation_space).__name__, distribution_of(action_space)
        if kind == "Discrete":
            if observation_space.start != 0:
                raise InputError(f"actor-critic: Discrete observations should start at 0, got {observation_space}.")
            return cls(int(observation_space.n), actions, one_hot=True, **settings)
        if kind == "Box":
            return cls(math.prod(observation_space.shape), actions, **settings)
        raise InputError(
            f"actor-critic: the observation space should be a Box or Discrete, got {observation_space}. Usual cause: an "
            "observation of several parts; gymnasium.wrappers.FlattenObservation makes one Box of them."
        )

    # ---- acting: NumPy, since one step's arrays are small and PyTorch's calls are not free

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        return self.actions.noise(rng, steps)

    def act(self, observation: np.ndarray, noise: np.ndarray, greedy: bool = False) -> Acted:
        x = self._features(np.asarray(observation))
        log_std, *body, (weight, bias) = self._shared if self.log_std.device.type == "cpu" else self._arrays()
        for w, b in body:
            x = np.tanh(x @ w + b)
        action, log_prob = self.actions.draw(x @ weight + bias, noise, log_std, greedy)
        return Acted(action, log_prob, self.actions.to_environment(action))

    def _features(self, observation: np.ndarray) -> np.ndarray:
        """[E, size] what the networks read, of observations [E, ...]."""
        dtype = self._dtype
        if self.one_hot:
            return np.eye(self.size, dtype=dtype)[observation.reshape(-1)]
        x = observation.reshape(len(observation), -1).astype(dtype, copy=False)
        if self.normaliser is None:
            return x
        mean, scale = self._moments()
        return np.minimum(np.maximum((x - mean.astype(dtype)) * scale.astype(dtype), -self.clip), self.clip)

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        assert self.normaliser is not None  # the callers looked
        return self.normaliser.mean, 1 / np.sqrt(self.normaliser.variance + 1e-8)

    def _arrays(self) -> list[Any]:
        """log_std, and (weight transposed, bias) of each of the actor's layers."""
        return [_array(self.log_std), *((_array(w).T, _array(b)) for w, b in self.actor)]

    @cached_property
    def _shared(self) -> list[Any]:
        """The same once and for all: on a CPU arrays share the parameters' memory, and parameters change in place."""
        return self._arrays()

    @cached_property
    def _dtype(self) -> np.dtype:
        return _array(self.log_std).dtype

    def observe(self, observation: Tensor) -> None:
        """Take ``observation`` [B, ...] into the running statistics, where there are any."""
        if self.normaliser is not None:
            self.normaliser.update(observation.reshape(len(observation), -1).cpu().numpy())

    # ---- the policy protocol

    def sample(self, contexts: Sequence[Context], sampling: Any, seed: int) -> Rollouts:
        """One decision for each context, whose prompt is an observation; episodes are ``guerdon.sampling.environments``' affair.

        ``sampling`` has a ``temperature``, of which only 0, the most probable action, means anything here.
        """
        observation = np.stack([np.asarray(c.prompt) for c in contexts])
        keys = [[seed, zlib.crc32(c.task.encode()), c.index] for c in contexts]
        noise = np.concatenate([self.noise(np.random.default_rng(key), 1) for key in keys])
        acted = self.act(observation, noise, greedy=getattr(sampling, "temperature", 1.0) == 0)
        ones = torch.ones(len(contexts), 1, dtype=torch.bool)
        return Rollouts(
            action=torch.as_tensor(acted.action)[:, None],
            mask=ones,
            task=[c.task for c in contexts],
            log_prob=torch.as_tensor(acted.log_prob)[:, None],
            terminated=ones,
            group=torch.tensor([c.group for c in contexts]),
            fields={"observation": Field("step", torch.as_tensor(observation)[:, None])},
        )

    def evaluate(self, rollouts: Rollouts, want: frozenset[str]) -> dict[str, Tensor]:
        unknown = want - self.outputs
        if unknown:
            raise InputError(f"actor-critic: no output {', '.join(unknown)}; there are {', '.join(sorted(self.outputs))}.")
        out: dict[str, Tensor] = {}
        x = self._read(rollouts, "observation") if want - {"next_value"} else torch.empty(0)
        if want & {"log_prob", "entropy"}:
            head = through(self.actor, x)
            if "log_prob" in want:
                out["log_prob"] = self.actions.log_prob(head, self._actions(rollouts), self.log_std)
            if "entropy" in want:
                out["entropy"] = self.actions.entropy(head, self.log_std)
        if "value" in want:
            out["value"] = through(self.critic, x)[..., 0]
        if "next_value" in want:
            out["next_value"] = through(self.critic, self._read(rollouts, "next_observation"))[..., 0]
        return out

    def _read(self, rollouts: Rollouts, name: str) -> Tensor:
        """[N, T, size] what the networks read; zeros where the policy took no step, since anything may stand there."""
        weight = self.log_std
        mask, observation = rollouts.mask, rollouts.field(name).values.to(weight.device)
        if not mask.all():
            observation = torch.where(mask.reshape(*mask.shape, *[1] * (observation.dim() - 2)), observation, 0)
        if self.one_hot:
            return nn.functional.one_hot(observation, self.size).to(weight.dtype)
        x = observation.reshape(*mask.shape, -1).to(weight.dtype)
        if self.normaliser is None:
            return x
        mean, scale = (torch.as_tensor(m, dtype=weight.dtype, device=weight.device) for m in self._moments())
        return ((x - mean) * scale).clamp(-self.clip, self.clip)

    def _actions(self, rollouts: Rollouts) -> Tensor:
        mask, action = rollouts.mask, rollouts.action.to(self.log_std.device)
        if mask.all():
            return action
        start = self.actions.start if isinstance(self.actions, Categorical) else 0
        return torch.where(mask.reshape(*mask.shape, *[1] * (action.dim() - 2)), action, start)

    def parameters(self) -> dict[str, Tensor]:
        """name -> trained parameter."""
        named: dict[str, Tensor] = {"log_std": self.log_std} if isinstance(self.actions, Gaussian) else {}
        for name, network in {"actor": self.actor, "critic": self.critic}.items():
            for i, (weight, bias) in enumerate(network):
                named |= {f"{name}.{i}.weight": weight, f"{name}.{i}.bias": bias}
        return named

    def updater(self, *, lr: float = 3e-4, **settings: Any) -> GradientUpdater:
        """Gradient descent on both networks; ``settings`` as in ``GradientUpdater``."""
        return GradientUpdater(self.parameters(), lr=lr, **settings)

    def state_dict(self) -> dict[str, Tensor]:
        """Flat name -> tensor: the parameters and, where observations are normalised, their statistics."""
        seen = {} if self.normaliser is None else self.normaliser.state_dict()
        return {k: p.detach().clone() for k, p in self.parameters().items()} | {f"normaliser.{k}": v for k, v in seen.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        mine = self.state_dict()
        wrong = sorted(mine.keys() ^ state.keys()) or [k for k, x in mine.items() if x.shape != state[k].shape]
        if wrong:
            raise CheckpointError(
                f"actor-critic: the state should have the tensors of this policy ({len(mine)}), got {len(state)}; the first that "
                f"differs is `{wrong[0]}`. Usual cause: another environment, other `hidden` widths, or `normalise` changed."
            )
        with torch.no_grad():
            for k, p in self.parameters().items():
                p.copy_(state[k])
        if self.normaliser is not None:
            self.normaliser.load_state_dict({k: state[f"normaliser.{k}"] for k in ("count", "mean", "squares")})

    # ---- files

    def save(self, path: Path | str) -> None:
        """Write a directory that ``ActorCritic.load`` reads: the tensors in safetensors, everything else in JSON."""
        from safetensors.torch import save_file

        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        save_file({k: v.cpu().contiguous() for k, v in self.state_dict().items()}, directory / TENSORS)
        config = {
            "schema": SCHEMA,
            "size": self.size,
            "actions": _written(self.actions),
            "one_hot": self.one_hot,
            "hidden": list(self.hidden),
            "normalise": self.normaliser is not None,
            "clip": self.clip,
            "dtype": str(self.log_std.dtype).removeprefix("torch."),
        }
        (directory / CONFIG).write_text(json.dumps(config, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> ActorCritic:
        """The policy that ``save`` wrote."""
        from safetensors.torch import load_file

        directory = Path(path)
        if not (directory / CONFIG).is_file() or not (directory / TENSORS).is_file():
            raise InputError(f"actor-critic: expected {CONFIG} and {TENSORS} in {directory}, which `save` writes there.")
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        if config.pop("schema", None) != SCHEMA:
            raise CheckpointError(f"{directory / CONFIG}: expected schema {SCHEMA}. Usual cause: another version of guerdon.")
        size, actions, dtype = config.pop("size"), _distribution(config.pop("actions")), getattr(torch, config.pop("dtype"))
        made = cls(size, actions, dtype=dtype, device=device, **config)
        made.load_state_dict(load_file(directory / TENSORS, device=str(device)))
        return made


Layers = list[tuple[nn.Parameter, nn.Parameter]]
"""(weight [out, in], bias [out]) of each layer."""


def layers(widths: Sequence[int], gain: float, dtype: torch.dtype, device: torch.device | str) -> Layers:
    """Linear layers from each width to the next: orthogonal weights, of gain sqrt(2) and ``gain`` in the last, and zero biases.

    Engstrom et al. 2020, arXiv:2005.12729, on what such details do for PPO.
    """
    made: Layers = []
    for i, (inputs, out) in enumerate(pairwise(widths)):
        weight = nn.init.orthogonal_(torch.empty(out, inputs), gain if i == len(widths) - 2 else math.sqrt(2))
        made.append((nn.Parameter(weight.to(device, dtype)), nn.Parameter(torch.zeros(out, dtype=dtype, device=device))))
    return made


def through(network: Layers, x: Tensor) -> Tensor:
    """[..., out] of ``x`` [..., in], with tanh between the layers."""
    for weight, bias in network[:-1]:
        x = torch.tanh(nn.functional.linear(x, weight, bias))
    return nn.functional.linear(x, *network[-1])


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()


def _written(actions: Distribution) -> dict[str, Any]:
    if isinstance(actions, Categorical):
        return {"kind": "categorical", "count": actions.count, "start": actions.start}
    edges = {k: [x if math.isfinite(x) else None for x in getattr(actions, k)] for k in ("low", "high")}  # JSON has no infinity
    return {"kind": "gaussian", **edges, "shape": list(actions.shape)}


def _distribution(written: Mapping[str, Any]) -> Distribution:
    if written["kind"] == "categorical":
        return Categorical(written["count"], written["start"])
    low, high = (tuple(edge if x is None else x for x in written[k]) for k, edge in (("low", -math.inf), ("high", math.inf)))
    return Gaussian(low, high, tuple(written["shape"]))
