# SPDX-License-Identifier: Apache-2.0
"""A softmax policy in a table: the cheapest policy that goes through the whole loop, with every probability at hand.

A step is one of A actions; a task has ``length`` steps. What an action's logit may depend on is the task, the step and, with
``history``, the action before:

    logit[k, t, h, a] = start[k, t, h, a] + sum_d features[k, d] weight[d, t, h, a]

Without ``features`` each task has weights of its own. With them tasks share weights, so that what is learnt on some changes
others: the smallest policy that generalises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import CheckpointError, InputError, ShapeError, check_shape
from guerdon.policies.counter_stream import counter_stream
from guerdon.policies.gradient_updater import GradientUpdater
from guerdon.policies.language import settings_of, task_fields
from guerdon.policies.prefix import Prefix, forced_steps, parents
from guerdon.policies.token_distribution import draw
from guerdon.protocols import Context, Sampling
from guerdon.rollouts import Field, Rollouts

TENSORS, SETTINGS = "table.safetensors", "table.json"


class TablePolicy:
    """``tasks``: keys of the contexts it knows; ``actions``: A, how many there are.

    ``start``     [K, length, H, A] or what broadcasts to it: the logits it begins with, which the weights add to; H is 1 or, with
                  ``history``, A + 1: the action before, A where there is none
    ``features``  [K, D] of the tasks; None: one task, one feature
    ``value`` is a table too, of the state before the action, made of the same features; it begins at 0. The frozen reference is
    the policy as it began, or as it was at the last ``set_reference``.
    """

    outputs = frozenset({"log_prob", "log_probs", "entropy", "value", "ref_log_prob"})

    def __init__(
        self,
        tasks: Sequence[str],
        actions: int,
        *,
        length: int = 1,
        history: bool = False,
        start: Tensor | None = None,
        features: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.tasks, self.actions, self.length, self.dtype = list(tasks), actions, length, dtype
        self.states = actions + 1 if history else 1
        if len(set(self.tasks)) != len(self.tasks) or not self.tasks:
            raise InputError(f"TablePolicy: `tasks` should be one or more different keys, got {len(self.tasks)}.")
        if features is not None:
            check_shape("TablePolicy", "features", features, (len(self.tasks), None), "features of other tasks")
        shape = (len(self.tasks), length, self.states, actions)
        self.start = torch.zeros(shape, dtype=dtype)
        if start is not None:
            self.start += _broadcast(start, shape)
        self.features = None if features is None else features.to(dtype)
        inner = len(self.tasks) if features is None else features.shape[1]
        self.weight = torch.zeros(inner, *shape[1:], dtype=dtype, requires_grad=True)
        self.values = torch.zeros(inner, *shape[1:3], dtype=dtype, requires_grad=True)
        self.reference = self.start.clone()
        self._row = {task: k for k, task in enumerate(self.tasks)}

    # ---- the table

    def table(self) -> Tensor:
        """[K, length, H, A] logits as they are now, with gradient."""
        if self.features is None:
            return self.start + self.weight
        return self.start + torch.einsum("kd,dtha->ktha", self.features, self.weight)

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """[K, length, H, A] at temperature 1."""
        return self.table().softmax(-1)

    @torch.no_grad()
    def set_reference(self) -> None:
        """Make the policy as it is now the frozen reference."""
        self.reference = self.table().clone()

    # ---- sampling

    def sample(self, contexts: Sequence[Context], sampling: Sampling, seed: int) -> Rollouts:
        """One row per context; ``sampling.max_new_tokens`` cuts rows short. A `Prefix` is continued from where it ends."""
        if sampling.top_k or sampling.top_p < 1:
            raise InputError("TablePolicy: samples the whole distribution; top_k and top_p should be left out.")
        rows, n = self._rows(c.task for c in contexts), len(contexts)
        uniform = counter_stream(seed, [(c.task, c.index) for c in contexts], self.length)
        forced = torch.tensor(forced_steps(contexts))
        ends = (forced + sampling.max_new_tokens).clamp(max=self.length)
        if n and int(forced.max()) >= self.length:
            longest = int(forced.max())
            raise InputError(f"TablePolicy: a prefix should have fewer than the {self.length} steps of a row, got {longest}.")
        action = self._given(contexts, int(ends.max()) if n else 0)
        log_prob = torch.zeros(action.shape, dtype=self.dtype)
        with torch.no_grad():
            table = self.table().reshape(-1, self.actions) / (sampling.temperature or 1.0)
            for t in range(action.shape[1]):
                logits = table[self._states(rows, action)[:, t]]
                chosen = logits.argmax(-1) if sampling.temperature == 0 else draw(logits, uniform[:, t])
                action[:, t] = torch.where(t < forced, action[:, t], chosen)
                log_prob[:, t] = logits.log_softmax(-1).gather(1, action[:, t, None])[:, 0]
        mask = (torch.arange(action.shape[1]) >= forced[:, None]) & (torch.arange(action.shape[1]) < ends[:, None])
        return self._rollouts(contexts, action, mask, ends, torch.where(mask, log_prob, 0), settings_of(sampling))

    def encode(self, prompts: Sequence[str], completions: Sequence[Sequence[int]]) -> Rollouts:
        """Rollouts of what somebody else did in the tasks ``prompts``: ``length`` actions a row, or a number where that is 1."""
        given = torch.as_tensor([[c] if isinstance(c, int) else list(c) for c in completions])
        check_shape("TablePolicy", "completions", given, (len(prompts), self.length), "a completion that is cut short")
        contexts = [Context(p, p, group=i) for i, p in enumerate(prompts)]
        whole = torch.ones(given.shape, dtype=torch.bool)
        return self._rollouts(contexts, given, whole, torch.full((len(given),), self.length), None, {}, "demonstration")

    def _given(self, contexts: Sequence[Context], width: int) -> Tensor:
        action = torch.zeros(len(contexts), width, dtype=torch.long)
        for n, c in enumerate(contexts):
            if isinstance(c, Prefix):
                action[n, : len(c.action)] = c.action
        return action

    def _rollouts(
        self,
        contexts: Sequence[Context],
        action: Tensor,
        mask: Tensor,
        ends: Tensor,
        log_prob: Tensor | None,
        sampling: Mapping[str, Any],
        source: str = "policy",
    ) -> Rollouts:
        last = torch.arange(action.shape[1]) == ends[:, None] - 1
        ended = (ends == self.length)[:, None]
        written = [[" ".join(map(str, row[:end]))] for row, end in zip(action.tolist(), ends.tolist(), strict=True)]
        fields = {"prompt": Field("task", [c.prompt for c in contexts]), "completion": Field("episode", written)}
        return Rollouts(
            action=action,
            mask=mask,
            task=[c.task for c in contexts],
            log_prob=log_prob,
            terminated=last & ended,
            truncated=last & ~ended,
            length=ends,
            group=torch.tensor([c.group for c in contexts]),
            source=[source] * len(contexts),
            parent=parents(contexts) if len(contexts) else None,  # type: ignore[arg-type]
            fields=task_fields(contexts) | fields,
            sampling=sampling,
        )

    # ---- evaluation

    def evaluate(self, rollouts: Rollouts, want: frozenset[str]) -> dict[str, Tensor]:
        """``want`` of log_prob, entropy, value, ref_log_prob [N, T] and log_probs [N, T, A], that of every action.

        0 where the mask is False; at the temperature the rollouts were sampled at. ``ref_log_prob`` has no gradient.
        """
        unknown = frozenset(want) - self.outputs
        if unknown:
            raise InputError(
                f"TablePolicy: evaluate offers {', '.join(sorted(self.outputs))}; asked for {', '.join(sorted(unknown))}."
            )
        n, t = rollouts.mask.shape
        state = self._states(self._rows(rollouts.task), rollouts.action).reshape(-1)
        at = state * self.actions + rollouts.action.reshape(-1)
        temperature = float(rollouts.sampling.get("temperature") or 1.0)
        found: dict[str, Tensor] = {}
        if want & {"log_prob", "log_probs", "entropy"}:
            log_probs = (self.table().reshape(-1, self.actions) / temperature).log_softmax(-1)
            found["log_prob"] = log_probs.reshape(-1).index_select(0, at)
            if "entropy" in want:
                found["entropy"] = -(log_probs.exp() * log_probs).sum(-1).index_select(0, state)
            if "log_probs" in want:
                found["log_probs"] = log_probs.index_select(0, state)
        if "ref_log_prob" in want:
            frozen = (self.reference.reshape(-1, self.actions) / temperature).log_softmax(-1)
            found["ref_log_prob"] = frozen.reshape(-1).index_select(0, at)
        if "value" in want:
            mixed = self.values if self.features is None else torch.einsum("kd,dth->kth", self.features, self.values)
            found["value"] = mixed.reshape(-1).index_select(0, state)
        shaped = {k: v.reshape(n, t, *v.shape[1:]) for k, v in found.items() if k in want}
        return {k: torch.where(rollouts.mask if v.dim() == 2 else rollouts.mask[..., None], v, 0) for k, v in shaped.items()}

    def _rows(self, tasks: Any) -> Tensor:
        try:
            return torch.tensor([self._row[task] for task in tasks], dtype=torch.long)
        except KeyError as e:
            raise InputError(
                f"TablePolicy: expected one of its {len(self.tasks)} tasks, got {e.args[0]!r}. Usual cause: tasks that it was "
                "not made for; a table knows no others."
            ) from None

    def _states(self, rows: Tensor, action: Tensor) -> Tensor:
        """[N, T] the row of the flat table [K * length * H, A] that each step reads."""
        t = action.shape[1]
        if t > self.length:
            raise ShapeError(f"TablePolicy: rows should have at most {self.length} steps, got {t}.")
        state = rows[:, None] * self.length + torch.arange(t)
        if self.states == 1:
            return state
        before = torch.cat([torch.full((len(action), 1), self.actions), action[:, :-1]], 1)
        return state * self.states + before

    # ---- learning

    def updater(self, *, lr: float = 0.1, **settings: Any) -> GradientUpdater:
        """Gradient descent on weights and values; ``settings`` as in ``GradientUpdater``."""
        return GradientUpdater({"weight": self.weight, "values": self.values}, lr=lr, **settings)

    def state_dict(self) -> dict[str, Tensor]:
        return {k: getattr(self, k).detach().clone() for k in ("weight", "values", "start", "reference")}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        wrong = [k for k, v in self.state_dict().items() if k not in state or state[k].shape != v.shape]
        if wrong:
            raise CheckpointError(
                f"TablePolicy: expected a state with {', '.join(f'{k} {list(getattr(self, k).shape)}' for k in wrong)}, got "
                f"{ {k: list(v.shape) for k, v in state.items()} }. Usual cause: other tasks, actions, steps or features."
            )
        with torch.no_grad():
            for k in self.state_dict():
                getattr(self, k).copy_(state[k])

    def save(self, path: Path | str) -> None:
        """``table.safetensors`` with the tensors and ``table.json`` with the rest."""
        from safetensors.torch import save_file

        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        features = {} if self.features is None else {"features": self.features}
        save_file(self.state_dict() | features, directory / TENSORS)
        settings = {"tasks": self.tasks, "actions": self.actions, "length": self.length, "history": self.states > 1}
        (directory / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> TablePolicy:
        """What ``save`` wrote."""
        from safetensors.torch import load_file

        settings = json.loads((Path(path) / SETTINGS).read_text(encoding="utf-8"))
        tensors = load_file(Path(path) / TENSORS)
        policy = cls(**settings, features=tensors.get("features"), dtype=tensors["weight"].dtype)
        policy.load_state_dict(tensors)
        return policy


def _broadcast(start: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        return start.broadcast_to(shape)
    except RuntimeError:
        raise ShapeError(
            f"TablePolicy: `start` should broadcast to [tasks, steps, states, actions] = {list(shape)}, got {list(start.shape)}. "
            "Usual cause: logits [tasks, actions] of one step; use start[:, None, None]."
        ) from None
