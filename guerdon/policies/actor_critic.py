# SPDX-License-Identifier: Apache-2.0
"""An actor and a critic for control: two small networks on one observation, trained by the same loop as every other policy."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim.adam import adam

from guerdon.errors import CheckpointError, InputError
from guerdon.policies.acting import Acted
from guerdon.policies.action_distribution import Categorical, Distribution, Gaussian, distribution_of
from guerdon.policies.gradient_updater import GradientUpdater
from guerdon.policies.normaliser import RunningMoments
from guerdon.policies.perceptron import Layers, Layout, backward, forward, through
from guerdon.protocols import Context
from guerdon.rollouts import Field, Rollouts

SCHEMA = 1
ACTOR, CRITIC = 0, 1
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
        self._scaling: tuple[int, np.ndarray, np.ndarray] | None = None
        widths = (size, *self.hidden, actions.width), (size, *self.hidden, 1)
        self.layout = Layout(widths, extra=actions.width if isinstance(actions, Gaussian) else 0)
        self.flat = nn.Parameter(torch.full((self.layout.size,), log_std, dtype=dtype, device=device))
        self._name_parts()
        for layers, gain in ((self.actor, 0.01), (self.critic, 1.0)):
            initialise(layers, gain)

    def _name_parts(self) -> None:
        """``actor``, ``critic`` and ``log_std`` as views of the flat parameter."""
        (self.actor, self.critic), self.log_std = self.layout.parts(self.flat.detach())

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy: its views are those of its own parameter."""
        vars(self).update(state)
        vars(self).pop("arrays", None)
        self._name_parts()

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
        (actor, _), log_std = self.arrays if self.flat.device.type == "cpu" else self.layout.parts(_array(self.flat))
        action, log_prob = self.actions.draw(forward(actor, x)[0], noise, log_std, greedy)
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
        x = x - mean
        x *= scale
        return np.minimum(np.maximum(x, -self.clip, out=x), self.clip, out=x)

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean, 1 / standard deviation) of observations in the networks' precision, kept until more have been seen."""
        assert self.normaliser is not None  # the callers looked
        if self._scaling is None or self._scaling[0] != self.normaliser.count:
            mean, scale = self.normaliser.mean, 1 / np.sqrt(self.normaliser.variance + 1e-8)
            self._scaling = self.normaliser.count, mean.astype(self._dtype), scale.astype(self._dtype)
        return self._scaling[1:]

    @cached_property
    def arrays(self) -> tuple[list[Layers], np.ndarray]:
        """([actor, critic], log_std) as arrays: on a CPU they share the parameters' memory, which changes in place."""
        return self.layout.parts(_array(self.flat))

    @cached_property
    def _dtype(self) -> np.dtype:
        return _array(self.flat).dtype

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
        names = tuple(sorted(want - {"next_value"}))
        if names:
            action = self._actions(rollouts) if "log_prob" in names else None
            out = dict(zip(names, self._computed(self._read(rollouts, "observation"), action, names), strict=True))
        if "next_value" in want:
            (out["next_value"],) = self._computed(self._read(rollouts, "next_observation"), None, ("value",))
        return out

    def _computed(self, x: Tensor, action: Tensor | None, names: tuple[str, ...]) -> Sequence[Tensor]:
        """[N, T] each of ``names`` for what the networks read: on a CPU as one node of the graph."""
        if x.device.type == "cpu":
            return _Outputs.apply(self.flat, x, action, self, names)
        return self.by_torch(x, action, names)

    def by_torch(self, x: Tensor, action: Tensor | None, names: tuple[str, ...]) -> list[Tensor]:
        """The same by PyTorch's layers: what a GPU runs, and what the node's gradient is tested against."""
        (actor, critic), log_std = self.layout.parts(self.flat)
        head = through(actor, x)
        out = {"entropy": self.actions.entropy(head, log_std), "value": through(critic, x)[..., 0]}
        if action is not None:
            out["log_prob"] = self.actions.log_prob(head, action, log_std)
        return [out[name] for name in names]

    def _read(self, rollouts: Rollouts, name: str) -> Tensor:
        """[N, T, size] what the networks read; zeros where the policy took no step, since anything may stand there."""
        weight = self.flat
        mask, observation = rollouts.mask, rollouts.field(name).values.to(weight.device)
        if not mask.all():
            observation = torch.where(mask.reshape(*mask.shape, *[1] * (observation.dim() - 2)), observation, 0)
        if weight.device.type == "cpu":
            return torch.from_numpy(self._features(observation.flatten(0, 1).numpy())).view(*mask.shape, -1)
        if self.one_hot:
            return nn.functional.one_hot(observation, self.size).to(weight.dtype)
        x = observation.reshape(*mask.shape, -1).to(weight.dtype)
        if self.normaliser is None:
            return x
        mean, scale = (torch.as_tensor(m, dtype=weight.dtype, device=weight.device) for m in self._moments())
        return ((x - mean) * scale).clamp(-self.clip, self.clip)

    def _actions(self, rollouts: Rollouts) -> Tensor:
        mask, action = rollouts.mask, rollouts.action.to(self.flat.device)
        if mask.all():
            return action
        start = self.actions.start if isinstance(self.actions, Categorical) else 0
        return torch.where(mask.reshape(*mask.shape, *[1] * (action.dim() - 2)), action, start)

    def parameters(self) -> dict[str, Tensor]:
        """name -> trained parameter: one flat tensor, so that an optimiser has one to step."""
        return {"flat": self.flat}

    def named(self) -> dict[str, Tensor]:
        """name -> tensor, all on the memory of the flat one."""
        named: dict[str, Tensor] = {"log_std": self.log_std} if isinstance(self.actions, Gaussian) else {}
        for name, network in {"actor": self.actor, "critic": self.critic}.items():
            for i, (weight, bias) in enumerate(network):
                named |= {f"{name}.{i}.weight": weight, f"{name}.{i}.bias": bias}
        return named

    def updater(self, *, lr: float = 3e-4, **settings: Any) -> GradientUpdater:
        """Gradient descent on both networks; ``settings`` as in ``GradientUpdater``."""
        return ActorCriticUpdater(self, lr=lr, **settings)

    def state_dict(self) -> dict[str, Tensor]:
        """Flat name -> tensor: the parameters and, where observations are normalised, their statistics."""
        seen = {} if self.normaliser is None else self.normaliser.state_dict()
        return {k: p.clone() for k, p in self.named().items()} | {f"normaliser.{k}": v for k, v in seen.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        mine = self.state_dict()
        wrong = sorted(mine.keys() ^ state.keys()) or [k for k, x in mine.items() if x.shape != state[k].shape]
        if wrong:
            raise CheckpointError(
                f"actor-critic: the state should have the tensors of this policy ({len(mine)}), got {len(state)}; the first that "
                f"differs is `{wrong[0]}`. Usual cause: another environment, other `hidden` widths, or `normalise` changed."
            )
        with torch.no_grad():
            for k, p in self.named().items():
                p.copy_(state[k])
        if self.normaliser is not None:
            self._scaling = None
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
            "dtype": str(self.flat.dtype).removeprefix("torch."),
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


class _Outputs(torch.autograd.Function):
    """Outputs of an ActorCritic by NumPy, with the gradient of its parameters written out; it has none itself."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, x: Tensor, action: Tensor | None, policy: ActorCritic, names: tuple[str, ...]) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(flat)  # so that a change of the parameters before the backward pass is an error
        ctx.policy, ctx.names = policy, names
        (actor, critic), log_std = policy.arrays
        shape, array, found = x.shape[:-1], x.reshape(-1, x.shape[-1]).numpy(), dict[str, np.ndarray]()
        if "value" in names:
            value, ctx.critic_seen = forward(critic, array)
            found["value"] = value[:, 0]
        if len(names) > len(found):
            head, ctx.actor_seen = forward(actor, array)
            chosen = None if action is None else action.reshape(len(head), *action.shape[len(shape) :]).numpy()
            ctx.judged = policy.actions.judged(head, chosen, log_std)
            found |= ctx.judged.outputs(names)
        return tuple(torch.from_numpy(found[name]).view(shape) for name in names)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found = torch.zeros_like(ctx.policy.flat)
        given = {k: g for k, g in zip(ctx.names, gradients, strict=True) if g is not None}
        _Outputs.write(ctx, given, ctx.policy.layout.parts(found.numpy()))
        return found, None, None, None, None

    @staticmethod
    def write(ctx: Any, gradients: Mapping[str, Tensor], parts: tuple[list[Layers], np.ndarray]) -> None:
        """Write d loss / d parameters into ``parts``, which are zeros, given d loss / d output for some of the outputs."""
        _ = ctx.saved_tensors  # an error where the parameters have changed since
        given, policy = {k: g.reshape(-1).numpy() for k, g in gradients.items()}, ctx.policy
        (actor, critic), _ = policy.arrays
        (into_actor, into_critic), into_log_std = parts
        if "value" in given:
            backward(critic, ctx.critic_seen, given["value"][:, None], into_critic)
        if given.keys() & {"log_prob", "entropy"}:
            head, log_std = ctx.judged.gradient(given.get("log_prob"), given.get("entropy"))
            backward(actor, ctx.actor_seen, head, into_actor)
            into_log_std[:] = log_std


class ActorCriticUpdater(GradientUpdater):
    """Takes the written-out gradient from the node that made the outputs, without a walk through the graph.

    Of plain Adam it calls the function inside the optimiser's step: what is around it takes longer than the sums.
    """

    def __init__(self, policy: ActorCritic, **settings: Any) -> None:
        super().__init__(policy.parameters(), **settings)
        self.policy = policy
        how = self.optimiser.param_groups[0]
        unusual = ("amsgrad", "maximize", "capturable", "differentiable", "decoupled_weight_decay")
        self.plain = type(self.optimiser) is torch.optim.Adam and how["fused"] and not any(how.get(k) for k in unusual)

    @cached_property
    def found(self) -> tuple[Tensor, tuple[list[Layers], np.ndarray]]:
        """Room for a gradient, and its parts."""
        room = torch.zeros_like(self.policy.flat)
        return room, self.policy.layout.parts(room.numpy())

    def back_propagate(self, outputs: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        nodes = {outputs[k].grad_fn for k in gradients}
        node: Any = nodes.pop() if len(nodes) == 1 else None
        if getattr(node, "policy", None) is not self.policy or not gradients.keys() <= set(node.names):
            super().back_propagate(outputs, gradients)
            return
        flat, (room, parts) = self.policy.flat, self.found
        before = None if flat.grad is None else flat.grad.clone()
        room.zero_()
        _Outputs.write(node, gradients, parts)
        flat.grad = room if before is None else room + before

    @torch.no_grad()
    def apply(self) -> None:
        flat, how = self.policy.flat, self.optimiser.param_groups[0]
        state = self.optimiser.state[flat]
        if not (self.plain and state and flat.grad is not None):
            super().apply()  # which makes the state, too
            return
        mean, square, (beta1, beta2) = state["exp_avg"], state["exp_avg_sq"], how["betas"]
        rest: Any = {k: how[k] for k in ("lr", "weight_decay", "eps", "amsgrad", "maximize", "fused")}
        adam([flat], [flat.grad], [mean], [square], [], [state["step"]], beta1=beta1, beta2=beta2, **rest)


def initialise(layers: Layers, gain: float) -> None:
    """Orthogonal weights, of gain sqrt(2) and ``gain`` in the last layer, and zero biases.

    Engstrom et al. 2020, arXiv:2005.12729, on what such details do for PPO.
    """
    for i, (weight, bias) in enumerate(layers):
        drawn = nn.init.orthogonal_(torch.empty(weight.shape), gain if i == len(layers) - 1 else math.sqrt(2))
        weight.copy_(drawn)
        bias.zero_()


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
