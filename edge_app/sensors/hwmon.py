"""Chips of the hardware monitoring class: thermometers that are no thermal zones, voltages, rails.

Files and units: Documentation/ABI/testing/sysfs-class-hwmon. `tempN_input` is millidegrees,
`inN_input` millivolts, `currN_input` milliamperes, `powerN_input` microwatts. Chips are known by
their `name`: the numbers of their directories change from boot to boot and on resume.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edge_app.sensors.root import Root
from edge_app.sensors.thermal import MILLI, TRIP_RANGE_C, Thermometer, unused, zone_status
from edge_app.sensors.types import Quality, Reading, SensorStatus, Zone

HWMON = "sys/class/hwmon"

CPU_CHIPS = {
    "coretemp": re.compile(r"Package id"),
    "k10temp": re.compile(r"Tctl"),
    "zenpower": re.compile(r"Tctl"),
    "via_cputemp": re.compile(r""),
}
"""Thermometers in CPUs that have no thermal zone of their own, and the inputs that stand for the
whole chip. `Tctl` and not `Tdie`: the firmware throttles by it."""
CPU_ZONE = re.compile(r"cpu|soc|tj|x86_pkg_temp|(big|little)_?core|package", re.IGNORECASE)
"""Thermal zones that are the CPU's. `acpitz` is not among them: often it is some place on the
board, or a constant."""
DRIVES = ("nvme", "drivetemp")
"""Not read: each question is a command to the drive, which keeps it from sleeping."""


@dataclass(frozen=True)
class Chip:
    """One directory ``hwmonN`` and the names in it."""

    name: str
    directory: str
    files: frozenset[str]


class HwmonChips:
    """The chips there are, listed again whenever one comes, goes or gets another number."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._names: dict[str, str] = {}
        self._chips: tuple[Chip, ...] = ()

    def scan(self) -> tuple[Chip, ...]:
        names = {
            entry: name
            for entry in self._root.entries(HWMON)
            if re.fullmatch(r"hwmon\d+", entry)
            and (name := self._root.read(f"{HWMON}/{entry}/name").label)
        }
        if names != self._names:
            self._names = names
            self._chips = tuple(
                Chip(name, f"{HWMON}/{entry}", frozenset(self._root.entries(f"{HWMON}/{entry}")))
                for entry, name in names.items()
            )
        return self._chips


@dataclass
class _Input:
    """One thermometer: its files start with ``path`` (`.../temp1`)."""

    path: str
    has: frozenset[str]
    thermometer: Thermometer
    critical_c: float | None


class HwmonTemperatures:
    """Temperatures that no thermal zone gives, as zones.

    ``cpu/CHIP/LABEL`` where this is the only thermometer of the CPU, so that policies obey it as
    they do zones named `cpu*`; ``hwmon/CHIP/LABEL`` for all others, which no policy obeys unless
    it names them. A name once given stays, and so does a thermometer once seen.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._inputs: dict[str, _Input] = {}
        self._prefixes: dict[str, str] = {}
        self._chips: tuple[Chip, ...] | None = None
        self._present: set[str] = set()
        self._drives: list[str] = []

    def read(
        self, time: float, load: float | None, chips: tuple[Chip, ...], zones: Iterable[Zone]
    ) -> tuple[Zone, ...]:
        """``zones``: what the thermal framework gives; ``load`` as for ``Thermometer``."""
        if chips is not self._chips:
            self._chips = chips
            self._find(chips, [zone.name.partition("#")[0] for zone in zones])
        return tuple(self._zone(name, found, time, load) for name, found in self._inputs.items())

    def _zone(self, name: str, found: _Input, time: float, load: float | None) -> Zone:
        thermometer = found.thermometer

        def flag(kind: str) -> float | None:
            return self._root.read(f"{found.path}_{kind}").number() if kind in found.has else None

        reading: Reading
        if name not in self._present:
            reading = thermometer.silent(time, "the chip has vanished")
        elif flag("enable") == 0:
            reading = thermometer.missing("switched off")
        elif flag("fault"):
            reading = thermometer.silent(time, "the chip says that this sensor is at fault")
        else:
            attribute = self._root.read(f"{found.path}_input")
            reading = thermometer.reading(attribute, time, load)
            if not (reading.ok or thermometer.worked) and name.startswith("hwmon/"):
                # Chips have more inputs than boards connect.
                reading = thermometer.missing(f"nothing connected: {thermometer.fault}")
        return Zone(name, reading, None, found.critical_c)

    def _find(self, chips: tuple[Chip, ...], zones: list[str]) -> None:
        self._present, self._drives = set(), []
        # The thermal framework gives its zones a chip each: a copy, whose device is the zone, or
        # whose name is the zone's type with `_` for `-`.
        copies = {zone.replace("-", "_") for zone in zones}
        covered = any(CPU_ZONE.match(zone) for zone in zones)
        for chip in chips:
            if chip.name in DRIVES:
                self._drives.append(chip.name)
                continue
            if chip.name.replace("-", "_") in copies:
                continue
            if self._root.read(f"{chip.directory}/device/temp").exists:
                continue
            for number, label in self._labels(chip):
                self._watch(chip, number, label, covered)

    def _labels(self, chip: Chip) -> list[tuple[str, str]]:
        """Number and label of every thermometer; of a CPU's only those of the whole chip."""
        found = []
        for file in chip.files:
            match = re.fullmatch(r"temp(\d+)_input", file)
            if match is not None:
                label = self._root.read(f"{chip.directory}/temp{match[1]}_label").label
                found.append((match[1], label or f"temp{match[1]}"))
        found.sort(key=lambda pair: int(pair[0]))
        main = CPU_CHIPS.get(chip.name)
        whole = [pair for pair in found if main is not None and main.match(pair[1])]
        return whole or found

    def _watch(self, chip: Chip, number: str, label: str, covered: bool) -> None:
        is_cpu = chip.name in CPU_CHIPS or CPU_ZONE.match(chip.name)
        default = "cpu" if is_cpu and not covered else "hwmon"
        prefix = self._prefixes.setdefault(chip.name, default)
        name = unused(f"{prefix}/{chip.name}/{label}", self._present)
        self._present.add(name)
        stem = f"temp{number}_"
        has = frozenset(file.removeprefix(stem) for file in chip.files if file.startswith(stem))
        path = f"{chip.directory}/temp{number}"
        critical = self._root.read(f"{path}_crit").number(MILLI) if "crit" in has else None
        low, high = TRIP_RANGE_C["critical"]
        if critical is not None and not low <= critical <= high:
            critical = None
        known = self._inputs.get(name)
        thermometer = known.thermometer if known is not None else Thermometer(name)
        self._inputs[name] = _Input(path, has, thermometer, critical)

    def describe(self, zones: Iterable[Zone]) -> list[SensorStatus]:
        """One status for each zone of a sample that is one of these, and one for all drives."""
        statuses = []
        for zone in zones:
            found = self._inputs.get(zone.name)
            if found is not None:
                where = found.path.removeprefix(f"{HWMON}/")
                statuses.append(zone_status(zone, found.thermometer.fault, where))
        if self._drives:
            detail = f"{', '.join(self._drives)}: not read, each question would wake the drive"
            statuses.append(SensorStatus("hwmon/drives", "temperature", Quality.ABSENT, detail))
        return statuses
