# SPDX-License-Identifier: Apache-2.0
"""Programs that want to pass without the right answer, and programs that hang, blow up and flood.

The first are also given to a judge as many are written, in one process with the program: it has to be fooled.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from guerdon.sandbox import Call, Calls, Fate, Sandbox, SandboxUnavailable, Scripts

TOKEN = "the expected answer 81c3"

FORGERIES = {
    "exit at import": "import sys\nsys.exit(0)",
    "exit at import, at once": "import os\nos._exit(0)",
    "exit in the function": "import sys\ndef f():\n    sys.exit(0)",
    "exit in the function, at once": "import os\ndef f():\n    os._exit(0)",
    "close every descriptor and exit": """
        import os
        os.closerange(0, 256)
        os._exit(0)
    """,
    "exit when it ends": "import atexit, os\natexit.register(os._exit, 0)\ndef f():\n    return 1",
    "say that it passed": """
        import os
        def f():
            print("PASS")
            os._exit(0)
    """,
    "equal to everything": """
        class Equal:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __hash__(self): return 0
        def f():
            return Equal()
    """,
    "text that is equal to everything": """
        class Equal(str):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            __hash__ = str.__hash__
        def f():
            return Equal("no")
    """,
    "replace builtins": """
        import builtins, os, sys
        def yes(*args, **kwargs): return True
        for name in ("all", "any", "isinstance", "bool", "len", "exit", "repr"):
            setattr(builtins, name, yes)
        sys.exit = lambda *args: os._exit(0)
        def f():
            return True
    """,
    "find the answer in frames": """
        import sys
        def f():
            frame = sys._getframe()
            while frame:
                for names in (frame.f_locals, frame.f_globals):
                    for value in list(names.values()):
                        if isinstance(value, str) and value.startswith("the expected answer"):
                            return value
                        if isinstance(value, dict) and "expected" in value:
                            return value["expected"]
                frame = frame.f_back
    """,
    "find the answer by the collector": """
        import gc
        def f():
            start = "the expected" + " answer"
            for thing in gc.get_objects():
                for value in gc.get_referents(thing):
                    if isinstance(value, str) and value.startswith(start) and len(value) == 24:
                        return value
    """,
    "trace what runs": """
        import os, sys
        def look(frame, event, arg):
            for value in frame.f_locals.values():
                if isinstance(value, str) and value.startswith("the expected answer"):
                    os._exit(0)
            if event == "return":
                os._exit(0)
            return look
        def f():
            sys.settrace(look)
            sys._getframe(1).f_trace = look
    """,
    "patch what judges": """
        import os, sys
        def yes(*args, **kwargs): return True
        for name, module in list(sys.modules.items()):
            if name.startswith(("guerdon", "json", "__main__", "unittest")):
                for key, value in list(vars(module).items()):
                    if callable(value) and key in ("equal", "compared", "same_output", "encode", "decode", "judge", "check"):
                        setattr(module, key, yes)
        def f():
            return True
    """,
}

NOT_A_PLAIN_JUDGES = {
    "write lines of the right form to every descriptor": """
        import gc, os
        def f():
            nonces = [t.nonce for t in gc.get_objects() if hasattr(type(t), "put") and hasattr(t, "nonce")]
            for nonce in nonces:
                for value in ("true", '"passed"', '{"passed":true}', "null", '{"o":"x"}'):
                    for fd in range(64):
                        try: os.write(fd, f"{nonce} 0 ok {value}\\n".encode())
                        except OSError: pass
            os._exit(0)
    """,
    "write nonsense to every descriptor": """
        import os
        def f():
            for fd in range(64):
                try: os.write(fd, b"0 ok true passed\\n" * 10)
                except OSError: pass
    """,
    "nest what is read outside": """
        import gc, os
        def f():
            nonce = next(t.nonce for t in gc.get_objects() if hasattr(type(t), "put") and hasattr(t, "nonce"))
            for deep in (10, 300, 900, 20000):
                os.write(3, f"{nonce} 0 ok {'[' * deep}{']' * deep}\\n".encode())
            os._exit(0)
    """,
    "a number too long to read": """
        import gc, os
        def f():
            nonce = next(t.nonce for t in gc.get_objects() if hasattr(type(t), "put") and hasattr(t, "nonce"))
            os.write(3, f"{nonce} 0 ok {'9' * 100000}\\n".encode())
            os._exit(0)
    """,
    "read the answer from descriptors": """
        import os
        def f():
            for fd in range(64):
                try: data = os.pread(fd, 1 << 16, 0)
                except OSError: continue
                at = data.find(b"the expected" + b" answer")
                if at >= 0:
                    return data[at:at + 24].decode()
    """,
    "an object that runs when it is unpickled": """
        import os
        class Runs:
            def __reduce__(self): return (os.system, ("true",))
        def f():
            return Runs()
    """,
    "an object that can't be shown": """
        class Hidden:
            def __repr__(self): raise SystemExit(0)
            def __class__(self): raise SystemExit(0)
        def f():
            return Hidden()
    """,
    "an exception that ends the process when it is shown": """
        import os
        class Ends(Exception):
            def __str__(self): os._exit(0)
        def f():
            raise Ends()
    """,
    "a list in itself": "def f():\n    a = []\n    a.append(a)\n    return a",
    "write over the file of results": """
        import os
        def f():
            os.lseek(3, 0, 0)
            os.write(3, b"x" * 1000)
            os.dup2(1, 3)
    """,
    "answer for the tests to come": """
        import gc, os
        def f():
            nonce = next(t.nonce for t in gc.get_objects() if hasattr(type(t), "put") and hasattr(t, "nonce"))
            for index in range(-1, 10):
                os.write(3, f'{nonce} {index} ok true\\n'.encode())
    """,
}

PLAIN_JUDGE = """
import sys
def judge(program):
    names, expected = {}, "the expected answer 81c3"
    exec(program, names)
    sys.exit(0 if names["f"]() == expected else 1)
