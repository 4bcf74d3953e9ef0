# SPDX-License-Identifier: Apache-2.0
"""Rollouts, Scores and Comparisons as parquet files that pandas and datasets read too, and rollouts put one below the other.

Rollouts     one row per rollout row; ``level/NAME`` and ``groups/NAME`` hold unit and group ids, a field has its own name
Scores       one row per (part, row, unit) that exists: part, role, level, row, unit, value, status, reason, uncertainty. A part
             is written once, under its first role: total, component, trace. After them one row per (level, row) with role
             ``level`` and the unit of each step in ``steps``; likewise role ``mask`` with 1 where the policy took the step
Comparisons  one row per pair

A value per step or unit is a list cut to the row's own length; what lies beyond it is one number in the metadata, or a column
``padding/NAME`` where it varies. A vector or image is one flat list, its shape in the metadata. Strings, numbers, bytes and lists
of one such type are native columns; anything else is JSON text. Numbers smaller than float32 are stored as float32.

What is needed to load exactly (dtypes, shapes, levels, settings) is JSON in the file's metadata under ``guerdon``, with the
number of this layout (``SCHEMA``). Loaded tensors lie on the CPU. Tuples come back as lists.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from guerdon.comparisons import Comparisons
from guerdon.errors import CheckpointError, InputError, ShapeError
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Bounds, Component, Scores, Status

_T = TypeVar("_T")

SCHEMA = 1
"""Number of the layout; a file with a larger one is refused."""

_PER_ROW = ("task", "source", "length", "group", "weight", "parent")
_PER_STEP = ("action", "mask", "log_prob", "terminated", "truncated")
_STATUS = [s.name.lower() for s in Status]  # in the order of their numbers, from -1


# ---- rollouts


def save_rollouts(rollouts: Rollouts, path: str | os.PathLike[str]) -> None:
    """Write ``rollouts``; what it holds and how it is read back are described at the top of this module."""
    table = _Columns("save_rollouts")
    for name in _PER_ROW:
        table.add(name, getattr(rollouts, name), None, part=name)
    for name in _PER_STEP:
        if getattr(rollouts, name) is not None:
            table.add(name, getattr(rollouts, name), rollouts.length, part=name)
    for name, ids in rollouts.levels.items():
        table.add(f"level/{name}", ids, rollouts.length, part="levels", name=name)
    for name, ids in rollouts.groups.items():
        table.add(f"groups/{name}", ids, _unit_counts(rollouts, name), part="groups", name=name)
    for name, f in rollouts.fields.items():
        counts = None if f.level == "task" else rollouts.length if f.level == "step" else _unit_counts(rollouts, f.level)
        table.add(name, f.values, counts, part="fields", name=name, level=f.level)
    sampling = _plain("save_rollouts: `sampling`", rollouts.sampling)
    _write(path, "rollouts", table.arrays, {"columns": table.specs, "sampling": sampling})


def load_rollouts(path: str | os.PathLike[str]) -> Rollouts:
    """The Rollouts that ``save_rollouts`` wrote, equal in every value and dtype."""

    def build(table: Any, about: dict[str, Any]) -> Rollouts:
        made: dict[str, Any] = {"levels": {}, "groups": {}, "fields": {}, "sampling": about["sampling"]}
        for spec in about["columns"]:
            values, part = _unpack(table, spec), spec["part"]
            if part == "fields":
                made[part][spec["name"]] = Field(spec["level"], values)
            elif part in ("levels", "groups"):
                made[part][spec["name"]] = values
            else:
                made[part] = values
        return Rollouts(**made)

    return _read(path, "rollouts", build)


def _unit_counts(rollouts: Rollouts, level: str) -> Tensor:
    """[N] units of ``level`` in each row; the largest number where the rollouts lack that level, so that nothing is cut."""
    if level not in rollouts.levels:
        return torch.full((len(rollouts),), torch.iinfo(torch.long).max)
    return torch.tensor(rollouts.unit_counts(level), dtype=torch.long)


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


# ---- scores


def save_scores(scores: Scores, path: str | os.PathLike[str]) -> None:
    """Write ``scores``, one row per (part, row, unit). A unit that a row does not have (status none) has no row in the file."""
    pa = _arrow("save_scores")
    parts: list[tuple[str, str, Component]] = []
    number: dict[int, int] = {}
    named = [("total", {scores.total.name: scores.total}), ("component", scores.components), ("trace", scores.trace)]
    for role, mapping in named:
        for name, c in mapping.items():
            if id(c) not in number:
                number[id(c)] = len(parts)
                parts.append((role, name, c))
    rows = [_part_rows(role, name, c) for role, name, c in parts]
    steps = [("mask", "mask", scores.mask), *(("level", name, ids) for name, ids in scores.levels.items())]
    rows += [_step_rows(role, name, ids) for role, name, ids in steps]
    arrays = {k: pa.concat_arrays([made[k] for made, _ in rows]) for k in rows[0][0]}
    about = {
        "parts": [spec for _, spec in rows],
        "components": {k: number[id(c)] for k, c in scores.components.items()},
        "trace": {k: number[id(c)] for k, c in scores.trace.items()},
    }
    _write(path, "scores", arrays, about)


def load_scores(path: str | os.PathLike[str]) -> Scores:
    """The Scores that ``save_scores`` wrote; a file in which rows are missing or in another order is refused."""

    def build(table: Any, about: dict[str, Any]) -> Scores:
        start, scored, steps = 0, [], {}
        for spec in about["parts"]:
            rows = table.slice(start, spec["rows"])
            got = [rows[k].unique().to_pylist() for k in ("role", "part")]
            if len(rows) != spec["rows"] or (len(rows) and got != [[spec["role"]], [spec["part"]]]):
                raise ValueError(f"expected {spec['rows']} rows of {spec['role']} `{spec['part']}`, got {len(rows)} of {got}")
            start += spec["rows"]
            if spec["role"] in ("mask", "level"):
                flat = torch.from_numpy(_flat(rows["steps"].combine_chunks()).copy())
                steps[spec["role"], spec["part"]] = flat.reshape(spec["shape"]).to(_dtype(spec["dtype"]))
            else:
                scored.append(_component(rows, spec))
        if start != table.num_rows:
            raise ValueError(f"expected {start} rows, got {table.num_rows}")
        return Scores(
            total=scored[0],
            components={k: scored[i] for k, i in about["components"].items()},
            trace={k: scored[i] for k, i in about["trace"].items()},
            levels={name: x for (role, name), x in steps.items() if role == "level"},
            mask=steps["mask", "mask"],
        )

    return _read(path, "scores", build)


def _part_rows(role: str, name: str, c: Component) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns of one part, and what else is needed to build it again."""
    pa = _arrow("save_scores")
    status = c.status.cpu()
    code = status.long() - Status.NONE
    outside = [at for at in c.reasons if not all(0 <= i < size for i, size in zip(at, status.shape, strict=True))]
    unknown = status[(code < 0) | (code >= len(_STATUS))].unique().tolist()
    if outside or unknown:
        raise InputError(
            f"save_scores: `{name}` should have statuses {int(Status.NONE)} to {int(Status.ERROR)} and reasons for units of "
            f"{list(status.shape)}, got statuses {unknown} and reasons at {outside[:3]}. Usual cause: a Component made by hand."
        )
    shown = status != Status.NONE
    for at in c.reasons:
        shown[at] = True
    uncertainty, fill = None, None
    if c.uncertainty is not None:
        uncertainty = _stored(c.uncertainty)
        fill = _constant(uncertainty[~shown])
        if fill is None:  # it says something of units that aren't there: write them all
            shown, fill = torch.ones_like(shown), 0
    where = shown.nonzero()
    values, n = _stored(c.values)[shown].double().numpy(), len(where)
    reasons, as_json = pa.nulls(n, pa.string()), False
    if c.reasons:
        reasons, as_json = _sequence("save_scores: reasons", [c.reasons.get((row, unit)) for row, unit in where.tolist()])
    made = {
        **_labels(n, part=name, role=role, level=c.level),
        "row": _numbers(where[:, 0]),
        "unit": _numbers(where[:, 1]),
        "value": pa.array(values, pa.float64(), mask=np.isnan(values)),
        "status": pa.array(_STATUS).take(_numbers(code[shown])),
        "reason": reasons,
        "uncertainty": pa.nulls(n, pa.float64()) if uncertainty is None else _numbers(uncertainty[shown].double()),
        "steps": pa.nulls(n, pa.list_(pa.int64())),
    }
    spec = {
        "role": role,
        "part": name,
        "rows": n,
        "name": c.name,
        "level": c.level,
        "shape": list(c.values.shape),
        "dtype": _name(c.values),
        "status": _name(c.status),
        "bounds": [_said_number(c.bounds.low), _said_number(c.bounds.high)],
        "spread": c.spread,
        "weight": _said_number(c.weight),
        "version": c.version,
        "uncertainty": None if c.uncertainty is None else {"dtype": _name(c.uncertainty), "fill": _said_number(fill)},
        "reasons_as_json": as_json,
    }
    return made, spec


