"""Signals: SIGINT and SIGTERM ask for a clean end, SIGHUP for a look at the policy's files, SIGUSR1
for the state. Handlers only set plain attributes: an Event's lock could be held by the very code
that a signal interrupts."""

from __future__ import annotations

import os
import signal
from types import FrameType

from edge_app.errors import EXIT_INTERRUPTED, EXIT_OK


class StopRequest:
    """Remembers what the user (SIGINT) or the service manager (SIGTERM, SIGHUP) wants.

    After the first request to stop the usual handlers are back, so that a second one ends the
    program at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self.reload = False
        self.dump = False
        self.exit_code = EXIT_OK
        self._terminal = False

    def install(self) -> None:
        """Take over the signals. Main thread only."""
        self._terminal = _has_terminal()
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGHUP, self._hang_up)
        signal.signal(signal.SIGUSR1, self._dump)

    def take_reload(self) -> bool:
        """Whether a reload was asked for since the last call."""
        asked, self.reload = self.reload, False
        return asked

    def ask_reload(self) -> None:
        """Ask for a look at the policy's files, as SIGHUP does. From any thread."""
        self.reload = True

    def take_dump(self) -> bool:
        """Whether the state was asked for since the last call."""
        asked, self.dump = self.dump, False
        return asked

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if number == signal.SIGINT:
            self.exit_code = EXIT_INTERRUPTED
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        # The kernel sends the same signal when the terminal that we run in is closed.
        if self._terminal and not _has_terminal():
            self.requested = True
        else:
            self.reload = True

    def _dump(self, number: int, frame: FrameType | None) -> None:
        self.dump = True


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
