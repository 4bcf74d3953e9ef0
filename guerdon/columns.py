# SPDX-License-Identifier: Apache-2.0
"""Columns of a parquet file from tensors and sequences, and back; how storage writes and reads its files."""

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

from guerdon.errors import CheckpointError, InputError

_T = TypeVar("_T")

SCHEMA = 1
"""Number of the layout; a file with a larger one is refused."""


class Columns:
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
            self.arrays[column], spec = numbers(values), {"dtype": dtype_name(values), "inner": list(values.shape[1:])}
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
    array, as_json = sequence(whose, list(values))
    return array, {"values": "json" if as_json else "native"}


def _sequences(whose: str, values: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    for row, units in enumerate(values):
        if not isinstance(units, (list, tuple)):
            raise InputError(
                f"{whose} should hold a list of its units for each row, got {type(units).__name__} in row {row}. "
                "Usual cause: one value per row (level `task`) given as a finer level's."
            )
    array, as_json = sequence(whose, [u for units in values for u in units])
    return lists(array, [len(units) for units in values]), {"values": "json" if as_json else "native", "units": True}


def _unit_values(x: Tensor, counts: Tensor) -> tuple[Any, dict[str, Any], Any]:
    """``x`` [N, W, ...] as lists cut to ``counts``, and the rest as lists where it is not one number."""
    width = x.shape[1]
    counts = counts.cpu().clamp(0, width)
    kept = torch.arange(width) < counts[:, None]
    stored = as_stored(x)
    fill = constant(stored[~kept])
    padding = None if fill is not None else lists(numbers(stored[~kept]), width - counts)
    spec = {"dtype": dtype_name(x), "inner": list(x.shape[2:]), "width": width, "fill": said_number(0 if fill is None else fill)}
    return lists(numbers(stored[kept]), counts), spec, padding


def unpack(table: Any, spec: dict[str, Any]) -> Any:
    array = table[spec["column"]].combine_chunks()
    if "values" in spec:
        if "units" not in spec:
            return pylist(array, spec["values"] == "json")
        units, ends = pylist(array.flatten(), spec["values"] == "json"), array.offsets.to_pylist() if len(array) else [0]
        return [units[a:b] for a, b in itertools.pairwise(ends)]
    inner, dtype = spec["inner"], dtype_of(spec["dtype"])
    if "width" not in spec:
        return torch.from_numpy(flat_values(array).copy()).reshape(len(array), *inner).to(dtype)
    counts = torch.from_numpy(np.diff(array.offsets.to_numpy())) if len(array) else torch.zeros(0, dtype=torch.long)
    if len(counts) and int(counts.max()) > spec["width"]:
        raise ValueError(f"expected at most {spec['width']} values a row in `{spec['column']}`, got {int(counts.max())}")
    kept = torch.arange(spec["width"]) < counts[:, None]
    flat = torch.from_numpy(flat_values(array).copy()).reshape(int(counts.sum()), *inner)
    out = torch.full((*kept.shape, *inner), read_number(spec["fill"]), dtype=flat.dtype)
    out[kept] = flat
    if "padding" in spec:
        out[~kept] = torch.from_numpy(flat_values(table[spec["padding"]].combine_chunks()).copy()).reshape(
            int((~kept).sum()), *inner
        )
    return out.to(dtype)


def as_stored(x: Tensor) -> Tensor:
    """``x`` in a dtype that parquet has and everybody reads; no value changes."""
    if x.is_complex():
        raise InputError(f"save: expected real tensors, got {x.dtype}. Usual cause: a Fourier transform; use torch.view_as_real.")
    x = x.detach().cpu()
    return x.float() if x.is_floating_point() and x.dtype != torch.float64 else x


def numbers(x: Tensor) -> Any:
    """[M, ...] as an array of M numbers, or of M flat lists."""
    pa = arrow_of("save")
    x = as_stored(x).contiguous()
    flat = pa.array(x.reshape(-1).numpy())
    return flat if x.dim() == 1 else lists(flat, np.full(x.shape[0], math.prod(x.shape[1:])))


def lists(array: Any, counts: Any) -> Any:
    """``array`` cut into consecutive lists of ``counts`` values."""
    pa = arrow_of("save")
    ends = np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))])
    if ends[-1] < 2**31:
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), array)
    return pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), array)


def flat_values(array: Any) -> np.ndarray:
    """All numbers of an array of numbers or of lists; a missing one is NaN."""
    while hasattr(array, "offsets"):
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False)


def constant(x: Tensor) -> Any:
    """The number that all of ``x`` is, to the bit; None where there are several. 0 of nothing."""
    if x.numel() == 0:
        return 0
    bits = x.contiguous().numpy().reshape(-1)
    bits = bits.view(f"u{bits.itemsize}")
    return x.reshape(-1)[0].item() if (bits == bits[0]).all() else None


def dtype_name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"expected the name of a dtype, got {name!r}")
    return found


def said_number(x: Any) -> Any:
    """JSON has no infinity and no NaN."""
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


def read_number(x: Any) -> Any:
    return float(x) if isinstance(x, str) else x


def sequence(whose: str, values: list[Any]) -> tuple[Any, bool]:
    """Python values as a native array where they are of one type, as JSON text (and True) where not."""
    pa = arrow_of("save")
    kind = _native(values)
    if kind is not None:
        try:
            return pa.array(values, kind), False
        except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
            pass  # an integer beyond 64 bits, or half of a surrogate pair: JSON says both
    return pa.array([None if v is None else _text(plain(whose, v)) for v in values], pa.string()), True


def _native(values: list[Any]) -> Any:
    """The arrow type of values that all have one type (None apart), lists of such included; None where there is no such type."""
    pa = arrow_of("save")
    scalars = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary()}
    kinds = {type(v) for v in values} - {type(None)}
    if kinds and kinds <= {list, tuple}:
        inner = _native(list(itertools.chain.from_iterable(v for v in values if v is not None)))
        return None if inner is None else pa.list_(inner)
    return scalars.get(kinds.pop()) if len(kinds) == 1 else None


def pylist(array: Any, as_json: bool) -> list[Any]:
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


def plain(whose: str, value: Any) -> Any:
    """``value`` as JSON can say it without loss: anything else is an error, not a string of itself."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(whose, v) for v in value]
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {k: plain(whose, v) for k, v in value.items()}
    raise InputError(
        f"{whose} should hold strings, numbers, booleans, None, lists, dicts with string keys, or be one tensor; got "
        f"{type(value).__name__} {value!r:.80}. Usual cause: arrays in a list (stack them, or .tolist()), or numbers as keys."
    )


# ---- files


def arrow_of(whose: str) -> Any:
    try:
        import pyarrow
    except ImportError as e:
        raise InputError(f"{whose}: expected pyarrow to be installed, got none. Install guerdon[data].") from e
    return pyarrow


def write_file(path: str | os.PathLike[str], kind: str, arrays: dict[str, Any], about: dict[str, Any]) -> None:
    """A parquet file that is either whole or not there."""
    pa = arrow_of(f"save_{kind}")
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


def read_file(path: str | os.PathLike[str], kind: str, build: Callable[[Any, dict[str, Any]], _T]) -> _T:
    """``build(table, metadata)`` of a file of ``kind``; every way in which it can be another file is one error."""
    pa = arrow_of(f"load_{kind}")
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