def _component(rows: Any, spec: dict[str, Any]) -> Component:
    pa = _arrow("load_scores")
    import pyarrow.compute as pc

    at = tuple(torch.from_numpy(_flat(rows[k].combine_chunks()).astype(np.int64)) for k in ("row", "unit"))
    code = pc.index_in(rows["status"].combine_chunks(), value_set=pa.array(_STATUS))
    if code.null_count:
        raise ValueError(f"expected statuses {', '.join(_STATUS)}, got {sorted(map(str, rows['status'].unique().to_pylist()))}")

    def scattered(column: str, fill: Any, dtype: str) -> Tensor:
        x = torch.full(spec["shape"], _read_number(fill), dtype=torch.float64)
        x[at] = torch.from_numpy(_flat(rows[column].combine_chunks()).copy())
        return x.to(_dtype(dtype))

    status = torch.full(spec["shape"], int(Status.NONE), dtype=_dtype(spec["status"]))
    status[at] = (torch.from_numpy(_flat(code).astype(np.int64)) + Status.NONE).to(status.dtype)
    texts = rows["reason"].combine_chunks()
    told = [i for i, there in enumerate(texts.is_valid().to_pylist()) if there] if texts.null_count < len(texts) else []
    reasons = zip(told, _pylist(texts.drop_null(), spec["reasons_as_json"]), strict=True)
    more = spec["uncertainty"]
    return Component(
        name=spec["name"],
        level=spec["level"],
        values=scattered("value", math.nan, spec["dtype"]),
        status=status,
        reasons={(int(at[0][i]), int(at[1][i])): text for i, text in reasons},
        bounds=Bounds(*map(_read_number, spec["bounds"])),
        spread=spec["spread"],
        weight=_read_number(spec["weight"]),
        version=spec["version"],
        uncertainty=None if more is None else scattered("uncertainty", more["fill"], more["dtype"]),
    )


