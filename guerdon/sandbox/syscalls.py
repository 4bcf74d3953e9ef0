# SPDX-License-Identifier: Apache-2.0
"""The system calls that a program in the sandbox may make, and the seccomp filter made of them.

A list of what is allowed: whatever else there is, and whatever kernels will bring, is refused with EPERM. Some calls are allowed
with certain arguments only. No file can be opened for writing, no process started, no program executed, no socket made but a
connected pair, no signal sent to another process, also not by way of a descriptor's owner (F_SETOWN).
"""

from __future__ import annotations

import struct

_PLAIN = {
    "x86_64": """
    read=0 write=1 close=3 fstat=5 lseek=8 pread64=17 pwrite64=18 readv=19 writev=20 stat=4 lstat=6 newfstatat=262
    statx=332 access=21 faccessat=269 faccessat2=439 readlink=89 readlinkat=267 getdents64=217 getcwd=79 statfs=137
    fstatfs=138 fadvise64=221 mmap=9 munmap=11 mprotect=10 mremap=25 madvise=28 brk=12 mincore=27 rt_sigaction=13
    rt_sigprocmask=14 rt_sigreturn=15 rt_sigpending=127 rt_sigsuspend=130 rt_sigtimedwait=128 sigaltstack=131 pause=34
    alarm=37 setitimer=38 getitimer=36 restart_syscall=219 futex=202 set_robust_list=273 set_tid_address=218 rseq=334
    membarrier=324 sched_yield=24 sched_getaffinity=204 sched_getparam=143 sched_getscheduler=145
    sched_get_priority_max=146 sched_get_priority_min=147 gettid=186 getpid=39 getppid=110 getuid=102 geteuid=107
    getgid=104 getegid=108 getgroups=115 getresuid=118 getresgid=120 getpgrp=111 getpgid=121 getsid=124 capget=125
    clock_gettime=228 clock_getres=229 clock_nanosleep=230 nanosleep=35 gettimeofday=96 time=201 times=100 exit=60
    exit_group=231 getrandom=318 uname=63 sysinfo=99 getrusage=98 getrlimit=97 umask=95 getcpu=309 poll=7 ppoll=271
    select=23 pselect6=270 epoll_create1=291 epoll_ctl=233 epoll_wait=232 epoll_pwait=281 pipe=22 pipe2=293 dup=32
    dup2=33 dup3=292 eventfd2=290 recvfrom=45 shutdown=48 getsockname=51 getsockopt=55 chdir=80
    """,
    "aarch64": """
    read=63 write=64 close=57 fstat=80 lseek=62 pread64=67 pwrite64=68 readv=65 writev=66 newfstatat=79 statx=291
    faccessat=48 faccessat2=439 readlinkat=78 getdents64=61 getcwd=17 statfs=43 fstatfs=44 fadvise64=223 mmap=222
    munmap=215 mprotect=226 mremap=216 madvise=233 brk=214 mincore=232 rt_sigaction=134 rt_sigprocmask=135
    rt_sigreturn=139 rt_sigpending=136 rt_sigsuspend=133 rt_sigtimedwait=137 sigaltstack=132 setitimer=103
    getitimer=102 restart_syscall=128 futex=98 set_robust_list=99 set_tid_address=96 rseq=293 membarrier=283
    sched_yield=124 sched_getaffinity=123 sched_getparam=121 sched_getscheduler=120 sched_get_priority_max=125
    sched_get_priority_min=126 gettid=178 getpid=172 getppid=173 getuid=174 geteuid=175 getgid=176 getegid=177
    getgroups=158 getresuid=148 getresgid=150 getpgid=155 getsid=156 capget=90 clock_gettime=113 clock_getres=114
    clock_nanosleep=115 nanosleep=101 gettimeofday=169 times=153 exit=93 exit_group=94 getrandom=278 uname=160
    sysinfo=179 getrusage=165 getrlimit=163 umask=166 getcpu=168 ppoll=73 pselect6=72 epoll_create1=20 epoll_ctl=21
    epoll_pwait=22 pipe2=59 dup=23 dup3=24 eventfd2=19 recvfrom=207 shutdown=210 getsockname=204 getsockopt=209
    chdir=49
    """,
}
_JUDGED = {
    "x86_64": """
    open=2 openat=257 clone=56 tgkill=234 kill=62 fcntl=72 ioctl=16 prlimit64=302 prctl=157 socketpair=53 clone3=435
    openat2=437 sendto=44
    """,
    "aarch64": """
    openat=56 clone=220 tgkill=131 kill=129 fcntl=25 ioctl=29 prlimit64=261 prctl=167 socketpair=199 clone3=435
    openat2=437 sendto=206
    """,
}
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

