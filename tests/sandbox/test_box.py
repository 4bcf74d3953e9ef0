# SPDX-License-Identifier: Apache-2.0
"""The sandbox as its caller sees it: what comes of items, in which order, and that a breakdown costs its own item alone."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest

from guerdon.errors import InputError
from guerdon.sandbox import (
    LAYERS,
    Call,
    Calls,
    Episodes,
    Fate,
    Sandbox,
    SandboxUnavailable,
    Scripts,
    report,
    shared_box,
)
from guerdon.sandbox.connection import Server

ADD = "def f(a, b=1):\n    return a + b\n"


@pytest.fixture(scope="module")
def box():
    try:
        with Sandbox(2) as box:
            box.evaluate([one(1)] * 4)
            yield box
    except SandboxUnavailable as error:
        pytest.skip(f"not run: {error}")


def gone(processes):
    """Whether they have all ended, within some time; who should have taken note of it may not have."""
    return all(p.status() == psutil.STATUS_ZOMBIE for p in psutil.wait_procs(processes, timeout=10)[1])


def one(x):
    return Calls(ADD, [Call("f", (x,))])


def values(outcomes):
    return [o.value for o in outcomes]


# ---- what comes of items


def test_calls_of_a_program(box):
    calls = [
        Call("f", (1, 2)),
        Call("f", (3,)),
        Call("f", (1,), {"b": 2.5}),
        Call("f", ("x", None)),
        Call("g"),
        Call("f", ([1], [2])),
    ]
    found = box.evaluate([Calls(ADD, calls)])[0]
    assert values(found) == [3, 4, 3.5, None, None, [1, 2]]
    assert found[3] == (Fate.RAISED, None, 'TypeError: can only concatenate str (not "NoneType") to str (line 2)')
    assert found[4] == (Fate.RAISED, None, "NameError: the program defines no `g`")


def test_methods_are_called_by_their_dotted_name(box):
    assert box.evaluate([Calls("class A:\n    def f(x): return x * 2", [Call("A.f", (4,))])])[0][0].value == 8


def test_a_program_that_does_not_load_fails_every_call(box):
    found = box.evaluate([Calls("x = 1\ndef f(:", [Call("f")] * 3), Calls("\n1 / 0", [Call("f")] * 2)])
    assert [o.fate for o in found[0] + found[1]] == [Fate.RAISED] * 5
    assert "SyntaxError" in found[0][2].reason
    assert found[1][0].reason == "ZeroDivisionError: division by zero (line 2)"


def test_scripts(box):
    program = """import sys
n = int(input())
print(n * 2, *sys.stdin.read().split())
if n == 3: sys.exit(4)
if n == 5: raise ValueError(n)
"""
    found = box.evaluate([Scripts(program, ["1\na b", "2\n", "3\n", "5", "x", ""])])[0]
    assert values(found) == ["2 a b\n", "4\n", None, None, None, None]
    assert [o.reason for o in found[2:4]] == ["ended with status 4", "ValueError: 5 (line 5)"]
    assert [o.fate for o in found[2:]] == [Fate.RAISED] * 4


def test_a_script_is_a_main_program_that_may_have_threads_and_coroutines(box):
    program = """
import asyncio, atexit, os, sys, threading
from dataclasses import dataclass
@dataclass
class A:
    x: int
async def main():
    await asyncio.sleep(0)
    print("b", A(1).x)
if __name__ == "__main__":
    atexit.register(print, "d")
    os.write(1, "ä".encode())
    sys.stdout.buffer.write(b"a\\n")
    sys.stdout.flush()
    asyncio.run(main())
    threading.Thread(target=lambda: print("c")).start()
    sys.exit()
"""
    assert values(box.evaluate([Scripts(program, [""])])[0]) == ["äa\nb 1\nc\nd\n"]


def test_recursion_in_a_thread_with_a_large_stack(box):
    program = """
import sys, threading
sys.setrecursionlimit(10**6)
threading.stack_size(2**27)
def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
threading.Thread(target=lambda: print(depth(50_000))).start()
"""
    assert box.evaluate([Scripts(program, [""])])[0][0].value == "50000\n"


def test_what_comes_with_the_interpreter_can_be_imported(box):
    names = "asyncio bisect collections csv ctypes dataclasses datetime decimal enum fractions functools hashlib heapq inspect "
    names += "itertools json math multiprocessing operator queue random re sqlite3 ssl statistics string struct subprocess "
    names += "tempfile time typing unittest uuid zlib numpy"
    program = "import importlib\ndef f(name):\n    return importlib.import_module(name).__name__"
    assert values(box.evaluate([Calls(program, [Call("f", (n,)) for n in names.split()])])[0]) == names.split()


def test_the_same_program_says_the_same_each_time(box):
    program = "def f():\n    return list({'a', 'b', 'c', 'd', 'e'}), hash('x')"
    assert len({repr(o) for found in box.evaluate([Calls(program, [Call("f")])] * 6) for o in found}) == 1


def test_memory_is_given_beyond_the_interpreters_own(box):
    program = "def f(mib):\n    return len(bytearray(mib << 20)) >> 20"
    found = box.evaluate([Calls(program, [Call("f", (60,)), Call("f", (200,)), Call("f", (30,))])], memory=100)[0]
    assert values(found) == [60, None, 30]
    assert found[1].reason == "MemoryError (line 2)"


def test_calls_after_one_that_ended_the_process_are_made_in_another(box):
    program = """import os, time
