# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what goes in comes out, bit for bit; old ones go; damaged ones are named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import CheckpointError
from guerdon.training import checkpoint

TENSORS = st.sampled_from(
    [
        torch.tensor([1.5, -0.0, math.inf, 3e-45]),
        torch.tensor([[0.1]], dtype=torch.float64),
        torch.tensor(7),
        torch.tensor([0.1, 2.0]).bfloat16(),
        torch.zeros(0, 3),
        torch.arange(6).reshape(2, 3).T,
        torch.tensor([True, False]),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | TENSORS
STATES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        bits = [x.flatten().view(torch.uint8) for x in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and repr(a) == repr(b)


@given(STATES)
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    directory = tmp_path_factory.mktemp("run")
    checkpoint.save(directory, 3, {"state": state, "nan": math.nan, "pair": (1, 2)})
    found = checkpoint.latest(directory)
    assert found is not None and same(found["state"], state)
    assert math.isnan(found["nan"]) and found["pair"] == [1, 2]


def test_views_of_one_storage_are_kept_apart(tmp_path: Path) -> None:
    x = torch.arange(4.0)
    checkpoint.save(tmp_path, 1, {"whole": x, "part": x[1:3], "again": x})
    found = checkpoint.latest(tmp_path)
    assert found is not None and found["part"].tolist() == [1.0, 2.0] and found["again"].tolist() == x.tolist()


def test_the_newest_counts_and_two_are_kept_by_number_not_by_name(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    for step in (5, 999_999, 1_000_000):
        checkpoint.save(tmp_path, step, {"step": step})
    assert checkpoint.latest(tmp_path) == {"step": 1_000_000}
    assert {p.name for p in (tmp_path / "checkpoint").iterdir()} == {"step-999999", "step-1000000"}


def test_what_a_killed_writer_left_is_no_checkpoint_and_goes(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"x": 1})
    left = tmp_path / "checkpoint" / ".unfinished-000002"
    left.mkdir()
    (left / "tensors.safetensors").write_bytes(b"half")
    assert checkpoint.latest(tmp_path) == {"x": 1}
    checkpoint.save(tmp_path, 3, {"x": 3})
    assert not left.exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def other_schema(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("state.json", cut, "as JSON"),
        ("state.json", lambda p: p.write_text("[]"), "schema 1, got None"),
        ("state.json", other_schema, "expected schema 1, got 99"),
        ("state.json", Path.unlink, "No such file"),
        ("tensors.safetensors", cut, "tensors of a checkpoint"),
        ("tensors.safetensors", Path.unlink, "No such file"),
        ("tensors.safetensors", lambda p: p.write_bytes(b""), "tensors of a checkpoint"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, damage, says: str) -> None:
    path = checkpoint.save(tmp_path, 4, {"weights": torch.ones(8)}) / file
    damage(path)
    with pytest.raises(CheckpointError, match=says) as caught:
        checkpoint.latest(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_tensor_missing_from_its_file_is_named(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 4, {"weights": torch.ones(8)})
    other = checkpoint.save(tmp_path / "other", 4, {"bias": torch.ones(8)})
    (path / "tensors.safetensors").write_bytes((other / "tensors.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="KeyError: '/weights'"):
        checkpoint.latest(tmp_path)


def test_what_cannot_be_written_is_refused_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"/updater/0/clock should be a tensor.*got object"):
        checkpoint.save(tmp_path, 1, {"updater": [{"clock": object()}]})
    assert checkpoint.latest(tmp_path) is None
