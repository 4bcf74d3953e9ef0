# SPDX-License-Identifier: Apache-2.0
"""The worker pool: whatever a check does, its own item alone is lost. Budgets are generous, hangs are endless."""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import InputError
from guerdon.rewards import worker
from guerdon.rewards.pool import WorkerPool, pack, run_here, shared_pool
from guerdon.scores import Status
from tests.rewards.data import misbehaving

ROOT = Path(__file__).resolve().parents[2]
HANG = 0.5  # budget of items that never end; the others take microseconds
FINE = 20.0  # budget of items that all end


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(2) as pool:
        yield pool


def items(*values, name="x"):
    return [{name: v} for v in values]


def deeds(*names):
    return items(*names, name="deed")


def alive(pids):
    return [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE]


def wait_until(true, seconds=30.0):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


# ---- what a result means


def test_statuses_are_those_of_scores():
    assert list(map(int, list(Status)[1:])) == [worker.OK, worker.ABSTAIN, worker.TIMEOUT, worker.ERROR]


@pytest.mark.parametrize(
    ("result", "status", "value"),
    [
        (0.5, Status.OK, 0.5),
        (2, Status.OK, 2.0),
        (True, Status.OK, 1.0),
        (False, Status.OK, 0.0),
        (np.float32(0.25), Status.OK, 0.25),
        (np.int64(3), Status.OK, 3.0),
        (np.bool_(True), Status.OK, 1.0),
        (np.array(1.5), Status.OK, 1.5),
        (torch.tensor(0.75), Status.OK, 0.75),
        (None, Status.ABSTAIN, None),
        (math.nan, Status.ERROR, None),
        (-math.inf, Status.ERROR, None),
        (np.float64("nan"), Status.ERROR, None),
        (torch.tensor(math.inf), Status.ERROR, None),
        (10**400, Status.ERROR, None),
        ("1.0", Status.ERROR, None),
        ([1.0], Status.ERROR, None),
        (np.array([1.0]), Status.ERROR, None),
        (1j, Status.ERROR, None),
        ({"score": 1.0}, Status.ERROR, None),
    ],
    ids=repr,
)
def test_what_a_returned_value_becomes(pool, result, status, value):
    here, there = run_here(misbehaving.score, items(result)), pool.run(misbehaving.score, items(result), FINE)
    for outcome in (*here, *there):
        assert outcome.status == status
        assert math.isnan(outcome.value) if value is None else outcome.value == value
        assert bool(outcome.reason) == (value is None)


def test_a_pair_adds_a_rationale(pool):
    assert pool.run(misbehaving.score, items((0.5, "half"), (None, "not for me")), FINE)[:1] == [(Status.OK, 0.5, "half")]
    assert run_here(misbehaving.score, items((None, "not for me")))[0][::2] == (Status.ABSTAIN, "not for me")


# ---- poison


POISON = {
    "loop": (Status.TIMEOUT, "longer than its budget of 0.5 s"),
    "sleep": (Status.TIMEOUT, "longer than its budget"),
    "regex": (Status.TIMEOUT, "longer than its budget"),
    "ignores": (Status.TIMEOUT, "longer than its budget"),
    "exit": (Status.ERROR, "worker exited with status 3"),
    "sys.exit": (Status.ERROR, "worker exited with status 4"),
    "segfault": (Status.ERROR, "worker died with signal 11 (SIGSEGV)"),
    "kill": (Status.ERROR, "worker died with signal 9 (SIGKILL, usual cause: out of memory)"),
    "interrupt": (Status.ERROR, "signal 2 (SIGINT)"),
    "memory": (Status.ERROR, "MemoryError: no more (misbehaving.py, line"),
    "raise": (Status.ERROR, "ValueError: could not convert string to float: 'not a number' (misbehaving.py, line"),
    "strange": (Status.ERROR, "Strange"),
    "recursion": (Status.ERROR, "RecursionError"),
    "nan": (Status.ERROR, "returned nan"),
    "inf": (Status.ERROR, "returned inf"),
    "huge": (Status.ERROR, "returned inf"),
    "text": (Status.ERROR, "returned str '1.0'"),
    "list": (Status.ERROR, "returned list [1.0]"),
    "none": (Status.ABSTAIN, "returned None"),
    "input": (Status.ERROR, "EOFError"),
    "unknown deed": (Status.ERROR, "KeyError: 'unknown deed'"),
}


