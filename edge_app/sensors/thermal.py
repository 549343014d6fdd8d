"""Thermal zones and cooling devices of the Linux thermal framework.

Files and units: Documentation/ABI/testing/sysfs-class-thermal. Temperatures are millidegrees.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from edge_app.sensors.root import Attribute, Root, place
from edge_app.sensors.types import Quality, Reading, SensorStatus, Zone, absent
from edge_app.sensors.validators import StuckDetector, Validator, implausible_temperature

THERMAL = "sys/class/thermal"
MILLI = 1e-3

TRIP_RANGE_C = {"passive": (25.0, 125.0), "critical": (40.0, 125.0)}
"""Trip points outside were left unset by firmware (0, -32768000), cannot be reached (127050) or
are not in millidegrees (95)."""
TRIPS_AGAIN_S = 60.0
"""How often trip points are read again: daemons set them after boot."""

PLACEHOLDERS_C = {"pmic": 100.0, "int3400": 20.0}
"""What zones whose type begins so say, always, where there is no sensor behind them: Tegra's
`PMIC-Die`; `INT3400 Thermal`, which stands for all of an Intel machine
(drivers/thermal/intel/int340x_thermal/int3400_thermal.c)."""

CPU_COOLING = re.compile(r"cpufreq|^processor$|^cpu|powerclamp|^(thermal-)?idle", re.IGNORECASE)
"""Cooling devices that slow the CPU down: `cpufreq-cpu0`, `thermal-cpufreq-0`, `Processor`,
`intel_powerclamp` (which injects idle time; -1 while it does not), `thermal-idle-0`."""


@dataclass
class Thermometer:
    """Judges what one temperature file says. ``fault`` explains a reading that is not OK."""

    name: str
    worked: bool = False
    _validator: Validator = field(init=False)
    _detector: StuckDetector = field(default_factory=StuckDetector)

    def __post_init__(self) -> None:
        self._validator = Validator(self.name, implausible_temperature)

    @property
    def fault(self) -> str:
        return self._validator.fault

    def reading(self, attribute: Attribute, time: float, load: float | None) -> Reading:
        """``load``: that of the CPUs, smoothed, which is the stuck detector's evidence."""
        return self._judged(attribute.number(MILLI), time, attribute.problem, load)

    def silent(self, time: float, why: str) -> Reading:
        """The reading while there is nothing to read."""
        return self._judged(None, time, why, None)

    def missing(self, why: str) -> Reading:
        """The reading of something that is no thermometer now, by design and not by fault."""
        self._validator.fault = why
        return absent(self.name)

    def _judged(self, value: float | None, time: float, why: str, load: float | None) -> Reading:
        reading = self._validator.reading(value, time, why)
        if not reading.ok or value is None:
            return reading
        self.worked = True
        if self._detector.stuck(value, time, load):
            self._validator.fault = f"{value:g} °C does not follow the CPU's load"
            return Reading(value, time, Quality.STUCK, self.name)
        return reading