def _step_rows(role: str, name: str, ids: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    pa = _arrow("save_scores")
    n = ids.shape[0]
    made = {
        **_labels(n, part=name, role=role, level="step" if role == "mask" else name),
        "row": _numbers(torch.arange(n)),
        "unit": _numbers(torch.full((n,), -1)),
        "value": pa.nulls(n, pa.float64()),
        "status": pa.nulls(n, pa.string()),
        "reason": pa.nulls(n, pa.string()),
        "uncertainty": pa.nulls(n, pa.float64()),
        "steps": _lists(_numbers(ids.long().reshape(-1)), np.full(n, ids.shape[1])),
    }
    return made, {"role": role, "part": name, "rows": n, "shape": list(ids.shape), "dtype": _name(ids)}


def _labels(n: int, **texts: str) -> dict[str, Any]:
    pa = _arrow("save_scores")
    return {k: pa.array([text]).take(pa.array(np.zeros(n, np.int64))) for k, text in texts.items()}


# ---- comparisons


def save_comparisons(comparisons: Comparisons, path: str | os.PathLike[str]) -> None:
    """Write ``comparisons``, one row per pair."""
    pa = _arrow("save_comparisons")
    n = len(comparisons)
    code = comparisons.status.cpu().long() - Status.NONE
    outside = [i for i in comparisons.reasons if not 0 <= i < n]
    unknown = comparisons.status[(code < 0) | (code >= len(_STATUS))].unique().tolist()
    if outside or unknown:
        raise InputError(
            f"save_comparisons: expected statuses {int(Status.NONE)} to {int(Status.ERROR)} and reasons for pairs 0 to {n - 1}, "
            f"got statuses {unknown} and reasons at {outside[:3]}. Usual cause: Comparisons cut without their reasons."
        )
    table = _Columns("save_comparisons")
    for name in ("first", "second"):
        pair = getattr(comparisons, name)
        table.add(f"{name}_row", pair[:, 0], None, part=name)
        table.add(f"{name}_unit", pair[:, 1], None, part=name)
    for name in ("target", "weight", "margin"):
        if getattr(comparisons, name) is not None:
            table.add(name, getattr(comparisons, name), None, part=name)
    table.add("annotator", comparisons.annotator, None, part="annotator")
    table.add("reason", [comparisons.reasons.get(i) for i in range(n)], None, part="reasons")
    table.arrays["status"] = pa.array(_STATUS).take(_numbers(code))
    table.arrays |= _labels(n, level=comparisons.level, component=comparisons.component)
    about = {"level": comparisons.level, "component": comparisons.component, "status": _name(comparisons.status)}
    _write(path, "comparisons", table.arrays, {"columns": table.specs, **about})


def load_comparisons(path: str | os.PathLike[str]) -> Comparisons:
    """The Comparisons that ``save_comparisons`` wrote."""

    def build(table: Any, about: dict[str, Any]) -> Comparisons:
        found: dict[str, list[Any]] = {}
        for spec in about["columns"]:
            found.setdefault(spec["part"], []).append(_unpack(table, spec))
        made: dict[str, Any] = {k: torch.stack(v, -1) if len(v) > 1 else v[0] for k, v in found.items()}
        code = [_STATUS.index(s) + Status.NONE for s in table["status"].to_pylist()]
        made["status"] = torch.tensor(code, dtype=_dtype(about["status"]))
        made["reasons"] = {i: text for i, text in enumerate(made["reasons"]) if text is not None}
        return Comparisons(**made, level=about["level"], component=about["component"])

    return _read(path, "comparisons", build)


# ---- columns


class _Columns:
    """Arrow arrays by column name, with what is needed to build each value again."""

    def __init__(self, whose: str) -> None:
        self.whose = whose
        self.arrays: dict[str, Any] = {}
        self.specs: list[dict[str, Any]] = []

    def add(self, column: str, values: Any, counts: Tensor | None, **about: str) -> None:
        """``values`` of one column: one per row, or with ``counts`` [N] one per unit, of which a row has that many."""
        column = self._free(column)
        whose = f"{self.whose}: `{column}`"
        if not isinstance(values, Tensor):
            self.arrays[column], spec = _sequences(whose, values) if counts is not None else _row_values(whose, values)
        elif counts is None:
            self.arrays[column], spec = _numbers(values), {"dtype": _name(values), "inner": list(values.shape[1:])}
        else:
            self.arrays[column], spec, padding = _unit_values(values, counts)
            if padding is not None:
                spec["padding"] = self._free(f"padding/{column}")
                self.arrays[spec["padding"]] = padding
        self.specs.append({"column": column, **about, **spec})

    def _free(self, column: str) -> str:
        """A field may be called `length` or `level/turn`; its own name is kept beside the column's."""
        return column if column not in self.arrays else self._free(f"field/{column}")


def _row_values(whose: str, values: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    array, as_json = _sequence(whose, list(values))
    return array, {"values": "json" if as_json else "native"}


def _sequences(whose: str, values: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    for row, units in enumerate(values):
        if not isinstance(units, (list, tuple)):
            raise InputError(
                f"{whose} should hold a list of its units for each row, got {type(units).__name__} in row {row}. "
                "Usual cause: one value per row (level `task`) given as a finer level's."
            )
    array, as_json = _sequence(whose, [u for units in values for u in units])
    return _lists(array, [len(units) for units in values]), {"values": "json" if as_json else "native", "units": True}


def _unit_values(x: Tensor, counts: Tensor) -> tuple[Any, dict[str, Any], Any]:
    """``x`` [N, W, ...] as lists cut to ``counts``, and the rest as lists where it is not one number."""
    width = x.shape[1]
    counts = counts.cpu().clamp(0, width)
    kept = torch.arange(width) < counts[:, None]
    stored = _stored(x)
    fill = _constant(stored[~kept])
    padding = None if fill is not None else _lists(_numbers(stored[~kept]), width - counts)
    spec = {"dtype": _name(x), "inner": list(x.shape[2:]), "width": width, "fill": _said_number(0 if fill is None else fill)}
    return _lists(_numbers(stored[kept]), counts), spec, padding


def _unpack(table: Any, spec: dict[str, Any]) -> Any:
    array = table[spec["column"]].combine_chunks()
    if "values" in spec:
        if "units" not in spec:
            return _pylist(array, spec["values"] == "json")
        units, ends = _pylist(array.flatten(), spec["values"] == "json"), array.offsets.to_pylist() if len(array) else [0]
        return [units[a:b] for a, b in itertools.pairwise(ends)]
    inner, dtype = spec["inner"], _dtype(spec["dtype"])
    if "width" not in spec:
        return torch.from_numpy(_flat(array).copy()).reshape(len(array), *inner).to(dtype)
    counts = torch.from_numpy(np.diff(array.offsets.to_numpy())) if len(array) else torch.zeros(0, dtype=torch.long)
    if len(counts) and int(counts.max()) > spec["width"]:
        raise ValueError(f"expected at most {spec['width']} values a row in `{spec['column']}`, got {int(counts.max())}")
    kept = torch.arange(spec["width"]) < counts[:, None]
    flat = torch.from_numpy(_flat(array).copy()).reshape(int(counts.sum()), *inner)
    out = torch.full((*kept.shape, *inner), _read_number(spec["fill"]), dtype=flat.dtype)
    out[kept] = flat
    if "padding" in spec:
        out[~kept] = torch.from_numpy(_flat(table[spec["padding"]].combine_chunks()).copy()).reshape(int((~kept).sum()), *inner)
    return out.to(dtype)


def _stored(x: Tensor) -> Tensor:
    """``x`` in a dtype that parquet has and everybody reads; no value changes."""
    if x.is_complex():
        raise InputError(f"save: expected real tensors, got {x.dtype}. Usual cause: a Fourier transform; use torch.view_as_real.")
    x = x.detach().cpu()
    return x.float() if x.is_floating_point() and x.dtype != torch.float64 else x


def _numbers(x: Tensor) -> Any:
    """[M, ...] as an array of M numbers, or of M flat lists."""
    pa = _arrow("save")
    x = _stored(x).contiguous()
    flat = pa.array(x.reshape(-1).numpy())
    return flat if x.dim() == 1 else _lists(flat, np.full(x.shape[0], math.prod(x.shape[1:])))


def _lists(array: Any, counts: Any) -> Any:
    """``array`` cut into consecutive lists of ``counts`` values."""
    pa = _arrow("save")
    ends = np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))])
    if ends[-1] < 2**31:
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), array)
    return pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), array)


