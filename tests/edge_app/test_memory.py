"""One heap for all threads; what lives long is left alone by the garbage collector, the rest goes."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
import weakref

import pytest

from edge_app.memory import share_heap, steady_memory


class Ring:
    """Refers to itself, so that only the garbage collector frees it."""

    def __init__(self) -> None:
        self.itself = self


def test_garbage_goes_though_little_is_allocated() -> None:
    gone = threading.Event()
    gc.disable()  # its own occasions
    try:
        with steady_memory(0.01):
            ring = weakref.ref(Ring(), lambda _: gone.set())
            assert gone.wait(10.0)
        assert ring() is None
    finally:
        gc.enable()


def test_what_was_there_is_out_of_sight_until_the_end() -> None:
    before = Ring()
    with steady_memory():
        assert gc.get_freeze_count() > 0
        assert not any(each is before for each in gc.get_objects())
    assert gc.get_freeze_count() == 0
    assert any(each is before for each in gc.get_objects())
    assert not any(thread.name == "collector" for thread in threading.enumerate())


HEAPS = """
import ctypes, sys, threading
from edge_app.memory import share_heap
if sys.argv[1] == "shared":
    assert share_heap()
libc = ctypes.CDLL(None)
together = threading.Barrier(4)
def allocate():
    together.wait()
    libc.free(libc.malloc(5000))
    together.wait()
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
"""


@pytest.mark.parametrize("how", ["shared", "as they are"])
def test_threads_share_a_heap(how: str) -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_stats"):
        assert not share_heap(), "not glibc's"
        return
    environment = {name: text for name, text in os.environ.items() if "MALLOC" not in name}
    ended = subprocess.run(
        [sys.executable, "-c", HEAPS, how],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    heaps = ended.stderr.count("Arena ")
    assert heaps == 1 if how == "shared" else heaps > 1
