# SPDX-License-Identifier: Apache-2.0
"""Python programs under other circumstances: as another user, or on a kernel that refuses some system calls.

python staging.py ROOT USER NAME=ERRNO,... PROGRAM
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import textwrap
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(program: str, user: int = -1, refused: str = "", wait: bool = True, **environment: str) -> subprocess.Popen[str]:
    """A process of ``program``, in which guerdon's rooms can be imported (without torch).

    user     whom it runs as; -1: who we are
    refused  system calls that the kernel refuses it, as in "unshare=1,landlock_create_ruleset=38" (the number of the error)
    """
    process = subprocess.Popen(
        [sys.executable, __file__, str(ROOT), str(user), refused, textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd="/",
    )
    return process


def output(*args: object, **settings: object) -> str:
    """What the program printed; AssertionError with its complaints if it failed."""
    process = run(*args, **settings)  # type: ignore[arg-type]
    out, complaints = process.communicate(timeout=100)
    assert process.returncode == 0, complaints
    return out


def can_stage_a_user() -> bool:
    """Whether this process may become another user and show it the interpreter: it is root and may mount."""
    if os.geteuid() != 0:
        return False
    probe = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x20000))"
    return subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


# ---- in the process


def show_to_others(paths: list[str]) -> None:
    """In a mount namespace of our own, make ways to ``paths`` that everybody may go."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
        given = [None if x is None else x.encode() for x in (source, target, kind, data)]
        if libc.mount(given[0], given[1], given[2], ctypes.c_ulong(flags), given[3]):
            raise OSError(ctypes.get_errno(), f"mount {target}")

    assert libc.unshare(0x20000) == 0
    mount("none", "/", None, 16384 | 1 << 18)
    closed = {c for p in paths for c in map(str, Path(p).parents) if not os.stat(c).st_mode & 1}
    for top in sorted(c for c in closed if not any(c.startswith(other + "/") for other in closed)):
        inside = [p for p in paths if p.startswith(top + "/")]
        held = {p: os.open(p, os.O_PATH) for p in inside}
        mount("tmpfs", top, "tmpfs", 0, "mode=755")
        for p, fd in held.items():
            os.makedirs(p, mode=0o755, exist_ok=True)
            mount(f"/proc/self/fd/{fd}", p, None, 4096 | 16384)


def refuse(calls: dict[int, int]) -> None:
    """Have the kernel refuse the system calls with these numbers, each with its error."""
    from guerdon.sandbox import kernel, syscalls

    code = [syscalls._load(0)]
    for number, error in calls.items():
        code += [syscalls._jump(number, 0, 1), syscalls._return(syscalls.REFUSE | error)]
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.filtering(b"".join([*code, syscalls._return(syscalls.ALLOW)]))()


def main(root: str, user: str, refused: str, program: str) -> None:
    package = types.ModuleType("guerdon")
    package.__path__ = [root + "/guerdon"]
    sys.modules["guerdon"] = package
    from guerdon.sandbox import kernel

    known = {"x86_64": {"unshare": 272}, "aarch64": {"unshare": 97}}[kernel.MACHINE] | kernel.NUMBERS
    if int(user) >= 0 and os.geteuid() == 0:
        show_to_others(sorted({sys.base_prefix, sys.prefix, root}))
        os.setgroups([])
        os.setresgid(int(user), int(user), int(user))
        os.setresuid(int(user), int(user), int(user))
    tempfile.tempdir = None
    if refused:
        refuse({known[name]: int(error) for name, error in (word.split("=") for word in refused.split(","))})
    exec(compile(program, "<staged>", "exec"), {"__name__": "staged"})


if __name__ == "__main__":
    main(*sys.argv[1:])
