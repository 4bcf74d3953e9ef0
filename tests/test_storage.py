# SPDX-License-Identifier: Apache-2.0
"""What is saved comes back: every value, dtype, status and reason; and other tools can read it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import hypothesis.strategies as st
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from guerdon.comparisons import Comparisons
from guerdon.concatenation import concat_rollouts
from guerdon.errors import CheckpointError, InputError, ShapeError
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Bounds, Component, Scores, Status, component, scores_of
from guerdon.storage import (
    load_comparisons,
    load_rollouts,
    load_scores,
    save_comparisons,
    save_rollouts,
    save_scores,
)

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
INTS = [torch.int64, torch.int32, torch.uint8]


def same(a, b, where: str = "") -> None:
    """Equal in type, dtype, shape, values, NaN and the sign of zero, all the way down; a tuple may come back as a list."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor), where
        assert (a.dtype, a.shape) == (b.dtype, b.shape), where
        nan = torch.isnan(a)
        assert torch.equal(nan, torch.isnan(b)), where
        assert torch.equal(a[~nan], b[~nan]), where
        assert torch.equal(a[~nan].signbit(), b[~nan].signbit()), where
    elif dataclasses.is_dataclass(a):
        assert type(a) is type(b), where
        for f in dataclasses.fields(a):
            same(getattr(a, f.name), getattr(b, f.name), f"{where}.{f.name}")
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for k in a:
            same(a[k], b[k], f"{where}[{k!r}]")
    elif isinstance(a, (list, tuple)):
        assert isinstance(b, (list, type(a))), where
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{i}]")
    else:
        assert type(a) is type(b), where
        assert a == b or (a != a and b != b), where


@st.composite
def tensors(draw, shape, dtypes=(*FLOATS, *INTS, torch.bool)) -> torch.Tensor:
    """Any dtype; values that equality is not enough for (NaN, -0.0, infinity) among them."""
    dtype = draw(st.sampled_from(list(dtypes)))
    n = math.prod(shape)
    special = [0.0, -0.0, 1.5, -1.0, 65504.0, math.inf, -math.inf, math.nan] if dtype.is_floating_point else [0, 1, 2, 7]
    constant = draw(st.booleans())
    values = (
        [draw(st.sampled_from(special))] * n if constant else draw(st.lists(st.sampled_from(special), min_size=n, max_size=n))
    )
    return torch.tensor(values, dtype=dtype).reshape(shape)


texts = st.text(max_size=4) | st.just("\ud800") | st.just("日本")
scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.just(2**70) | st.floats() | texts
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2), max_leaves=4
)
columns = [
    texts,
    st.integers(-9, 9),
    st.floats(),
    st.booleans(),
    st.binary(max_size=3),
    st.lists(st.integers(0, 9), max_size=3),
    anything,
]


@st.composite
def rollouts(draw) -> Rollouts:
    n, t = draw(st.integers(0, 3)), draw(st.integers(0, 4))
    length = torch.tensor(draw(st.lists(st.integers(0, t), min_size=n, max_size=n)), dtype=torch.long)
    inner = draw(st.sampled_from([(), (2,), (2, 3), (0,)]))
    ids = st.lists(st.integers(-1, 2), min_size=n * t, max_size=n * t).map(
        lambda x: torch.tensor(x, dtype=torch.long).reshape(n, t)
    )
    line, turn = draw(ids), draw(ids)
    fields = {}
    for i in range(draw(st.integers(0, 5))):
        level = draw(st.sampled_from(["task", "step", "turn", "episode", "line", "elsewhere"]))
        name = draw(st.sampled_from(["answer", "length", "level/turn", "padding/action", "prüfung"])) + str(i) * draw(
            st.integers(0, 1)
        )
        if draw(st.booleans()):
            shape = (n, *inner) if level == "task" else (n, t if level == "step" else draw(st.integers(0, 3)), *inner)
            fields[name] = Field(level, draw(tensors(shape)))
        else:
            one = draw(st.sampled_from(columns))
            rows = one if level == "task" else st.lists(one, max_size=3)
            fields[name] = Field(level, draw(st.lists(rows, min_size=n, max_size=n)))
    return Rollouts(
        action=draw(tensors((n, t, *inner))),
        mask=draw(tensors((n, t), [torch.bool])),
        task=draw(st.lists(texts, min_size=n, max_size=n)),
        log_prob=draw(st.none() | tensors((n, t), FLOATS)),
        terminated=draw(st.none() | tensors((n, t), [torch.bool])),
        length=draw(st.sampled_from([None, length])),
        levels=draw(st.sampled_from([{}, {"line": line}, {"turn": turn, "line": line}])),
        groups=draw(st.sampled_from([{}, {"turn": turn}, {"line": line[:, :2]}])),
        weight=draw(st.none() | tensors((n,), FLOATS)),
        parent=draw(st.sampled_from([None, torch.arange(2 * n).reshape(n, 2)])),
        fields=fields,
        sampling=draw(st.dictionaries(texts, anything, max_size=2)),
    )


