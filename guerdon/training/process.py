# SPDX-License-Identifier: Apache-2.0
"""How this process computes: with how many threads, and what it does with memory that a step gives back."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of glibc's ``mallopt``."""
NEVER, KEPT = -1, 2**25
"""Bytes of the largest block that is kept. Larger ones would leave holes that nothing else fits."""


def use_threads(count: int) -> None:
    """Let this process compute with ``count`` threads, PyTorch and NumPy alike: small sums wait for each other's threads."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    threadpool_limits(count, user_api="blas")


def keep_freed_memory() -> None:
    """Let this process keep what it frees, but for the largest blocks, for what it allocates next; nothing without glibc.

    glibc otherwise gives memory back to the system at the end of a step, and the next step's tensors have it cleared and mapped
    anew, page by page, while they are written. The process holds on to the most that it needed, which each step needs again.
    Source: the manual page mallopt(3).
    """
    if platform.libc_ver()[0] == "glibc":
        set_option = ctypes.CDLL(None).mallopt
        set_option(M_TRIM_THRESHOLD, NEVER)
        set_option(M_MMAP_THRESHOLD, KEPT)