def test_each_poisoned_item_is_lost_alone(pool):
    mixed = [float(i) for i in range(300)]
    for place, name in enumerate(POISON):
        mixed[7 + 11 * place] = name
    outcomes = pool.run(misbehaving.misbehave, deeds(*mixed), HANG)
    assert len(outcomes) == 300
    for deed, outcome in zip(mixed, outcomes, strict=True):
        if isinstance(deed, float):
            assert outcome == (Status.OK, deed, "")
        else:
            status, reason = POISON[deed]
            assert (deed, outcome.status) == (deed, status)
            assert math.isnan(outcome.value)
            assert reason in outcome.reason


def test_a_batched_call_with_poison_loses_the_poisoned_items_alone(pool):
    mixed = [float(i) for i in range(100)]
    poison = {3: "exit", 40: "raise", 41: "nan", 70: "segfault", 99: "text"}
    for place, name in poison.items():
        mixed[place] = name
    outcomes = pool.run(misbehaving.misbehave_batched, deeds(*mixed), FINE, batched=True)
    for i, outcome in enumerate(outcomes):
        assert (outcome.status, outcome.value) == (Status.OK, float(i)) if i not in poison else outcome.status == Status.ERROR
    assert "ValueError" in outcomes[40].reason


def test_a_hang_in_a_batched_call_is_found(pool):
    outcomes = pool.run(misbehaving.misbehave_batched, deeds(1.0, 2.0, 3.0, "loop", 5.0, "sleep", 7.0), 0.1, batched=True)
    assert [o.status for o in outcomes] == [Status.OK] * 3 + [Status.TIMEOUT, Status.OK, Status.TIMEOUT, Status.OK]
    assert [o.value for o in outcomes if o.status == Status.OK] == [1.0, 2.0, 3.0, 5.0, 7.0]


@pytest.mark.parametrize("there", [False, True])
def test_a_wrong_number_of_results_is_an_error_of_all(pool, there):
    given = items(1.0, 2.0, 3.0)
    run = (
        pool.run(misbehaving.one_too_many, given, FINE, batched=True)
        if there
        else run_here(misbehaving.one_too_many, given, True)
    )
    assert [(o.status, o.reason) for o in run] == [(Status.ERROR, "returned 4 values for 3 items, expected one for each")] * 3


def test_calls_of_a_batched_function_that_raises_are_bounded():
    sizes = []

    def check(x):
        sizes.append(len(x))
        if "bad" in x:
            raise RuntimeError("bad")
        return x

    outcomes = run_here(check, items(*([1.0] * 200), "bad", *([1.0] * 311)), batched=True)
    assert [i for i, o in enumerate(outcomes) if o.status != Status.OK] == [200]
    assert sizes[0] == 512
    assert len(sizes) == 1 + 3 * 8  # 512, 64, 8 and 1 items, eight calls each


def test_a_batched_function_that_takes_one_item_only(pool):
    assert [o.value for o in pool.run(misbehaving.one_by_one_only, items(*map(float, range(20))), FINE, batched=True)] == list(
        range(20)
    )


def test_what_a_check_prints_reaches_no_result(pool):
    outcomes = pool.run(misbehaving.misbehave, deeds("prints", 3.0, "prints", 4.0), FINE)
    assert outcomes == [(Status.OK, 1.0, ""), (Status.OK, 3.0, ""), (Status.OK, 1.0, ""), (Status.OK, 4.0, "")]


def test_a_check_that_forks_answers_once(pool):
    assert pool.run(misbehaving.misbehave, deeds("fork", 2.0), FINE) == [(Status.OK, 0.5, ""), (Status.OK, 2.0, "")]


def test_an_item_that_cannot_be_sent_is_an_error(pool):
    outcomes = pool.run(misbehaving.score, items(1.0, lambda: 1, 3.0), FINE)
    assert [o.status for o in outcomes] == [Status.OK, Status.ERROR, Status.OK]
    assert "can't be sent" in outcomes[1].reason


def test_the_budget_is_each_items_own(pool):
    """Ten items of 0.2 s take longer than the budget of one second together, and none is lost."""
    assert [o.status for o in pool.run(misbehaving.slowly, items(*[0.2] * 20), 1.5)] == [Status.OK] * 20


