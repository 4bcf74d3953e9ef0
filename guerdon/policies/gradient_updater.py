# SPDX-License-Identifier: Apache-2.0
"""Gradient descent on a network's parameters from gradients with respect to its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import CheckpointError, GuerdonError, InputError

OPTIMISERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


class GradientUpdater:
    """Back-propagates the gradients it is handed, clips their joint norm and takes one step of a PyTorch optimiser.

    ``parameters``: name -> parameter. ``settings`` go to the optimiser (betas, eps, momentum, ...).
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        lr: float,
        optimiser: str = "adamw",
        max_grad_norm: float = 1.0,
        weight_decay: float = 0.0,
        **settings: Any,
    ) -> None:
        if optimiser not in OPTIMISERS:
            raise InputError(f"updater: `optimiser` should be one of {', '.join(OPTIMISERS)}, got {optimiser!r}.")
        self.parameters = dict(parameters)
        self.max_grad_norm = max_grad_norm
        settings = {"lr": lr, "weight_decay": weight_decay, "fused": True, **settings}
        self.optimiser = OPTIMISERS[optimiser](list(self.parameters.values()), **settings)

    def accumulate(self, outputs: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Add d loss / d parameters, given d loss / d output for some of the ``outputs`` of ``evaluate``."""
        unknown = gradients.keys() - outputs.keys()
        if unknown:
            raise InputError(f"updater: a gradient for {', '.join(sorted(unknown))}, but the outputs are {', '.join(outputs)}.")
        self.back_propagate(outputs, gradients)

    def back_propagate(self, outputs: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Add to the parameters' ``grad``."""
        torch.autograd.backward([outputs[k] for k in gradients], list(gradients.values()))

    def step(self, **schedule: float) -> dict[str, float]:
        """Apply what was accumulated. ``schedule``: new values of ``max_grad_norm`` or the optimiser's settings, such as ``lr``.

        A gradient that isn't finite raises, and nothing is applied.
        """
        self.max_grad_norm = schedule.pop("max_grad_norm", self.max_grad_norm)
        group = self.optimiser.param_groups[0]
        for name, value in schedule.items():
            if name not in group:
                known = ", ".join(sorted(group.keys() - {"params"}))
                raise InputError(f"updater: no setting `{name}`; there are max_grad_norm, {known}.")
            group[name] = value
        norm = self._clip()
        if not norm < float("inf"):
            bad = [k for k, p in self.parameters.items() if p.grad is not None and not torch.isfinite(p.grad).all()]
            self.optimiser.zero_grad()
            raise GuerdonError(
                f"updater: expected a finite gradient, got norm {norm}; it is not finite in {len(bad)} of {len(self.parameters)} "
                f"parameters, first {', '.join(bad[:3]) or 'none'}. Nothing was applied. "
                "Usual cause: a NaN advantage that was not masked, or the exponential of a large log-ratio."
            )
        self.apply()
        for p in self.parameters.values():  # as zero_grad does, without its hooks
            p.grad = None
        return {"grad_norm": norm}

    def apply(self) -> None:
        """The optimiser's step."""
        self.optimiser.step()

    def take_gradient(self) -> Tensor:
        """[P] what was accumulated, in the order of ``parameters``, 0 where nothing was; it is taken away."""
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters.values()]
        flat = torch.cat([g.detach().flatten() for g in parts])
        self.optimiser.zero_grad()
        return flat

    def _clip(self) -> float:
        """Shorten the gradients' joint norm to ``max_grad_norm`` at most; the norm as it was."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norms = torch._foreach_norm(gradients) if gradients else [torch.zeros(())]
        norm = (norms[0] if len(norms) == 1 else torch.stack(norms).norm()).item()
        if norm > self.max_grad_norm:
            torch._foreach_mul_(gradients, self.max_grad_norm / (norm + 1e-6))
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """Flat name -> tensor: the optimiser's memory as PARAMETER/KEY, and its settings as settings/KEY."""
        out = {f"settings/{k}": torch.tensor(v, dtype=torch.float64) for k, v in self._settings().items()}
        for name, p in self.parameters.items():
            out |= {f"{name}/{k}": v.detach().clone() for k, v in self.optimiser.state[p].items() if isinstance(v, Tensor)}
        return out

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        group = self.optimiser.param_groups[0]
        for key, value in state.items():
            name, _, what = key.rpartition("/")
            if name == "settings":
                if what == "max_grad_norm":
                    self.max_grad_norm = value.item()
                else:
                    group[what] = tuple(value.tolist()) if value.dim() else value.item()
            elif name in self.parameters:
                p = self.parameters[name]
                like = p.dtype if value.dim() else value.dtype
                self.optimiser.state[p][what] = value.detach().clone().to(p.device, like)
            else:
                raise CheckpointError(f"updater: the state has `{key}`, but no such parameter. Usual cause: another model.")

    def _settings(self) -> dict[str, Any]:
        group = self.optimiser.param_groups[0]
        numbers = {k: v for k, v in group.items() if isinstance(v, (float, tuple)) and not isinstance(v, bool)}
        return {**numbers, "max_grad_norm": self.max_grad_norm}
