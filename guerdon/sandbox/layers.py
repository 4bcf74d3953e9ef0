# SPDX-License-Identifier: Apache-2.0
"""The layers of protection that a sandbox has, and the error that says that one is missing."""

from __future__ import annotations

from guerdon.errors import GuerdonError

LAYERS = {
    "files": "a file outside the interpreter's libraries could be read or written",
    "network": "a socket could be made that reaches something",
    "processes": "a process could be started or signalled",
    "syscalls": "a system call outside the list was carried out",
    "privileges": "the root directory could be changed",
    "memory": "more memory than allowed could be had",
}
"""Layer -> what it means that it is missing."""


class SandboxUnavailable(GuerdonError, RuntimeError):
    """A sandbox can't be had here: the system lacks a layer of protection that nobody said to do without."""
