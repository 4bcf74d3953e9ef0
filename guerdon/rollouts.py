# SPDX-License-Identifier: Apache-2.0
"""Rollouts: what happened. N rows of at most T decision steps, whatever the policy.

A step is one decision: a token, an action in an environment, a denoising step, one cell of a table walked through. A row is
storage, padded on the right to T; it may hold several episodes. Everything a reward may read about a row is a named field with a
level, so a saved rollout can be scored again by any reward, and traces from elsewhere load into the same shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.errors import InputError, ShapeError, check_shape
from guerdon.levels import is_finer, pool


@dataclass(frozen=True, eq=False)
class Field:
    """A named ingredient and the level its values belong to.

    - ``task``: one value per row (the same for every row of a task): a sequence of N or a tensor [N, ...].
    - ``step``: a tensor [N, T, ...].
    - any other level: one value per unit: N sequences of that row's units, or a tensor [N, K, ...].
    """

    level: str
    values: Any


@dataclass(frozen=True, eq=False)
class Rollouts:
    """N rows of at most T steps. See the conventions page for each word.

    action       [N, T, ...]  what the policy did (token ids, actions, the next noisy image)
    mask         [N, T] bool  True: the policy took this step. Padding, tools, guides and opponents did not
    task         N strings    stable across batches and resumes
    log_prob     [N, T]       of ``action`` under the distribution *sampled from* (nats; 0 where the mask is False); None: unknown
    terminated   [N, T] bool  the episode ended at this step by itself
    truncated    [N, T] bool  the episode was cut at this step (a limit, not the task)
    length       [N] int64    steps stored in the row; the rest is padding (default: T)
    levels       name -> [N, T] int64 unit ids within the row, -1 = none; step, turn and episode are always there
    group        [N] int64    rows compared with one another (default: one group per task)
    groups       level -> [N, K] int64  groups of other units than whole rows
    source       N strings    who acted: policy version, individual of a population, guide, opponent, expert
    weight       [N]          how much the row counts (default 1)
    parent       [N, 2] int64 (row, step) that the row was forked from, (-1, -1) = none, so that a search tree is rows
    fields       name -> Field
    sampling     settings the rows were sampled with (temperature, top_p, ...), JSON values
    """

    action: Tensor
    mask: Tensor
    task: Sequence[str]
    log_prob: Tensor | None = None
    terminated: Tensor = None  # type: ignore[assignment]  # filled in below
    truncated: Tensor = None  # type: ignore[assignment]
    length: Tensor = None  # type: ignore[assignment]
    levels: Mapping[str, Tensor] = field(default_factory=dict)
    group: Tensor = None  # type: ignore[assignment]
    groups: Mapping[str, Tensor] = field(default_factory=dict)
    source: Sequence[str] = ()
    weight: Tensor = None  # type: ignore[assignment]
    parent: Tensor = None  # type: ignore[assignment]
    fields: Mapping[str, Field] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.action.dim() < 2:
            raise ShapeError(f"Rollouts: `action` should have shape [N, T, ...], got {list(self.action.shape)}.")
        n, t = self.action.shape[:2]
        device = self.action.device
        default = {
            "terminated": lambda: torch.zeros(n, t, dtype=torch.bool, device=device),
            "truncated": lambda: torch.zeros(n, t, dtype=torch.bool, device=device),
            "length": lambda: torch.full((n,), t, device=device),
            "group": lambda: _ids_of(self.task).to(device),
            "weight": lambda: torch.ones(n, device=device),
            "parent": lambda: torch.full((n, 2), -1, device=device),
        }
        for name, make in default.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, make())
        object.__setattr__(self, "task", list(self.task))
        object.__setattr__(self, "source", list(self.source) or ["policy"] * n)
        stored = torch.arange(t, device=device) < self.length[:, None]
        one = torch.where(stored, 0, -1)
        steps = torch.where(stored, torch.arange(t, device=device), -1)
        object.__setattr__(self, "levels", {"step": steps, "turn": one, "episode": one, **self.levels})
        self._check(n, t)

    def _check(self, n: int, t: int) -> None:
        for name in ("mask", "terminated", "truncated", "log_prob"):
            if getattr(self, name) is not None:
                check_shape("Rollouts", name, getattr(self, name), (n, t))
        if self.mask.dtype != torch.bool:
            raise ShapeError(f"Rollouts: `mask` should be bool (True counts), got {self.mask.dtype}.")
        for what, have in (("task", self.task), ("source", self.source)):
            if len(have) != n:
                raise ShapeError(f"Rollouts: `{what}` should have one entry for each of {n} rows, got {len(have)}.")
        for name in ("length", "group", "weight"):
            check_shape("Rollouts", name, getattr(self, name), (n,))
        check_shape("Rollouts", "parent", self.parent, (n, 2))
        for name, ids in self.levels.items():
            check_shape("Rollouts", f"levels[{name!r}]", ids, (n, t))
        for name, f in self.fields.items():
            count = f.values.shape[0] if isinstance(f.values, Tensor) else len(f.values)
            if count != n:
                raise ShapeError(f"Rollouts: field `{name}` ({f.level}) should hold {n} rows, got {count}.")

    # ---- reading

    def __len__(self) -> int:
        return self.action.shape[0]

    def __repr__(self) -> str:
        fields = ", ".join(f"{k}:{v.level}" for k, v in self.fields.items())
        extra = [k for k in self.levels if k not in ("step", "turn", "episode")]
        size = f"{len(self)} rows x {self.action.shape[1]} steps, {int(self.mask.sum())} taken"
        return f"Rollouts({size}; fields {fields or 'none'}; levels +{extra})"

    def level(self, name: str) -> Tensor:
        """[N, T] unit ids of a level, -1 = none."""
        if name not in self.levels:
            raise InputError(
                f"Rollouts: no level `{name}`; there are {', '.join(self.levels)}. Usual cause: its splitter was not run."
            )
        return self.levels[name]

    def field(self, name: str) -> Field:
        if name not in self.fields:
            raise InputError(
                f"Rollouts: no field `{name}`; there are {', '.join(self.fields) or 'none'}. "
                "Usual cause: the data has no column of that name."
            )
        return self.fields[name]

    def unit_counts(self, level: str) -> list[int]:
        """How many units of ``level`` each row has."""
        ids = self.level(level)
        return (ids.max(1).values + 1).tolist() if ids.shape[1] else [0] * len(self)

    def units(self, level: str) -> Iterator[tuple[int, int]]:
        """(row, unit) of every unit of ``level``, in order."""
        return ((n, k) for n, count in enumerate(self.unit_counts(level)) for k in range(count))

    def values_at(self, name: str, level: str) -> list[Any]:
        """Field ``name`` for every unit of ``level`` in the order of ``units(level)``; a coarser field is copied down.

        A row-level (task) value serves every unit. A unit of ``level`` takes the value of the coarser unit that its first
        step lies in.
        """
        f, counts = self.field(name), self.unit_counts(level)
        if f.level == "task":
            return [v for v, count in zip(f.values, counts, strict=True) for _ in range(count)]
        if f.level == level:
            return [row[k] for row, count in zip(f.values, counts, strict=True) for k in range(count)]
        if is_finer(f.level, level):
            raise InputError(
                f"Rollouts: `{name}` has a value per {f.level}, and one per {level} is asked for. "
                "Usual cause: a function of whole answers reads a field of their parts; give it level=."
            )
        outer = pool(self.level(f.level).double(), self.level(level), "first").tolist()
        out = []
        for n, (row, units, count) in enumerate(zip(f.values, outer, counts, strict=True)):
            for k in range(count):
                if not units[k] >= 0:
                    raise InputError(
                        f"Rollouts: `{name}` has no value for {level} {k} of row {n}: that {level} lies in no {f.level}."
                    )
                out.append(row[int(units[k])])
        return out

    # ---- making others of it

    def replace(self, **changes: Any) -> Rollouts:
        return dataclasses.replace(self, **changes)

    def with_level(self, name: str, ids: Tensor) -> Rollouts:
        return self.replace(levels={**self.levels, name: ids})

    def with_field(self, name: str, level: str, values: Any) -> Rollouts:
        return self.replace(fields={**self.fields, name: Field(level, values)})

    def rows(self, index: Tensor | Sequence[int] | slice) -> Rollouts:
        """The rows at ``index`` (int64 or bool), in that order. ``parent`` still counts rows of the whole.

        A slice shares its tensors with the whole.
        """
        if isinstance(index, slice):
            return self._sliced(index)
        at = torch.as_tensor(index, device=self.action.device)
        at = at.nonzero()[:, 0] if at.dtype == torch.bool else at.long()
        pick = at.tolist()

        def take(x: Any) -> Any:
            return x[at] if isinstance(x, Tensor) else [x[i] for i in pick]

        changes = {f.name: take(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name in _PER_ROW}
        changes["log_prob"] = None if self.log_prob is None else take(self.log_prob)
        return self.replace(
            **changes,
            levels={k: take(v) for k, v in self.levels.items()},
            groups={k: take(v) for k, v in self.groups.items()},
            fields={k: Field(v.level, take(v.values)) for k, v in self.fields.items()},
        )

    def _sliced(self, rows: slice) -> Rollouts:
        """Neighbouring rows."""
        here = vars(self)
        cut = {k: x[rows] for k, x in here.items() if k in _PER_ROW or (k == "log_prob" and x is not None)}
        cut |= {name: {k: v[rows] for k, v in here[name].items()} for name in ("levels", "groups")}
        return self._part(**cut, fields={k: Field(f.level, f.values[rows]) for k, f in self.fields.items()})

    def _part(self, **changes: Any) -> Rollouts:
        """``replace`` without the checks, since what is changed is a part of what was checked."""
        some = object.__new__(Rollouts)
        vars(some).update({**vars(self), **changes})
        return some

    def steps(self, rows: Tensor, steps: Tensor) -> Rollouts:
        """The steps at (``rows``, ``steps``), each as a row of its own, with the fields that belong to steps.

        >>> r = Rollouts(torch.tensor([[5, 6], [7, 8]]), torch.ones(2, 2, dtype=torch.bool), ["a", "b"])
        >>> s = r.steps(torch.tensor([1, 0]), torch.tensor([0, 1]))
        >>> s.action.tolist(), s.task
        ([[7], [6]], ['b', 'a'])
        """
        at, (n, t) = rows * self.action.shape[1] + steps, self.action.shape[:2]
        taken: dict[int, Tensor] = {}

        def take(x: Tensor) -> Tensor:
            if id(x) not in taken:  # the action may be a field too
                taken[id(x)] = x.reshape(n * t, 1, *x.shape[2:]).index_select(0, at)
            return taken[id(x)]

        of_steps = {k: f.values for k, f in self.fields.items() if f.level == "step" and isinstance(f.values, Tensor)}
        pick, zeros = rows.cpu().numpy(), torch.zeros(len(rows), 1, dtype=torch.long, device=rows.device)
        task, source = (np.array(x, dtype=object)[pick].tolist() for x in (self.task, self.source))
        return self._part(
            **{k: take(getattr(self, k)) for k in ("action", "mask", "terminated", "truncated")},
            log_prob=None if self.log_prob is None else take(self.log_prob),
            task=task,
            source=source,
            length=zeros[:, 0] + 1,
            levels={"step": zeros, "turn": zeros, "episode": zeros},
            group=self.group[rows],
            groups={},
            weight=self.weight[rows],
            parent=zeros.expand(-1, 2) - 1,
            fields={k: Field("step", take(v)) for k, v in of_steps.items()},
        )

    def to(self, device: torch.device | str) -> Rollouts:
        def move(x: Any) -> Any:
            if isinstance(x, Tensor):
                return x.to(device)
            if isinstance(x, Field):
                return Field(x.level, move(x.values))
            return {k: move(v) for k, v in x.items()} if isinstance(x, dict) else x

        return self.replace(**{f.name: move(getattr(self, f.name)) for f in dataclasses.fields(self)})

    @staticmethod
    def from_text(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        steps: str = "text",
        task: Sequence[str] | None = None,
        group: Sequence[Any] | None = None,
        **fields: Sequence[Any],
    ) -> Rollouts:
        """Rollouts of plain strings or chat messages, for rewards that run without a trainer.

        ``steps``: "text" makes each completion one step (fast); "characters" makes each character a step, so that rewards at
        finer levels have steps to stand on. ``fields`` are task fields by name, one value per row.

        >>> r = Rollouts.from_text(["2+2="], ["4"], answer=["4"])
        >>> r.values_at("completion", "episode"), r.values_at("answer", "episode")
        (['4'], ['4'])
        """
        n = len(completions)
        for name, values in {"prompts": prompts, **fields}.items():
            if len(values) != n:
                raise InputError(f"from_text: `{name}` should have one entry for each of {n} completions, got {len(values)}.")
        texts = [completion_text(c) for c in completions]
        size = [max(len(t), 1) if steps == "characters" else 1 for t in texts]
        t = max(size, default=0)
        length = torch.tensor(size, dtype=torch.long)
        mask = torch.arange(t) < length[:, None]
        ends = torch.tensor([len(x) for x in texts], dtype=torch.long).reshape(n, 1)
        if steps == "characters":
            start = torch.arange(t).expand(n, t)
            offset = torch.stack([start, start + 1], -1).minimum(ends[..., None])
        else:
            offset = torch.stack([torch.zeros_like(ends), ends], -1)
        made = {
            "prompt": Field("task", list(prompts)),
            "completion": Field("episode", [[x] for x in texts]),
            "offset": Field("step", offset),
            **{k: Field("task", list(v)) for k, v in fields.items()},
        }
        if any(not isinstance(c, str) for c in completions):
            pairs = zip(prompts, completions, strict=True)
            made["messages"] = Field("episode", [[as_messages(p) + as_messages(c, "assistant")] for p, c in pairs])
        keys = list(task) if task is not None else [str(i) for i in range(n)]
        return Rollouts(
            action=torch.zeros(n, t, dtype=torch.long),
            mask=mask,
            task=keys,
            length=length,
            group=_ids_of(group) if group is not None else None,  # type: ignore[arg-type]
            fields=made,
        )

    @staticmethod
    def concat(parts: Sequence[Rollouts]) -> Rollouts:
        """Rows of several Rollouts in order; padded to the longest. Groups are kept apart; fields must be those of the first."""
        from guerdon.concatenation import concat_rollouts

        return concat_rollouts(parts)

    def save(self, path: Any) -> None:
        """Write a parquet file that pandas and datasets read; needs ``guerdon[data]``."""
        from guerdon.storage import save_rollouts

        save_rollouts(self, path)

    @staticmethod
    def load(path: Any) -> Rollouts:
        from guerdon.storage import load_rollouts

        return load_rollouts(path)


_PER_ROW = {"action", "mask", "task", "terminated", "truncated", "length", "group", "source", "weight", "parent"}


def _ids_of(keys: Sequence[Any]) -> Tensor:
    seen: dict[Any, int] = {}
    return torch.tensor([seen.setdefault(k, len(seen)) for k in keys], dtype=torch.long)


def as_messages(prompt: Any, role: str = "user") -> list[dict[str, Any]]:
    """A prompt as chat messages: a string is one message of ``role``."""
    return [{"role": role, "content": prompt}] if isinstance(prompt, str) else list(prompt)


def completion_text(completion: Any) -> str:
    """What the policy wrote: the string itself, or the contents of the assistant's messages, one per line.

    >>> said = [("assistant", "a"), ("tool", "b"), ("assistant", "c")]
    >>> completion_text([{"role": r, "content": c} for r, c in said])
    'a\\nc'
    """
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, Sequence) or not all(isinstance(m, Mapping) and "role" in m for m in completion):
        raise InputError(
            f"completion should be a string or a list of messages with a role and a content, got {completion!r:.120}."
        )
    return "\n".join(str(m.get("content", "")) for m in completion if m["role"] == "assistant")
