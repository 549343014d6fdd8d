"""How fast the CPUs may run, and x86's own count of the times that heat slowed them down.

Files: Documentation/ABI/testing/sysfs-devices-system-cpu and Documentation/admin-guide/pm/cpufreq
(`policyN/scaling_max_freq`, `cpuinfo_max_freq`: kHz), intel_pstate (`max_perf_pct`: percent), and
`cpuN/thermal_throttle/*_throttle_count`. Only read: limits belong to others.
"""

from __future__ import annotations

import math
import re

from edge_app.sensors.root import Root, place
from edge_app.sensors.types import Quality, Reading, SensorStatus, absent
from edge_app.sensors.validators import Validator

CPU = "sys/devices/system/cpu"
CPUFREQ = f"{CPU}/cpufreq"
COUNTS = ("core_throttle_count", "package_throttle_count")
LOOK_AGAIN_S = 60.0
"""How often the list of CPUs is read again: they come and go, but seldom."""
NAME = "CPU frequency limit"
CURRENT = "CPU frequency"


def _implausible_share(share: float) -> str | None:
    return None if 0.0 < share <= 1.0 else f"{share:.0%} of the hardware's highest"


class FrequencyLimit:
    """The highest frequency allowed now as a share of the hardware's highest.

    Who limits it cannot be told from the files: the kernel because of heat, a daemon that saves
    power, or the user. A boost that the policy's maximum leaves out may take it a little above
    1; that is 1.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._validator = Validator(NAME, _implausible_share)
        self._seen = False
        self._hardware: dict[str, float] = {}
        self._allowed_khz = 0.0

    def read(self, time: float) -> Reading:
        allowed: list[float] = []
        problem = "no policy gives a frequency"
        for entry in self._root.entries(CPUFREQ):
            if not re.fullmatch(r"policy\d+", entry):
                continue
            self._seen = True
            answer = self._root.read(f"{CPUFREQ}/{entry}/scaling_max_freq")
            now = answer.number()
            if now is None:
                problem = answer.problem
            elif self._learn_highest(entry):
                allowed.append(now)
        if not self._seen:
            return absent(NAME)
        if not allowed:
            return self._validator.reading(None, time, problem)
        percent = self._root.read(f"{CPU}/intel_pstate/max_perf_pct").number()
        # Of all that were ever seen: a fast cluster may have been switched off because of heat.
        highest = max(self._hardware.values())
        share = max(allowed) / highest
        if percent is not None and 0 < percent <= 100:
            share = min(share, percent / 100.0)
        self._allowed_khz = share * highest
        return self._validator.reading(min(share, 1.0), time)

    def _learn_highest(self, entry: str) -> bool:
        if entry not in self._hardware:
            khz = self._root.read(f"{CPUFREQ}/{entry}/cpuinfo_max_freq").number()
            if khz is None or khz <= 0:
                return False
            self._hardware[entry] = khz
        return True

    def describe(self, limit: Reading) -> SensorStatus:
        what = "highest frequency allowed"
        if limit.quality is Quality.ABSENT:
            detail = f"no policy in {place(self._root, CPUFREQ)}; usual in VMs"
        elif limit.ok and limit.value is not None:
            detail = f"{self._allowed_khz / 1e6:.2f} GHz, {limit.value:.0%} of the hardware's"
        else:
            detail = self._validator.fault
        return SensorStatus("cpu frequency", what, limit.quality, detail)


class CurrentFrequency:
    """The frequency that runs now as a share of the same CPUs' highest: of the slowest CPUs.

    The kernel's governor turns it down where there is little to do, so that what is slow need not be
    hot. One moment tells little: use the lowest of several.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._validator = Validator(CURRENT, _implausible_share)
        self._seen = False

    def read(self, time: float) -> Reading:
        shares: list[float] = []
        problem = "no policy gives a frequency"
        for entry in self._root.entries(CPUFREQ):
            if not re.fullmatch(r"policy\d+", entry):
                continue
            now = self._root.read(f"{CPUFREQ}/{entry}/scaling_cur_freq")
            highest = self._root.read(f"{CPUFREQ}/{entry}/cpuinfo_max_freq").number()
            khz = now.number()
            if khz is None:
                problem = now.problem
            elif highest is not None and highest > 0:
                self._seen = True
                shares.append(min(1.0, khz / highest))
        if not shares:
            return self._validator.reading(None, time, problem) if self._seen else absent(CURRENT)
        return self._validator.reading(min(shares), time)


class ThrottleCounts:
    """Whether one of x86's throttle counters rose since the last look."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._paths: list[str] = []
        self._listed = -math.inf
        self._counts: dict[str, float] = {}
        self.present = False

    def rising(self, time: float) -> bool | None:
        """None at the first look, and where there are no counters.

        A counter that fell was set back, by suspend or because its CPU went off and on.
        """
        if time - self._listed >= LOOK_AGAIN_S:
            self._listed = time
            self._paths = [
                f"{CPU}/{entry}/thermal_throttle/{name}"
                for entry in self._root.entries(CPU)
                if re.fullmatch(r"cpu\d+", entry)
                for name in COUNTS
                if self._root.read(f"{CPU}/{entry}/thermal_throttle/{name}").exists
            ]
        counts = {
            path: count
            for path in self._paths
            if (count := self._root.read(path).number()) is not None
        }
        self.present = bool(counts)
        before, self._counts = self._counts, counts
        common = counts.keys() & before.keys()
        return any(counts[path] > before[path] for path in common) if common else None
