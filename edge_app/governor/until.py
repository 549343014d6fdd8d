"""`until`: a time of day as a moment of the samples' monotonic time.

The wall clock may jump (a late time server, a user, daylight saving time), so the moment is worked
out anew from every sample. Where it moves by more than a clock drifts, that is an event.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from edge_app.governor.decision import Event
from edge_app.policy.model import DAY_S

JUMP_S = 30.0
"""The wall clock has jumped if it moved so much more or less than the monotonic one."""


def seconds_until(until: time, wall: datetime) -> float:
    """Seconds from ``wall`` (aware) to the next time that local clocks show ``until``: later today,
    else tomorrow. OverflowError at the end of the calendar."""
    target = datetime.combine(wall.date(), until, wall.tzinfo)
    start = wall.astimezone(UTC)
    # In UTC: two times of one zone subtract as if it had no daylight saving time.
    if target.astimezone(UTC) <= start:
        target = datetime.combine(wall.date() + timedelta(days=1), until, wall.tzinfo)
    return (target.astimezone(UTC) - start).total_seconds()


def duration(seconds: float) -> str:
    """``2 h 05 min``, ``12 min`` or ``40 s``, to the unit below."""
    if seconds < 60:
        return f"{int(seconds)} s"
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


class EndTime:
    """When ``until`` is. ``at``: in seconds of the samples' time; None if there is no ``until`` or
    the wall clock has never been known."""

    def __init__(self, until: time | None) -> None:
        self._until = until
        self._wall: datetime | None = None
        self._seen = 0.0
        self.at: float | None = None

    @property
    def name(self) -> str:
        """As people write it."""
        return "" if self._until is None else f"{self._until:%H:%M}"

    def update(self, wall: datetime | None, now: float) -> Event | None:
        """Work it out again at ``now``. Without a wall clock it stays where it was."""
        if self._until is None:
            return None
        if wall is None:
            return self._without_clock(now)
        try:
            at = now + seconds_until(self._until, wall)
            jumped = 0.0 if self._wall is None else (wall - self._wall).total_seconds()
        except OverflowError:
            return None
        jumped -= 0.0 if self._wall is None else now - self._seen
        before, self.at = self.at, at
        self._wall, self._seen = wall, now
        if before is None:
            return None
        left = duration(at - now)
        if abs(jumped) > JUMP_S:
            sign = "+" if jumped > 0 else "-"
            text = f"the clock jumped by {sign}{duration(abs(jumped))}"
            return Event("until_moved", f"{text}: {self.name} is in {left}")
        if abs(at - before) <= JUMP_S:
            return None
        if now >= before - JUMP_S:
            return self._passed()
        return Event("until_moved", f"local time has changed: {self.name} is in {left}")

    def _without_clock(self, now: float) -> Event | None:
        if self.at is None or now < self.at:
            return None
        self.at += DAY_S * (1.0 + (now - self.at) // DAY_S)
        return self._passed()

    def _passed(self) -> Event:
        return Event("until_passed", f"{self.name} has passed; from now on it means tomorrow")

    def shown(self, seconds_ahead: float, now: float) -> str:
        """The local time in ``seconds_ahead``, or how long that is if the clock is not known."""
        if self._wall is not None:
            try:
                moment = self._wall + timedelta(seconds=seconds_ahead + now - self._seen)
            except OverflowError:
                return f"in {duration(seconds_ahead)}"
            days = (moment.date() - self._wall.date()).days
            return f"{moment:%H:%M}" + (f" in {days} d" if days else "")
        return f"in {duration(seconds_ahead)}"