def _flat(array: Any) -> np.ndarray:
    """All numbers of an array of numbers or of lists; a missing one is NaN."""
    while hasattr(array, "offsets"):
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False)


def _constant(x: Tensor) -> Any:
    """The number that all of ``x`` is, to the bit; None where there are several. 0 of nothing."""
    if x.numel() == 0:
        return 0
    bits = x.contiguous().numpy().reshape(-1)
    bits = bits.view(f"u{bits.itemsize}")
    return x.reshape(-1)[0].item() if (bits == bits[0]).all() else None


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"expected the name of a dtype, got {name!r}")
    return found


def _said_number(x: Any) -> Any:
    """JSON has no infinity and no NaN."""
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


def _read_number(x: Any) -> Any:
    return float(x) if isinstance(x, str) else x


def _sequence(whose: str, values: list[Any]) -> tuple[Any, bool]:
    """Python values as a native array where they are of one type, as JSON text (and True) where not."""
    pa = _arrow("save")
    kind = _native(values)
    if kind is not None:
        try:
            return pa.array(values, kind), False
        except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
            pass  # an integer beyond 64 bits, or half of a surrogate pair: JSON says both
    return pa.array([None if v is None else _text(_plain(whose, v)) for v in values], pa.string()), True


def _native(values: list[Any]) -> Any:
    """The arrow type of values that all have one type (None apart), lists of such included; None where there is no such type."""
    pa = _arrow("save")
    scalars = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary()}
    kinds = {type(v) for v in values} - {type(None)}
    if kinds and kinds <= {list, tuple}:
        inner = _native(list(itertools.chain.from_iterable(v for v in values if v is not None)))
        return None if inner is None else pa.list_(inner)
    return scalars.get(kinds.pop()) if len(kinds) == 1 else None