# ---- order, persistence, ends


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.none(), st.just("text")), max_size=60), st.booleans())
def test_the_pool_says_what_this_process_says(pool, values, batched):
    function = misbehaving.misbehave_batched if batched else misbehaving.misbehave
    values = ["raise" if v == "text" else v for v in values]
    here, there = run_here(function, deeds(*values), batched), pool.run(function, deeds(*values), FINE, batched)
    assert [o.status for o in there] == [o.status for o in here]
    assert [o.value for o in there if o.status == Status.OK] == [o.value for o in here if o.status == Status.OK]
    assert [o.reason for o in there] == [o.reason for o in here]


def test_workers_stay_and_results_keep_their_order(pool):
    first = {o.value for o in pool.run(misbehaving.process_id, items(*range(2000)), FINE)}
    again = {o.value for o in pool.run(misbehaving.process_id, items(*range(2000)), FINE)}
    assert first | again <= {float(p) for p in pool.pids()}
    assert os.getpid() not in first
    assert [o.value for o in pool.run(misbehaving.score, items(*range(20_000)), FINE)] == list(range(20_000))


def test_close_leaves_no_process():
    pool = WorkerPool(2)
    pool.run(misbehaving.misbehave, deeds("child", 1.0, "exit", "loop", 2.0), HANG)
    pids = pool.pids()
    assert alive(pids)
    pool.close()
    assert not alive(pids)
    assert pool.run(misbehaving.score, items(1.0), FINE)[0].value == 1.0  # it starts again
    pool.close()


def test_what_a_killed_check_started_ends_with_it(pool):
    def sleepers():
        return [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "1000"]]

    before = {p.pid for p in sleepers()}
    assert pool.run(misbehaving.misbehave, deeds("child"), HANG)[0].status == Status.TIMEOUT
    assert wait_until(lambda: {p.pid for p in sleepers()} <= before)


def test_descriptors_do_not_leak():
    with WorkerPool(2) as pool:
        pool.run(misbehaving.misbehave, deeds(1.0, "exit"), FINE)
        before = psutil.Process().num_fds()
        pool.run(misbehaving.misbehave, deeds(*["exit"] * 20), FINE)
        assert psutil.Process().num_fds() <= before + 3  # one worker more, at most


