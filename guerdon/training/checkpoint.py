# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: tensors in safetensors, everything else in JSON, put in place by one rename.

    checkpoint/step-000100/{tensors.safetensors, state.json}

A state is any nesting of dicts and lists with tensors, numbers, strings, booleans and None at the leaves.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from guerdon.errors import CheckpointError

SCHEMA = 1
TENSORS, STATE = "tensors.safetensors", "state.json"


def save(directory: Path, step: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write ``state`` as checkpoint ``step`` and delete all but the newest ``keep``. A crash leaves the older ones whole."""
    from safetensors.torch import save_file

    root = directory / "checkpoint"
    for abandoned in root.glob(".unfinished-*"):
        shutil.rmtree(abandoned)
    final, unfinished = root / f"step-{step:06d}", root / f".unfinished-{step:06d}"
    unfinished.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    rest = _split(state, "", tensors)
    save_file(tensors, unfinished / TENSORS)
    wrapped = {"schema": SCHEMA, "step": step, "state": rest}
    (unfinished / STATE).write_text(json.dumps(wrapped, allow_nan=False), encoding="utf-8")
    for name in (TENSORS, STATE):
        with (unfinished / name).open("rb") as f:
            os.fsync(f.fileno())
    if final.exists():
        shutil.rmtree(final)
    os.replace(unfinished, final)
    for old in _all(directory)[:-keep]:
        shutil.rmtree(old)
    return final


def latest(directory: Path) -> dict[str, Any] | None:
    """The newest checkpoint's state, or None where there is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found = _all(directory)
    if not found:
        return None
    state, tensors = found[-1] / STATE, found[-1] / TENSORS
    try:
        wrapped = json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{state}: expected a checkpoint's state as JSON, got {e}. {_CUT}") from e
    schema = wrapped.get("schema") if isinstance(wrapped, dict) else None
    if schema != SCHEMA:
        raise CheckpointError(
            f"{state}: expected schema {SCHEMA}, got {schema}. Usual cause: written by another version of guerdon."
        )
    try:
        return _join(wrapped["state"], load_file(tensors))
    except (OSError, SafetensorError, KeyError) as e:
        raise CheckpointError(f"{tensors}: expected the tensors of a checkpoint, got {type(e).__name__}: {e}. {_CUT}") from e


_CUT = "Usual cause: a copy that was cut short. Without this directory the run goes on from the checkpoint before."


def _all(directory: Path) -> list[Path]:
    """In order of their steps."""
    return sorted((directory / "checkpoint").glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def _split(x: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """``x`` as JSON, each tensor kept apart under the name of its place."""
    if isinstance(x, Tensor):
        tensors[path] = x.detach().contiguous().clone()
        return {"tensor": path}
    if isinstance(x, Mapping):  # as pairs: JSON would turn integer keys to text
        return {"dict": [[k, _split(v, f"{path}/{k}", tensors)] for k, v in x.items()]}
    if isinstance(x, list | tuple):
        return {"list": [_split(v, f"{path}/{i}", tensors) for i, v in enumerate(x)]}
    if isinstance(x, float) and not math.isfinite(x):
        return {"float": str(x)}  # JSON has none
    if x is None or isinstance(x, bool | int | float | str):
        return {"value": x}
    raise CheckpointError(
        f"checkpoint: {path or 'the state'} should be a tensor, number, string, list or dict, got {type(x).__name__}. "
        "Usual cause: a state_dict that holds an object of its own."
    )


def _join(x: Any, tensors: Mapping[str, Tensor]) -> Any:
    ((kind, value),) = x.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {k: _join(v, tensors) for k, v in value}
    if kind == "list":
        return [_join(v, tensors) for v in value]
    return float(value) if kind == "float" else value
