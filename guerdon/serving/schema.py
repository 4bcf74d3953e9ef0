# SPDX-License-Identifier: Apache-2.0
"""What is asked of a reward over HTTP and what it answers. Unknown names and wrong types are refused, named by their path.

>>> problems_of(b'{"items": [{"completion": 4, "answer": "4"}]}')
[('items[0].answer', 'Extra inputs are not permitted'), ('items[0].completion', 'expected a text or a list of messages')]
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

MAX_ITEMS = 4096


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Message(BaseModel):
    """One message of a chat; further keys are handed on as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: str
    content: str


Text = str | list[Message]


class Item(Strict):
    """One completion. ``fields`` are what the reward reads by name; items of a ``group`` are compared (default: same prompt)."""

    completion: Text
    prompt: Text = ""
    fields: dict[str, JsonValue] = Field(default_factory=dict)
    group: str | int | None = None


class ScoreRequest(Strict):
    """``step`` is the training step, for schedules in the reward."""

    items: Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS)]
    step: Annotated[int, Field(ge=0)] = 0


class Judged(Strict):
    """``value`` is null unless the status is ok; a reason says why, or is a rationale."""

    value: float | None
    status: str
    reason: str = ""


class Scored(Strict):
    """The total of one item, and every named part of the reward, unweighted."""

    total: Judged
    parts: dict[str, Judged]


class ScoreResponse(Strict):
    items: list[Scored]
    version: str


class RewardInfo(Strict):
    """What is served. Bounds are those of an item's total, null where there is none.

    required, optional  names that an item's ``fields`` must, and may, have; ``open``: any others too
    parts               name -> weight in the total at step 0; null: watched or a part of a part
    """

    reward: str
    version: str
    tree: str
    level: str
    relation: str
    bounds: tuple[float | None, float | None]
    required: list[str]
    optional: list[str]
    open: bool
    parts: dict[str, float | None]
    max_items: int = MAX_ITEMS


Problem = tuple[str, str]
"""(path of what is wrong, what is wrong with it)"""

_BRANCHES = {"str", "int", "list[Message]"}


def problems(error: ValidationError, most: int = 20) -> list[Problem]:
    """What a request got wrong, a line per place."""
    found: dict[str, str] = {}
    for e in error.errors(include_url=False, include_input=False):
        path = path_of(e["loc"])
        either = "str" in e["loc"] or "list[Message]" in e["loc"]
        said = "expected a text or a list of messages" if either and e["loc"][-1] in _BRANCHES else e["msg"]
        found.setdefault(path, said)
    return sorted(found.items())[:most]


def problems_of(body: bytes) -> list[Problem]:
    try:
        ScoreRequest.model_validate_json(body)
    except ValidationError as error:
        return problems(error)
    return []


def path_of(place: tuple[Any, ...]) -> str:
    """A place as people write it.

    >>> path_of(("items", 3, "completion", "list[Message]", 0, "role"))
    'items[3].completion[0].role'
    """
    out = ""
    for step in place:
        if isinstance(step, int):
            out += f"[{step}]"
        elif step not in _BRANCHES:
            out += f".{step}" if out else str(step)
    return out or "body"
