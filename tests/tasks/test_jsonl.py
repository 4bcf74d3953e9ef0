# SPDX-License-Identifier: Apache-2.0
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import InputError
from guerdon.tasks import load_tasks, read_jsonl, task_key, tasks_from_jsonl


def write(tmp_path: Path, *lines: str | bytes) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def test_reads_every_field_by_name(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "2+2"}]
    rows = [
        {"prompt": "a", "completion": "b", "answer": 4, "group": "g", "colour": ["red", None]},
        {"prompt": messages, "completion": [{"role": "assistant", "content": "4"}], "group": 7},
    ]
    assert read_jsonl(write(tmp_path, *map(json.dumps, rows)), need=("prompt", "completion")) == rows


def test_a_repeated_row_is_one_task(tmp_path: Path) -> None:
    path = tmp_path / "twice.jsonl"
    path.write_text('{"prompt": "a", "answer": 1}\n{"prompt": "b"}\n{"answer": 1, "prompt": "a"}\n')
    assert [task.prompt for task in tasks_from_jsonl(path)] == ["a", "b"]


def test_tasks_take_key_then_task_then_a_hash(tmp_path: Path) -> None:
    lines = [
        '{"key": "k", "task": "t", "prompt": "a"}',
        '{"task": 5, "prompt": "a"}',
        '{"prompt": "a", "answer": "b", "group": 1}',
    ]
    tasks = tasks_from_jsonl(write(tmp_path, *lines))
    assert [task.key for task in tasks] == ["k", "5", task_key("a", "b")]
    assert [dict(task.fields) for task in tasks] == [{}, {}, {"answer": "b", "group": 1}]
    assert load_tasks(str(tmp_path / "rows.jsonl")) == tasks


def test_blank_lines_crlf_bom_and_unicode_separators(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf" + b'{"prompt": "a"}\r', "", "  \t", '{"prompt": "b\u2028c"}', "")
    assert read_jsonl(path) == [{"prompt": "a"}, {"prompt": "b\u2028c"}]


# name -> the lines, the line to blame, and what the message says was expected and came
WRONG: dict[str, tuple[list[str | bytes], int | None, list[str]]] = {
    "single quotes": (['{"prompt": "a"}', "{'prompt': 'b'}"], 2, ["one JSON object", "{'prompt': 'b'}", "single quotes"]),
    "cut line": (['{"prompt": "a'], 1, ["one JSON object", "not JSON"]),
    "two objects": (['{"prompt": "a"} {"prompt": "b"}'], 1, ["one JSON object", "Extra data"]),
    "NaN": (['{"prompt": "a", "answer": NaN}'], 1, ["NaN is not a JSON value"]),
    "nested too deep": (["[" * 200_000], 1, ["one JSON object", "recursion"]),
    "a list": (["", '[{"prompt": "a"}]'], 2, ["a JSON object", "a list", "no brackets"]),
    "text": (['"prompt"'], 1, ["a JSON object", "text prompt"]),
    "null": (["null"], 1, ["a JSON object", "null"]),
    "missing prompt": (['{"prompt": "a"}', '{"question": "b", "answer": 3}'], 2, ["`prompt`", "`question`, `answer`"]),
    "empty object": (["{}"], 1, ["`prompt`", "an empty object"]),
    "prompt a number": (['{"prompt": 3}'], 1, ["`prompt`", "a number 3"]),
    "prompt null": (['{"prompt": null}'], 1, ["`prompt`", "null"]),
    "prompt without messages": (['{"prompt": []}'], 1, ["`prompt`", "non-empty list", "a list []"]),
    "message without content": (['{"prompt": [{"role": "user", "text": "a"}]}'], 1, ["`content`", '"text"']),
    "message of wrong type": (['{"prompt": ["a"]}'], 1, ["`prompt`", 'a list ["a"]']),
    "completion a boolean": (['{"prompt": "a", "completion": true}'], 1, ["`completion`", "a boolean true"]),
    "group a list": (['{"prompt": "a", "group": [1]}'], 1, ["`group`", "a list [1]"]),
    "key a boolean": (['{"prompt": "a", "task": true}'], 1, ["`task`", "a boolean true"]),
    "key null": (['{"prompt": "a", "key": null}'], 1, ["`key`", "null"]),
    "duplicate key": (['{"prompt": "a", "key": 1}', "", '{"prompt": "b", "task": "1"}'], 3, ["no other line", "'1'", "line 1"]),
    "duplicate content": (
        ['{"prompt": "a", "level": 1}', '{"prompt": "a", "level": 2}'],
        2,
        ["no other line", "line 1", "same prompt and answer"],
    ),
    "not UTF-8": (['{"prompt": "a"}', b'{"prompt": "\xe9"}'], 2, ["UTF-8", "0xe9"]),
    "empty file": ([], None, ["at least one line", "none"]),
    "blank file": (["", " "], None, ["at least one line", "none"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_error_names_file_line_expected_and_got(tmp_path: Path, name: str) -> None:
    lines, number, said = WRONG[name]
    path = write(tmp_path, *lines)
    with pytest.raises(InputError) as caught:
        tasks_from_jsonl(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: " if number is None else f"{path}, line {number}: ")
    assert all(part in message for part in (*said, "expected", "got", "Usual cause: ")), message
    assert len(message) < 500


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        tasks_from_jsonl(write(tmp_path, json.dumps({"prompt": ["x" * 10_000]})))
    assert len(str(caught.value)) < 500


def test_need_is_checked_for_rows_and_tasks(tmp_path: Path) -> None:
    path = write(tmp_path, '{"prompt": "a", "completion": "b"}', '{"prompt": "b"}')
    assert len(read_jsonl(path)) == 2
    for read in (read_jsonl, tasks_from_jsonl):
        with pytest.raises(InputError, match=r"line 2: expected a field `completion`, got `prompt`\."):
            read(path, need=("completion",))


@pytest.mark.parametrize(("path", "why"), [("nowhere.jsonl", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_opened(tmp_path: Path, path: str, why: str) -> None:
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path / path))}: expected a JSONL file.*{why}"):
        read_jsonl(tmp_path / path)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.text().filter(lambda name: name not in ("prompt", "completion", "group", "key", "task"))


@given(rows=st.lists(st.dictionaries(names, anything), min_size=1, max_size=4), escape=st.booleans())
def test_what_json_writes_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[dict], escape: bool) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    surrogates = any("\ud800" <= c <= "\udfff" for row in rows for c in json.dumps(row, ensure_ascii=False))
    lines = [json.dumps(row, ensure_ascii=escape or surrogates) for row in rows]
    path.write_bytes("\n".join(lines).encode())
    assert read_jsonl(path) == rows