EPERM, ENOSYS = 1, 38
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000

_WRITES = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000  # access mode, O_CREAT, O_TRUNC, O_APPEND, O_TMPFILE
_THREAD = 0x100 | 0x800 | 0x10000  # CLONE_VM, CLONE_SIGHAND, CLONE_THREAD
_APART = 0x7E020000 | 0x80 | 0x2000 | 0x4000  # every CLONE_NEW..., and what touches tracing and the parent
_FCNTL = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_PRCTL = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA
_ALL = 0xFFFFFFFF

Condition = tuple[int, int, int]
"""(argument, mask, value): argument & mask == value, of its lower 32 bits, which are all that these calls read of it."""


def numbers(machine: str) -> dict[str, int]:
    """name -> number of every call that the filter knows by name; empty for a machine it does not know.

    >>> numbers("x86_64")["openat"], numbers("aarch64")["openat"], numbers("sparc")
    (257, 56, {})
    """
    text = _PLAIN.get(machine, "") + _JUDGED.get(machine, "")
    return {name: int(number) for name, number in (word.split("=") for word in text.split())}


def judged(pid: int, threads: bool) -> dict[str, list[list[Condition]]]:
    """name -> the ways in which the call is allowed, each a list of conditions that hold together."""
    return {
        "open": [[(1, _WRITES, 0)]],
        "openat": [[(2, _WRITES, 0)]],
        "clone": [[(0, _THREAD | _APART, _THREAD)]] if threads else [],
        "kill": [[(0, _ALL, pid)]],
        "tgkill": [[(0, _ALL, pid)]],
        "fcntl": [[(1, _ALL, command)] for command in _FCNTL],
        "ioctl": [[(1, _ALL, command)] for command in _IOCTL],
        "prlimit64": [[(0, _ALL, 0)]],
        "prctl": [[(0, _ALL, option)] for option in _PRCTL],
        "socketpair": [[(0, _ALL, 1), (1, 0xFF, 1)]],  # AF_UNIX, SOCK_STREAM: one that can't be pointed at another address
        "sendto": [[(4, _ALL, 0), (5, _ALL, 0)]],  # without an address
    }


def filter_code(machine: str, pid: int, threads: bool = True) -> bytes:
    """The filter as 8-byte instructions, for a process that knows itself as ``pid``.

    ``threads``: it may start threads. Calls of another machine's numbering end the process.
    """
    names = numbers(machine)
    if not names:
        raise OSError(ENOSYS, f"seccomp: the system calls of {machine} are not known here, expected x86_64 or aarch64")
    out = [_load(4), _jump(_AUDIT[machine], 1, 0), _return(KILL), _load(0)]
    for name in ("clone3", "openat2"):  # their arguments are in memory, where they could change; the C library has another way
        out += [_jump(names[name], 0, 1), _return(REFUSE | ENOSYS)]
    ways = judged(pid, threads)
    for name, number in names.items():
        if name in ways:
            block = _ways(ways[name])
            out += [_jump(number, 0, len(block)), *block]
        elif name not in ("clone3", "openat2"):
            out += [_jump(number, 0, 1), _return(ALLOW)]
    return b"".join([*out, _return(REFUSE | EPERM)])


def _ways(ways: list[list[Condition]]) -> list[bytes]:
    out = []
    for way in ways:
        for done, (argument, mask, value) in enumerate(way):
            left = 3 * (len(way) - done - 1) + 1  # instructions of this way that are passed over when the condition fails
            out += [_load(16 + 8 * argument), _and(mask), _jump(value, 0, left)]
        out.append(_return(ALLOW))
    return [*out, _return(REFUSE | EPERM)]


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", 0x20, 0, 0, offset)


def _and(mask: int) -> bytes:
    return struct.pack("=HBBI", 0x54, 0, 0, mask)


def _jump(value: int, equal: int, other: int) -> bytes:
    return struct.pack("=HBBI", 0x15, equal, other, value)


def _return(value: int) -> bytes:
    return struct.pack("=HBBI", 0x06, 0, 0, value)
