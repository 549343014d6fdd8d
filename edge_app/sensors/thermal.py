"""Thermal zones and cooling devices of the Linux thermal framework.

Files and units: Documentation/ABI/testing/sysfs-class-thermal. Temperatures are millidegrees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from edge_app.sensors.root import Root, place
from edge_app.sensors.types import Quality, Reading, SensorStatus, Zone, absent
from edge_app.sensors.validators import StuckDetector, Validator, implausible_temperature

THERMAL = "sys/class/thermal"
MILLI = 1e-3

# Trip points that firmware left unset read 0, -32768000 or something out of reach (127050).
TRIP_RANGE_C = {"passive": (0.0, 125.0), "critical": (0.0, 150.0)}

CPU_COOLING = re.compile(r"cpufreq|^processor$|^cpu", re.IGNORECASE)
"""Cooling devices that slow the CPU down: `cpufreq-cpu0`, `thermal-cpufreq-0`, `Processor`."""


@dataclass
class _Watched:
    """What is remembered of a zone, by its name."""

    directory: str
    passive_c: float | None
    critical_c: float | None
    validator: Validator
    detector: StuckDetector = field(default_factory=StuckDetector)


class ThermalZones:
    """All zones, each matched by its type: the kernel's numbering is not stable.

    A zone once seen stays in the list; when it vanishes its reading is MISSING.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._watched: dict[str, _Watched] = {}

    def read(self, time: float, smoothed_load: float | None) -> tuple[Zone, ...]:
        """One reading of every zone. ``smoothed_load`` is the stuck detector's evidence."""
        present: dict[str, str] = {}
        for entry in self._root.entries(THERMAL):
            if entry.startswith("thermal_zone"):
                directory = f"{THERMAL}/{entry}"
                kind = self._root.read(f"{directory}/type").text
                if kind:
                    present[_unused(kind, present)] = directory
        for name, directory in present.items():
            known = self._watched.get(name)
            if known is None or known.directory != directory:
                passive, critical = self._trips(directory)
                validator = Validator(name, implausible_temperature)
                if known is not None:
                    validator = known.validator
                self._watched[name] = _Watched(directory, passive, critical, validator)
        return tuple(
            self._zone(name, watched, name in present, time, smoothed_load)
            for name, watched in self._watched.items()
        )

    def _zone(
        self, name: str, watched: _Watched, present: bool, time: float, load: float | None
    ) -> Zone:
        if present:
            attribute = self._root.read(f"{watched.directory}/temp")
            reading = watched.validator.reading(attribute.number(MILLI), time, attribute.problem)
        else:
            reading = watched.validator.reading(None, time, "the zone has vanished")
        value = reading.value
        if reading.ok and value is not None and watched.detector.stuck(value, time, load):
            watched.validator.fault = f"{value:g} °C does not follow the CPU's load"
            reading = Reading(value, time, Quality.STUCK, name)
        return Zone(name, reading, watched.passive_c, watched.critical_c)

    def _trips(self, directory: str) -> tuple[float | None, float | None]:
        found: dict[str, float] = {}
        for entry in self._root.entries(directory):
            match = re.fullmatch(r"trip_point_(\d+)_type", entry)
            if match is None:
                continue
            kind = self._root.read(f"{directory}/{entry}").text or ""
            celsius = self._root.read(f"{directory}/trip_point_{match[1]}_temp").number(MILLI)
            if celsius is None or kind not in TRIP_RANGE_C:
                continue
            low, high = TRIP_RANGE_C[kind]
            if low < celsius <= high:
                found[kind] = min(celsius, found.get(kind, celsius))
        return found.get("passive"), found.get("critical")

    def describe(self, zones: tuple[Zone, ...]) -> list[SensorStatus]:
        """One status for each zone, or one that says that there is none."""
        what = "temperature"
        if not zones:
            detail = f"no zone in {place(self._root, THERMAL)}; usual in containers and VMs"
            return [SensorStatus("thermal", what, Quality.ABSENT, detail)]
        statuses = []
        for zone in zones:
            watched = self._watched[zone.name]
            reading = zone.reading
            if reading.ok:
                detail = f"{reading.value:.1f} °C{_trip_text(zone)}"
            else:
                detail = watched.validator.fault
            detail += f" ({watched.directory.rpartition('/')[2]})"
            statuses.append(SensorStatus(f"thermal/{zone.name}", what, reading.quality, detail))
        return statuses


def _unused(name: str, taken: dict[str, str]) -> str:
    """``name``, or with ``#2``, ``#3``... if several zones have the same type."""
    if name not in taken:
        return name
    count = 2
    while f"{name}#{count}" in taken:
        count += 1
    return f"{name}#{count}"


def _trip_text(zone: Zone) -> str:
    trips = (("throttles at", zone.passive_c), ("critical", zone.critical_c))
    return "".join(f", {what} {celsius:g} °C" for what, celsius in trips if celsius is not None)


class CpuThrottle:
    """Whether the kernel slows the CPU down because of heat: the surest sign that it is hot."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def read(self, time: float) -> Reading:
        """1 if a cooling device of the CPU is in use, 0 if not, ABSENT if there is none."""
        states = [
            self._root.read(f"{THERMAL}/{entry}/cur_state").number()
            for entry in self._root.entries(THERMAL)
            if entry.startswith("cooling_device")
            and CPU_COOLING.search(self._root.read(f"{THERMAL}/{entry}/type").text or "")
        ]
        known = [state for state in states if state is not None]
        if not known:
            return absent("throttled")
        return Reading(float(any(state > 0 for state in known)), time, Quality.OK, "throttled")

    def describe(self, throttled: Reading) -> SensorStatus:
        what = "frequency held down by the kernel"
        if not throttled.ok:
            detail = f"no cooling device of the CPU in {place(self._root, THERMAL)}"
            return SensorStatus("cpu throttle", what, Quality.ABSENT, detail)
        return SensorStatus("cpu throttle", what, Quality.OK, "yes" if throttled.value else "no")
