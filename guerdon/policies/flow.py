# SPDX-License-Identifier: Apache-2.0
"""FlowPolicy: a flow-matching generator whose denoising chain is a Rollout, one decision a step.

An action is the next latent, drawn from a Gaussian around a step of the SDE, so that its log-probability is exact and the loop,
credit and objectives of every other policy train it. What a transition depends on is stored with it as step fields (``latent``,
``time``, ``time_step``, ``sigma``, ``label``): rollouts of different schedules, and single steps of them, evaluate alike.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from guerdon.errors import CheckpointError, InputError
from guerdon.policies.flow_step import (
    flow_grpo_sigma,
    gaussian_entropy,
    gaussian_kl,
    gaussian_log_prob,
    look_ahead_clean,
    look_ahead_steps,
    sde_mean,
    sde_std,
    time_grid,
)
from guerdon.policies.gradient_updater import GradientUpdater
from guerdon.policies.token_distribution import stream
from guerdon.policies.velocity import VelocityNetwork
from guerdon.protocols import Context
from guerdon.rollouts import Field, Rollouts

WEIGHTS, SHAPE = "flow.safetensors", "flow.json"


@dataclass(frozen=True)
class Denoising:
    """How to draw: a sampling setting of `FlowPolicy`.

    steps        from noise to data, equally spaced in time
    sigma        noise of each step, per square root of time; (): none, the deterministic flow
    look_ahead   deterministic steps, as many as are left at most, of the clean estimate of each latent; 0: no estimates
    """

    steps: int = 10
    sigma: tuple[float, ...] = ()
    look_ahead: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.look_ahead < 0 or min(self.sigma, default=0.0) < 0:
            raise InputError(f"Denoising: expected steps of 1 or more, look_ahead and sigma of 0 or more, got {self}.")
        if self.sigma and len(self.sigma) != self.steps:
            raise InputError(f"Denoising: `sigma` should have one entry for each of {self.steps} steps, got {len(self.sigma)}.")

    @property
    def evaluations(self) -> int:
        """Velocities asked of the network for one row.

        >>> Denoising(10).evaluations, Denoising(10, look_ahead=1).evaluations, Denoising(10, look_ahead=10).evaluations
        (10, 20, 65)
        """
        return self.steps + int(look_ahead_steps(self.steps, self.look_ahead).sum())


def stochastic(steps: int = 10, noise_level: float = 0.7, look_ahead: int = 0) -> Denoising:
    """Flow-GRPO's sampling: sigma = noise_level sqrt(t / (1 - t))."""
    return Denoising(steps, flow_grpo_sigma(steps, noise_level), look_ahead)