n = 0
def f(what):
    global n
    n += 1
    if what == "end": os._exit(3)
    if what == "hang": time.sleep(99)
    return n
"""
    calls = [Call("f", (w,)) for w in ("", "", "end", "", "hang", "", "")]
    found = box.evaluate([Calls(program, calls)], seconds=2.0)[0]
    assert values(found) == [1, 2, None, 1, None, 1, 2]
    assert found[2] == (Fate.DIED, None, "ended with status 3 before it had answered")
    assert found[4].fate is Fate.TIMEOUT


@pytest.mark.parametrize(
    "line", ["nonsense", "{nonce} 0 ok 1", "{nonce} 2 ok 1", "0000 1 ok 1", "{nonce} 1 passed 1", "{nonce} 1 ok [1"]
)
def test_another_line_than_the_answer_is_tampering_and_the_other_calls_are_judged(box, line):
    program = f"""
import gc, os
def f(write):
    if write:
        nonce = next(t.nonce for t in gc.get_objects() if hasattr(type(t), "put") and hasattr(t, "nonce"))
        os.write(3, b"%s\\n" % {line!r}.replace("{{nonce}}", nonce).encode())
    return 5
"""
    found = box.evaluate([Calls(program, [Call("f", (w,)) for w in (0, 1, 0)])])[0]
    assert [o.fate for o in found] == [Fate.OK, Fate.TAMPERED, Fate.OK]


def test_each_item_has_its_own_time(box):
    """Twelve calls of 0.2 s take longer together than the second that one may take."""
    assert (
        values(
            box.evaluate([Calls("import time\ndef f():\n    time.sleep(0.2)\n    return 1", [Call("f")] * 12)], seconds=1.0)[0]
        )
        == [1] * 12
    )


def test_a_hang_does_not_take_the_time_of_the_items_after_it(box):
    """Two minutes would be theirs together."""
    program = "import time\ndef f(x):\n    if x == 0: time.sleep(99)\n    return x"
    began = time.monotonic()
    found = box.evaluate([Calls(program, [Call("f", (x,)) for x in range(120)])], seconds=1.0)[0]
    assert values(found) == [None, *range(1, 120)]
    assert time.monotonic() - began < 40


def test_results_are_in_order(box):
    jobs = [Calls(ADD, [Call("f", (i, j)) for j in range(i % 4)]) for i in range(60)]
    assert [values(o) for o in box.evaluate(jobs)] == [[i + j for j in range(i % 4)] for i in range(60)]
    assert box.evaluate([]) == []


def test_episodes(box):
    program = """n = 0
def reward(obs, action, next_obs):
    global n
    n += 1
    if action == 9: 1 / 0
    return float(next_obs["v"].sum() + obs["x"]), {"n": n}
