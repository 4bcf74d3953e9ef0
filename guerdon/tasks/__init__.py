# SPDX-License-Identifier: Apache-2.0
"""Tasks: what a policy is asked, with the named fields a reward may read and a key that stays the same across runs.

They come from a JSONL file, from reasoning-gym by name, or from a generator of ours (`running_digits`).
"""

from guerdon.tasks.jsonl import read_jsonl, tasks_from_jsonl
from guerdon.tasks.loading import load_tasks
from guerdon.tasks.reasoning import reasoning_gym_score, tasks_from
from guerdon.tasks.task import Task, task_key

__all__ = ["Task", "load_tasks", "read_jsonl", "reasoning_gym_score", "task_key", "tasks_from", "tasks_from_jsonl"]
