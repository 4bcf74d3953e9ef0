# SPDX-License-Identifier: Apache-2.0
"""Rollouts, Scores and Comparisons as parquet files that pandas and datasets read too.

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

import math
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.columns import (
    Columns,
    arrow_of,
    as_stored,
    constant,
    dtype_name,
    dtype_of,
    flat_values,
    lists,
    numbers,
    plain,
    pylist,
    read_file,
    read_number,
    said_number,
    sequence,
    unpack,
    write_file,
)
from guerdon.comparisons import Comparisons
from guerdon.errors import InputError
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Bounds, Component, Scores, Status

_PER_ROW = ("task", "source", "length", "group", "weight", "parent")
_PER_STEP = ("action", "mask", "log_prob", "terminated", "truncated")
_STATUS = [s.name.lower() for s in Status]  # in the order of their numbers, from -1


# ---- rollouts


def save_rollouts(rollouts: Rollouts, path: str | os.PathLike[str]) -> None:
    """Write ``rollouts``; what it holds and how it is read back are described at the top of this module."""
    table = Columns("save_rollouts")
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
    sampling = plain("save_rollouts: `sampling`", rollouts.sampling)
    write_file(path, "rollouts", table.arrays, {"columns": table.specs, "sampling": sampling})


def load_rollouts(path: str | os.PathLike[str]) -> Rollouts:
    """The Rollouts that ``save_rollouts`` wrote, equal in every value and dtype."""

    def build(table: Any, about: dict[str, Any]) -> Rollouts:
        made: dict[str, Any] = {"levels": {}, "groups": {}, "fields": {}, "sampling": about["sampling"]}
        for spec in about["columns"]:
            values, part = unpack(table, spec), spec["part"]
            if part == "fields":
                made[part][spec["name"]] = Field(spec["level"], values)
            elif part in ("levels", "groups"):
                made[part][spec["name"]] = values
            else:
                made[part] = values
        return Rollouts(**made)

    return read_file(path, "rollouts", build)


def _unit_counts(rollouts: Rollouts, level: str) -> Tensor:
    """[N] units of ``level`` in each row; the largest number where the rollouts lack that level, so that nothing is cut."""
    if level not in rollouts.levels:
        return torch.full((len(rollouts),), torch.iinfo(torch.long).max)
    return torch.tensor(rollouts.unit_counts(level), dtype=torch.long)


# ---- scores


def save_scores(scores: Scores, path: str | os.PathLike[str]) -> None:
    """Write ``scores``, one row per (part, row, unit). A unit that a row does not have (status none) has no row in the file."""
    pa = arrow_of("save_scores")
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
    write_file(path, "scores", arrays, about)


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
                flat = torch.from_numpy(flat_values(rows["steps"].combine_chunks()).copy())
                steps[spec["role"], spec["part"]] = flat.reshape(spec["shape"]).to(dtype_of(spec["dtype"]))
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

    return read_file(path, "scores", build)


def _part_rows(role: str, name: str, c: Component) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns of one part, and what else is needed to build it again."""
    pa = arrow_of("save_scores")
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
        uncertainty = as_stored(c.uncertainty)
        fill = constant(uncertainty[~shown])
        if fill is None:  # it says something of units that aren't there: write them all
            shown, fill = torch.ones_like(shown), 0
    where = shown.nonzero()
    values, n = as_stored(c.values)[shown].double().numpy(), len(where)
    reasons, as_json = pa.nulls(n, pa.string()), False
    if c.reasons:
        reasons, as_json = sequence("save_scores: reasons", [c.reasons.get((row, unit)) for row, unit in where.tolist()])
    made = {
        **_labels(n, part=name, role=role, level=c.level),
        "row": numbers(where[:, 0]),
        "unit": numbers(where[:, 1]),
        "value": pa.array(values, pa.float64(), mask=np.isnan(values)),
        "status": pa.array(_STATUS).take(numbers(code[shown])),
        "reason": reasons,
        "uncertainty": pa.nulls(n, pa.float64()) if uncertainty is None else numbers(uncertainty[shown].double()),
        "steps": pa.nulls(n, pa.list_(pa.int64())),
    }
    spec = {
        "role": role,
        "part": name,
        "rows": n,
        "name": c.name,
        "level": c.level,
        "shape": list(c.values.shape),
        "dtype": dtype_name(c.values),
        "status": dtype_name(c.status),
        "bounds": [said_number(c.bounds.low), said_number(c.bounds.high)],
        "spread": c.spread,
        "weight": said_number(c.weight),
        "version": c.version,
        "uncertainty": None if c.uncertainty is None else {"dtype": dtype_name(c.uncertainty), "fill": said_number(fill)},
        "reasons_as_json": as_json,
    }
    return made, spec


