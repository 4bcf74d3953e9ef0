# SPDX-License-Identifier: Apache-2.0
"""How one call of a check is judged, and the process that judges many for the pool.

The standard library alone: the pool starts this file by its path, so a worker costs tens of milliseconds and no torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.util
import io
import json
import math
import mmap
import os
import pickle
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial, reduce
from importlib.abc import SourceLoader
from numbers import Real
from types import ModuleType
from typing import Any

OK, ABSTAIN, TIMEOUT, ERROR = 0, 1, 2, 3  # guerdon.scores.Status, which a worker can't import without torch

SLOTS = 4096
"""Most items a worker is given at once."""

MAPPED = 8 + 9 * SLOTS
"""Bytes shared with the parent: items begun (u64; one more than there are: all done), a value (f64) and a status (u8) a slot."""

Judgement = tuple[int, float, str]


# ---- judging a call


def judge(result: Any) -> Judgement:
    """(status, value, reason) of what a check returned.

    A finite number or bool is ok; None abstains; NaN, inf and everything else is an error. A pair (number or None, text) adds a
    rationale. numpy and torch scalars are numbers.

    >>> judge(True), judge((0.5, "half right"))
    ((0, 1.0, ''), (0, 0.5, 'half right'))
    >>> judge("1.0")
    (3, nan, "returned str '1.0', expected a number, a bool or None")
    """
    if type(result) is float and math.isfinite(result):  # most results
        return OK, result, ""
    why = ""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
        result, why = result
    if result is None:
        return ABSTAIN, math.nan, why or "returned None"
    if getattr(result, "shape", None) == ():
        result = result.item()
    if not isinstance(result, Real):
        return ERROR, math.nan, f"returned {type(result).__name__} {result!r:.80}, expected a number, a bool or None"
    try:
        value = float(result)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        return ERROR, math.nan, f"returned {value}, expected a finite number"
    return OK, value, why


def caught(call: Callable[[], Any], *also: type[BaseException]) -> tuple[Any, BaseException | None]:
    """(result, None), or (None, error) when ``call`` raised an Exception or one of ``also``."""
    kinds: tuple[type[BaseException], ...] = (Exception, *also)
    try:
        return call(), None
    except kinds as error:  # the one place for what user code raises: it becomes the item's error, never a 0
        return None, error


def attempt(function: Callable[..., Any], item: dict[str, Any], *also: type[BaseException]) -> Judgement:
    """Judge ``function(**item)``; ``also``: what it may raise beside an Exception.

    >>> attempt(lambda x: 1 / x, {"x": 4})
    (0, 0.25, '')
    >>> attempt(lambda x: 1 / x, {"x": 0})[2]
    'ZeroDivisionError: division by zero (..., in <lambda>)'
    """
    result, error = caught(lambda: judge(function(**item)), *also)
    return result if error is None else (ERROR, math.nan, describe(error, function))


def attempt_batch(
    function: Callable[..., Any], items: Sequence[dict[str, Any]], *also: type[BaseException]
) -> list[Judgement] | str:
    """Judge one call with a list for each argument; the reason as text when the call as a whole raised."""
    columns = {name: [item[name] for item in items] for name in (items[0] if items else ())}
    results, error = caught(lambda: in_order(function(**columns)), *also)
    if error is not None:
        return describe(error, function)
    if not isinstance(results, list):  # its members are no values, or in no order
        return [(ERROR, math.nan, f"returned {type(results).__name__}, expected a list with a value for each item")] * len(items)
    if len(results) != len(items):
        why = f"returned {len(results)} values for {len(items)} items, expected one for each"
        return [(ERROR, math.nan, why)] * len(items)
    return [attempt(_same, {"result": r}) for r in results]


def in_order(results: Any) -> Any:
    """A list of what was returned; a mapping, a set or a text as it is."""
    return results if isinstance(results, Mapping | Set | str | bytes) else list(results)


def _same(result: Any) -> Any:
    return result


def describe(error: BaseException, function: Any = None) -> str:
    """Type, message and the last line of the user's file that was running."""
    while isinstance(function, partial):  # the user's is the function bound as an argument, if there is one
        function = next((a for a in function.args if callable(a)), function.func)
    code = getattr(function, "__code__", None) or getattr(vars(type(function)).get("__call__"), "__code__", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    own = [f for f in frames if code is not None and f.filename == code.co_filename] or frames
    text = "".join(traceback.format_exception_only(error)).strip()
    text = text if len(text) < 500 else text[:500] + "..."
    return text + (f" ({os.path.basename(own[-1].filename)}, line {own[-1].lineno}, in {own[-1].name})" if own else "")


# ---- finding a function that was sent by reference


def load_file(path: str) -> ModuleType:
    """Run the Python file at ``path`` as a module of its own, once per version of its content."""
    with open(path, "rb") as file:
        source = file.read()
    version = hashlib.sha256(source).hexdigest()[:12]
    stem = os.path.splitext(os.path.basename(path))[0]
    name = f"{stem}_{hashlib.sha256(path.encode()).hexdigest()[:8]}_{version}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or not isinstance(spec.loader, SourceLoader):
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # What was read, not the file again: that may have changed, or its bytecode may be that of a version as long and as old.
        exec(spec.loader.source_to_code(source, path), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def resolve(kind: str, where: str, name: str, version: str = "") -> Any:
    """What ``name`` (dots allowed) is in the module or file ``where``. ``version`` only tells references apart."""
    module = load_file(where) if kind == "file" else importlib.import_module(where)
    return reduce(getattr, name.split("."), module)


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, reference: Any) -> Any:
        return resolve(*reference)


# ---- the process


class Slots:
    """The memory that a worker writes its progress and its values to, and the parent reads, even after the worker was killed."""

    def __init__(self, fd: int) -> None:
        self.memory = mmap.mmap(fd, MAPPED)
        whole = memoryview(self.memory)
        self.begun = whole[:8].cast("Q")
        self.value = whole[8 : 8 + 8 * SLOTS].cast("d")
        self.status = whole[8 + 8 * SLOTS :]

    def put(self, i: int, judgement: Judgement) -> None:
        self.status[i], self.value[i], _ = judgement


def receive(fd: int) -> Any:
    """One message (8 bytes of length, then a pickle), or None at the end."""
    head = _read(fd, 8)
    return None if len(head) < 8 else pickle.loads(_read(fd, struct.unpack("<Q", head)[0]))


def _read(fd: int, size: int) -> bytes:
    parts = io.BytesIO()
    while (left := size - parts.tell()) and (piece := os.read(fd, min(left, 1 << 20))):
        parts.write(piece)
    return parts.getvalue()


def send(fd: int, data: bytes) -> None:
    """Write all of ``data``."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def end_with_parent(life: int) -> None:
    """Have the kernel end this process group when the parent's end of the pipe ``life`` closes, whatever runs here then.

    A thread could not: a regular expression that never ends holds the interpreter's lock.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)  # whose default is to end the process
    fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        os.read(life, 1)
    except BlockingIOError:
        return
    os._exit(0)  # the parent was gone before the signal was armed


def main(commands: int, replies: int, life: int, shared: int) -> None:
    for fd in (commands, replies, life, shared):
        os.set_inheritable(fd, False)  # what a check starts must not keep the parent from seeing this process end
    end_with_parent(life)
    slots, functions, me = Slots(shared), {}, os.getpid()
    while (message := receive(commands)) is not None:
        kind, key, *rest = message
        if kind == "load":
            sys.path[:], blob = rest
            functions[key], error = caught(partial(_load, blob))
            answer: dict[str, Any] = {"loaded": None if error is None else describe(error)}
        else:
            batched, blobs = rest
            answer = _run(functions[key], batched, blobs, slots, replies)
        if os.getpid() != me:
            os._exit(0)  # a check forked and its child came back here
        _reply(replies, answer)


def _load(blob: bytes) -> Any:
    """The function, after the first call its module asks for (``WARM_UP``: name -> call), which no item's budget should pay."""
    function = whole = _Unpickler(io.BytesIO(blob)).load()
    while isinstance(function, partial):
        function = function.func
    names = getattr(function, "__globals__", {})
    names.get("WARM_UP", {}).get(getattr(function, "__name__", ""), lambda: None)()
    return whole


def _reply(fd: int, answer: dict[str, Any]) -> None:
    send(fd, json.dumps(answer).encode() + b"\n")


def _run(function: Callable[..., Any], batched: bool, blobs: list[bytes], slots: Slots, replies: int) -> dict[str, Any]:
    """Judge each item; a value is in its slot, and its reason on the way, before the next is begun."""
    slots.begun[0] = 1
    if batched:
        judgements, error = caught(lambda: attempt_batch(function, [pickle.loads(b) for b in blobs]))
        if error is not None or isinstance(judgements, str):
            return {"raised": judgements if error is None else describe(error)}
        for i, judgement in enumerate(judgements):
            _keep(i, judgement, slots, replies)
    else:
        for i, blob in enumerate(blobs):
            slots.begun[0] = i + 1
            item, error = caught(partial(pickle.loads, blob))
            _keep(i, attempt(function, item) if error is None else (ERROR, math.nan, describe(error)), slots, replies)
    slots.begun[0] = len(blobs) + 1
    return {"done": len(blobs)}


def _keep(i: int, judgement: Judgement, slots: Slots, replies: int) -> None:
    slots.put(i, judgement)
    if judgement[2]:
        _reply(replies, {"reason": [i, judgement[2]]})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
