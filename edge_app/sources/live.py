"""Live sources: cameras and network streams, of which only the newest frame is of interest, and which
come back after they were gone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_app.errors import EXIT_SOURCE_LOST, AppError
from edge_app.sources.base import Frame, Image, SourceStatus

FAILED_READS = 25
"""So many failed reads in a row end a connection. A camera that wakes up fails a few."""
FAILED_READ_WAIT_S = 0.02
"""Some drivers fail at once and for ever: do not spin on them."""
STALL_PERIODS = 10
PERIOD_SMOOTHING = 0.1
HANGING_AT_MOST = 8
"""Connections that hang in the driver and were given up. Each costs a thread and what the driver
holds, so that there is an end to trying until one of them returns."""


class Capture(Protocol):
    """An opened device or stream, as ``cv2.VideoCapture`` is one."""

    def read(self) -> tuple[bool, Image | None]:
        """Whether there is a picture, and the picture (BGR). May block, even for ever."""
        ...

    def release(self) -> None: ...


@dataclass(frozen=True)
class Patience:
    """Seconds: ``stall_s`` without a frame (or ten frame periods, if that is more) is a stall;
    opening may take ``open_s``; retries wait ``retry_s``, then twice as long each time up to
    ``retry_max_s``; ``steady_s`` with frames makes them start afresh; after ``give_up_s`` without
    any frame the source is lost for good, 0: never."""

    stall_s: float = 5.0
    open_s: float = 15.0
    retry_s: float = 0.5
    retry_max_s: float = 30.0
    steady_s: float = 10.0
    give_up_s: float = 60.0


class _Connection:
    """One opened capture, read by a thread of its own that can be left behind."""

    def __init__(self, connect: Callable[[], Capture], deliver: Callable[[Frame], None]) -> None:
        self._connect = connect
        self._deliver = deliver
        self.started = time.monotonic()
        self.newest = self.started
        self.frames = 0
        self.failed = 0
        self.skipped = 0
        self.period_s = 0.0
        self.problem = ""
        self.closing = False
        self.thread = threading.Thread(target=self._run, name="grab", daemon=True)
        self.thread.start()

    @property
    def ended(self) -> bool:
        return not self.thread.is_alive()

    def _run(self) -> None:
        try:
            capture = self._connect()
        except Exception as error:
            self.problem = str(error)
            return
        try:
            self._grab(capture)
        except Exception as error:  # a reset connection, a driver's own
            self.problem = str(error)
        finally:
            capture.release()

    def _grab(self, capture: Capture) -> None:
        in_a_row = 0
        while not self.closing:
            started = time.monotonic()
            good, image = capture.read()
            ended = time.monotonic()
            # What OpenCV leaves out nobody can tell.
            self.skipped = getattr(capture, "skipped", 0)
            if not good or image is None:
                self.failed += 1
                in_a_row += 1
                if in_a_row == FAILED_READS:
                    self.problem = "it gives no frames any more"
                    return
                time.sleep(FAILED_READ_WAIT_S)
                continue
            in_a_row = 0
            if self.frames:
                share = PERIOD_SMOOTHING if self.frames > 1 else 1.0
                self.period_s += share * (ended - self.newest - self.period_s)
            self.newest = ended
            self.frames += 1
            self._deliver(Frame(image, "bgr", ended, ended - started))


class LiveStream:
    """A source that the world goes on without.

    A thread reads the driver into a slot for one frame: its queue stays empty, so that a frame is
    never older than it must be, and none is handed out twice. ``connect`` opens the device or
    stream; it is called again, with growing pauses, when frames stop coming. What hangs in the
    driver is left behind: no call into it has a time limit that can be relied on.

    ``first``: a capture that is open already. ``read`` and ``status`` belong to one thread.
    """

    live = True
    nominal_fps = None
    classes: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        connect: Callable[[], Capture],
        first: Capture | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.name = name
        self._connect = connect
        self._patience = Patience() if patience is None else patience
        self._condition = threading.Condition()
        self._slot: Frame | None = None
        self._stale = 0
        self._failed = 0
        self._reconnects = 0
        self._attempts = 0
        self._retry_at = 0.0
        self._newest = time.monotonic()
        self._abandoned: list[_Connection] = []
        self._status = SourceStatus()
        self._connection: _Connection | None = self._open(
            connect if first is None else lambda: first
        )

    def _open(self, connect: Callable[[], Capture]) -> _Connection:
        def deliver(frame: Frame) -> None:
            with self._condition:
                if connection is not self._connection:
                    return  # given up long ago, and back now
                self._stale += self._slot is not None
                self._slot = frame
                self._condition.notify()

        # Set before its first frame: the lock is taken while the attribute is bound.
        with self._condition:
            connection = self._connection = _Connection(connect, deliver)
        return connection

    @property
    def losses(self) -> Mapping[str, int]:
        failed, stale, connection = self._failed, self._stale, self._connection
        if connection is not None:
            failed, stale = failed + connection.failed, stale + connection.skipped
        return {"capture": failed, "stale": stale}

    @property
    def status(self) -> SourceStatus:
        self._watch()
        return self._status

    def read(self, timeout: float) -> Frame | None:
        self._watch()
        with self._condition:
            if self._slot is None:
                self._condition.wait(timeout)
            frame, self._slot = self._slot, None
        if frame is not None:
            return frame
        silent = time.monotonic() - self._newest
        if 0 < self._patience.give_up_s < silent:
            raise AppError(
                f"{self.name}: no frame for {silent:.0f} s, {self._reconnects} times opened again; "
                "the source is gone (unplugged, taken by another program, or the network is down); "
                "--give-up 0 waits for ever",
                EXIT_SOURCE_LOST,
            )
        return None

    def _watch(self) -> None:
        """Notice that frames come, have stopped coming, or that it is time to try again."""
        now, connection, patience = time.monotonic(), self._connection, self._patience
        if connection is None:
            self._abandoned = [left for left in self._abandoned if not left.ended]
            if now >= self._retry_at and len(self._abandoned) < HANGING_AT_MOST:
                self._reconnects += 1
                self._open(self._connect)
            return
        if connection.frames:
            self._newest = max(self._newest, connection.newest)
            self._status = SourceStatus("up", self._reconnects)
            if connection.newest - connection.started >= patience.steady_s:
                self._attempts = 0
        if connection.ended:
            self._give_up(connection, connection.problem or "it has ended")
            return
        allowed = patience.open_s
        if connection.frames:
            allowed = max(patience.stall_s, STALL_PERIODS * connection.period_s)
        if now - connection.newest > allowed:
            self._abandoned.append(connection)
            self._give_up(connection, f"no frame for {now - connection.newest:.0f} s")

    def _give_up(self, connection: _Connection, why: str) -> None:
        connection.closing = True
        with self._condition:
            self._connection = None
            self._failed += connection.failed
            self._stale += connection.skipped
        patience = self._patience
        pause = min(patience.retry_s * 2.0**self._attempts, patience.retry_max_s)
        # Many devices that lost the same server must not come back in the same instant.
        pause *= random.uniform(0.8, 1.2)
        self._attempts = min(self._attempts + 1, 32)
        self._retry_at = time.monotonic() + pause
        hanging = sum(not left.ended for left in self._abandoned)
        if hanging >= HANGING_AT_MOST:
            why += f"; {hanging} attempts hang in the driver: no more until one of them returns"
            self._status = SourceStatus("stalled", self._reconnects, why)
        else:
            self._status = SourceStatus("reconnecting", self._reconnects, why)

    def close(self) -> None:
        """Ask the thread to release the device; a hanging driver is left behind."""
        connection = self._connection
        if connection is not None:
            connection.closing = True
            connection.thread.join(timeout=1.0)
