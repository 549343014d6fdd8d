"""Output in a thread of its own, so that a slow disk or a slow reader does not hold up the next frame."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge_app.record import FrameRecord
from edge_app.sinks import Sink

if TYPE_CHECKING:
    from edge_app.governor import Decision, Event
    from edge_app.sources import Frame

CAPACITY = 64
"""Results that may wait to be written: two seconds at 30 frames a second."""
POLL_S = 0.1
CLOSE_S = 2.0

Call = Callable[[Sink], None]


class Overlapped:
    """Hands everything on to ``sinks`` from a thread, in order.

    ``drop``: what to do with a frame while ``CAPACITY`` of them wait. For a live source it is left
    out and counted in ``lost``, for a file the pipeline waits. An error of a sink is raised by the
    next call; what comes after it is discarded.
    """

    def __init__(self, sinks: Sequence[Sink], drop: bool, capacity: int = CAPACITY) -> None:
        self.lost = 0
        self._sinks = tuple(sinks)
        self._drop = drop
        self._waiting: queue.Queue[Call | None] = queue.Queue(capacity)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._write, name="output", daemon=True)
        self._thread.start()

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        if self._drop:
            self.lost += not self._put(lambda sink: sink.frame(record, frame), None)
        else:
            self._insist(lambda sink: sink.frame(record, frame))

    def decision(self, decision: Decision) -> None:
        # Decisions are rare, and changes among them are never left out.
        self._insist(lambda sink: sink.decision(decision))

    def notice(self, event: Event) -> None:
        self._insist(lambda sink: sink.notice(event))

    def tick(self) -> None:
        # Pointless to wait for: while the queue is full nobody is idle.
        self._put(lambda sink: sink.tick(), None)

    def _insist(self, call: Call) -> None:
        while not self._put(call, POLL_S):
            pass

    def close(self) -> None:
        """Write what waits, for two seconds at most, and close the sinks.

        A reader who does not read (a pager at its first page) must not keep the program from
        ending; what it did not take is counted in ``lost``.
        """
        limit = time.monotonic() + CLOSE_S
        while self._thread.is_alive() and time.monotonic() < limit:
            try:
                self._waiting.put(None, timeout=POLL_S)
                break
            except queue.Full:
                continue
        self._thread.join(max(0.0, limit - time.monotonic()))
        if self._thread.is_alive():
            self.lost += self._waiting.qsize()
        elif self._error is not None:
            error, self._error = self._error, None
            raise error

    def _put(self, call: Call, timeout: float | None) -> bool:
        """Whether there was room. Raises what a sink raised."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        try:
            self._waiting.put(call, block=timeout is not None, timeout=timeout)
        except queue.Full:
            return False
        return True

    def _write(self) -> None:
        failed = False
        while (call := self._waiting.get()) is not None:
            if failed:
                continue
            try:
                for sink in self._sinks:
                    call(sink)
            except Exception as error:
                # For whoever calls next; the queue is still emptied so that nobody waits for room.
                self._error, failed = error, True
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:
                self._error = self._error or error
