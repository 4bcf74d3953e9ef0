# SPDX-License-Identifier: Apache-2.0
"""The walls of a sandbox: those that a server builds around itself once, and those that each cell builds around itself.

    enclose   namespaces (user, mount, pid, network, ipc) and a root directory with nothing but the interpreter's libraries in it
    Cage      no_new_privs, Landlock, closed descriptors, limits, an unprivileged user without capabilities, seccomp

A wall that the kernel refuses is left out and named with the reason; whether what is left will do is found by trying, in a cell.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sys
import sysconfig
from collections.abc import Callable
from functools import partial

from guerdon.sandbox import kernel, landlock, syscalls

NOBODY = 65534
MIB = 1 << 20
_LOADER = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_MOUNT_POINTS = ("/tmp", "/dev/shm", "/run", "/mnt")
THREADS, DESCRIPTORS = 64, 64
HIGH = 100
"""Where a server's descriptors are out of the way of those that a cell has."""


def readable() -> list[str]:
    """The files and directories that an interpreter and the libraries installed for it are made of, none within another.

    >>> any(os.__file__.startswith(path) for path in readable())
    True
    """
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [p for p in sys.path if p.rstrip("/").endswith(("-packages", "lib-dynload", ".zip"))]
    paths += [os.path.join(prefix, lib) for prefix in (sys.base_prefix, sys.prefix) for lib in ("lib", "lib64")]
    found = sorted({os.path.abspath(p) for p in (*paths, *_LOADER) if p and os.path.exists(p)})
    return [p for p in found if not any(p.startswith(other + "/") for other in found)]


# ---- around the server


def enclose(paths: list[str]) -> dict[str, str]:
    """Build what can be built around this process and its children: wall -> "" where it stands, else why it does not.

    New process ids are for children only. Has to be called in a process of one thread.
    """
    walls = {"user namespace": tried(_user_namespace)}
    # Tried in a child first: what fails half way would leave this process where it can't find its files.
    walls["mount namespace"] = in_a_child(lambda: _mount_namespace(paths)) or tried(lambda: _mount_namespace(paths))
    for name, kind in (("pid", kernel.CLONE_NEWPID), ("network", kernel.CLONE_NEWNET), ("ipc", kernel.CLONE_NEWIPC)):
        walls[f"{name} namespace"] = tried(partial(kernel.unshare, kind))
    return walls


def tried(build: Callable[[], object]) -> str:
    """Why it could not be done, the empty text if it was."""
    try:
        build()
    except OSError as error:
        return f"{error.strerror or error}"
    return ""


