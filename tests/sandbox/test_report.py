# SPDX-License-Identifier: Apache-2.0
"""The report; and that no layer is called missing where the kernel has what it takes, since other tests would be skipped then."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import pytest

from guerdon.sandbox import LAYERS, Report, Trial, report


@pytest.fixture(scope="module")
def found() -> Report:
    return report()


def kernel_has_seccomp() -> bool:
    return Path("/proc/sys/kernel/seccomp/actions_avail").exists() and platform.machine() in ("x86_64", "aarch64")


def kernel_has_landlock() -> bool:
    return ctypes.CDLL(None).syscall(ctypes.c_long(444), None, ctypes.c_long(0), ctypes.c_long(1)) > 0


def test_where_the_kernel_has_seccomp_and_landlock_every_layer_holds(found):
    if not (kernel_has_seccomp() and kernel_has_landlock()):
        pytest.skip("not run: this kernel lacks seccomp or Landlock")
    assert found.layers == dict.fromkeys(LAYERS, True), str(found)
    alone = {t.mechanism: t.found for t in found.mechanisms}
    always = ("landlock", "seccomp", "seccomp, sockets", "seccomp, processes", "limit of memory", "limit of file size")
    assert {name: alone[name] for name in (*always, "limit of descriptors", "end with parent")} == dict.fromkeys(
        (*always, "limit of descriptors", "end with parent"), ""
    )


def test_every_mechanism_serves_a_layer_and_says_what_was_found(found):
    assert {t.layer for t in found.mechanisms} <= {*LAYERS, "time"}
    assert all(t.tried for t in found.mechanisms)
    assert len({t.mechanism for t in found.mechanisms}) == len(found.mechanisms) == 16


def test_it_prints_as_a_table():
    made = Report({"files": True, "network": False}, (Trial("landlock", "files", "read", "not to be had: no"),), "no sandbox")
    assert made.missing == ("network",)
    assert [line.split() for line in str(made).splitlines()] == [
        ["layer", "mechanism", "tried", "found"],
        ["files", "all", "together", "in", "a", "cell,", "as", "programs", "have", "it", "holds"],
        ["files", "landlock", "read", "not", "to", "be", "had:", "no"],
        ["network", "all", "together", "in", "a", "cell,", "as", "programs", "have", "it", "MISSING"],
        ["no", "sandbox"],
    ]
