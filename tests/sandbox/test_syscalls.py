# SPDX-License-Identifier: Apache-2.0
"""The seccomp filter, run by an interpreter of its instructions; its numbers beside those of the system's headers."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess

import pytest

from guerdon.sandbox.syscalls import ALLOW, EPERM, KILL, REFUSE, filter_code, numbers

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def verdict(machine: str, number: int, *arguments: int, code: bytes | None = None, audit: int | None = None) -> int:
    """What the filter says of a system call: the instructions that it uses, as the kernel runs them."""
    given = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=iIQ6Q", number, AUDIT[machine] if audit is None else audit, 0, *(a & 0xFFFFFFFFFFFFFFFF for a in given))
    code = filter_code(machine, 1) if code is None else code
    at, register = 0, 0
    while True:
        operation, equal, other, value = struct.unpack_from("=HBBI", code, 8 * at)
        at += 1
        if operation == 0x20:
            (register,) = struct.unpack_from("=I", data, value)
        elif operation == 0x54:
            register &= value
        elif operation == 0x15:
            at += equal if register == value else other
        else:
            assert operation == 0x06
            return value


def allowed(machine, name, *arguments, **settings):
    return verdict(machine, numbers(machine)[name], *arguments, **settings) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_is_allowed(machine):
    flags = os.O_RDONLY | os.O_CLOEXEC
    assert allowed(machine, "read")
    assert allowed(machine, "openat", -100, 0, flags)
    thread = 0x3D0F00  # what the C library starts threads with
    assert allowed(machine, "clone", thread)
    assert not allowed(machine, "clone", thread, code=filter_code(machine, 1, threads=False))
    assert allowed(machine, "tgkill", 1, 5, 6)
    assert allowed(machine, "kill", 1, signal.SIGTERM)
    assert allowed(machine, "socketpair", 1, 1 | os.O_CLOEXEC | os.O_NONBLOCK, 0)
    assert allowed(machine, "sendto", 3, 0, 10, 0, 0, 0)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("openat", (-100, 0, flags)) for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND, os.O_TMPFILE)),
        ("clone", (signal.SIGCHLD,)),
        ("clone", (0x10000000 | 0x3D0F00,)),
        ("clone", (0x4100 | signal.SIGCHLD,)),
        ("kill", (2, 9)),
        ("kill", (-1, 9)),
        ("kill", (0, 9)),
        ("tgkill", (2, 2, 9)),
        ("fcntl", (3, 8, 1)),
        ("fcntl", (3, 10, 9)),
        ("fcntl", (3, 15, 0)),
        ("ioctl", (0, 0x5412, 0)),
        ("ioctl", (3, 0x8901, 0)),
        ("prlimit64", (2, 7, 0, 0)),
        ("prctl", (4, 1)),
        ("prctl", (22, 2)),
        ("socketpair", (1, 2, 0)),
        ("socketpair", (1, 5, 0)),
        ("socketpair", (2, 1, 0)),
        ("sendto", (3, 0, 10, 0, 0x1000, 16)),
    ],
)
def test_what_is_refused_by_its_arguments(machine, name, arguments):
    assert verdict(machine, numbers(machine)[name], *arguments) == REFUSE | EPERM


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_other_number_is_refused(machine):
    known = set(numbers(machine).values())
    others = [n for n in range(600) if n not in known] + [0x40000000 | n for n in range(600)]
    assert {verdict(machine, n) for n in others} == {REFUSE | EPERM}
    assert verdict(machine, numbers(machine)["clone3"]) == REFUSE | 38
    assert verdict(machine, 0, audit=0x40000003) == KILL


def test_threads_can_be_forbidden_and_the_own_process_is_known_by_number():
    assert allowed("x86_64", "kill", 77, 15, code=filter_code("x86_64", 77))
    assert not allowed("x86_64", "kill", 1, 15, code=filter_code("x86_64", 77))


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_numbers_are_those_of_the_systems_headers(machine, header):
    if not os.path.exists(header):
        pytest.skip(f"there is no {header} here")
    wanted = "#define __BITS_PER_LONG 64\n#define __ARCH_WANT_NEW_STAT\n#define __ARCH_WANT_SET_GET_RLIMIT\n"
    wanted += f'#define __ARCH_WANT_SYS_CLONE3\n#include "{header}"\n'
    try:
        done = subprocess.run(["cc", "-E", "-dM", "-x", "c", "-"], input=wanted, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no C preprocessor here")
    said = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\S+)", done.stdout))
    found = {}
    for name, value in said.items():
        while not value.isdigit() and (other := re.fullmatch(r"__NR(?:3264)?_(\w+)", value)):
            value = dict(re.findall(r"#define (__NR\w+) (\S+)", done.stdout)).get(value, "") or said.get(other[1], "")
        found[name] = value
    ours = numbers(machine)
    assert len(ours) > 90
    assert {name: found.get(name) for name in ours} == {name: str(number) for name, number in ours.items()}
