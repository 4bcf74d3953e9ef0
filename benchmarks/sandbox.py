# SPDX-License-Identifier: Apache-2.0
"""How fast programs are judged in the sandbox, beside starting an interpreter for each, one worker a core:

    OMP_NUM_THREADS=1 python benchmarks/sandbox.py

The program adds two numbers. Both are measured in turn, several times over, on the same machine in the same run; the ratio is
that of the medians. The interpreter that is started is guarded by nothing.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from guerdon.sandbox import Call, Calls, Sandbox, Scripts

PROGRAM = "def f(a, b):\n    return a + b\n"
PRINTING = "a, b = map(int, input().split())\nprint(a + b)\n"
COUNT, ROUNDS = 100, 7
CORES = len(os.sched_getaffinity(0))


def started(_: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM + "print(f(1, 2))"], capture_output=True, check=True)
    assert done.stdout == b"3\n"


def interpreters() -> int:
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(started, range(COUNT // 4)))
    return COUNT // 4


def calls(box: Sandbox) -> int:
    found = box.evaluate([Calls(PROGRAM, [Call("f", (1, 2))])] * COUNT)
    assert all(o[0].value == 3 for o in found)
    return COUNT


def scripts(box: Sandbox) -> int:
    (found,) = box.evaluate([Scripts(PRINTING, ["1 2\n"] * COUNT)])
    assert all(o.value == "3\n" for o in found)
    return COUNT


def many_calls(box: Sandbox) -> int:
    found = box.evaluate([Calls(PROGRAM, [Call("f", (1, 2))] * 20)] * COUNT)
    assert all(o.value == 3 for outcomes in found for o in outcomes)
    return 20 * COUNT


def main() -> None:
    with Sandbox() as box, Sandbox(warm=["numpy"]) as warm:
        measured: dict[str, Callable[[], int]] = {
            "python -c": interpreters,
            "sandbox, one call": lambda: calls(box),
            "sandbox, standard input and output": lambda: scripts(box),
            "sandbox, one call, numpy imported": lambda: calls(warm),
            "sandbox, 20 calls of one program": lambda: many_calls(box),
        }
        seconds: dict[str, list[float]] = {name: [] for name in measured}
        for round_ in range(ROUNDS + 1):
            for name, run in measured.items():
                began = time.perf_counter()
                count = run()
                if round_:  # the first starts servers
                    seconds[name].append((time.perf_counter() - began) / count)
    base = statistics.median(seconds["python -c"])
    print(f"{CORES} cores, one worker each; {ROUNDS} rounds")
    for name, found in seconds.items():
        middle = statistics.median(found)
        print(f"{name:<40}{1e3 * middle:8.2f} ms an evaluation{base / middle:8.1f} times python -c")


if __name__ == "__main__":
    main()