class FlowPolicy:
    """Generates points of ``dimensions`` numbers; with ``labels`` each context's prompt is the label (0, 1, ...) asked for.

    ``reference`` keeps a frozen copy of the weights as they are (`set_reference`), and gives ``ref_log_prob`` and ``kl``.
    The first weights depend on ``seed`` alone.

    Rollouts it samples have, besides the fields of a transition: task field ``prompt``; episode field ``sample`` [N, 1, D], what
    came out; with a look-ahead the step fields ``clean`` and ``next_clean`` [N, T, D], the clean estimates of the latents before
    and after each step, the last of which is the sample itself.

    >>> policy = FlowPolicy(2, labels=3)
    >>> drawn = policy.sample([Context("a", 1), Context("b", 2)], stochastic(steps=4), seed=0)
    >>> tuple(drawn.action.shape), drawn.field("label").values.tolist()
    ((2, 4, 2), [[1, 1, 1, 1], [2, 2, 2, 2]])
    """

    def __init__(
        self,
        dimensions: int,
        *,
        labels: int = 0,
        width: int = 64,
        layers: int = 2,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        reference: bool = False,
    ) -> None:
        self.shape = {"dimensions": dimensions, "labels": labels, "width": width, "layers": layers}
        self.dimensions, self.labels, self.dtype = dimensions, labels, dtype
        self.network = VelocityNetwork(dimensions, labels, width, layers, seed).to(dtype)
        self.reference: VelocityNetwork | None = None
        if reference:
            self.set_reference()

    def set_reference(self) -> None:
        """Freeze a copy of the weights as they are now."""
        self.reference = copy.deepcopy(self.network).requires_grad_(False)

    @property
    def outputs(self) -> frozenset[str]:
        own = {"log_prob", "entropy", "velocity"}
        return frozenset(own if self.reference is None else own | {"ref_log_prob", "ref_velocity", "kl"})

    # ---- sampling

    @torch.no_grad()
    def sample(self, contexts: Sequence[Context], sampling: Denoising, seed: int) -> Rollouts:
        """One row per context, drawn with the stream of (seed, task, index): the start first, then a draw for every step."""
        n, t = len(contexts), sampling.steps
        noise = self._noise([(c.task, c.index) for c in contexts], t, seed)
        latents = torch.zeros(n, t + 1, self.dimensions, dtype=self.dtype)
        latents[:, 0] = noise[:, 0]
        sigma = torch.tensor(sampling.sigma or (0.0,) * t, dtype=self.dtype).expand(n, t)
        label = torch.tensor([self._label(c) for c in contexts])
        log_prob = self._continue(latents, torch.zeros(n, dtype=torch.long), noise[:, 1:], sigma, label)
        rollouts = self._rollouts(
            latents, sigma, label, sampling.look_ahead, [c.task for c in contexts], [c.prompt for c in contexts]
        )
        names = dict.fromkeys(k for c in contexts for k in c.fields)
        return rollouts.replace(
            log_prob=log_prob if sampling.sigma else None,
            group=torch.tensor([c.group for c in contexts]),
            fields={**rollouts.fields, **{k: Field("task", [c.fields.get(k) for c in contexts]) for k in names}},
            sampling=asdict(sampling),
        )

    @torch.no_grad()
    def fork(self, rollouts: Rollouts, places: Sequence[tuple[int, int]], index: Sequence[int], seed: int) -> Rollouts:
        """Rows that share a prefix: for each (row, step) the row again, its decisions from ``step`` on drawn afresh.

        Row m draws from the stream of (seed, the row's task, index[m]); the index and seed of the row itself give the row again.
        The prefix is the parent's to the bit, and masked: it was decided once. ``parent`` is (row, step); groups are the rows'.
        """
        row, step = (torch.tensor(x, dtype=torch.long) for x in zip(*places, strict=True))
        if len(index) != len(row) or (row >= len(rollouts)).any() or (step >= rollouts.action.shape[1]).any():
            raise InputError(
                f"fork: expected an index for each place, and places within {len(rollouts)} rows of {rollouts.action.shape[1]} "
                f"steps, got {len(index)} indices for {list(places)[:3]}."
            )
        parent = rollouts.rows(row)
        t = parent.action.shape[1]
        latents = torch.cat([parent.field("latent").values[:, :1], parent.action], 1)
        sigma, label = parent.field("sigma").values, parent.field("label").values[:, 0]
        noise = self._noise(list(zip(parent.task, index, strict=True)), t, seed)
        log_prob = self._continue(latents, step, noise[:, 1:], sigma, label)
        look_ahead = int(parent.sampling.get("look_ahead", 0))
        forked = self._rollouts(latents, sigma, label, look_ahead, parent.task, parent.field("prompt").values)
        return parent.replace(
            action=forked.action,
            log_prob=None if parent.log_prob is None else log_prob,
            mask=torch.arange(t) >= step[:, None],
            parent=torch.stack([row, step], -1),
            fields={**parent.fields, **forked.fields},
        )

    def _label(self, context: Context) -> int:
        label = context.prompt if self.labels else 0
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < max(self.labels, 1):
            raise InputError(f"FlowPolicy: a prompt should be a label from 0 to {self.labels - 1}, got {context.prompt!r}.")
        return label

    def _noise(self, keys: Sequence[tuple[str, int]], steps: int, seed: int) -> Tensor:
        """[N, steps + 1, D] normal numbers, the stream of each key."""
        uniform = stream(seed, keys, (steps + 1) * self.dimensions)
        # A uniform number may be exactly 0, whose normal quantile is -inf: half the spacing of the grid is added.
        return torch.special.ndtri(uniform + 2**-54).reshape(len(keys), steps + 1, self.dimensions).to(self.dtype)

    def _continue(self, latents: Tensor, first: Tensor, noise: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        """Fill in [N, T + 1, D] ``latents`` after step ``first`` [N], with ``noise`` [N, T, D]; the log-probabilities [N, T]."""
        steps = noise.shape[1]
        grid, log_prob = time_grid(steps).to(self.dtype), torch.zeros(noise.shape[:2], dtype=self.dtype)
        for k in range(int(first.min()), steps):
            rows = (first <= k).nonzero()[:, 0]
            here, time, dt = latents[rows, k], grid[k].expand(len(rows)), (grid[k] - grid[k + 1]).expand(len(rows))
            velocity = self._velocity(self.network, here, time, label[rows])
            mean, std = sde_mean(here, velocity, time, dt, sigma[rows, k]), sde_std(dt, sigma[rows, k])
            latents[rows, k + 1] = mean + std[:, None] * noise[rows, k]
            log_prob[rows, k] = gaussian_log_prob(latents[rows, k + 1], mean, std)
        return log_prob

    def _rollouts(
        self, latents: Tensor, sigma: Tensor, label: Tensor, look_ahead: int, tasks: Sequence[str], prompts: Sequence[Any]
    ) -> Rollouts:
        n, t = latents.shape[0], latents.shape[1] - 1
        grid = time_grid(t).to(self.dtype)
        fields = {
            "prompt": Field("task", list(prompts)),
            "sample": Field("episode", latents[:, -1:]),
            "latent": Field("step", latents[:, :-1]),
            "time": Field("step", grid[:-1].repeat(n, 1)),
            "time_step": Field("step", (grid[:-1] - grid[1:]).repeat(n, 1)),
            "sigma": Field("step", sigma.clone()),
            "label": Field("step", label[:, None].repeat(1, t)),
        }
        if look_ahead:
            clean = self._look_ahead(latents, grid, label, look_ahead)
            fields |= {"clean": Field("step", clean[:, :-1]), "next_clean": Field("step", clean[:, 1:])}
        terminated = (torch.arange(t) == t - 1).repeat(n, 1)
        every = torch.ones(n, t, dtype=torch.bool)
        return Rollouts(action=latents[:, 1:], mask=every, task=tasks, terminated=terminated, fields=fields)

    def _look_ahead(self, latents: Tensor, grid: Tensor, label: Tensor, look_ahead: int) -> Tensor:
        """[N, T + 1, D] clean estimate of each latent."""
        n, t = latents.shape[0], latents.shape[1] - 1
        steps, labels = look_ahead_steps(t, look_ahead).repeat(n), label.repeat_interleave(t + 1)
        clean = look_ahead_clean(partial(self._velocity, self.network), latents.flatten(0, 1), grid.repeat(n), steps, labels)
        return clean.reshape(latents.shape)

    # ---- evaluating

    def _velocity(self, network: VelocityNetwork, latent: Tensor, time: Tensor, label: Tensor) -> Tensor:
        shown = one_hot(label, self.labels).to(self.dtype) if self.labels else latent[..., :0]
        return network(latent, time, shown)

    def evaluate(self, rollouts: Rollouts, want: frozenset[str]) -> dict[str, Tensor]:
        """``log_prob``, ``entropy`` and ``kl`` [N, T], ``velocity`` [N, T, D] of the stored transitions.

        ``ref_log_prob`` and ``ref_velocity`` are the reference's, ``kl`` is exact and to it.
        """
        mask = rollouts.mask
        latent, time = taken_or(0, rollouts.field("latent").values, mask), taken_or(1, rollouts.field("time").values, mask)
        label, found = taken_or(0, rollouts.field("label").values, mask), {}
        names = {"": self.network} if self.reference is None else {"": self.network, "ref_": self.reference}
        for prefix, network in names.items():
            if want & {f"{prefix}velocity", f"{prefix}log_prob", "kl"}:
                found[f"{prefix}velocity"] = self._velocity(network, latent, time, label)
        if want & {"log_prob", "ref_log_prob", "kl", "entropy"}:
            dt, sigma = (taken_or(0, rollouts.field(k).values, mask) for k in ("time_step", "sigma"))
            action, std = taken_or(0, rollouts.action, mask), sde_std(dt, sigma)
            mean = {p: sde_mean(latent, found[f"{p}velocity"], time, dt, sigma) for p in names if f"{p}velocity" in found}
            found |= {f"{p}log_prob": gaussian_log_prob(action, m, std) for p, m in mean.items()}
            found["entropy"] = gaussian_entropy(std, self.dimensions)
            if "kl" in want:
                found["kl"] = gaussian_kl(mean[""], mean["ref_"], std)
        return {k: v for k, v in found.items() if k in want}

    # ---- learning

    def updater(self, *, lr: float = 1e-3, **settings: Any) -> GradientUpdater:
        """Gradient descent on the network's parameters; ``settings`` as in ``GradientUpdater``."""
        return GradientUpdater(dict(self.network.named_parameters()), lr=lr, **settings)

    def state_dict(self) -> dict[str, Tensor]:
        """Flat name -> tensor: the network's parameters and, if there is one, the reference's."""
        return {k: p.detach().clone() for k, p in self._stateful().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        mine = self._stateful()
        wrong = sorted(mine.keys() ^ state.keys()) or [k for k, p in mine.items() if p.shape != state[k].shape]
        if wrong:
            raise CheckpointError(
                f"FlowPolicy: expected a state of the same {len(mine)} parameters, got one that differs in {len(wrong)}, first "
                f"{wrong[0]}. Usual cause: another size, or a reference on one side only."
            )
        with torch.no_grad():
            for k, p in mine.items():
                p.copy_(state[k])

    def _stateful(self) -> dict[str, Tensor]:
        frozen = {} if self.reference is None else dict(self.reference.named_parameters(prefix="reference"))
        return {**dict(self.network.named_parameters(prefix="network")), **frozen}

    def save(self, path: Path | str) -> None:
        """Write flow.safetensors, the network's weights, and flow.json, its shape. The reference stays behind."""
        from safetensors.torch import save_file

        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in self.network.state_dict().items()}, directory / WEIGHTS)
        (directory / SHAPE).write_text(json.dumps({"schema": 1, **self.shape}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str, *, dtype: torch.dtype = torch.float32, reference: bool = False) -> FlowPolicy:
        """What `save` wrote."""
        from safetensors.torch import load_file

        directory = Path(path)
        if not (directory / SHAPE).exists():
            raise CheckpointError(f"{directory}: expected {SHAPE} and {WEIGHTS}, got none. Usual cause: not a saved FlowPolicy.")
        shape = json.loads((directory / SHAPE).read_text(encoding="utf-8"))
        policy = cls(**{k: v for k, v in shape.items() if k != "schema"}, dtype=dtype)
        policy.network.load_state_dict(load_file(directory / WEIGHTS))
        if reference:
            policy.set_reference()
        return policy


def taken_or(fill: int, x: Tensor, mask: Tensor) -> Tensor:
    """``x`` [N, T, ...] with ``fill`` where ``mask`` [N, T] is False: anything may stand there, NaN included.

    >>> taken_or(0, torch.tensor([[[1.], [torch.nan]]]), torch.tensor([[True, False]])).tolist()
    [[[1.0], [0.0]]]
    """
    return x if mask.all() else torch.where(mask.reshape(*mask.shape, *[1] * (x.dim() - 2)), x, fill)
