# SPDX-License-Identifier: Apache-2.0
"""Rollouts put one below the other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import InputError, ShapeError
from guerdon.rollouts import Field, Rollouts

_PER_STEP = ("action", "mask", "log_prob", "terminated", "truncated")


def concat_rollouts(parts: Sequence[Rollouts]) -> Rollouts:
    """The rows of ``parts`` in order, padded on the right to the longest.

    Fields (name, level, and dtype and shape of a tensor), ``log_prob`` (there or not) and sampling settings must be the same in
    each part. Groups stay apart: ids of 0 and more are moved beyond those of the parts before. ``parent`` rows move with their
    part. A level or a grouping that a part lacks is -1 (none) in its rows. What is padded is 0, False, or -1 for ids.

    >>> both = concat_rollouts([Rollouts.from_text(["1+1="], ["2"]), Rollouts.from_text(["1+2="], ["4"])])
    >>> both.task, both.group.tolist(), both.values_at("completion", "episode")
    (['0', '0'], [0, 1], ['2', '4'])
    """
    if not parts:
        raise InputError("concat: expected one Rollouts or more, got none. Usual cause: no batch was sampled.")
    first = parts[0]
    for i, part in enumerate(parts[1:], 1):
        _check_alike(first, part, i)
    width = max(p.action.shape[1] for p in parts)
    starts = [0, *itertools.accumulate(len(p) for p in parts)]
    levels = {k: [p.levels.get(k, _none(p, width)) for p in parts] for k in _names(p.levels for p in parts)}
    groups = {k: [p.groups.get(k, _none(p, 0)) for p in parts] for k in _names(p.groups for p in parts)}
    tensors = {k: [getattr(p, k) for p in parts] for k in (*_PER_STEP, "length", "weight") if getattr(first, k) is not None}
    return Rollouts(
        **{k: _stack(f"`{k}`", x, 0) for k, x in tensors.items()},
        task=[x for p in parts for x in p.task],
        source=[x for p in parts for x in p.source],
        group=_stack("`group`", _kept_apart([p.group for p in parts]), -1),
        groups={k: _stack(f"groups of `{k}`", _kept_apart(x), -1) for k, x in groups.items()},
        parent=_stack("`parent`", [_moved(p.parent, start) for p, start in zip(parts, starts, strict=False)], -1),
        levels={k: _stack(f"level `{k}`", x, -1) for k, x in levels.items()},
        fields={k: Field(f.level, _joined(k, [p.fields[k].values for p in parts])) for k, f in first.fields.items()},
        sampling=first.sampling,
    )


def _check_alike(first: Rollouts, part: Rollouts, number: int) -> None:
    have = [{k: f.level for k, f in p.fields.items()} for p in (first, part)]
    settings = [dict(p.sampling, log_prob="unknown" if p.log_prob is None else "known") for p in (first, part)]
    for what, (a, b), cause in (
        ("fields", have, "parts of different tasks, or a splitter run on one part only"),
        ("sampling settings", settings, "parts sampled in different ways; .replace(sampling=..., log_prob=...) makes them alike"),
    ):
        differ = sorted(k for k in a.keys() | b.keys() if k not in a or k not in b or a[k] != b[k])
        if differ:
            said = "; ".join(f"`{k}` {_said(a, k)} in part 0, {_said(b, k)} in part {number}" for k in differ)
            raise InputError(f"concat: the parts should have the same {what}, got {said}. Usual cause: {cause}.")


def _said(have: Mapping[str, Any], name: str) -> str:
    return f"is {have[name]}" if name in have else "is missing"


def _names(mappings: Any) -> list[str]:
    return list(dict.fromkeys(name for m in mappings for name in m))


def _none(part: Rollouts, width: int) -> Tensor:
    return torch.full((len(part), width), -1, device=part.action.device)


def _moved(parent: Tensor, start: int) -> Tensor:
    return torch.where(parent[:, :1] >= 0, parent + parent.new_tensor([start, 0]), parent)


def _kept_apart(ids: list[Tensor]) -> list[Tensor]:
    """The ids of each part moved beyond the largest of the parts before; negative ones (none) stay."""
    out, start = [], 0
    for x in ids:
        out.append(torch.where(x >= 0, x + start, x))
        start = max(start, int(out[-1].max()) + 1) if x.numel() else start
    return out


def _stack(what: str, tensors: list[Tensor], fill: int) -> Tensor:
    """Tensors [N, W, ...] below one another, W padded to the widest; [N] as they are."""
    first = tensors[0]
    for i, x in enumerate(tensors):
        if x.dtype != first.dtype or x.shape[2:] != first.shape[2:] or x.dim() != first.dim():
            raise ShapeError(
                f"concat: {what} should have the same dtype and inner shape in each part, got {first.dtype} {list(first.shape)} "
                f"in part 0, {x.dtype} {list(x.shape)} in part {i}. Usual cause: parts of different policies or environments."
            )
    if first.dim() == 1:
        return torch.cat(tensors)
    width = max(x.shape[1] for x in tensors)
    out = first.new_full((sum(x.shape[0] for x in tensors), width, *first.shape[2:]), fill)
    start = 0
    for x in tensors:
        out[start : start + x.shape[0], : x.shape[1]] = x
        start += x.shape[0]
    return out


def _joined(name: str, values: list[Any]) -> Any:
    tensors = [isinstance(v, Tensor) for v in values]
    if all(tensors):
        return _stack(f"field `{name}`", values, 0)
    if any(tensors):
        raise InputError(
            f"concat: field `{name}` should be a tensor in each part or a list in each, got both. Usual cause: one made by hand."
        )
    return [v for part in values for v in part]
