"""Every sensor with its value, unit, quality and the files it comes from, for people and scripts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edge_app.clock import Clock
from edge_app.sensors.root import Attribute, Root, RootAround, natural
from edge_app.sensors.sysfs import SysfsSensors
from edge_app.sensors.thermal import CPU_COOLING, unused
from edge_app.sensors.types import Quality, Reading, Sample, absent

JOULES_PER_WH = 3600.0
PERCENT = 100.0
NOTHING = Attribute(None)
SUPPLY = r"sys/class/power_supply/[^/]+/"

Faults = Mapping[str, str]
"""What is wrong with a sensor, by its name in ``describe``."""

# Which of the files that were read a value comes from; the first pattern that matches any.
SOURCES: dict[str, tuple[str, ...]] = {
    "battery charge": (rf"{SUPPLY}capacity", rf"{SUPPLY}(energy|charge)_(now|full)"),
    "battery energy": (rf"{SUPPLY}energy_now", rf"{SUPPLY}charge_now", rf"{SUPPLY}capacity"),
    "battery power": (rf"{SUPPLY}power_now", rf"{SUPPLY}(current|voltage)_now"),
    "charger": (rf"{SUPPLY}online",),
    "throttled": (r".*/(get_throttled|(core|package)_throttle_count|cur_state)",),
    "under-voltage": (r".*/in\d+_lcrit_alarm", r".*/get_throttled"),
    "load of others": (r"proc/stat",),
    "CPU pressure": (r"proc/pressure/cpu", r".*/cpu\.pressure"),
    "CPU frequency limit": (r".*/scaling_max_freq",),
    "CPU frequency": (r".*/cpufreq/policy\d+/scaling_cur_freq",),
    "power": (
        r"sys/class/powercap/.*/energy_uj",
        r"sys/(class/hwmon|bus/iio)/.*/(in|curr|power|in_power)\d_input",
        rf"{SUPPLY}(power|current|voltage)_now",
    ),
}


@dataclass(frozen=True)
class Listed:
    """One sensor. ``value`` is in ``unit``; None if there is none or it cannot be one.

    ``trips``: for a thermal zone, where the kernel throttles and shuts down, in degrees Celsius.
    ``sources``: the files, as absolute paths on this machine, below the root elsewhere. ``detail``: what is wrong, if anything is.
    """

    name: str
    value: float | None
    unit: str
    quality: Quality
    sources: tuple[str, ...] = ()
    trips: dict[str, float] = field(default_factory=dict)
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """An object with the same keys for every sensor."""
        value = self.value
        return {
            "name": self.name,
            "value": None if value is None or not math.isfinite(value) else round(value, 4),
            "unit": self.unit,
            "quality": self.quality.value,
            "trips": self.trips,
            "sources": list(self.sources),
            "detail": self.detail,
        }


class ObservedRoot(RootAround):
    """Another root, of which is remembered what was read of it."""

    def __init__(self, root: Root) -> None:
        super().__init__(root)
        self.seen: dict[str, Attribute] = {}

    def read(self, path: str) -> Attribute:
        attribute = self._root.read(path)
        self.seen[path] = attribute
        return attribute

    def entries(self, path: str) -> list[str]:
        return self._root.entries(path)


class SensorList:
    """Lists the sensors below a root, again and again."""

    def __init__(self, root: Root, clock: Clock) -> None:
        self._root = ObservedRoot(root)
        self._sensors = SysfsSensors(self._root, clock)

    def read(self) -> list[Listed]:
        """All sensors that the governor looks for, as they are now; absent ones too."""
        sample = self._sensors.sample()
        faults = {
            status.name: status.detail
            for status in self._sensors.describe()
            if status.quality is not Quality.OK
        }
        # Readers look for devices now and then, and at their files every time.
        seen = {path: read for path, read in self._root.seen.items() if read.exists}
        listed = [
            *_zones(sample, seen, faults),
            *_coolers(seen),
            *_batteries(seen),
            *_rails(seen),
            *_others(sample, seen, faults),
        ]
        if not self._root.is_this_machine:
            return listed
        return [replace(row, sources=tuple(f"/{path}" for path in row.sources)) for row in listed]


def _zones(sample: Sample, seen: Mapping[str, Attribute], faults: Faults) -> list[Listed]:
    if not sample.zones:
        return [Listed("thermal zones", None, "", Quality.ABSENT, detail=faults.get("thermal", ""))]
    files = _thermometers(seen)
    listed = []
    for zone in sample.zones:
        trips = {"passive": zone.passive_c, "critical": zone.critical_c}
        listed.append(
            Listed(
                zone.name,
                zone.reading.value,
                "°C",
                zone.reading.quality,
                files.get(zone.name, ()),
                {name: celsius for name, celsius in trips.items() if celsius is not None},
                faults.get(f"thermal/{zone.name}", ""),
            )
        )
    return listed


def _thermometers(seen: Mapping[str, Attribute]) -> dict[str, tuple[str, ...]]:
    """Temperature files by what a sample calls them, which is what the readers make of names."""
    found: dict[str, tuple[str, ...]] = {}
    for path in natural(seen):
        directory, _, file = path.rpartition("/")
        if re.fullmatch(r"sys/class/thermal/thermal_zone\d+/type", path) and seen[path].label:
            found[unused(seen[path].label, found)] = (f"{directory}/temp",)
        elif re.fullmatch(r"sys/class/hwmon/hwmon\d+/temp\d+_input", path):
            number = file.removesuffix("_input")
            chip = seen.get(f"{directory}/name", NOTHING).label
            label = seen.get(f"{directory}/{number}_label", NOTHING).label or number
            for prefix in ("cpu", "hwmon"):
                found[unused(f"{prefix}/{chip}/{label}", found)] = (path,)
    return found


def _coolers(seen: Mapping[str, Attribute]) -> list[Listed]:
    """Fans and whatever else cools; the many alike ones of the CPUs as one, with the highest
    state of any."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in natural(seen):
        directory, _, file = path.rpartition("/")
        if file == "cur_state":
            kind = seen.get(f"{directory}/type", NOTHING).label or "unnamed"
            highest = seen.get(f"{directory}/max_state", NOTHING).label or "?"
            found.setdefault((kind, highest), []).append(path)
    listed = []
    for (kind, highest), paths in found.items():
        states = [state for path in paths if (state := seen[path].number()) is not None]
        quality = Quality.OK if states else Quality.MISSING
        count = f" x{len(paths)}" if len(paths) > 1 else ""
        # intel_powerclamp says -1 while it does nothing.
        value = max(0.0, *states) if states else None
        listed.append(
            Listed(f"cooling/{kind}{count}", value, f"of {highest}", quality, tuple(paths))
        )
    return listed


