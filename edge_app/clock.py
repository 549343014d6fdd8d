"""Time as an object, so that tests and replays decide how fast it passes."""

from __future__ import annotations

import math
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock. All times in the sensors and the governor come from one of these."""

    def now(self) -> float:
        """Seconds since an arbitrary start; never goes backwards."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` of this clock's time; at once if that is not positive."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Like ``sleep``, but return early when ``event`` is set. True if the event is set."""
        ...


def _checked_speed(speed: float) -> float:
    if not (math.isfinite(speed) and speed > 0):
        raise ValueError(f"clock speed must be a positive number (got {speed!r})")
    return speed


class RealClock:
    """The machine's monotonic clock, which may be made to run faster.

    With ``speed=60`` one real second is a minute of this clock: a sensor trace of forty minutes
    replays in forty seconds. Starts at 0.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = _checked_speed(speed)
        self._origin = time.monotonic()

    def now(self) -> float:
        return (time.monotonic() - self._origin) * self.speed

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds / self.speed)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(max(0.0, seconds) / self.speed)


class ManualClock:
    """A clock that stands still until it is told to move: for tests and simulations."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds``. ValueError if that would go backwards."""
        if not seconds >= 0:
            raise ValueError(f"a monotonic clock cannot move by {seconds!r} s")
        self._now += seconds

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.advance(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self.sleep(seconds)
        return event.is_set()