def _pylist(array: Any, as_json: bool) -> list[Any]:
    found = array.to_pylist()
    return [text if text is None else json.loads(text) for text in found] if as_json else found


def _text(value: Any) -> str:
    """Readable JSON; escaped where it holds half of a surrogate pair, which UTF-8 cannot say."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def _plain(whose: str, value: Any) -> Any:
    """``value`` as JSON can say it without loss: anything else is an error, not a string of itself."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(whose, v) for v in value]
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {k: _plain(whose, v) for k, v in value.items()}
    raise InputError(
        f"{whose} should hold strings, numbers, booleans, None, lists, dicts with string keys, or be one tensor; got "
        f"{type(value).__name__} {value!r:.80}. Usual cause: arrays in a list (stack them, or .tolist()), or numbers as keys."
    )


# ---- files


def _arrow(whose: str) -> Any:
    try:
        import pyarrow
    except ImportError as e:
        raise InputError(f"{whose}: expected pyarrow to be installed, got none. Install guerdon[data].") from e
    return pyarrow


def _write(path: str | os.PathLike[str], kind: str, arrays: dict[str, Any], about: dict[str, Any]) -> None:
    """A parquet file that is either whole or not there."""
    pa = _arrow(f"save_{kind}")
    import pyarrow.parquet as pq

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = json.dumps({"schema": SCHEMA, "kind": kind, **about})
    table = pa.table(arrays).replace_schema_metadata({"guerdon": metadata})
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        pq.write_table(table, beside, compression="zstd")
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def _read(path: str | os.PathLike[str], kind: str, build: Callable[[Any, dict[str, Any]], _T]) -> _T:
    """``build(table, metadata)`` of a file of ``kind``; every way in which it can be another file is one error."""
    pa = _arrow(f"load_{kind}")
    import pyarrow.parquet as pq

    whose = f"load_{kind}: {os.fspath(path)}"
    try:
        with pq.ParquetFile(path) as file:  # not read_table, which makes columns of folders called `name=value`
            table = file.read()
    except (OSError, pa.ArrowException) as e:
        what = "there is no such file" if isinstance(e, FileNotFoundError) else " ".join(str(e).split())
        raise CheckpointError(
            f"{whose} should be a parquet file, got: {what}. Usual cause: a mistyped path, a copy cut short."
        ) from e
    try:
        about = json.loads((table.schema.metadata or {})[b"guerdon"])
        found, schema = about["kind"], int(about["schema"])
    except (KeyError, ValueError, TypeError) as e:
        raise CheckpointError(
            f"{whose} should be {kind} written by guerdon, got a parquet file without guerdon's metadata and with columns "
            f"{', '.join(table.column_names)}. Usual cause: the file was written again by another tool."
        ) from e
    if found != kind:
        raise CheckpointError(f"{whose} should hold {kind}, got {found}. Usual cause: the wrong file of a run directory.")
    if schema > SCHEMA:
        raise CheckpointError(
            f"{whose} should have schema {SCHEMA} or less, got {schema}. Usual cause: a newer guerdon wrote it; update this one."
        )
    try:
        return build(table, about)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError, pa.ArrowException) as e:
        raise CheckpointError(
            f"{whose} should hold {kind} as guerdon wrote them, got a file changed since: {type(e).__name__}: {e}. "
            "Usual cause: columns or rows were removed or retyped by another tool."
        ) from e
