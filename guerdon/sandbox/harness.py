# SPDX-License-Identifier: Apache-2.0
"""What runs in a cell beside the program: it hands the program its inputs and writes down what comes back.

Nothing here guards anything. The program shares this process and may read and change all of it; it finds inputs and no expected
result, and whatever it makes of the file of results is its answer, which is compared outside. The first line there is empty: the
cell is built. Each other is

    nonce index kind JSON

with an index for each item in order, -1 for "the program is loaded". Kinds: ok, raised.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from types import ModuleType, TracebackType
from typing import Any

from guerdon.sandbox import trying, values

FILE = "<program>"


class Results:
    """The file of results: one line for each item, written at once."""

    def __init__(self, fd: int, nonce: str) -> None:
        self.fd, self.nonce = fd, nonce

    def put(self, index: int, kind: str, data: Any) -> None:
        os.write(self.fd, f"{self.nonce} {index} {kind} {values.dumps(data)}\n".encode())


def run(job_fd: int, results_fd: int) -> int:
    """Do the job; the status that the process should end with."""
    size = int.from_bytes(os.pread(job_fd, 8, 0), "little")
    job = json.loads(os.pread(job_fd, size, 8))
    payload = os.pread(job_fd, os.fstat(job_fd).st_size, 8 + size)
    os.close(job_fd)
    results = Results(results_fd, job["nonce"])
    os.write(results_fd, b"\n")  # from here on time counts
    return {"script": script, "calls": calls, "episodes": episodes, "probe": probe}[job["kind"]](job, payload, results)


def described(error: BaseException) -> str:
    """Type, message and the last line of the program that was running."""
    said = traceback.format_exception_only(error)
    if isinstance(error, SyntaxError) and error.filename == FILE:
        text, line = said[-1].strip(), error.lineno  # without the line itself, and the mark below it
    else:
        text, line = "".join(said).strip(), line_of(error.__traceback__)
    return text[:500] + (f" (line {line})" if line else "")


def line_of(trace: TracebackType | None) -> int | None:
    found = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILE:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def attempt(action: Callable[[], Any]) -> tuple[str, Any]:
    """("ok", result as plain data), or ("raised", what)."""
    try:
        return "ok", values.encode(action())
    except BaseException as error:  # noqa: BLE001 - whatever a program raises, SystemExit too, is its result
        return "raised", safely(error)


def safely(error: BaseException) -> str:
    try:
        return described(error)
    except BaseException:  # noqa: BLE001 - the program's own exception may raise when it is looked at
        return type(error).__name__


def module(name: str) -> ModuleType:
    made = ModuleType(name)
    made.__dict__["__builtins__"] = __builtins__
    sys.modules[name] = made
    return made


# ---- programs that read standard input and write standard output


def script(job: dict[str, Any], payload: bytes, results: Results) -> int:
    """Run the program as ``__main__``; what it prints is in the file that is its standard output."""
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - they end with the process
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.argv = [FILE]
    try:
        exec(compile(job["program"], FILE, "exec", dont_inherit=True), module("__main__").__dict__)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # noqa: BLE001 - whatever a program raises is its result
        results.put(0, "raised", safely(error))
        return 1
    finish()
    return code & 0xFF


def finish() -> None:
    """What an interpreter does before it ends: wait for threads, call what was registered, empty the buffers."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()


# ---- programs whose functions are called


def calls(job: dict[str, Any], payload: bytes, results: Results) -> int:
    """Load the program once; call, in order, [dotted name, arguments, keyword arguments] for each item."""
    names = module("program").__dict__
    if not load(job["program"], names, results):
        return 0
    for index, (name, arguments, keywords) in enumerate(job["items"], job["first"]):
        results.put(index, *attempt(partial(call, names, name, arguments, keywords)))
    return 0


def load(program: str, names: dict[str, Any], results: Results) -> bool:
    kind, data = attempt(lambda: exec(compile(program, FILE, "exec", dont_inherit=True), names))
    results.put(values.LOADED, kind, data)
    return kind == "ok"


def call(names: dict[str, Any], name: str, arguments: Any, keywords: Any) -> Any:
    first, *rest = name.split(".")
    if first not in names:
        raise NameError(f"the program defines no `{first}`")
    function = names[first]
    for part in rest:
        function = getattr(function, part)
    return function(*values.decode(arguments), **values.decode(keywords))


# ---- programs that reward the steps of an episode


def episodes(job: dict[str, Any], payload: bytes, results: Results) -> int:
    """For each episode a fresh run of the program, then ``reward(obs, action, next_obs)`` for each of its steps in order."""
    import random

    import numpy

    compiled: list[Any] = []
    kind, data = attempt(lambda: compiled.append(compile(job["program"], FILE, "exec", dont_inherit=True)))
    results.put(values.LOADED, kind, data)
    if kind != "ok":
        return 0
    columns = unpacked(job["columns"], payload)
    index = job["first"]
    for count in job["counts"]:
        random.seed(0)
        numpy.random.seed(0)
        names = module("program").__dict__
        kind, data = attempt(partial(exec, compiled[0], names))
        for _ in range(count):
            step = index - job["first"]
            if kind == "ok":
                results.put(index, *attempt(partial(reward_of, names, columns, step)))
            else:
                results.put(index, kind, data)
            index += 1
    return 0


def unpacked(columns: list[list[Any]], payload: bytes) -> dict[tuple[str, str], Any]:
    """(argument, name) -> array with a row a step, from [argument, name, shape, kind] and float64 numbers one after another."""
    import numpy

    found, at = {}, 0
    for argument, name, shape, kind in columns:
        size = int(numpy.prod(shape))
        numbers = numpy.frombuffer(payload, numpy.float64, size, at).reshape(shape)
        found[argument, name] = numbers.astype(numpy.int64) if kind == "i" else numbers
        at += 8 * size
    return found


def reward_of(names: dict[str, Any], columns: dict[tuple[str, str], Any], step: int) -> Any:
    given: dict[str, Any] = {"obs": {}, "action": {}, "next_obs": {}}
    for (argument, name), rows in columns.items():
        row = rows[step]
        given[argument][name] = row.item() if row.ndim == 0 else row.copy()
    action = given["action"][""]
    if "reward" not in names:
        raise NameError("the program defines no `reward`")
    return names["reward"](given["obs"], action, given["next_obs"])


# ---- trying the walls


def probe(job: dict[str, Any], payload: bytes, results: Results) -> int:
    results.put(0, "ok", trying.in_a_cell(job["items"]))
    return 0
