"""Memory of a process that runs for months: it must not grow."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
from collections.abc import Iterator

INTERVAL_S = 60.0
M_TRIM_THRESHOLD = -1
M_ARENA_MAX = -8
"""Of mallopt(3)."""
TRIM_BYTES = 128 * 1024
"""What glibc begins with."""


def share_heap(give_back: bool = False) -> bool:
    """Let all threads allocate from one heap; to be called before there are threads.

    glibc has up to eight heaps for each CPU, and each keeps what the frames of a thread once needed,
    also when that thread has ended: a megabyte here and there, for days. Whoever sets
    MALLOC_ARENA_MAX keeps that. Returns whether the C library has such a setting.

    give_back: what is large goes back to the system whenever it is freed. By default glibc keeps ever
        larger blocks for the next time, which is faster and, here, 2 MB.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    # Once it is set, to whatever value, it no longer grows with what is freed.
    done = not give_back or bool(mallopt(M_TRIM_THRESHOLD, TRIM_BYTES))
    return done and ("MALLOC_ARENA_MAX" in os.environ or bool(mallopt(M_ARENA_MAX, 1)))


@contextlib.contextmanager
def steady_memory(interval_s: float = INTERVAL_S) -> Iterator[None]:
    """Take everything that is there out of the garbage collector's sight, and collect the rest now
    and then.

    What lives as long as the process is gone through in each full collection otherwise: rarely,
    since it is much, so that garbage piles up for long, and then with a pause that costs frames.
    What is left is little. To collect it every ``interval_s`` seconds takes well under a millisecond,
    and gives back what CPython keeps to use again and mostly does not: tuples that were made of
    iterators (up to 2,000 of each length up to 20), which no other occasion frees.
    """
    ended = threading.Event()

    def collect() -> None:
        while not ended.wait(interval_s):
            gc.collect()

    gc.collect()
    gc.freeze()
    thread = threading.Thread(target=collect, name="collector", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        gc.unfreeze()