def _component(rows: Any, spec: dict[str, Any]) -> Component:
    pa = arrow_of("load_scores")
    import pyarrow.compute as pc

    at = tuple(torch.from_numpy(flat_values(rows[k].combine_chunks()).astype(np.int64)) for k in ("row", "unit"))
    code = pc.index_in(rows["status"].combine_chunks(), value_set=pa.array(_STATUS))
    if code.null_count:
        raise ValueError(f"expected statuses {', '.join(_STATUS)}, got {sorted(map(str, rows['status'].unique().to_pylist()))}")

    def scattered(column: str, fill: Any, dtype: str) -> Tensor:
        x = torch.full(spec["shape"], read_number(fill), dtype=torch.float64)
        x[at] = torch.from_numpy(flat_values(rows[column].combine_chunks()).copy())
        return x.to(dtype_of(dtype))

    status = torch.full(spec["shape"], int(Status.NONE), dtype=dtype_of(spec["status"]))
    status[at] = (torch.from_numpy(flat_values(code).astype(np.int64)) + Status.NONE).to(status.dtype)
    texts = rows["reason"].combine_chunks()
    told = [i for i, there in enumerate(texts.is_valid().to_pylist()) if there] if texts.null_count < len(texts) else []
    reasons = zip(told, pylist(texts.drop_null(), spec["reasons_as_json"]), strict=True)
    more = spec["uncertainty"]
    return Component(
        name=spec["name"],
        level=spec["level"],
        values=scattered("value", math.nan, spec["dtype"]),
        status=status,
        reasons={(int(at[0][i]), int(at[1][i])): text for i, text in reasons},
        bounds=Bounds(*map(read_number, spec["bounds"])),
        spread=spec["spread"],
        weight=read_number(spec["weight"]),
        version=spec["version"],
        uncertainty=None if more is None else scattered("uncertainty", more["fill"], more["dtype"]),
    )


def _step_rows(role: str, name: str, ids: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    pa = arrow_of("save_scores")
    n = ids.shape[0]
    made = {
        **_labels(n, part=name, role=role, level="step" if role == "mask" else name),
        "row": numbers(torch.arange(n)),
        "unit": numbers(torch.full((n,), -1)),
        "value": pa.nulls(n, pa.float64()),
        "status": pa.nulls(n, pa.string()),
        "reason": pa.nulls(n, pa.string()),
        "uncertainty": pa.nulls(n, pa.float64()),
        "steps": lists(numbers(ids.long().reshape(-1)), np.full(n, ids.shape[1])),
    }
    return made, {"role": role, "part": name, "rows": n, "shape": list(ids.shape), "dtype": dtype_name(ids)}


def _labels(n: int, **texts: str) -> dict[str, Any]:
    pa = arrow_of("save_scores")
    return {k: pa.array([text]).take(pa.array(np.zeros(n, np.int64))) for k, text in texts.items()}


# ---- comparisons


def save_comparisons(comparisons: Comparisons, path: str | os.PathLike[str]) -> None:
    """Write ``comparisons``, one row per pair."""
    pa = arrow_of("save_comparisons")
    n = len(comparisons)
    code = comparisons.status.cpu().long() - Status.NONE
    outside = [i for i in comparisons.reasons if not 0 <= i < n]
    unknown = comparisons.status[(code < 0) | (code >= len(_STATUS))].unique().tolist()
    if outside or unknown:
        raise InputError(
            f"save_comparisons: expected statuses {int(Status.NONE)} to {int(Status.ERROR)} and reasons for pairs 0 to {n - 1}, "
            f"got statuses {unknown} and reasons at {outside[:3]}. Usual cause: Comparisons cut without their reasons."
        )
    table = Columns("save_comparisons")
    for name in ("first", "second"):
        pair = getattr(comparisons, name)
        table.add(f"{name}_row", pair[:, 0], None, part=name)
        table.add(f"{name}_unit", pair[:, 1], None, part=name)
    for name in ("target", "weight", "margin"):
        if getattr(comparisons, name) is not None:
            table.add(name, getattr(comparisons, name), None, part=name)
    table.add("annotator", comparisons.annotator, None, part="annotator")
    table.add("reason", [comparisons.reasons.get(i) for i in range(n)], None, part="reasons")
    table.arrays["status"] = pa.array(_STATUS).take(numbers(code))
    table.arrays |= _labels(n, level=comparisons.level, component=comparisons.component)
    about = {"level": comparisons.level, "component": comparisons.component, "status": dtype_name(comparisons.status)}
    write_file(path, "comparisons", table.arrays, {"columns": table.specs, **about})


def load_comparisons(path: str | os.PathLike[str]) -> Comparisons:
    """The Comparisons that ``save_comparisons`` wrote."""

    def build(table: Any, about: dict[str, Any]) -> Comparisons:
        found: dict[str, list[Any]] = {}
        for spec in about["columns"]:
            found.setdefault(spec["part"], []).append(unpack(table, spec))
        made: dict[str, Any] = {k: torch.stack(v, -1) if len(v) > 1 else v[0] for k, v in found.items()}
        code = [_STATUS.index(s) + Status.NONE for s in table["status"].to_pylist()]
        made["status"] = torch.tensor(code, dtype=dtype_of(about["status"]))
        made["reasons"] = {i: text for i, text in enumerate(made["reasons"]) if text is not None}
        return Comparisons(**made, level=about["level"], component=about["component"])

    return read_file(path, "comparisons", build)
