# SPDX-License-Identifier: Apache-2.0
"""Tasks and scored rows from JSONL: one JSON object a line, fields by name.

    prompt      text, or a list of messages {"role": ..., "content": ...}
    completion  the same
    answer      what a checker compares with
    group       text or integer: rows that are compared with each other
    key         text or integer; `task` is read when there is no `key`, a hash of the content when there is neither

Any other name is a field as it stands. A file that cannot be read this way is one `InputError` with the file, the line,
what was expected and what came.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

from guerdon.errors import InputError
from guerdon.tasks.task import Task, task_key


def read_jsonl(path: str | PathLike[str], need: Sequence[str] = ()) -> list[dict]:
    """The rows of a JSONL file, each with every field in `need` present. Blank lines are skipped."""
    return [row for _, row in _rows(Path(path), need)]


def tasks_from_jsonl(path: str | PathLike[str], need: Sequence[str] = ("prompt",)) -> list[Task]:
    """The rows of a JSONL file as tasks; `prompt` is always needed. A repeated row is one task; others need other keys."""
    path = Path(path)
    tasks: list[Task] = []
    seen: dict[str, tuple[int, dict]] = {}
    for number, row in _rows(path, ("prompt", *need)):
        key = _key(path, number, row)
        if key in seen and seen[key][1] == row:
            continue
        if key in seen:
            raise InputError(
                f"{path}, line {number}: expected a key no other line has, got {key!r}, which line {seen[key][0]} has. "
                "Usual cause: the same prompt and answer twice with other fields; remove one, or give both a `key`."
            )
        seen[key] = (number, row)
        tasks.append(Task(key, row["prompt"], {n: v for n, v in row.items() if n not in ("prompt", "key", "task")}))
    return tasks


def _rows(path: Path, need: Sequence[str]) -> Iterator[tuple[int, dict]]:
    """(line number, row) for each line that is not blank, checked."""
    empty = True
    for number, line in enumerate(_lines(path), start=1):
        if not line or line.isspace():
            continue
        empty = False
        row = _object(path, number, line)
        for name in need:
            if name not in row:
                got = ", ".join(f"`{n}`" for n in row) or "an empty object"
                raise InputError(
                    f"{path}, line {number}: expected a field `{name}`, got {got}. "
                    f"Usual cause: the field has another name in this file; rename it to `{name}`."
                )
        for name in ("prompt", "completion"):
            if name in row and not _is_text_or_messages(row[name]):
                raise InputError(
                    f"{path}, line {number}: expected `{name}` to be text or a non-empty list of messages "
                    f'{{"role": text, "content": text}}, got {_shown(row[name])}. '
                    "Usual cause: a missing value, or messages written with other names than `role` and `content`."
                )
        if "group" in row and not _is_name(row["group"]):
            raise InputError(
                f"{path}, line {number}: expected `group` to be text or an integer, got {_shown(row['group'])}. "
                "Usual cause: a missing value; leave the field out of a row that belongs to no group."
            )
        yield number, row
    if empty:
        raise InputError(
            f"{path}: expected at least one line with a JSON object, got none. "
            "Usual cause: the program that writes the file was interrupted, or wrote it elsewhere."
        )


def _lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, split at newlines only: JSON text may hold any other line separator as it is."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: expected a JSONL file that can be read, got: {error.strerror}. "
            "Usual cause: a path relative to another directory than the present one."
        ) from error
    try:
        return content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {number}: expected UTF-8 text, got the byte 0x{content[error.start]:02x} ({error.reason}). "
            "Usual cause: a file saved in another encoding, or a compressed one."
        ) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


_DECODE = json.JSONDecoder(parse_constant=_refuse_constant).decode  # built once: json.loads would build one a line


def _object(path: Path, number: int, line: str) -> dict:
    try:
        row = _DECODE(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}, line {number}: expected one JSON object, got {_shown(line)}, which is not JSON: {error}. "
            "Usual cause: single quotes, a trailing comma, or an object spread over several lines."
        ) from error
    if not isinstance(row, dict):
        raise InputError(
            f"{path}, line {number}: expected a JSON object, got {_shown(row)}. "
            "Usual cause: a .json file with one list; JSONL has an object a line, with no brackets around them."
        )
    return row


def _key(path: Path, number: int, row: dict) -> str:
    for name in ("key", "task"):
        if name in row:
            if not _is_name(row[name]):
                raise InputError(
                    f"{path}, line {number}: expected `{name}` to be text or an integer, got {_shown(row[name])}. "
                    "Usual cause: a missing value; leave the field out and the key is a hash of prompt and answer."
                )
            return str(row[name])
    return task_key(row["prompt"], row.get("answer"))


def _is_name(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_text_or_messages(value: object) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list) and bool(value) and all(_is_message(message) for message in value)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


_JSON_NAMES = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}


def _shown(value: object) -> str:
    """The kind of a value and its beginning, for a message."""
    if value is None:
        return "null"
    text = value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{_JSON_NAMES[type(value)]} {text if len(text) <= 60 else text[:60] + '…'}"
