# SPDX-License-Identifier: Apache-2.0
import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, torch
from guerdon.training import process
{first}
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones({numbers}) for _ in range(16)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(10):
    step()
print(min(step() for _ in range(5)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
@pytest.mark.parametrize(("numbers", "kept"), [(2**21, True), (2**24, False)])
def test_memory_of_a_step_is_kept_for_the_next_but_for_the_largest_blocks(numbers, kept):
    def pages(first):
        code = STEPS.format(first=first, numbers=numbers)
        return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)

    told, plain = pages("process.keep_freed_memory()"), pages("")
    assert plain > 16  # pages, or huge ones, that were mapped anew
    assert told < 0.1 * plain if kept else told > 0.5 * plain


def test_a_training_asks_for_it(monkeypatch, tmp_path):
    from guerdon.training import loop

    class Asked(Exception):
        pass

    def ask():
        raise Asked

    monkeypatch.setattr(loop, "keep_freed_memory", ask)
    with pytest.raises(Asked):
        loop.train(None, tmp_path)
