"""SIGINT and SIGTERM ask for a clean end; asking twice is not asked again."""

from __future__ import annotations

import signal
from types import FrameType

from edge_app.errors import EXIT_INTERRUPTED, EXIT_OK


class StopRequest:
    """Remembers that the user (SIGINT) or the service manager (SIGTERM) wants the run to end.

    A plain attribute and no Event: an Event's lock could be held by the very code that the
    signal interrupts. After the first signal the usual handlers are back, so that a second one
    ends the program at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self.exit_code = EXIT_OK

    def install(self) -> None:
        """Take over both signals. Main thread only."""
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if number == signal.SIGINT:
            self.exit_code = EXIT_INTERRUPTED
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
