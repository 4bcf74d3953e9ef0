# SPDX-License-Identifier: Apache-2.0
"""One task: a prompt, a stable key, and whatever else a reward may want to read by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Task:
    """A prompt (text, or chat messages with `role` and `content`) and its fields, such as `answer` and `group`.

    `key` names the task across batches, runs and resumes; per-task tables are indexed by it.
    """

    key: str
    prompt: str | list[dict]
    fields: Mapping[str, object] = field(default_factory=dict)


def task_key(prompt: str | list[dict], answer: object = None) -> str:
    """A key made of the content: the first 16 hex digits of the SHA-256 of `prompt` and `answer` as JSON.

    The same content has the same key on every machine and in every version; the order of keys in a message does not
    matter. 2⁶⁴ values: among a million tasks, two share a key by chance with probability 3e-8.

    >>> task_key("2 + 2 =", "4")
    '17a17d732c2ba502'
    >>> task_key([{"role": "user", "content": "hi"}]) == task_key([{"content": "hi", "role": "user"}])
    True
    """
    return hashlib.sha256(_ENCODE([prompt, answer]).encode()).hexdigest()[:16]


_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode  # built once: json.dumps would each time
