# SPDX-License-Identifier: Apache-2.0
"""Calls of the Linux kernel that Python has no name for, each a function that raises OSError where the kernel refuses.

The standard library alone, like everything that a sandbox's server loads.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable
from typing import Any

MACHINE = platform.machine()
NUMBERS = {
    "x86_64": {"pivot_root": 155, "capset": 126, "seccomp": 317},
    "aarch64": {"pivot_root": 41, "capset": 91, "seccomp": 277},
}.get(MACHINE, {})
NUMBERS |= {"close_range": 436, "mount_setattr": 442, "landlock_create_ruleset": 444, "landlock_add_rule": 445}
NUMBERS |= {"landlock_restrict_self": 446}
"""Of system calls without a function in the C library; from 424 on all machines count alike."""

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE, MS_NOSUID, MS_NODEV, MS_NOEXEC = 32, 4096, 16384, 1 << 19, 2, 4, 8
MNT_DETACH = 2
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 1, 24, 38, 39
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 1, 1
M_ARENA_MAX = -8

libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prepared(name: str, *arguments: Any) -> Callable[[], int]:
    """The system call ``name``, ready to be made; integers go as 64-bit values, pointers and bytes as they are."""
    if name not in NUMBERS:
        raise OSError(38, f"{name}: its number on {MACHINE} is not known here")
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in (NUMBERS[name], *arguments)]

    def make() -> int:
        return _checked(libc.syscall(*given), name)

    return make


def call(name: str, *arguments: Any) -> int:
    return prepared(name, *arguments)()


def unshare(flags: int) -> None:
    _checked(libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, kind: int) -> None:
    _checked(libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def prctl(option: int, *arguments: int) -> int:
    wide = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(libc.prctl(ctypes.c_int(option), *wide), f"prctl {option}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    text = [None if x is None else x.encode() for x in (source, target, kind, data)]
    _checked(libc.mount(text[0], text[1], text[2], ctypes.c_ulong(flags), text[3]), f"mount {target}")


def detach(target: str) -> None:
    _checked(libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def mount_attributes(target: str, attributes: int, recursive: bool) -> None:
    """Set attributes of a mount, of all below it too where ``recursive``."""
    given = struct.pack("=QQQQ", attributes, 0, 0, 0)
    call("mount_setattr", AT_FDCWD, target.encode(), AT_RECURSIVE if recursive else 0, given, len(given))


def pivot_root(new: str, old: str) -> None:
    call("pivot_root", new.encode(), old.encode())


def ending_with_parent(signal: int) -> Callable[[], int]:
    """To have the kernel send ``signal`` to this process when the thread that started it ends."""
    return lambda: prctl(PR_SET_PDEATHSIG, signal)


def close_from(first: int) -> None:
    call("close_range", first, (1 << 32) - 1, 0)


def drop_bounding_set() -> None:
    """Let no later step give this process a capability; an ordinary user has none to bound, and no_new_privs keeps it so."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # the last there is, or not ours to drop
            break


def dropping_capabilities() -> Callable[[], int]:
    """To give up every capability for good; one needs no_new_privs, or what is executed later could have some again."""
    return prepared("capset", struct.pack("=Ii", 0x20080522, 0), bytes(24))


def one_arena() -> None:
    """One heap for all threads: each further one would reserve 64 MiB of the address space that a program is given."""
    libc.mallopt(M_ARENA_MAX, 1)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def filtering(code: bytes) -> Callable[[], int]:
    """To put this process, with all its threads, under a seccomp filter (8 bytes an instruction); needs no_new_privs."""
    program = _Filter(len(code) // 8, code)
    make = prepared("seccomp", SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(program))
    return lambda: make() if program.length else 0  # keeps ``program`` alive
