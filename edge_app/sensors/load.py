"""How busy the CPUs are, with whose work, and who has to wait for them.

/proc/stat (proc(5)), pressure stall information (Documentation/accounting/psi.rst) and the CPU
controller of our control group (Documentation/admin-guide/cgroup-v2.rst). Never /proc/loadavg: it
counts tasks that wait for disks, and our own threads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psutil

from edge_app.sensors.root import Root, place
from edge_app.sensors.types import Quality, Reading, SensorStatus, absent
from edge_app.sensors.validators import Smoothed, Validator

OTHERS = "load of others"
STAT = "proc/stat"
PRESSURE = "proc/pressure/cpu"
MEMBERSHIP = "proc/self/cgroup"
CGROUPS = "sys/fs/cgroup"

CPU_LINE = re.compile(r"^cpu +(\d{1,20}(?: +\d{1,20}){3,9}) *$", re.MULTILINE)
"""The kernel counts with 64 bits; more digits than that are no count."""
TICKS_PER_S = 100
"""USER_HZ, the same on every architecture that Linux has today (proc(5))."""
AVG10 = re.compile(r"^some avg10=(\d+(?:\.\d+)?)", re.MULTILINE)
PRESSURE_WINDOW_S = 10.0
LEAST_PERCENT = 1.0


def _implausible_percent(percent: float) -> str | None:
    return None if 0.0 <= percent <= 100.0 else f"{percent:g} % is outside 0..100 %"


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
        self._process = psutil.Process()
        self._previous: tuple[float, float, float] | None = None
        self._busy: float | None = None
        self._other = Validator(OTHERS, lambda _: None)
        self._newest = absent(OTHERS)
        self._stall = _Pressure(root)

    def read(self, time: float) -> Load:
        current = self._times()
        if current is None:
            self._busy = self._previous = None
            if self._newest.quality is not Quality.ABSENT:
                self._newest = self._other.reading(None, time, f"{STAT} cannot be read any more")
        elif self._previous is None:
            self._previous = current
        else:
            total, idle, own = (
                now - before for now, before in zip(current, self._previous, strict=True)
            )
            # Less than a tick after the previous reading that one still holds.
            if total != 0:
                self._previous = current
            if total > 0:
                self._busy = min(1.0, max(0.0, 1.0 - idle / total))
                other = min(1.0, max(0.0, self._busy - own / total))
                self._newest = self._other.reading(other, time)
        return Load(self._busy, self._newest, self._stall.read(time))

    def _times(self) -> tuple[float, float, float] | None:
        """All CPU time, what of it was idle, and our own, in seconds since the start."""
        match = CPU_LINE.search(self._root.read(STAT).text or "")
        if match is None:
            return None
        user, nice, system, idle, *rest = (int(ticks) for ticks in match[1].split())
        iowait, irq, softirq, steal = (*rest, 0, 0, 0, 0)[:4]
        # What a guest used is part of user and nice already.
        total = user + nice + system + idle + iowait + irq + softirq + steal
        own = 0.0
        if self._root.is_this_machine:
            spent = self._process.cpu_times()
            own = spent.user + spent.system
        return total / TICKS_PER_S, (idle + iowait) / TICKS_PER_S, own

    def describe(self, load: Load) -> list[SensorStatus]:
        """The load of others, pressure stall information, and the CPU quota if there is one."""
        what, quality = "CPU time of others", load.other.quality
        if load.other.ok:
            detail = f"{load.other.value:.0%}"
        elif quality is not Quality.ABSENT:
            detail = self._other.fault
        elif self._previous is None:
            detail = f"{place(self._root, STAT)} cannot be read"
        else:
            quality, detail = Quality.OK, "known from the second sample on"
        cpu = SensorStatus("load", what, quality, detail)
        return [cpu, *self._stall.describe(load.pressure)]


class _Pressure:
    """Percent of the last 10 s in which some task waited for a CPU.

    Of the whole system; else of our control group. Where the group has used up its CPU quota its
    tasks wait, too, whatever the rest of the machine does: the share of the quota's periods in
    which that happened counts if it is larger.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._validator = Validator("CPU pressure", _implausible_percent)
        self._seen = False
        self._source = PRESSURE
        self._group = _group(root)
        self._periods: tuple[float, float] | None = None
        self._throttled = Smoothed(PRESSURE_WINDOW_S)
        self._cpus: float | None = None

    def read(self, time: float) -> Reading:
        percent: float | None = None
        sources = [PRESSURE] + ([f"{self._group}/cpu.pressure"] if self._group else [])
        for source in sources:
            match = AVG10.search(self._root.read(source).text or "")
            if match is not None:
                percent, self._source = float(match[1]), source
                break
        self._seen = self._seen or percent is not None
        quota = self._quota(time)
        # A quota that is not used up tells nothing of others: alone it is no pressure of 0.
        if quota is not None and quota > (LEAST_PERCENT if percent is None else percent):
            percent, self._source = quota, f"{self._group}/cpu.stat"
        if percent is None and not self._seen:
            return absent("CPU pressure")
        return self._validator.reading(percent, time, "it was there and cannot be read any more")

    def _quota(self, time: float) -> float | None:
        """Percent of recent periods in which the quota ran out; None without a quota."""
        if self._group is None:
            return None
        limit, _, period = (self._root.read(f"{self._group}/cpu.max").text or "").partition(" ")
        if not (limit.isdecimal() and period.isdecimal() and int(period) > 0):
            self._cpus = self._periods = None
            return None
        self._cpus = int(limit) / int(period)
        text = self._root.read(f"{self._group}/cpu.stat").text or ""
        counts = dict(re.findall(r"^(nr_periods|nr_throttled) (\d+)$", text, re.MULTILINE))
        if len(counts) < 2:
            return None
        before, now = self._periods, (float(counts["nr_periods"]), float(counts["nr_throttled"]))
        self._periods = now
        if before is None:
            return None
        periods, throttled = now[0] - before[0], now[1] - before[1]
        # No period at all: nothing ran, and nothing waited.
        share = min(1.0, max(0.0, throttled / periods)) if periods > 0 else 0.0
        smoothed = self._throttled.update(share, time)
        return None if smoothed is None else 100.0 * smoothed

    def describe(self, pressure: Reading) -> list[SensorStatus]:
        what = "waiting for a CPU"
        if pressure.quality is Quality.ABSENT:
            detail = f"no {place(self._root, PRESSURE)}; the load of others stands in for it"
        elif pressure.ok:
            detail = f"{pressure.value:.4g} % of the last 10 s ({place(self._root, self._source)})"
        else:
            detail = self._validator.fault
        statuses = [SensorStatus("pressure", what, pressure.quality, detail)]
        if self._cpus is not None:
            share = self._throttled.value
            detail = f"{self._cpus:g} CPUs"
            if share is not None:
                detail += f", used up in {share:.0%} of the time"
            statuses.append(SensorStatus("quota", "CPU time allowed", Quality.OK, detail))
        return statuses


def _group(root: Root) -> str | None:
    """The directory of our control group; None without cgroup v2.

    In a container the hierarchy starts at our own group, and the path is `/`.
    """
    text = root.read(MEMBERSHIP).text
    match = re.search(r"^0::/(.*)$", text or "0::/", re.MULTILINE)
    if match is None or ".." in match[1]:
        return None
    group = f"{CGROUPS}/{match[1]}".rstrip("/")
    # A container may see its path in the host's hierarchy, but only its own part of that.
    return group if root.entries(group) else CGROUPS
