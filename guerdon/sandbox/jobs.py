# SPDX-License-Identifier: Apache-2.0
"""What a sandbox is asked to do, and what came of each item: the caller's side of the files that a cell reads and writes."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from guerdon.sandbox import values


class Fate(StrEnum):
    """What became of an item. All but BROKEN are the program's doing.

    OK        it answered: ``value`` is what it returned or printed
    RAISED    it raised, or ended itself with another status than 0
    TIMEOUT   it took longer than it may
    DIED      its process ended before it had answered, by itself or by a signal
    FLOOD     it wrote more than it may
    TAMPERED  something else than an answer stands in the file of results
    LOST      an earlier item of the same episode ended the process
    BROKEN    the sandbox broke down; nothing is known of the program
    """

    OK = "ok"
    RAISED = "raised"
    TIMEOUT = "timeout"
    DIED = "died"
    FLOOD = "flood"
    TAMPERED = "tampered"
    LOST = "lost"
    BROKEN = "broken"


class Outcome(NamedTuple):
    """``value`` is None unless the fate is OK; ``reason`` says why it is not."""

    fate: Fate
    value: Any = None
    reason: str = ""


@dataclass(frozen=True)
class Call:
    """A function of the program, by its (dotted) name, and plain data to call it with."""

    name: str
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scripts:
    """Run the program for each text on standard input; the value is what it printed. A process for each."""

    program: str
    inputs: Sequence[str]

    together = 1

    def groups(self) -> list[int]:
        return [1] * len(self.inputs)

    def content(self, start: int, stop: int) -> tuple[dict[str, Any], bytes]:
        return {"kind": "script", "program": self.program}, b""

    def streams(self, start: int) -> list[int]:
        return [sealed(self.inputs[start].encode("utf-8", "surrogatepass")), empty()]


@dataclass(frozen=True)
class Calls:
    """Load the program and make the calls in order, in one process as long as it lives."""

    program: str
    calls: Sequence[Call]

    together = 1 << 30

    def groups(self) -> list[int]:
        return [1] * len(self.calls)

    def content(self, start: int, stop: int) -> tuple[dict[str, Any], bytes]:
        items = [[c.name, values.encode(c.arguments), values.encode(dict(c.keywords))] for c in self.calls[start:stop]]
        return {"kind": "calls", "program": self.program, "items": items, "first": start}, b""

    def streams(self, start: int) -> list[int]:
        return []


@dataclass(frozen=True)
class Episodes:
    """Run the program anew for each episode and reward its steps in order; an item is a step.

    columns  (argument, name) -> [steps, ...], the steps of all episodes one after another
    counts   steps of each episode
    """

    program: str
    columns: Mapping[tuple[str, str], np.ndarray]
    counts: Sequence[int]
    together: int = 1 << 30

    def groups(self) -> list[int]:
        return list(self.counts)

    def content(self, start: int, stop: int) -> tuple[dict[str, Any], bytes]:
        first, last = sum(self.counts[:start]), sum(self.counts[:stop])
        cut = {key: x[first:last] for key, x in self.columns.items()}
        shapes = [[*key, list(x.shape), "i" if x.dtype.kind in "biu" else "f"] for key, x in cut.items()]
        head = {"kind": "episodes", "program": self.program, "first": first, "counts": list(self.counts[start:stop])}
        return {**head, "columns": shapes}, b"".join(x.astype(np.float64).tobytes() for x in cut.values())

    def streams(self, start: int) -> list[int]:
        return []


Job = Scripts | Calls | Episodes


# ---- files without a name


def empty() -> int:
    return os.memfd_create("guerdon", os.MFD_CLOEXEC)


def sealed(content: bytes) -> int:
    """A file that nobody can change, read from its start."""
    fd = os.memfd_create("guerdon", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return fd


def content(fd: int, limit: int) -> bytes:
    """What is in a file, up to ``limit`` bytes."""
    return os.pread(fd, min(limit, os.fstat(fd).st_size), 0)


class Cell:
    """One process to be: some groups of a job, and the files it is given."""

    def __init__(self, job: Job, at: int, start: int, stop: int, tries: int = 0) -> None:
        self.job, self.at, self.start, self.stop, self.tries = job, at, start, stop, tries
        self.sizes = job.groups()
        self.first = sum(self.sizes[:start])
        self.count = sum(self.sizes[start:stop])
        self.nonce = secrets.token_hex(8)
        self.fds: list[int] = []

    def open(self) -> list[int]:
        content, payload = self.job.content(self.start, self.stop)
        head = values.dumps({**content, "nonce": self.nonce}).encode()
        self.fds = [sealed(len(head).to_bytes(8, "little") + head + payload), empty(), *self.job.streams(self.start)]
        return self.fds

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def outcomes(self, ended: dict[str, Any], limit: int) -> list[Outcome]:
        """Of the items that are settled, from the first: all of them, or up to and with the one that ended the process."""
        if isinstance(self.job, Scripts):
            return [self._printed(ended, limit)]
        found, tampered = self._answers(limit)
        if found and found[0].fate is not Fate.OK:  # it could not be loaded: no item could
            return [found[0]] * self.count
        answers = found[1:]
        if len(answers) == self.count:
            return answers
        blamed = Outcome(Fate.TAMPERED, None, "wrote to the file of results") if tampered else self._end(ended, limit)
        return [*answers, blamed] if found else [blamed] * self.count

    def _answers(self, limit: int) -> tuple[list[Outcome], bool]:
        """(outcome of loading and of the items after it, as far as there are lines of the right form, whether another came)."""
        *lines, rest = content(self.fds[1], limit).removeprefix(b"\n").split(b"\n")
        found: list[Outcome] = []
        for line in lines[: self.count + 1]:
            index = values.LOADED if not found else self.first + len(found) - 1
            answer = self._read(line, index)
            if answer is None:
                return found, True
            found.append(answer)
            if found[0].fate is not Fate.OK:
                break
        return found, bool(rest) and len(rest) < limit and not rest.startswith(self.nonce.encode())

    def _read(self, line: bytes, index: int) -> Outcome | None:
        nonce, _, rest = line.partition(b" ")
        number, _, rest = rest.partition(b" ")
        kind, _, data = rest.partition(b" ")
        if (nonce, number) != (self.nonce.encode(), str(index).encode()) or kind not in (b"ok", b"raised"):
            return None
        try:
            value = values.decode(values.loads(data))
        except ValueError:
            return None
        if kind == b"raised":
            return Outcome(Fate.RAISED, None, str(value)[:1000])
        return Outcome(Fate.OK, value)

    def _printed(self, ended: dict[str, Any], limit: int) -> Outcome:
        if ended["status"] == 0 and not ended["over"] and os.fstat(self.fds[3]).st_size < limit:
            return Outcome(Fate.OK, content(self.fds[3], limit).decode("utf-8", "replace"))
        if os.fstat(self.fds[3]).st_size >= limit:
            return Outcome(Fate.FLOOD, None, f"printed more than {limit} bytes")
        raised = self._read(content(self.fds[1], limit).strip(b"\n"), 0)
        if raised is not None and raised.fate is Fate.RAISED and ended["status"] == 1:
            return raised
        return self._end(ended, limit)

    def _end(self, ended: dict[str, Any], limit: int) -> Outcome:
        """Why the process ended, as the kernel tells it."""
        if ended["over"]:
            return Outcome(Fate.TIMEOUT, None, f"took longer than {ended['limit']:g} s")
        if os.fstat(self.fds[1]).st_size >= limit:
            return Outcome(Fate.FLOOD, None, f"answered more than {limit} bytes")
        status = ended["status"]
        if status < 0:
            return Outcome(Fate.DIED, None, f"died with signal {-status}")
        if isinstance(self.job, Scripts):
            return Outcome(Fate.RAISED, None, f"ended with status {status}")
        return Outcome(Fate.DIED, None, f"ended with status {status} before it had answered")
