"""Tells the service manager that the program is ready, how it is doing, and that it makes progress.

The protocol is sd_notify(3): datagrams of ``KEY=value`` lines to the Unix socket in $NOTIFY_SOCKET. The
watchdog ($WATCHDOG_USEC) is fed by progress and not by a timer: a program whose frames or whose
governor have stopped is restarted.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edge_app.record import FrameRecord
from edge_app.sinks import Listener

if TYPE_CHECKING:
    from edge_app.governor import Decision
    from edge_app.sources import Frame, SourceStatus

GOVERNOR_SILENT_S = 10.0
FRAMES_SILENT_S = 15.0
"""More than a live source needs to notice that it has stalled."""
STATUS_EVERY_S = 1.0


class Notifier:
    """Sends to the manager that started this process; to nobody without one."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        variables = os.environ if environment is None else environment
        self._address = variables.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # a name in the abstract namespace
            self._address = "\0" + self._address[1:]
        usec = variables.get("WATCHDOG_USEC", "")
        ours = variables.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(usec) / 1e6 if usec.isdecimal() and ours else 0.0
        """The manager acts after so long without a sign of life; 0: it does not watch."""

    @property
    def present(self) -> bool:
        return bool(self._address)

    def send(self, **values: str) -> None:
        """For example ``send(READY="1")``. A manager that does not listen is no problem of ours."""
        if not self._address:
            return
        message = "\n".join(f"{key}={value}" for key, value in values.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto(message.encode(), self._address)
        except OSError:
            pass


class ServiceSink(Listener):
    """Keeps the manager informed from the pipeline's thread.

    ``source``: the state of the source. ``resting``: whether no frame is wanted (a pause for heat).
    """

    def __init__(
        self,
        notifier: Notifier,
        source: Callable[[], SourceStatus],
        resting: Callable[[], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notifier = notifier
        self._source = source
        self._resting = resting
        self._now = now
        self._decided = self._classified = now()
        self._fed = -float("inf")
        self._told = -float("inf")
        self._status = self._sent = ""
        self._ready = False

    def frame(self, record: FrameRecord, frame: Frame) -> None:
        self._classified = self._now()

    def decision(self, decision: Decision) -> None:
        self._decided = self._now()
        self._status = f"{decision.bits} bits ({decision.cause}): {decision.why}"
        if not self._ready:
            self._ready = True
            self._notifier.send(READY="1", STATUS=self._status)
            self._sent = self._status

    def tick(self) -> None:
        now = self._now()
        if self._status != self._sent and now - self._told >= STATUS_EVERY_S:
            self._told, self._sent = now, self._status
            self._notifier.send(STATUS=self._status)
        interval = self._notifier.watchdog_s / 3
        if interval and now - self._fed >= interval and self.healthy(now):
            self._fed = now
            self._notifier.send(WATCHDOG="1")

    def healthy(self, now: float) -> bool:
        """Whether both loops make progress: the governor decides, and frames are classified or it
        is known why not."""
        if now - self._decided > GOVERNOR_SILENT_S:
            return False
        if now - self._classified <= FRAMES_SILENT_S:
            return True
        return self._resting() or self._source().state != "up"

    def close(self) -> None:
        self._notifier.send(STOPPING="1")
