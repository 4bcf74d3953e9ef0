# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: tensors in safetensors, everything else in JSON, put in place by one rename.

    checkpoint/step-000100/{tensors.safetensors, state.json}

A state is any nesting of dicts and lists with tensors, numbers, strings, booleans and None at the leaves.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import CheckpointError

SCHEMA = 1


def save(directory: Path, step: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write ``state`` as checkpoint ``step`` and delete all but the newest ``keep``. A crash leaves the older ones whole."""
    from safetensors.torch import save_file

    root = directory / "checkpoint"
    final, unfinished = root / f"step-{step:06d}", root / f".unfinished-{step:06d}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    rest = _split(state, "", tensors)
    save_file(tensors, unfinished / "tensors.safetensors")
    (unfinished / "state.json").write_text(json.dumps({"schema": SCHEMA, "step": step, "state": rest}))
    for name in ("tensors.safetensors", "state.json"):
        with (unfinished / name).open("rb") as f:
            os.fsync(f.fileno())
    if final.exists():
        shutil.rmtree(final)
    os.replace(unfinished, final)
    for old in sorted(root.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return final


def latest(directory: Path) -> dict[str, Any] | None:
    """The newest checkpoint's state, or None where there is none."""
    from safetensors.torch import load_file

    found = sorted((directory / "checkpoint").glob("step-*"))
    if not found:
        return None
    path = found[-1] / "state.json"
    try:
        wrapped = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as e:
        raise CheckpointError(f"{path}: expected a checkpoint's state as JSON, got {e}. Usual cause: a copy that was cut short.") from e
    if wrapped.get("schema") != SCHEMA:
        raise CheckpointError(f"{path}: expected schema {SCHEMA}, got {wrapped.get('schema')}. Usual cause: written by another version of guerdon.")
    return _join(wrapped["state"], load_file(found[-1] / "tensors.safetensors"))


def _split(x: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """``x`` with each tensor replaced by {"tensor": its name}."""
    if isinstance(x, Tensor):
        tensors[path] = x.detach().contiguous().clone()
        return {"tensor": path}
    if isinstance(x, Mapping):
        return {"dict": [[k, _split(v, f"{path}/{k}", tensors)] for k, v in x.items()]}  # pairs: JSON would turn integer keys to text
    if isinstance(x, (list, tuple)):
        return {"list": [_split(v, f"{path}/{i}", tensors) for i, v in enumerate(x)]}
    if x is None or isinstance(x, (bool, int, float, str)):
        return {"value": x}
    raise CheckpointError(f"checkpoint: {path or 'the state'} should be a tensor, number, string, list or dict, got {type(x).__name__}.")


def _join(x: Any, tensors: Mapping[str, Tensor]) -> Any:
    (kind, value), *_ = x.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {k: _join(v, tensors) for k, v in value}
    if kind == "list":
        return [_join(v, tensors) for v in value]
    return value


def equal(a: Any, b: Any) -> bool:
    """True if two states hold the same values, bit for bit."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
