# SPDX-License-Identifier: Apache-2.0
"""Landlock: the kernel's rules for what a process may reach, which any process may put on itself for good.

Everything that the kernel's version of Landlock knows is handled, so denied; reading below the given directories is allowed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from guerdon.sandbox import kernel

READ_FILE, READ_DIR = 1 << 2, 1 << 3
_FILES = {1: 13, 2: 14, 3: 15, 5: 16}
"""version -> how many rights over files it knows (execute, write, read, ..., refer, truncate, ioctl on devices)"""
_BIND_AND_CONNECT_TCP = 0b11  # version 4
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11  # version 6
_RULE_PATH_BENEATH = 1


def version() -> int:
    """Of the kernel's Landlock; OSError where it has none."""
    return kernel.call("landlock_create_ruleset", None, 0, 1)


def rights(of: int) -> tuple[int, int, int]:
    """(files, network, scope): everything that a version handles, as bits.

    >>> [tuple(map(int.bit_count, rights(v))) for v in (1, 3, 4, 6)]
    [(13, 0, 0), (15, 0, 0), (15, 2, 0), (16, 2, 2)]
    """
    files = max(bits for since, bits in _FILES.items() if since <= of)
    return (1 << files) - 1, _BIND_AND_CONNECT_TCP if of >= 4 else 0, _ABSTRACT_SOCKETS_AND_SIGNALS if of >= 6 else 0


def rules(readable: Iterable[str]) -> int:
    """A file descriptor of rules that allow to read the files and directories ``readable``, and nothing else."""
    of = version()
    handled = struct.pack("=QQQ", *rights(of))
    handled = handled[: 8 if of < 4 else 16 if of < 6 else 24]
    fd = kernel.call("landlock_create_ruleset", handled, len(handled), 0)
    for path in readable:
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE
        kernel.call("landlock_add_rule", fd, _RULE_PATH_BENEATH, struct.pack("=Qi", allowed, at), 0)
        os.close(at)
    return fd


def restrict(fd: int) -> None:
    """Put this process under the rules; needs no_new_privs."""
    kernel.call("landlock_restrict_self", fd, 0)