"""
    columns = {
        ("obs", "x"): np.array([0.5, 1.5, 2.5, 3.5]),
        ("next_obs", "v"): np.arange(8.0).reshape(4, 2),
        ("action", ""): np.array([0, 9, 0, 0]),
    }
    found = box.evaluate([Episodes(program, columns, [3, 1], 1)])[0]
    assert values(found) == [(1.5, {"n": 1}), None, (11.5, {"n": 3}), (16.5, {"n": 1})]
    assert found[1].reason == "ZeroDivisionError: division by zero (line 5)"


def test_what_an_episode_has_left_after_a_hang_is_lost_and_the_next_is_not(box):
    program = "import time\ndef reward(obs, action, next_obs):\n    if action == 9: time.sleep(99)\n    return action"
    columns = {("action", ""): np.array([0, 9, 1, 2, 3])}
    found = box.evaluate([Episodes(program, columns, [3, 2])], seconds=1.0)[0]
    assert [o.fate for o in found] == [Fate.OK, Fate.TIMEOUT, Fate.LOST, Fate.OK, Fate.OK]
    assert values(found) == [0, None, None, 2, 3]


# ---- breakdowns, ends


def test_a_server_that_dies_costs_nothing_but_time(box, monkeypatch):
    send, deaths = Server.send, []

    def fatal(self, cell, *limits):
        send(self, cell, *limits)
        if "die once" in cell.job.program and not deaths:
            deaths.append(psutil.Process(self.process.pid).children()[0].pid)
            os.kill(deaths[0], signal.SIGKILL)

    monkeypatch.setattr(Server, "send", fatal)
    jobs = [
        one(1),
        Calls("# die once\n" + ADD, [Call("f", (2,)), Call("f", (3,))]),
        Calls(ADD, [Call("f", (4,))]),
    ]
    assert [values(o) for o in box.evaluate(jobs)] == [[2], [3, 4], [5]]
    assert len(deaths) == 1


def test_what_breaks_the_sandbox_again_and_again_is_broken_and_nothing_else_is(box, monkeypatch):
    send = Server.send

    def fatal(self, cell, *limits):
        if "die" in cell.job.program:  # before it is asked: a quick server would have answered when it is killed
            launcher = psutil.Process(self.process.pid)
            below = launcher.children(recursive=True)
            for process in [*below, launcher]:
                process.kill()
            psutil.wait_procs(below, 10)
        send(self, cell, *limits)

    monkeypatch.setattr(Server, "send", fatal)
    found = box.evaluate([one(1), Calls("# die\n" + ADD, [Call("f", (2,))]), Calls(ADD, [Call("f", (4,))])])
    assert [values(o) for o in found] == [[2], [None], [5]]
    assert found[1][0] == (Fate.BROKEN, None, "the sandbox broke down 2 times")


def test_a_server_that_does_not_answer_is_replaced(box, monkeypatch):
    send, stopped = Server.send, []
    monkeypatch.setattr("guerdon.sandbox.connection.GRACE", 0.3)

    def deaf(self, cell, *limits):
        if not stopped:
            stopped.append(psutil.Process(self.process.pid).children()[0])
            stopped[0].suspend()
        send(self, cell, *limits)

    monkeypatch.setattr(Server, "send", deaf)
    assert values(box.evaluate([one(1)], seconds=0.5)[0]) == [2]
    assert gone(stopped)


def test_close_leaves_no_process_and_no_descriptor():
    before = psutil.Process().num_fds()
    with Sandbox(1) as box:
        box.evaluate([one(1)])
        opened = psutil.Process().num_fds()
        box.evaluate([one(1), Scripts("", [""])] * 20)
        assert psutil.Process().num_fds() == opened
        processes = [p for pid in box.pids() for p in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]
        assert len(processes) == 2
    assert gone(processes)
    assert psutil.Process().num_fds() == before
    with box:
        assert box.evaluate([one(1)])[0][0].value == 2  # it starts again


def test_an_interrupt_ends_the_work_and_the_sandbox_goes_on(box):
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        box.evaluate([Calls("while True: pass", [Call("f")])] * 2, seconds=1000.0)
    assert values(box.evaluate([one(1)])[0]) == [2]


def test_it_may_be_used_by_several_threads(box):
    found = {}
    work = [
        threading.Thread(target=lambda k=k: found.update({k: values(box.evaluate([Calls(ADD, [Call("f", (k,))])])[0])}))
        for k in range(4)
    ]
    for t in work:
        t.start()
    for t in work:
        t.join()
    assert found == {k: [k + 1] for k in range(4)}


def test_a_server_outlives_the_thread_that_started_it():
    with Sandbox(1) as box:
        thread = threading.Thread(target=box.evaluate, args=([one(1)],))
        thread.start()
        thread.join()
        pids = box.pids()
        time.sleep(0.2)
        assert values(box.evaluate([one(1)])[0]) == [2]
        assert box.pids() == pids


# ---- what is refused


def test_the_report_and_the_layers_agree(box):
    found = report()
    assert found.layers == box.layers() == dict.fromkeys(LAYERS, True)
    assert found.missing == ()
    assert {t.layer for t in found.mechanisms} == {*LAYERS, "time"}
    assert len(str(found).splitlines()) == 1 + len(LAYERS) + len(found.mechanisms)


def test_another_system_is_refused(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(SandboxUnavailable, match="needs Linux"):
        Sandbox()
    assert report().missing == tuple(LAYERS)


def test_layers_are_named_as_they_are():
    with pytest.raises(InputError, match="`without` should name layers"):
        Sandbox(without=["firewall"])


def test_a_module_that_cannot_be_imported_beforehand_is_said(box):
    with (
        Sandbox(1, warm=["no_such_module"]) as other,
        pytest.raises(SandboxUnavailable, match="No module named 'no_such_module'"),
    ):
        other.evaluate([one(1)])


@pytest.mark.parametrize("seconds", [0, -1.0, float("inf"), float("nan")])
def test_a_time_is_a_number_above_0(box, seconds):
    with pytest.raises(InputError, match="`seconds` should be a number above 0"):
        box.evaluate([], seconds=seconds)


def test_the_shared_box_is_one_for_each_set_of_modules(box):
    assert shared_box() is shared_box()
    assert shared_box(("math",)) is not shared_box()