def _batteries(seen: Mapping[str, Attribute]) -> list[Listed]:
    """Each of several batteries; one alone is the battery."""
    paths = [path for path in natural(seen) if re.fullmatch(rf"{SUPPLY}capacity", path)]
    return [
        _raw(f"battery/{path.split('/')[-2]}", path, seen, 1.0, "%") for path in paths[1:] and paths
    ]


def _rails(seen: Mapping[str, Attribute]) -> list[Listed]:
    """Voltages and currents of current monitors."""
    listed = []
    for path in natural(seen):
        match = re.fullmatch(r"(sys/class/hwmon/hwmon\d+)/(in|curr)(\d)_input", path)
        if match is not None:
            label = (
                seen.get(f"{match[1]}/in{match[3]}_label", NOTHING).label or f"channel {match[3]}"
            )
            unit = "V" if match[2] == "in" else "A"
            listed.append(_raw(f"rail/{label}", path, seen, 1e-3, unit))
    return listed


def _raw(name: str, path: str, seen: Mapping[str, Attribute], scale: float, unit: str) -> Listed:
    value = seen[path].number(scale)
    if value is None:
        return Listed(name, None, unit, Quality.MISSING, (path,), detail=seen[path].problem)
    return Listed(name, value, unit, Quality.OK, (path,))


def _others(sample: Sample, seen: Mapping[str, Attribute], faults: Faults) -> list[Listed]:
    battery = sample.battery
    charger = absent("charger")
    if battery.on_ac is not None:
        charger = Reading(float(battery.on_ac), sample.time, Quality.OK, "charger")
    # Reading, its name here, factor, unit, its name in describe().
    rows = (
        (battery.charge, "battery charge", PERCENT, "%", "battery"),
        (battery.energy, "battery energy", 1 / JOULES_PER_WH, "Wh", ""),
        (battery.power, "battery power", 1.0, "W", ""),
        (charger, "charger", 1.0, "", "charger"),
        (sample.power, "power", 1.0, "W", "power"),
        (sample.throttled, "throttled", 1.0, "", "cpu throttle"),
        (sample.under_voltage, "under-voltage", 1.0, "", "under-voltage"),
        (sample.cpu_limit, "CPU frequency limit", PERCENT, "%", "cpu frequency"),
        (sample.cpu_frequency, "CPU frequency", PERCENT, "%", "cpu frequency"),
        (sample.other_load, "load of others", PERCENT, "%", "load"),
        (sample.cpu_pressure, "CPU pressure", 1.0, "%", "pressure"),
    )
    listed = []
    for reading, name, factor, unit, status in rows:
        value = None if reading.value is None else reading.value * factor
        files: tuple[str, ...] = ()
        if reading.quality is not Quality.ABSENT:
            # A value comes from what could be read, a fault from what could not.
            told = [
                path
                for path, read in seen.items()
                if (read.text is not None or not reading.ok) and _tells(path, seen)
            ]
            files = next(filter(None, (_matching(p, told) for p in SOURCES[name])), ())
        detail = "" if reading.ok else faults.get(status, "")
        if name == "power" and reading.ok and reading.name != name:
            detail = reading.name
        listed.append(Listed(name, value, unit, reading.quality, files, {}, detail))
    return listed


def _tells(path: str, seen: Mapping[str, Attribute]) -> bool:
    """False for a fan: that it turns says nothing about the CPU's frequency."""
    directory, _, file = path.rpartition("/")
    kind = seen.get(f"{directory}/type", NOTHING).text or ""
    return file != "cur_state" or CPU_COOLING.search(kind) is not None


def _matching(pattern: str, paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(natural(path for path in paths if re.fullmatch(pattern, path)))
