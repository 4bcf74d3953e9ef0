# SPDX-License-Identifier: Apache-2.0
"""From items to verdicts: the cache, the questions, the replies, and what became of each item."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from statistics import median
from string import Template
from threading import Event
from typing import Any, NamedTuple

from guerdon.errors import InputError
from guerdon.judges import verdicts
from guerdon.judges.asking import Reply, ask
from guerdon.judges.cache import Cache
from guerdon.judges.endpoint import Endpoint
from guerdon.judges.inquiry import Inquiry
from guerdon.judges.tally import Tally
from guerdon.scores import Status

_READER = hashlib.sha256(Path(verdicts.__file__).read_bytes()).hexdigest()

SLOW = 0.02
"""Seconds a request: from here on a judge is asked while the policy still samples."""

Item = Mapping[str, Any]
"""What the judge is shown of one thing: JSON values by name."""


class Verdict(NamedTuple):
    """What became of an item: ``said`` is None unless the status is OK; ``reason`` is why, or the judge's own reason."""

    status: Status
    said: Any = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Judge:
    """An endpoint with a prompt and a way to read verdicts.

    prompt    the question, with ``$items`` where the items go
    read      what a verdict says (see ``verdicts.Read``)
    together  items in one request at most. Above 1 a verdict may depend on what else was in its request
    cache     file of verdicts; "": none
    tally     counts what happens
    begun     by process: what was begun and not yet scored
    took      seconds of the latest requests
    """

    endpoint: Endpoint
    prompt: str
    read: verdicts.Read
    together: int = 1
    cache: str = ""
    tally: Tally = field(default_factory=Tally)
    begun: dict[int, Inquiry] = field(default_factory=dict, init=False, repr=False)
    took: deque[float] = field(default_factory=lambda: deque(maxlen=64), init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.together, bool) or not isinstance(self.together, int) or self.together < 1:
            raise InputError(f"judge: `together` should be a number of items of at least 1, got {self.together!r}.")

    @cached_property
    def version(self) -> str:
        """Changes with everything but the item that a verdict depends on."""
        return digest([self.endpoint.decides(), self.prompt, self.together, _READER])

    def begin(self, items: Sequence[Item]) -> None:
        """Start asking, in the background, about items that ``verdicts`` will be asked for next.

        What can't be begun (no key, no server, no cache) is left to ``verdicts``, which meets it too and says so. So are items
        of a judge that is ``quick``.
        """
        if items and not self.quick:
            with suppress(InputError):
                self.inquiry().add(items)

    @property
    def quick(self) -> bool:
        """Whether it answers sooner than it pays to ask it early: the asking takes the processor from what it overlaps with.

        Not with several items a request: which of them share one must not depend on a clock.
        """
        return self.together == 1 and len(self.took) > 0 and median(self.took) < SLOW

    def inquiry(self) -> Inquiry:
        """What was begun in this process and not yet scored, or a new one."""
        if (here := os.getpid()) not in self.begun:
            self.begun[here] = Inquiry(self)
        return self.begun[here]

    def verdicts(self, items: Sequence[Item]) -> list[Verdict]:
        """One for each item, in order; equal items are asked about once. What was begun is used here, and then forgotten."""
        begun = self.begun.pop(os.getpid(), None)
        if begun is not None or items:
            return (begun or Inquiry(self)).finish(items)
        return []

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"begun": {}}

    # ---- what an inquiry asks of it

    def keys(self, items: Sequence[Item], model: str) -> list[str]:
        """What an item's verdict is known by."""
        return [digest([self.version, model, item]) for item in items]

    def cached(self, keys: list[str]) -> dict[str, Verdict]:
        kept = Cache(self.cache).get(keys) if self.cache else {}
        self.tally.add(items=len(kept), cached=len(kept))
        return {k: Verdict(Status.OK, said, why) for k, (said, why) in kept.items()}

    def answers(self, items: Mapping[str, Item], model: str, secret: str, stop: Event) -> dict[str, Verdict]:
        """The verdicts of one request about items by key."""
        start = time.monotonic()
        reply = ask(self.endpoint, model, secret, self.question(list(items), items), stop)
        self.took.append(time.monotonic() - start)
        return self._settled(list(items), reply, model)

    def question(self, keys: Sequence[str], items: Mapping[str, Item]) -> str:
        """The prompt with these items, each under its id."""
        shown = [json.dumps({"id": name, **items[k]}, ensure_ascii=False) for name, k in zip(ids_of(keys), keys, strict=True)]
        return Template(self.prompt).safe_substitute(items="\n".join(shown))

    def _settled(self, keys: Sequence[str], reply: Reply, model: str) -> dict[str, Verdict]:
        """The verdicts of one request, counted and kept."""
        tokens = reply.usage or (0, 0)
        self.tally.add(
            items=len(keys),
            requests=reply.requests,
            retries=max(reply.requests - 1, 0),
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
            unmetered=int(reply.status == Status.OK and reply.usage is None),
        )
        if reply.status != Status.OK:
            self.tally.add(**{"timeouts" if reply.status == Status.TIMEOUT else "errors": len(keys)})
            return {k: Verdict(reply.status, None, reply.reason) for k in keys}
        names = dict(zip(ids_of(keys), keys, strict=True))
        matched = verdicts.match(reply.text, list(names), self.read)
        self.tally.add(unparsed=len(matched.reasons), invented=matched.invented)
        said = {names[i]: x for i, x in matched.said.items()}
        if self.cache and said:
            said = Cache(self.cache).put(said, model)
        ended = "" if reply.finish in ("", "stop") else f"; the reply ended by `{reply.finish}`"
        missing = {names[i]: Verdict(Status.ABSTAIN, None, f"{why}{ended}") for i, why in matched.reasons.items()}
        return missing | {k: Verdict(Status.OK, value, why) for k, (value, why) in said.items()}


def ids_of(keys: Sequence[str]) -> list[str]:
    """Short ids of the items of one request: beginnings of their keys, as long as it takes to tell them apart."""
    size = next(n for n in range(6, 65) if len({k[:n] for k in keys}) == len(set(keys)))
    return [k[:size] for k in keys]


def digest(content: Any) -> str:
    """SHA-256 of JSON content, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def prompt_of(name: str, **given: Any) -> str:
    """A prompt of ``guerdon/judges/data`` with everything filled in but the items."""
    text = resources.files("guerdon.judges").joinpath("data", f"{name}.txt").read_text(encoding="utf-8")
    return Template(text).safe_substitute({k: str(v).replace("$", "$$") for k, v in given.items()})


def rubric_of(said: str) -> str:
    """The rubric's text: as given, of the file it names (.txt, .md), or the one that comes with the library."""
    if not isinstance(said, str):
        raise InputError(f"judge: `rubric` should be text or the path of a .txt or .md file, got {said!r:.80}.")
    if not said:
        return resources.files("guerdon.judges").joinpath("data", "rubric.txt").read_text(encoding="utf-8").strip()
    if not said.endswith((".txt", ".md")) or any(c.isspace() for c in said):
        return said.strip()
    try:
        return Path(said).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"judge: the rubric {said} should be a text file, got: {error}.") from error