def _user_namespace() -> None:
    """A user namespace in which this user is 0; a caller who is root has an unprivileged user in it besides."""
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        kernel.unshare(kernel.CLONE_NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/gid_map", f"0 {group} 1")
        _write("/proc/self/uid_map", f"0 {user} 1")
        return
    inside, outside = os.pipe()
    mapped, asked = os.pipe()
    parent = os.getpid()
    helper = os.fork()
    if helper == 0:  # maps of several users are written from outside, with the rights that root has there
        os.close(outside)
        os.read(inside, 1)
        os._exit(_write_maps(parent))
    for fd in (inside, mapped, asked):
        os.close(fd)
    try:
        kernel.unshare(kernel.CLONE_NEWUSER)
    finally:
        os.close(outside)
        code = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    if code != 0:
        raise PermissionError(code, "the users could not be mapped")


def _write_maps(process: int) -> int:
    for ids in (f"0 0 1\n{NOBODY} {NOBODY} 1", "0 0 1"):
        try:
            _write(f"/proc/{process}/gid_map", ids)
            _write(f"/proc/{process}/uid_map", ids)
        except OSError:
            continue
        return 0
    return 1


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _mount_namespace(paths: list[str]) -> None:
    """A root directory that has ``paths``, read-only, and nothing else."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_SLAVE)
    real = sorted({os.path.realpath(p) for p in paths})
    held = {p: os.open(p, os.O_PATH | os.O_CLOEXEC) for p in real}  # what follows may cover them
    directories = {p for p in real if os.path.isdir(p)}
    links = {place: target for p in paths for place, target in _links(p).items()}
    base = next(p for p in _MOUNT_POINTS if os.path.isdir(p))
    kernel.mount("tmpfs", base, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,nr_inodes=1k,mode=755")
    os.mkdir(f"{base}/old", 0o700)
    for place, target in links.items():
        os.makedirs(base + os.path.dirname(place), exist_ok=True)
        os.symlink(target, base + place)
    for path, fd in held.items():
        _bind(f"/proc/self/fd/{fd}", base + path, path in directories)
        os.close(fd)
    os.chdir(base)
    kernel.pivot_root(".", "old")
    os.chdir("/")
    kernel.detach("/old")
    os.rmdir("/old")
    kernel.mount_attributes("/", kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV, recursive=False)


def _links(path: str) -> dict[str, str]:
    """link -> where it leads (no link itself), of every symbolic link on the way to ``path``.

    >>> _links(os.path.realpath("/"))
    {}
    """
    parts = path.strip("/").split("/")
    for count in range(1, len(parts) + 1):
        at = "/" + "/".join(parts[:count])
        if os.path.islink(at):
            real = os.path.realpath(at)
            return {at: real} | _links("/".join([real, *parts[count:]]))
    return {}


def _bind(source: str, target: str, directory: bool) -> None:
    if directory:
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    kernel.mount_attributes(target, kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV, recursive=True)


# ---- around a cell


class Cage:
    """What every cell of a server is confined with. Prepared once, so that a cell touches little memory before its program runs.

    walls    gets ``landlock``, ``seccomp`` and ``unprivileged user``: "" where it stands, else why it does not
    root     the caller is user 0, whom a limit of threads does not bind
    alone    cells have a pid namespace of their own, so each knows itself as process 1
    """

    def __init__(self, paths: list[str], walls: dict[str, str], root: bool) -> None:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        self.alone = not walls["pid namespace"]
        self.restrict: Callable[[], object] = _nothing
        try:
            rules = fcntl.fcntl(landlock.rules(paths), fcntl.F_DUPFD_CLOEXEC, HIGH)
            self.restrict = kernel.prepared("landlock_restrict_self", rules, 0)
            walls["landlock"] = ""
        except OSError as error:
            walls["landlock"] = error.strerror or str(error)
        self.user = NOBODY if os.geteuid() == 0 and can_become(NOBODY) else -1
        walls["unprivileged user"] = "" if self.user >= 0 else "stays the caller's, without capabilities"
        threads = not walls["user namespace"] and not (root and self.user < 0)
        walls["seccomp"] = in_a_child(lambda: kernel.filtering(syscalls.filter_code(kernel.MACHINE, os.getpid(), threads))())
        self.code = b"" if walls["seccomp"] else syscalls.filter_code(kernel.MACHINE, 1, threads)
        self.filter: Callable[[], object] = kernel.filtering(self.code) if self.code else _nothing
        self.threads = threads
        kernel.drop_bounding_set()
        self.no_capabilities = kernel.dropping_capabilities()
        self.end_with_parent = kernel.ending_with_parent(signal.SIGKILL)
        self.space = address_space()
        self.fixed = [(which, _within(which, most)) for which, most in _LIMITS.items()]

    def confine(self, memory: int, seconds: float, output: int, keep: int) -> None:
        """Confine this process for good, keeping descriptors below ``keep``.

        memory   MiB of address space beyond what it has
        seconds  of the processor, rounded up, should the watch from outside fail
        output   bytes that a file may have
        """
        self.restrict()
        kernel.close_from(keep)
        if self.user >= 0:
            become(self.user)
        self.no_capabilities()
        self.end_with_parent()  # after the change of user, which clears it
        for which, most in self.fixed:
            resource.setrlimit(which, (most, most))
        for which, most in (
            (resource.RLIMIT_AS, self.space + memory * MIB),
            (resource.RLIMIT_CPU, int(seconds) + 2),
            (resource.RLIMIT_FSIZE, output),
        ):
            most = _within(which, most)
            resource.setrlimit(which, (most, most))
        if self.code and not self.alone:
            kernel.filtering(syscalls.filter_code(kernel.MACHINE, os.getpid(), self.threads))()
        else:
            self.filter()


_LIMITS = {
    resource.RLIMIT_NOFILE: DESCRIPTORS,
    resource.RLIMIT_NPROC: THREADS,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_MEMLOCK: 0,
    resource.RLIMIT_MSGQUEUE: 0,
    resource.RLIMIT_SIGPENDING: 256,
}


def _within(which: int, most: int) -> int:
    hard = resource.getrlimit(which)[1]
    return most if hard == resource.RLIM_INFINITY else min(most, hard)


def _nothing() -> None:
    pass


def in_a_child(action: Callable[[], object]) -> str:
    """The empty text if ``action`` ends well in a child, else the reason."""
    near, far = os.pipe()
    child = os.fork()
    if child == 0:
        reason = tried(action)
        os.write(far, reason.encode())
        os._exit(1 if reason else 0)
    os.close(far)
    reason = os.read(near, 1000).decode()
    os.close(near)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return reason or (f"the attempt ended with status {code}" if code else "")


def become(user: int) -> None:
    """Another user, for good, in no group but its own."""
    if os.getgroups():
        os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def can_become(user: int) -> bool:
    """Whether that user exists here and could read the interpreter's libraries."""

    def look() -> None:
        become(user)
        os.listdir(os.path.dirname(os.__file__))
        os.close(os.open(os.__file__, os.O_RDONLY))

    return not in_a_child(look)


_space = 0


def measure_space() -> None:
    """Note how much address space this process has, while /proc can be read; cells are forks of it."""
    global _space
    with open("/proc/self/statm", encoding="ascii") as file:
        _space = int(file.read().split()[0]) * resource.getpagesize()


def address_space() -> int:
    return _space
