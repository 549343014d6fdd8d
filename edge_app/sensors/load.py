"""How busy the CPUs are, and with whose work.

/proc/stat and /proc/pressure/cpu, below the same root as everything else, so that a copy of
another machine's files gives that machine's load.
"""

from __future__ import annotations

import re
import time as process_clock
from dataclasses import dataclass

from edge_app.sensors.root import Root, place
from edge_app.sensors.types import Quality, Reading, SensorStatus, absent

STAT = "proc/stat"
PRESSURE = "proc/pressure/cpu"
CPU_LINE = re.compile(r"^cpu +(\d+ +\d+ +\d+ +\d+[ \d]*)$", re.MULTILINE)
TICKS_PER_S = 100
"""USER_HZ, the same on every architecture that Linux has today (proc(5))."""
AVG10 = re.compile(r"^some avg10=(\d+(?:\.\d+)?)", re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """Shares 0..1 of all CPU time since the previous reading, and pressure in percent."""

    busy: float | None
    other: Reading
    pressure: Reading


class CpuLoad:
    """Load between two readings; the first has none."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._previous: tuple[float, float, float] | None = None

    def read(self, time: float) -> Load:
        busy = other = None
        current = self._times()
        if current is not None and self._previous is not None:
            total, idle, own = (
                now - before for now, before in zip(current, self._previous, strict=True)
            )
            if total > 0:
                busy = min(1.0, max(0.0, 1.0 - idle / total))
                other = min(1.0, max(0.0, busy - own / total))
        if current is not None:
            self._previous = current
        match = AVG10.search(self._root.read(PRESSURE).text or "")
        return Load(
            busy,
            absent("load of others")
            if other is None
            else Reading(other, time, Quality.OK, "load of others"),
            Reading(float(match[1]), time, Quality.OK, "CPU pressure")
            if match
            else absent("CPU pressure"),
        )

    def _times(self) -> tuple[float, float, float] | None:
        """All CPU time, what of it was idle, and our own, in seconds since the start."""
        match = CPU_LINE.search(self._root.read(STAT).text or "")
        if match is None:
            return None
        user, nice, system, idle, *rest = (int(ticks) for ticks in match[1].split())
        iowait, irq, softirq, steal = (*rest, 0, 0, 0, 0)[:4]
        # What a guest used is part of user and nice already.
        total = user + nice + system + idle + iowait + irq + softirq + steal
        own = process_clock.process_time() if self._root.is_this_machine else 0.0
        return total / TICKS_PER_S, (idle + iowait) / TICKS_PER_S, own

    def describe(self, load: Load) -> list[SensorStatus]:
        """One status for the load of others and one for pressure stall information."""
        if self._previous is None:
            detail = f"{place(self._root, STAT)} cannot be read"
            cpu = SensorStatus("load", "CPU time of others", Quality.ABSENT, detail)
        else:
            detail = (
                f"{load.other.value:.0%}" if load.other.ok else "known from the second sample on"
            )
            cpu = SensorStatus("load", "CPU time of others", Quality.OK, detail)
        if not load.pressure.ok:
            detail = f"no {place(self._root, PRESSURE)}; the load of others stands in for it"
            pressure = SensorStatus("pressure", "waiting for a CPU", Quality.ABSENT, detail)
        else:
            detail = f"{load.pressure.value:g} % of the last 10 s"
            pressure = SensorStatus("pressure", "waiting for a CPU", Quality.OK, detail)
        return [cpu, pressure]
