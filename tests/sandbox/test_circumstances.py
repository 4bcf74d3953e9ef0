# SPDX-License-Identifier: Apache-2.0
"""The sandbox of an ordinary user, on kernels that lack something, and after its caller was killed."""

from __future__ import annotations

import json
import os
import signal
import time

import psutil
import pytest

from tests.sandbox import staging

USER = 12345
NO_NAMESPACES, NO_LANDLOCK, NO_SECCOMP = "unshare=1", "landlock_create_ruleset=38", "seccomp=22"

TELL = """
    import json, os, tempfile
    from guerdon.sandbox import Call, Calls, Sandbox, Scripts
    from guerdon.sandbox.layers import SandboxUnavailable

    with tempfile.TemporaryDirectory() as folder:
        open(folder + "/mine", "w").write("secret")
        program = f'''
    import os, heapq
    def add(a, b): return a + b
    def read(): return open({folder + "/mine"!r}).read()
    def write(): return open({folder + "/new"!r}, "w").write("x")
    def fork(): return os.fork()
    def signal(): os.kill({os.getpid()}, 0)
    def talk():
        import socket
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9))
    def thread():
        import threading
        threading.Thread(target=print).start()
        return "started"
    def user(): return os.getuid()
    '''
        names = ["read", "write", "fork", "signal", "talk", "thread", "user"]
        try:
            with Sandbox(1, without=os.environ["WITHOUT"].split()) as box:
                calls = [Call("add", (1, 2)), *map(Call, names)]
                found = box.evaluate([Calls(program, calls), Scripts("print(input())", ["hello"])])
                print(json.dumps({
                    "values": [o.value for o in found[0]] + [found[1][0].value],
                    "reasons": [o.reason for o in found[0]],
                    "walls": box._servers[0].walls, "layers": box.layers(), "caller": os.getuid(),
                }))
        except SandboxUnavailable as error:
            print(json.dumps({"refused": str(error)}))
"""


def told(user: int = -1, refused: str = "", without: str = "") -> dict:
    return json.loads(staging.output(TELL, user, refused, WITHOUT=without))


def everything_held(found: dict) -> None:
    assert "refused" not in found, found
    assert found["layers"] == dict.fromkeys(found["layers"], True)
    assert found["values"][0] == 3 and found["values"][-1] == "hello\n", found
    assert found["values"][1:6] == [None] * 5, found


@pytest.fixture(scope="module", autouse=True)
def _there():
    """Where there is no sandbox at all there is nothing to take from it."""
    found = told()
    if "refused" in found or any(found["walls"][w] for w in ("landlock", "seccomp")):
        pytest.skip(f"not run: {found.get('refused') or found['walls']}")


@pytest.fixture
def user() -> int:
    if os.geteuid() != 0:
        return -1  # an ordinary user already
    if not staging.can_stage_a_user():
        pytest.skip("not run: root here can't show the interpreter to another user")
    return USER


def test_an_ordinary_user_has_a_sandbox(user):
    found = told(user)
    everything_held(found)
    assert found["caller"] != 0
    if not found["walls"]["user namespace"]:
        assert found["values"][6:8] == ["started", 0]  # user 0 of a namespace, which is the caller outside


def test_root_has_a_sandbox_whose_programs_are_not_root():
    if os.geteuid() != 0:
        pytest.skip("not run: this is an ordinary user")
    found = told()
    everything_held(found)
    if not found["walls"]["unprivileged user"]:
        assert found["values"][7] == 65534


@pytest.mark.parametrize("who", ["caller", "user"])
def test_without_namespaces_landlock_and_seccomp_do(who, user):
    """As in most containers. Threads can't be limited there, so there are none."""
    found = told(-1 if who == "caller" else user, NO_NAMESPACES)
    everything_held(found)
    assert found["walls"]["mount namespace"] == "unshare: Operation not permitted"
    assert found["values"][6] is None and "start new thread" in found["reasons"][6]


@pytest.mark.parametrize("who", ["caller", "user"])
def test_without_landlock_namespaces_do(who, user):
    who = -1 if who == "caller" else user
    if told(who)["walls"]["mount namespace"]:
        pytest.skip("not run: this kernel has no namespaces for this user")
    everything_held(told(who, NO_LANDLOCK))


def test_a_missing_layer_is_refused_and_named(user):
    refused = told(user, f"{NO_NAMESPACES},{NO_LANDLOCK}")["refused"]
    assert "a file outside the interpreter's libraries could be read or written" in refused
    assert "mount namespace (unshare: Operation not permitted)" in refused and "landlock" in refused
    assert "without=('files',)" in refused
    refused = told(user, NO_SECCOMP)["refused"]
    assert "syscalls (a system call outside the list was carried out)" in refused
    assert "seccomp (seccomp: Invalid argument)" in refused


def test_a_layer_can_be_done_without_by_name(user):
    found = told(user, f"{NO_NAMESPACES},{NO_LANDLOCK}", "files")
    assert found["values"][:2] == [3, "secret"]
    assert found["layers"] == {**dict.fromkeys(found["layers"], True), "files": False}
    assert "refused" in told(user, f"{NO_NAMESPACES},{NO_LANDLOCK}", "network syscalls")


@pytest.mark.parametrize("refused", ["", NO_NAMESPACES], ids=["namespaces", "no namespaces"])
@pytest.mark.parametrize("stopped", [False, True], ids=["", "server stopped"])
def test_nothing_outlives_a_caller_that_is_killed(refused, stopped):
    """Also not a program that holds the interpreter in a regular expression, nor a server that can't see that it is alone."""
    process = staging.run(
        """
        import re, threading, time
        from guerdon.sandbox import Call, Calls, Sandbox
        box = Sandbox(1)
        box.evaluate([Calls("", [Call("f")])])
        program = "import re\\nre.match('(a+)+b', 'a' * 64)"
        jobs = [Calls(program, [Call("f")])]
        threading.Thread(target=box.evaluate, args=(jobs,), kwargs={"seconds": 1000}, daemon=True).start()
        print("ready", flush=True)
        time.sleep(1000)
        """,
        -1,
        refused,
    )
    assert process.stdout.readline() == "ready\n"
    end = time.monotonic() + 30
    while len(family := psutil.Process(process.pid).children(recursive=True)) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    assert len(family) == 3  # launcher, server, cell
    if stopped:
        psutil.Process(family[0].pid).children()[0].suspend()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert all(p.status() == psutil.STATUS_ZOMBIE for p in psutil.wait_procs(family, timeout=30)[1])