@given(rollouts())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_rollouts_come_back_exactly(tmp_path: Path, r: Rollouts) -> None:
    save_rollouts(r, tmp_path / "r.parquet")
    same(r, load_rollouts(tmp_path / "r.parquet"))


def example() -> Rollouts:
    """Three rows of 3, 0 and 2 steps with an episode level of two episodes in the first, and varying padding in `offset`."""
    return Rollouts(
        action=torch.tensor([[5, 6, 7], [9, 9, 9], [8, 4, 9]]),
        mask=torch.tensor([[True, False, True], [False] * 3, [True, True, False]]),
        task=["a", "b", "b"],
        log_prob=torch.tensor([[-0.5, 0.0, -1.5], [0.0] * 3, [-2.0, -0.25, 0.0]]),
        length=torch.tensor([3, 0, 2]),
        levels={"episode": torch.tensor([[0, 0, 1], [-1, -1, -1], [0, 0, -1]])},
        parent=torch.tensor([[-1, -1], [0, 1], [-1, -1]]),
        fields={
            "answer": Field("task", ["42", None, ""]),
            "messages": Field("episode", [[[{"role": "user", "content": "é"}], "stop"], [], [{"k": [1, None]}]]),
            "context_ids": Field("task", [[1, 2], [], [3]]),
            "offset": Field("step", torch.arange(18).reshape(3, 3, 2)),
            "image": Field("step", torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)),
            "length": Field("task", torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16)),
        },
        sampling={"temperature": 0.7, "stop": ["\n"]},
    )


def told(column) -> list:
    """A column's values, None where pandas says that there is none (NaN or None by its version)."""
    return [None if missing else x for x, missing in zip(column, column.isna(), strict=True)]


def test_pandas_reads_rollouts_as_people_expect(tmp_path: Path) -> None:
    import pandas as pd

    example().save(tmp_path / "r.parquet")
    df = pd.read_parquet(tmp_path / "r.parquet")
    assert df["task"].tolist() == ["a", "b", "b"]
    assert [x.tolist() for x in df["action"]] == [[5, 6, 7], [], [8, 4]]  # cut to each row's length
    assert [x.tolist() for x in df["log_prob"]] == [[-0.5, 0.0, -1.5], [], [-2.0, -0.25]]
    assert [x.tolist() for x in df["level/episode"]] == [[0, 0, 1], [], [0, 0]]
    assert [x.tolist() for x in df["offset"][2]] == [[12, 13], [14, 15]]
    assert told(df["answer"]) == ["42", None, ""]
    assert df["length"].tolist() == [3, 0, 2]
    assert df["field/length"].tolist() == [1.0, 2.0, 3.0]
    assert [[json.loads(m) for m in row] for row in df["messages"]] == [
        [[{"role": "user", "content": "é"}], "stop"],
        [],
        [{"k": [1, None]}],
    ]
    assert "é" in df["messages"][0][0]  # readable, not escaped
    assert [len(step) for step in df["image"][0]] == [4, 4, 4]  # one flat list a step