judge(sys.argv[1])
"""


@pytest.fixture(scope="module")
def box():
    try:
        with Sandbox(1) as box:
            box.evaluate([Calls("", [Call("f")])])
            yield box
    except SandboxUnavailable as error:
        pytest.skip(f"not run: {error}")


@pytest.mark.parametrize("name", [*FORGERIES, *NOT_A_PLAIN_JUDGES])
def test_nothing_but_the_answer_passes(name, box):
    program = textwrap.dedent({**FORGERIES, **NOT_A_PLAIN_JUDGES}[name])
    verdicts = box.run(program, [{"call": "f()", "result": TOKEN}] * 3)
    assert [v.passed for v in verdicts] == [False] * 3, verdicts
    verdicts = box.run(program + "\nf()", [{"input": "1", "output": TOKEN}] * 2)
    assert [v.passed for v in verdicts] == [False] * 2, verdicts
    assert box.run("def f():\n    return 7", [{"call": "f()", "result": 7}])[0].passed


@pytest.mark.parametrize("name", [n for n in FORGERIES if n != "patch what judges"])
def test_a_judge_in_the_programs_process_is_fooled(name):
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_JUDGE, textwrap.dedent(FORGERIES[name])], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_an_early_exit_leaves_unsaid_is_no_answer(box):
    """None is what a function returns that says nothing, and an empty text what is printed by a program that prints nothing."""
    assert [v.passed for v in box.run("import os\nos._exit(0)", [{"call": "f()", "result": None}])] == [False]
    assert [v.passed for v in box.run("import os\nos._exit(1)", [{"input": "", "output": ""}])] == [False]
    assert [v.passed for v in box.run("def f(): pass", [{"call": "f()", "result": None}, {"input": "", "output": ""}])] == [
        True
    ] * 2


# ---- time, memory, output

TROUBLE = {
    "loop at import": "while True: pass",
    "loop in the function": "def f():\n    while True: pass",
    "loop that catches everything": """
        def f():
            while True:
                try:
                    while True: pass
                except BaseException: pass
    """,
    "regular expression without end": "import re\ndef f():\n    return re.match(r'(a+)+b', 'a' * 64)",
    "power without end": "def f():\n    return pow(3, 10**9) % 10",
    "sleep": "import time\ndef f():\n    time.sleep(1000)",
    "ignore signals": """
        import signal, time
        def f():
            for number in range(1, 65):
                try: signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError): pass
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            while True: time.sleep(1)
    """,
    "threads that go on": """
        import threading, time
        def f():
            for _ in range(8): threading.Thread(target=time.sleep, args=(1000,)).start()
            time.sleep(1000)
    """,
    "deep recursion": """
        import sys
        def f():
            sys.setrecursionlimit(10**9)
            def g(): return [g()]
            class A:
                def __getattr__(self, name): return getattr(self, name + "x")
            try: A().x
            except MemoryError: pass
            return g()
    """,
    "a fault": "import ctypes\ndef f():\n    ctypes.string_at(1)",
    "kill itself": "import os, signal\ndef f():\n    signal.raise_signal(signal.SIGKILL)\n    os.abort()",
    "memory that is used": """
        def f():
            held = []
            while True: held.append(bytearray(b"x") * (1 << 24))
    """,
    "print without end": "def f():\n    while True: print('x' * 100000)",
    "answer much": "def f():\n    return 'x' * (1 << 26)",
    "answer by hand without end": "import os\ndef f():\n    while True: os.write(3, b'x' * 100000)",
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_costs_its_own_item_and_its_own_time(name, box):
    program = textwrap.dedent(TROUBLE[name])
    (found,) = box.evaluate([Calls(program, [Call("f")])], seconds=0.3, memory=256)[0]
    assert found.fate not in (Fate.OK, Fate.BROKEN)
    assert found.reason
    if name != "answer much":  # which is no trouble where nobody reads it
        (script,) = box.evaluate([Scripts(program + "\nf()", [""])], seconds=0.3, memory=256)[0]
        assert script.fate not in (Fate.OK, Fate.BROKEN)
    if name in ("loop at import", "sleep", "ignore signals", "regular expression without end"):
        assert found == (Fate.TIMEOUT, None, "took longer than 0.3 s")
    assert box.run("def f():\n    return 7", [{"call": "f()", "result": 7}], seconds=20)[0].passed


def test_an_open_file_of_the_caller_is_not_there(box, tmp_path):
    with open(tmp_path / "mine", "w") as file:
        os.set_inheritable(file.fileno(), True)
        program = "import os\ndef f():\n    return [fd for fd in range(256) if opened(fd)]\n"
        program += "def opened(fd):\n    try: return bool(os.fstat(fd))\n    except OSError: return False"
        assert box.evaluate([Calls(program, [Call("f")])])[0][0].value == [0, 1, 2, 3]
