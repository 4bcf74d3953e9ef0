# SPDX-License-Identifier: Apache-2.0
"""`guerdon serve` in a process of its own, on a free port of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SERVED = Path(__file__).parent / "served.py"

PROGRAM = "import sys, guerdon.cli as c; c.COMMANDS = tuple(dict.fromkeys((*c.COMMANDS, 'serve'))); sys.exit(c.main())"


@contextmanager
def served(name: str, *options: str, token: str = "") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """(address, process); the process is ended if it hasn't."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve", f"{SERVED}:{name}", "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GUERDON_TOKEN": token},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " on http://" in line, f"the server did not start: {line!r}, exit code {process.poll()}"
        yield line.split()[-1].replace("0.0.0.0", "127.0.0.1"), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds:g} s for {what}"
        time.sleep(0.01)