def test_datasets_reads_all_three(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    r, s, c = example(), example_scores(), example_comparisons()
    r.save(tmp_path / "r.parquet")
    s.save(tmp_path / "s.parquet")
    c.save(tmp_path / "c.parquet")
    read = {k: datasets.Dataset.from_parquet(str(tmp_path / f"{k}.parquet"), cache_dir=str(tmp_path / "cache")) for k in "rsc"}
    assert read["r"]["action"][:] == [[5, 6, 7], [], [8, 4]]
    assert read["r"]["context_ids"][:] == [[1, 2], [], [3]]
    got = [row for row in read["s"] if row["role"] == "component" and row["part"] == "lines"]
    assert [(x["row"], x["unit"], x["value"], x["status"], x["reason"]) for x in got] == LINES
    assert read["c"]["status"][:] == ["ok", "timeout", "abstain"]


def test_a_field_that_is_no_data_is_refused(tmp_path: Path) -> None:
    r = example()
    for values, said in (
        ([torch.zeros(2)] * 3, "got Tensor"),
        ([{1: "a"}] * 3, "got dict {1: 'a'}"),
        ([object()] * 3, "got object"),
        (torch.zeros(3, dtype=torch.complex64), "got torch.complex64"),
    ):
        with pytest.raises(InputError, match=said):
            r.with_field("odd", "task", values).save(tmp_path / "r.parquet")
    with pytest.raises(InputError, match="a list of its units for each row, got str in row 0"):
        r.with_field("odd", "episode", ["a", "b", "c"]).save(tmp_path / "r.parquet")
    assert not list(tmp_path.iterdir())


def test_load_says_what_the_file_is_instead(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    example().save(path)
    whole = path.read_bytes()
    table = pq.read_table(path)

    def refuses(match: str, load=load_rollouts) -> None:
        with pytest.raises(CheckpointError, match=match) as e:
            load(path)
        assert str(path) in str(e.value)

    refuses("should hold scores, got rollouts", load_scores)
    path.write_bytes(whole[: len(whole) // 2])
    refuses("should be a parquet file, got: ")
    path.write_bytes(b"")
    refuses("should be a parquet file, got: ")
    path.unlink()
    refuses("there is no such file")
    pq.write_table(table.replace_schema_metadata({}), path)
    refuses("without guerdon's metadata and with columns task, ")
    about = json.loads(table.schema.metadata[b"guerdon"])
    pq.write_table(table.replace_schema_metadata({"guerdon": json.dumps({**about, "schema": 2})}), path)
    refuses("should have schema 1 or less, got 2")
    pq.write_table(table.drop_columns(["action"]), path)
    refuses("a file changed since: KeyError: .*action")
    pq.write_table(table.set_column(table.column_names.index("mask"), "mask", table["task"]), path)
    refuses("a file changed since")


def test_rows_filtered_with_arrow_still_load(tmp_path: Path) -> None:
    example().save(tmp_path / "r.parquet")
    pq.write_table(pq.read_table(tmp_path / "r.parquet").take([2, 0]), tmp_path / "two.parquet")
    same(example().rows([2, 0]), load_rollouts(tmp_path / "two.parquet"))


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "lr=0.1" / "r.parquet"  # a folder that readers of data sets take for a column
    example().save(path)

    def full(table, where, **_) -> None:
        Path(where).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="no space left"):
        example().rows([0]).save(path)
    assert [p.name for p in path.parent.iterdir()] == ["r.parquet"]
    same(example(), load_rollouts(path))


def test_nothing_saved_is_changed_and_gradients_are_left_out(tmp_path: Path) -> None:
    r = example()
    r = r.replace(log_prob=r.log_prob.requires_grad_())
    r.save(tmp_path / "r.parquet")
    assert r.log_prob.requires_grad
    loaded = load_rollouts(tmp_path / "r.parquet")
    assert not loaded.log_prob.requires_grad
    loaded.action[0, 0] = 1  # writable
    assert not os.access(tmp_path / "r.parquet", os.X_OK)


# ---- concat


def test_concat_golden() -> None:
    a = example()
    b = a.rows([2, 0]).replace(
        action=a.action[[2, 0], :2],
        mask=a.mask[[2, 0], :2],
        log_prob=a.log_prob[[2, 0], :2],
        terminated=torch.ones(2, 2, dtype=torch.bool),
        truncated=a.truncated[[2, 0], :2],
        length=torch.tensor([2, 2]),
        levels={"episode": torch.tensor([[0, 1], [0, 0]]), "line": torch.tensor([[0, 1], [-1, 0]])},
        group=torch.tensor([3, -1]),
        groups={"line": torch.tensor([[4, 5], [4, -1]])},
        parent=torch.tensor([[1, 0], [-1, -1]]),
        fields={
            k: Field(f.level, f.values[[2, 0], :2] if f.level == "step" else a.rows([2, 0]).fields[k].values)
            for k, f in a.fields.items()
        },
    )
    both = Rollouts.concat([b, a])
    assert both.action.tolist() == [[8, 4, 0], [5, 6, 0], [5, 6, 7], [9, 9, 9], [8, 4, 9]]
    assert both.terminated.tolist() == [[True, True, False]] * 2 + [[False] * 3] * 3
    assert both.group.tolist() == [3, -1, 4, 5, 5]
    assert both.groups["line"].tolist() == [[4, 5], [4, -1], [-1, -1], [-1, -1], [-1, -1]]
    assert both.level("line").tolist() == [[0, 1, -1], [-1, 0, -1]] + [[-1] * 3] * 3
    assert both.level("episode").tolist() == [[0, 1, -1], [0, 0, -1], [0, 0, 1], [-1] * 3, [0, 0, -1]]
    assert both.parent.tolist() == [[1, 0], [-1, -1], [-1, -1], [2, 1], [-1, -1]]
    assert both.length.tolist() == [2, 2, 3, 0, 2]
    assert both.fields["answer"].values == ["", "42", "42", None, ""]
    assert both.fields["length"].values.dtype == torch.bfloat16
    assert both.fields["offset"].values[1].tolist() == [[0, 1], [2, 3], [0, 0]]
    assert both.sampling == a.sampling
    after = Rollouts.concat([a, b])
    assert after.group.tolist() == [0, 1, 1, 5, -1]
    assert Rollouts.concat([b, b]).groups["line"].tolist() == [[4, 5], [4, -1], [10, 11], [10, -1]]


@given(rollouts())
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_concat_of_one_is_itself_and_parts_are_rows_of_the_whole(r: Rollouts) -> None:
    same(r, concat_rollouts([r]))
    n = len(r)
    twice = concat_rollouts([r, r])
    same(r, twice.rows(list(range(n))))
    again = twice.rows(list(range(n, 2 * n)))
    shift = int(r.group.max()) + 1 if n else 0
    same(r.group + shift, again.group)
    same(r, again.replace(group=r.group, groups=r.groups, parent=r.parent))


def test_concat_refuses_parts_that_differ() -> None:
    a = example()
    for other, error, said in (
        (a.with_field("extra", "task", [1, 2, 3]), InputError, "`extra` is missing in part 0, is task in part 1"),
        (a.with_field("answer", "episode", [[], [], []]), InputError, "`answer` is task in part 0, is episode in part 1"),
        (a.replace(log_prob=None), InputError, "`log_prob` is known in part 0, is unknown in part 1"),
        (a.replace(sampling={"temperature": 1.0}), InputError, "`stop` .* `temperature` is 0.7 in part 0, is 1.0 in part 1"),
        (a.with_field("length", "task", [1, 2, 3]), InputError, "field `length` should be a tensor in each part"),
        (a.replace(action=a.action.double()), ShapeError, "`action` .* torch.int64 .* in part 0, torch.float64 .* in part 1"),
        (a.with_field("offset", "step", torch.zeros(3, 3, 3, dtype=torch.long)), ShapeError, "field `offset` .*part 1"),
    ):
        with pytest.raises(error, match=said):
            concat_rollouts([a, other])
    with pytest.raises(InputError, match="expected one Rollouts or more"):
        concat_rollouts([])


# ---- scores

LINES = [(0, 0, 0.5, "ok", "good"), (0, 1, None, "error", "ZeroDivisionError"), (2, 0, None, "timeout", None)]


def example_scores() -> Scores:
    lines = Component(
        "the lines",
        "line",
        torch.tensor([[0.5, math.nan], [math.nan, math.nan], [math.nan, math.nan]], dtype=torch.bfloat16),
        torch.tensor([[0, 3], [-1, -1], [2, -1]], dtype=torch.int8),
        {(0, 0): "good", (0, 1): "ZeroDivisionError"},
        Bounds(0, 1),
        "uniform",
        0.25,
        "2",
        torch.tensor([[0.1, math.nan], [math.nan] * 2, [math.nan] * 2], dtype=torch.float64),
    )
    outcome = component("outcome", "episode", torch.tensor([[1.0, 0.0], [math.nan, math.nan], [-0.0, math.nan]]), weight=None)
    r = example().with_level("line", torch.tensor([[0, 1, -1], [-1, -1, -1], [0, 0, -1]]))
    total = outcome.replace(name="total", weight=math.inf)
    return Scores(total, {"lines": lines}, {"lines": lines, "outcome": outcome}, r.levels, r.mask)


def test_pandas_reads_scores_as_people_expect(tmp_path: Path) -> None:
    import pandas as pd

    example_scores().save(tmp_path / "s.parquet")
    df = pd.read_parquet(tmp_path / "s.parquet")
    assert df.columns.tolist() == ["part", "role", "level", "row", "unit", "value", "status", "reason", "uncertainty", "steps"]
    lines = df[df["part"].eq("lines") & df["role"].eq("component")]
    assert [*zip(*(told(lines[k]) for k in ("row", "unit", "value", "status", "reason")), strict=True)] == LINES
    assert (df["value"].isna() == ~df["status"].eq("ok")).all()
    assert df.groupby("role")["part"].unique().map(list).to_dict() == {
        "total": ["total"],
        "component": ["lines"],
        "trace": ["outcome"],  # `lines` is there as a component
        "mask": ["mask"],
        "level": ["step", "turn", "episode", "line"],
    }
    assert [x.tolist() for x in df[df["role"].eq("level") & df["part"].eq("line")]["steps"]] == [[0, 1, -1], [-1] * 3, [0, 0, -1]]


@st.composite
def components(draw, name: str, n: int) -> Component:
    k = draw(st.integers(0, 3))
    status = draw(st.lists(st.sampled_from(list(Status)), min_size=n * k, max_size=n * k))
    values = draw(st.lists(st.sampled_from([0.0, -0.0, 1.5, math.inf]), min_size=n * k, max_size=n * k))
    values = [v if s == Status.OK else math.nan for v, s in zip(values, status, strict=True)]
    at = [(i, j) for i in range(n) for j in range(k)]
    return Component(
        name,
        draw(st.sampled_from(["line", "episode"])),
        torch.tensor(values, dtype=draw(st.sampled_from(FLOATS))).reshape(n, k),
        torch.tensor([int(s) for s in status], dtype=draw(st.sampled_from([torch.int8, torch.int64]))).reshape(n, k),
        draw(st.dictionaries(st.sampled_from(at), texts, max_size=3)) if at else {},
        Bounds(*sorted(draw(st.tuples(st.floats(allow_nan=False), st.integers(-2, 2))))),
        draw(st.sampled_from(["last", "uniform", "copy", "first"])),
        draw(st.none() | st.floats() | st.integers(-2, 2)),
        draw(texts.filter(lambda x: x != "\ud800")),
        draw(st.none() | tensors((n, k), FLOATS)),
    )


@given(st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_scores_come_back_with_every_status_and_reason(tmp_path: Path, data: st.DataObject) -> None:
    n, t = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    made = {k: data.draw(components(k, n)) for k in ("total", "a", "b", "watched")}
    ids = torch.tensor(data.draw(st.lists(st.integers(-1, 2), min_size=n * t, max_size=n * t)), dtype=torch.long).reshape(n, t)
    s = Scores(
        made["total"], {"a": made["a"], "b": made["b"]}, {"b": made["b"], "watched": made["watched"]}, {"line": ids}, ids > 0
    )
    save_scores(s, tmp_path / "s.parquet")
    loaded = load_scores(tmp_path / "s.parquet")
    reasons = [dict(sorted(c.reasons.items())) for c in made.values()]
    got = [loaded.total, *loaded.components.values(), loaded.trace["watched"]]
    assert reasons == [dict(sorted(c.reasons.items())) for c in got]
    for a, b in zip(made.values(), got, strict=True):
        same(a.replace(reasons={}), b.replace(reasons={}))
    same(dict(s.levels), dict(loaded.levels))
    same(s.mask, loaded.mask)
    assert list(loaded.trace) == ["b", "watched"]
    assert loaded.trace["b"] is loaded.components["b"]


def test_scores_with_rows_missing_or_moved_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    example_scores().save(path)
    table = pq.read_table(path)
    n = table.num_rows
    exchanged = [6, 7, 8, 3, 4, 5, 0, 1, 2, *range(9, n)]  # the total and a part that has as many rows
    for order in ([*range(1, n)], [*range(n - 1)], [*range(n), 0], [*reversed(range(n))], exchanged):
        pq.write_table(table.take(order), path)
        with pytest.raises(CheckpointError, match="a file changed since: ValueError: expected"):
            load_scores(path)


def test_a_status_or_reason_without_its_unit_is_refused(tmp_path: Path) -> None:
    s = example_scores()
    lost = s.total.replace(reasons={(0, 9): "where?"})
    with pytest.raises(InputError, match=r"reasons at \[\(0, 9\)\]"):
        save_scores(dataclasses.replace(s, total=lost), tmp_path / "s.parquet")
    wrong = s.total.replace(status=torch.where(s.total.status == Status.NONE, 9, s.total.status).to(torch.int8))
    with pytest.raises(InputError, match=r"got statuses \[9\]"):
        save_scores(dataclasses.replace(s, total=wrong), tmp_path / "s.parquet")


def test_scores_made_of_loaded_parts_give_the_same_rewards(tmp_path: Path) -> None:
    r = example()
    s = scores_of(r, [component("a", "episode", torch.tensor([[1.0, 2.0], [math.nan] * 2, [3.0, math.nan]]), weight=0.5)])
    s.save(tmp_path / "s.parquet")
    same(s.reward(), Scores.load(tmp_path / "s.parquet").reward())
    same(s.rewards(), Scores.load(tmp_path / "s.parquet").rewards())


# ---- comparisons


def example_comparisons() -> Comparisons:
    return Comparisons(
        torch.tensor([[0, 0], [1, 2], [2, 0]]),
        torch.tensor([[1, 0], [0, 0], [0, 1]]),
        torch.tensor([0.75, math.nan, math.nan], dtype=torch.float64),
        level="line",
        margin=torch.tensor([1.0, -0.0, math.nan], dtype=torch.bfloat16),
        component="safety",
        annotator=["ann", "bob", ""],
        status=torch.tensor([0, 2, 1], dtype=torch.int8),
        reasons={1: "took too long", 2: ""},
    )


@pytest.mark.parametrize("rows", [[0, 1, 2], [0], []])
def test_comparisons_come_back(tmp_path: Path, rows: list[int]) -> None:
    whole = example_comparisons()
    c = Comparisons(
        whole.first[rows],
        whole.second[rows],
        whole.target[rows],
        "line",
        whole.weight[rows],
        whole.margin[rows],
        "safety",
        [whole.annotator[i] for i in rows],
        whole.status[rows],
        {i: whole.reasons[i] for i in rows if i in whole.reasons},
    )
    for x in (c, dataclasses.replace(c, margin=None)):
        save_comparisons(x, tmp_path / "c.parquet")
        same(x, load_comparisons(tmp_path / "c.parquet"))


def test_pandas_reads_comparisons(tmp_path: Path) -> None:
    import pandas as pd

    example_comparisons().save(tmp_path / "c.parquet")
    df = pd.read_parquet(tmp_path / "c.parquet")
    assert df[["first_row", "first_unit", "second_row", "second_unit"]].values.tolist() == [
        [0, 0, 1, 0],
        [1, 2, 0, 0],
        [2, 0, 0, 1],
    ]
    assert df["status"].tolist() == ["ok", "timeout", "abstain"]
    assert told(df["reason"]) == [None, "took too long", ""]
    assert df["level"].tolist() == ["line"] * 3


def test_a_reason_without_its_pair_is_refused(tmp_path: Path) -> None:
    c = dataclasses.replace(example_comparisons(), reasons={3: "whose?"})
    with pytest.raises(InputError, match=r"reasons at \[3\]"):
        c.save(tmp_path / "c.parquet")
