"""Output in a thread of its own: order, losses, errors, and an end that always comes."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from test_sinks import FRAME, decision, record

from edge_app.errors import AppError
from edge_app.record import FrameRecord
from edge_app.sinks import OutputClosed
from edge_app.sinks.overlapped import CLOSE_S, Overlapped
from edge_app.sources import Frame


class Slow:
    """A sink that waits for ``gate`` before it takes a frame."""

    def __init__(self, error: Exception | None = None) -> None:
        self.gate = threading.Event()
        self.taken: list[Any] = []
        self.closed = False
        self._error = error

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        self.gate.wait()
        if self._error is not None:
            raise self._error
        self.taken.append(record.seq)

    def decision(self, decision: Any) -> None:
        self.taken.append(decision.cause)

    def notice(self, event: Any) -> None:
        pass

    def tick(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_everything_arrives_in_order_and_is_written_before_the_end() -> None:
    slow = Slow()
    output = Overlapped([slow], drop=False)
    output.frame(record(seq=0), FRAME)
    output.decision(decision(cause="thermal"))
    output.frame(record(seq=1), FRAME)
    slow.gate.set()
    output.close()
    assert slow.taken == [0, "thermal", 1]
    assert slow.closed and output.lost == 0


def test_a_live_source_is_not_held_up_and_losses_are_counted() -> None:
    slow = Slow()
    output = Overlapped([slow], drop=True, capacity=4)
    for seq in range(20):
        output.frame(record(seq=seq), FRAME)
    slow.gate.set()
    output.close()
    assert len(slow.taken) + output.lost == 20
    assert slow.taken[:4] == [0, 1, 2, 3] and output.lost >= 15


def test_of_a_file_nothing_is_lost() -> None:
    slow = Slow()
    output = Overlapped([slow], drop=False, capacity=2)
    threading.Timer(0.3, slow.gate.set).start()
    for seq in range(20):
        output.frame(record(seq=seq), FRAME)
    output.close()
    assert slow.taken == list(range(20)) and output.lost == 0


@pytest.mark.parametrize("error", [OutputClosed(), AppError("the disk is full")])
def test_the_error_of_a_sink_comes_with_the_next_call(error: Exception) -> None:
    slow = Slow(error)
    output = Overlapped([slow], drop=False, capacity=2)
    slow.gate.set()
    limit = time.monotonic() + 20
    with pytest.raises(type(error)):
        while time.monotonic() < limit:
            output.frame(record(), FRAME)
    output.close()
    assert slow.closed


def test_an_error_in_the_last_frame_is_not_swallowed() -> None:
    slow = Slow(AppError("the disk is full"))
    output = Overlapped([slow], drop=False)
    output.frame(record(), FRAME)
    slow.gate.set()
    with pytest.raises(AppError, match="full"):
        output.close()
    assert slow.closed


def test_a_reader_who_never_reads_does_not_keep_the_program() -> None:
    slow = Slow()
    output = Overlapped([slow], drop=True, capacity=2)
    for seq in range(5):
        output.frame(record(seq=seq), FRAME)
    started = time.monotonic()
    output.close()
    assert time.monotonic() - started < 5 * CLOSE_S
    assert output.lost >= 4
    slow.gate.set()
