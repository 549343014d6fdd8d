"""What lives long is left alone by the garbage collector, and the rest goes soon."""

from __future__ import annotations

import gc
import threading
import weakref

from edge_app.collecting import steady_memory


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
