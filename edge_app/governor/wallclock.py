"""Finds jumps of the wall clock against the monotonic one."""

from __future__ import annotations

from datetime import datetime

JUMP_S = 5.0
"""More than clocks are slewed and drift from one sample to the next. Leaving or entering daylight
saving time is no jump: what is compared has its offset."""


class WallClock:
    """How far the wall clock is from where the samples' time says that it should be."""

    def __init__(self) -> None:
        self._offset: float | None = None

    def update(self, wall: datetime | None, now: float) -> float:
        """Seconds by which the wall clock has jumped since the last call; 0 if it has not, or is
        not known."""
        if wall is None:
            return 0.0
        try:
            offset = wall.timestamp() - now
        except (OverflowError, OSError, ValueError):
            return 0.0  # a time without an offset at the very ends of the calendar
        before, self._offset = self._offset, offset
        jump = 0.0 if before is None else offset - before
        return jump if abs(jump) > JUMP_S else 0.0