@dataclass
class _Watched:
    """What is remembered of a zone, by its name."""

    directory: str
    thermometer: Thermometer
    passive_c: float | None = None
    critical_c: float | None = None
    trips_time: float = -math.inf


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
            if re.fullmatch(r"thermal_zone\d+", entry):
                directory = f"{THERMAL}/{entry}"
                kind = self._root.read(f"{directory}/type").label
                if kind:
                    present[unused(kind, present)] = directory
        for name, directory in present.items():
            watched = self._watched.setdefault(name, _Watched(directory, Thermometer(name)))
            if watched.directory != directory or time - watched.trips_time >= TRIPS_AGAIN_S:
                watched.directory, watched.trips_time = directory, time
                watched.passive_c, watched.critical_c = self._trips(directory)
        return tuple(
            self._zone(name, watched, name in present, time, smoothed_load)
            for name, watched in self._watched.items()
        )

    def _zone(
        self, name: str, watched: _Watched, present: bool, time: float, load: float | None
    ) -> Zone:
        thermometer = watched.thermometer
        if not present:
            reading = thermometer.silent(time, "the zone has vanished")
        else:
            attribute = self._root.read(f"{watched.directory}/temp")
            reading = thermometer.reading(attribute, time, load)
            if _is_placeholder(name, reading.value):
                reading = thermometer.missing(f"always {reading.value:g} °C: a placeholder")
            elif not (reading.ok or thermometer.worked) and self._disabled(watched.directory):
                # One that did work and was then switched off is a loss, not an absence.
                reading = thermometer.missing("the zone is disabled")
        return Zone(name, reading, watched.passive_c, watched.critical_c)

    def _disabled(self, directory: str) -> bool:
        return self._root.read(f"{directory}/mode").text == "disabled"

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
            if low <= celsius <= high:
                found[kind] = min(celsius, found.get(kind, celsius))
        return found.get("passive"), found.get("critical")

    def describe(self, zones: Iterable[Zone]) -> list[SensorStatus]:
        """One status for each zone of a sample that is one of these."""
        statuses = []
        for zone in zones:
            watched = self._watched.get(zone.name)
            if watched is not None:
                where = watched.directory.rpartition("/")[2]
                statuses.append(zone_status(zone, watched.thermometer.fault, where))
        return statuses


def _is_placeholder(name: str, value: float | None) -> bool:
    return any(
        name.lower().startswith(kind) and value == celsius
        for kind, celsius in PLACEHOLDERS_C.items()
    )


def unused(name: str, taken: Container[str]) -> str:
    """``name``, or with ``#2``, ``#3``... if several sensors have the same name."""
    if name not in taken:
        return name
    count = 2
    while f"{name}#{count}" in taken:
        count += 1
    return f"{name}#{count}"


def zone_status(zone: Zone, fault: str, where: str) -> SensorStatus:
    """The line about one temperature."""
    detail = fault
    if zone.reading.ok:
        trips = (("throttles at", zone.passive_c), ("critical", zone.critical_c))
        detail = f"{zone.reading.value:.1f} °C" + "".join(
            f", {what} {celsius:g} °C" for what, celsius in trips if celsius is not None
        )
    name = f"thermal/{zone.name}"
    return SensorStatus(name, "temperature", zone.reading.quality, f"{detail} ({where})")


@dataclass(frozen=True)
class _Cooler:
    kind: str
    state: float
    highest: float | None


class CoolingDevices:
    """Fans, and what slows the CPU down because of heat: the surest sign that it is hot."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._coolers: list[_Cooler] = []

    def throttled(self) -> bool | None:
        """Whether a cooling device of the CPU is in use; None if there is none to be read."""
        self._coolers = []
        for entry in self._root.entries(THERMAL):
            if not re.fullmatch(r"cooling_device\d+", entry):
                continue
            directory = f"{THERMAL}/{entry}"
            state = self._root.read(f"{directory}/cur_state").number()
            highest = self._root.read(f"{directory}/max_state").number()
            if state is None or (highest is not None and state > highest):
                continue
            kind = self._root.read(f"{directory}/type").label or "unnamed"
            self._coolers.append(_Cooler(kind, state, highest))
        # Guests of hypervisors have some that know only the state 0.
        states = [
            cooler.state
            for cooler in self._coolers
            if CPU_COOLING.search(cooler.kind) and cooler.highest != 0
        ]
        return any(state > 0 for state in states) if states else None

    def describe(self) -> SensorStatus:
        """One line with the state of all, alike ones taken together."""
        what = "cooling devices"
        if not self._coolers:
            detail = f"none in {place(self._root, THERMAL)}"
            return SensorStatus("cooling", what, Quality.ABSENT, detail)
        detail = ", ".join(
            f"{cooler.kind}{f' x{count}' if count > 1 else ''} at {max(cooler.state, 0):g}"
            + ("" if cooler.highest is None else f" of {cooler.highest:g}")
            for cooler, count in Counter(self._coolers).items()
        )
        return SensorStatus("cooling", what, Quality.OK, detail)
