"""The C library's memory allocator, set up for training on a CPU."""

from __future__ import annotations

import ctypes

# Parameters of mallopt(3) in glibc.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Keep memory that tensors have freed for the next ones, instead of returning it to the system.

    Large tensors otherwise get fresh pages in every step, each of which the kernel has to clear. The
    process then holds its peak until it ends. Where the C library is not glibc nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)
    mallopt(_TOP_PAD, 64 * 2**20)
