"""Numbers as people read them."""

from __future__ import annotations

import datetime
import time


def duration(seconds: float) -> str:
    """``1 h 24 min``, ``48 min``, ``32 s``."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest:02d} min"
    return f"{hours // 24} days {hours % 24} h"


def number(value: float | None, form: str, unit: str = "") -> str:
    """``value`` formatted, with a no-break space before its unit; a dash where there is none."""
    if value is None:
        return "–"
    text = format(value, form)
    if text.endswith("%"):
        text, unit = text[:-1], "%"
    return f"{text}\N{NO-BREAK SPACE}{unit}" if unit else text


def clock(wall: float) -> str:
    """Local time of day of seconds since the epoch."""
    return time.strftime("%H:%M:%S", time.localtime(wall))


def until(start: datetime.datetime | None, seconds: float) -> str:
    """The time of day so many seconds after ``start``, and how long that is; the latter alone where
    the former is not known."""
    if start is None or seconds > 10 * 86400:
        return duration(seconds)
    end = start + datetime.timedelta(seconds=seconds)
    days = (end.date() - start.date()).days
    later = "" if days == 0 else " tomorrow" if days == 1 else f" in {days} days"
    return f"until {end:%H:%M}{later} ({duration(seconds)})"