@pytest.mark.parametrize("deed", ["loop", "regex", "sleep"])
def test_workers_end_when_their_parent_is_killed(deed):
    """Also in the middle of a regular expression that holds the interpreter's lock."""
    code = f"""
        import threading, time
        from guerdon.rewards.pool import WorkerPool
        from tests.rewards.data import misbehaving
        pool = WorkerPool(1)
        pool.run(misbehaving.score, [{{"x": 1.0}}], 20.0)
        threading.Thread(target=pool.run, args=(misbehaving.misbehave, [{{"deed": {deed!r}}}], 1000.0), daemon=True).start()
        time.sleep(1)
        print(*pool.pids(), flush=True)
        time.sleep(1000)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pids = [int(p) for p in parent.stdout.readline().split()]
    assert len(alive(pids)) == 1
    parent.kill()
    parent.communicate()
    assert wait_until(lambda: not alive(pids))


def test_an_interrupt_ends_the_work_and_the_pool_goes_on(pool):
    pool.run(misbehaving.score, items(1.0), FINE)
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        pool.run(misbehaving.misbehave, deeds("loop", "sleep"), 1000.0)
    assert pool.pids() == []
    assert pool.run(misbehaving.score, items(*range(10)), FINE)[9].value == 9.0


def test_a_pool_may_be_used_by_several_threads(pool):
    results = {}
    threads = [
        threading.Thread(target=lambda k=k: results.update({k: pool.run(misbehaving.score, items(*range(k, k + 500)), FINE)}))
        for k in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert {k: [o.value for o in v] for k, v in results.items()} == {k: list(range(k, k + 500)) for k in range(4)}


def _in_a_daemon(queue):
    queue.put([o.value for o in shared_pool().run(misbehaving.score, items(1.0, 2.0), FINE)])


def test_it_works_inside_a_daemonic_process():
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_in_a_daemon, args=(queue,), daemon=True)
    process.start()
    assert queue.get(timeout=100) == [1.0, 2.0]
    process.join()


def test_the_shared_pool_is_one_per_process():
    """A fork has a pool of its own, and takes nobody's workers along when it ends."""
    code = """
        import os, sys
        from guerdon.rewards.pool import shared_pool
        from tests.rewards.data import misbehaving
        assert shared_pool() is shared_pool()
        shared_pool().run(misbehaving.score, [{"x": 1.0}], 20.0)
        pids = shared_pool().pids()
        if os.fork() == 0:
            sys.exit(0 if not shared_pool().pids() else 1)
        status = os.wait()[1]
        shared_pool().run(misbehaving.score, [{"x": 1.0}], 20.0)
        print(status, len(pids), pids == shared_pool().pids())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1", "True"]


def test_a_worker_imports_no_torch(pool):
    assert pool.run(misbehaving.modules, items(*["torch", "numpy", "guerdon"]), FINE) == [(Status.OK, 0.0, "")] * 3


# ---- which functions can be sent


def test_bound_values_and_objects_travel(pool):
    half = functools.partial(misbehaving.scaled, by=0.5)
    assert pool.run(half, items(4.0), FINE)[0].value == 2.0
    assert pool.run(misbehaving.Scaled(3.0), items(4.0), FINE)[0].value == 12.0


@pytest.mark.parametrize("function", [lambda x: x, functools.partial(lambda x: x)], ids=["lambda", "bound lambda"])
def test_a_function_that_another_process_cannot_find_is_refused(pool, function):
    with pytest.raises(InputError, match="top level of a module"):
        pool.run(function, items(1.0), FINE)


def test_a_function_of_a_file_outside_any_package(pool, tmp_path):
    (tmp_path / "mine.py").write_text("FACTOR = 3\ndef score(x):\n    return FACTOR * x\n")
    assert pool.run(worker.load_file(str(tmp_path / "mine.py")).score, items(2.0), FINE)[0].value == 6.0
    (tmp_path / "mine.py").write_text("FACTOR = 5\n\ndef score(x):\n    return FACTOR * x\n")
    os.utime(tmp_path / "mine.py", ns=(1, 1))
    assert pool.run(worker.load_file(str(tmp_path / "mine.py")).score, items(2.0), FINE)[0].value == 10.0


def test_a_file_is_what_it_holds_and_not_its_bytecode(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "mine.py"
    for factor in (3, 5):  # as long and as old as the other
        path.write_text(f"FACTOR = {factor}\n")
        os.utime(path, (1, 1))
        assert factor == worker.load_file(str(path)).FACTOR


def test_a_load_that_fails_too_late_does_not_end_the_next_run(pool, tmp_path):
    (tmp_path / "early.py").write_text("def score(x):\n    return x\n")
    (tmp_path / "late.py").write_text("def score(x):\n    return -x\n")
    early, late = (worker.load_file(str(tmp_path / name)).score for name in ("early.py", "late.py"))
    assert pool.run(early, items(1.0), FINE)[0].value == 1.0
    blob = pack(late)
    (tmp_path / "late.py").unlink()
    idle = next(w for w in pool._workers if w.idle)
    idle.load(blob)  # what a run that ended without this worker had told it
    assert pool.run(early, items(*range(50)), FINE)[-1].value == 49.0
    assert wait_until(lambda: pool.run(early, items(1.0, 2.0), FINE) and idle.loading is None)
    assert blob not in idle.loaded


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_needs_its_guard(tmp_path, guarded):
    lines = ["from guerdon.rewards.pool import shared_pool", "def score(x):", "    return x + 1"]
    lines += [
        'if __name__ == "__main__":' if guarded else "if True:",
        '    print(shared_pool().run(score, [{"x": 1}], 60.0)[0].value)',
    ]
    (tmp_path / "script.py").write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == ("2.0" if guarded else "")
    assert ("__main__" in done.stderr) != guarded


def test_a_module_that_cannot_be_loaded_is_said_once(pool, monkeypatch):
    from tests.rewards.data import ends_at_import

    monkeypatch.setenv("GUERDON_TEST_END", "1")
    with WorkerPool(1) as fresh, pytest.raises(InputError, match="while it loaded the function, the worker exited with status 7"):
        fresh.run(ends_at_import.score, items(1.0), FINE)


def test_a_decorated_function_that_hides_itself_is_refused():
    with pytest.raises(InputError, match="should be the function itself"):
        pack(misbehaving.hidden.__wrapped__)


@pytest.mark.parametrize("budget", [0, -1.0, math.inf, math.nan, None, "1"])
def test_a_budget_is_a_number_above_0(pool, budget):
    with pytest.raises(InputError, match="`budget` should be a number of seconds above 0"):
        pool.run(misbehaving.score, items(1.0), budget)


def test_nothing_to_do(pool):
    assert pool.run(misbehaving.score, [], FINE) == []
    assert (
        pool.run(misbehaving.misbehave_batched, [], FINE, batched=True) == run_here(misbehaving.misbehave_batched, [], True) == []
    )
