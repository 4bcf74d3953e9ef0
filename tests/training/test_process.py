# SPDX-License-Identifier: Apache-2.0
import platform
import resource
import subprocess
import sys

import pytest

FREED = """
import ctypes, sys
from guerdon.training import process
if {told}:
    process.keep_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
blocks = [c.malloc({size}) for _ in range(4)]
for b in blocks:
    ctypes.memset(b, 1, {size})
for b in blocks:
    c.free(b)
print(open("/proc/self/statm").read().split()[1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
@pytest.mark.parametrize(("size", "kept"), [(2**24, True), (2**27, False)])
def test_freed_memory_is_kept_but_for_the_largest_blocks(size, kept):
    def resident(told):
        code = FREED.format(told=told, size=size)
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        return int(done.stdout) * resource.getpagesize()

    more = resident(True) - resident(False)
    assert more > 3 * size if kept else more < size / 2


def test_a_training_asks_for_it(monkeypatch, tmp_path):
    from guerdon.training import loop

    class Asked(Exception):
        pass

    def ask():
        raise Asked

    monkeypatch.setattr(loop, "keep_freed_memory", ask)
    with pytest.raises(Asked):
        loop.train(None, tmp_path)
