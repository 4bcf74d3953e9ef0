# SPDX-License-Identifier: Apache-2.0
"""Tasks by one string: a JSONL file or a generator with its settings, as a command line has them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from guerdon.errors import InputError
from guerdon.tasks.jsonl import tasks_from_jsonl
from guerdon.tasks.reasoning import SCHEME, tasks_from
from guerdon.tasks.task import Task


def load_tasks(spec: str) -> list[Task]:
    """Tasks from ``path/to/file.jsonl`` or ``reasoning_gym:NAME?size=100&seed=0&setting=value``.

    >>> [len(task.fields["answer"]) > 0 for task in load_tasks("reasoning_gym:chain_sum?size=2&seed=3")]
    [True, True]
    """
    if spec.endswith(".jsonl"):
        return tasks_from_jsonl(spec)
    if not spec.startswith(SCHEME):
        raise InputError(
            f"tasks: expected the path of a .jsonl file or {SCHEME}NAME, got {spec!r}. "
            "Usual cause: a file with another ending; rename it."
        )
    name, _, query = spec.partition("?")
    try:
        settings = dict(parse_qsl(query, strict_parsing=bool(query)))
    except ValueError as error:
        raise InputError(
            f"tasks: expected settings like ?size=100&seed=0 after the name, got {query!r} ({error}). "
            "Usual cause: a setting without its value."
        ) from error
    return tasks_from(name, **{setting: _value(text) for setting, text in settings.items()})


def _value(text: str) -> Any:
    """A setting as JSON has it (3, 0.5, true, [1, 2]), or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
