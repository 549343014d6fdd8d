"""How the governor's memory survives a restart: plain JSON values, and ages instead of times.

A monotonic clock starts anew with every boot, so that the times of one process mean nothing to the
next; how long ago something was does. The time between the two counts as none: whoever must wait
for a minute of sound readings waits for a minute in which somebody looked.

The file may be old, cut off, or anything else, and a governor must start with it all the same. So
everything that is read comes through these functions, which give nothing for what is not what it
should be. Nothing here raises.
"""

from __future__ import annotations

import math
from typing import Any

SCHEMA = 1
LONGEST_S = 365.0 * 86400.0


def age(stamp: float, now: float) -> float | None:
    """Seconds from ``stamp`` to ``now``; None for what never was (an infinite stamp)."""
    return round(max(0.0, now - stamp), 3) if math.isfinite(stamp) else None


def since(value: object, now: float) -> float:
    """The time that was ``value`` seconds before ``now``; -inf (never) if that is no age."""
    seconds = number(value, 0.0, LONGEST_S)
    return -math.inf if seconds is None else now - seconds


def finite(value: object) -> float | None:
    """``value`` if it is a finite number, else None. Truth values are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        as_float = float(value)
    except OverflowError:
        return None
    return as_float if math.isfinite(as_float) else None


def number(value: object, low: float, high: float) -> float | None:
    """``value`` if it is a number of ``low``..``high``, else None."""
    checked = finite(value)
    return checked if checked is not None and low <= checked <= high else None


def text(value: object) -> str:
    """``value`` if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def table(value: object) -> dict[str, Any]:
    """The entries of ``value`` whose keys are strings; none if it is no table."""
    if not isinstance(value, dict):
        return {}
    return {key: entry for key, entry in value.items() if isinstance(key, str)}


def rows(value: object, length: int) -> list[list[Any]]:
    """The lists of ``length`` in the list ``value``; none if it is no list."""
    if not isinstance(value, list | tuple):
        return []
    return [list(row) for row in value if isinstance(row, list | tuple) and len(row) == length]
