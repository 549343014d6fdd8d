"""A recording of sensors, played back.

JSON Lines. First the header ``{"trace": "edge-app/sensors/1", "made_by": ..., "note": ...}``,
then one row for each moment, ``t`` (seconds) growing from row to row:

    {"t": 5.0, "zones": {"cpu-thermal": {"c": 61.2, "passive_c": 80, "critical_c": 95}},
     "battery": {"charge": 0.8, "discharging": true, "on_ac": false, "power_w": 4.2},
     "cpu_throttled": false, "other_load": 0.1, "psi_cpu_some_avg10": 3.0}

Every key but ``t`` may be left out. ``"c": null`` or ``"charge": null`` is a sensor that is there
and cannot be read; a zone that is left out after it was there has vanished. Between rows numbers
are interpolated and everything else keeps its value; after the last row that row holds.
"""

from __future__ import annotations

import bisect
import json
import math
from pathlib import Path
from typing import Any

from edge_app.clock import Clock
from edge_app.errors import EXIT_USAGE, AppError
from edge_app.sensors.types import Battery, Quality, Reading, Sample, SensorStatus, Zone, absent
from edge_app.sensors.validators import Validator, implausible_charge, implausible_temperature

TRACE_FORMAT = "edge-app/sensors/1"
ZONE_KEYS = {"c", "passive_c", "critical_c"}
BATTERY_KEYS = {"charge", "discharging", "on_ac", "energy_j", "power_w"}
ROW_KEYS = {"t", "zones", "battery", "cpu_throttled", "other_load", "psi_cpu_some_avg10"}
FLAGS = {"discharging", "on_ac", "cpu_throttled"}
NUMBERS = (
    ("battery", "charge"),
    ("battery", "energy_j"),
    ("battery", "power_w"),
    ("other_load",),
    ("psi_cpu_some_avg10",),
)

IMPLAUSIBLE = {"c": implausible_temperature, "charge": implausible_charge}

Row = dict[str, Any]


class TraceSensors:
    """Plays ``path``; its time starts with the first sample, at the clock's speed.

    AppError (exit code 2) with file and line if the file is not a trace, or only the beginning of
    one.
    """

    complete = True

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self.path = path
        self.header, self._rows = _read_trace(path)
        self._times = [float(row["t"]) for row in self._rows]
        self._origin: float | None = None
        self._zones: dict[str, Validator] = {}
        self._trips: dict[str, tuple[float | None, float | None]] = {}
        self._battery = Validator("battery", implausible_charge)
        self._battery_seen = False
        self._newest: Sample | None = None

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self._times[-1] - self._times[0]

    def sample(self) -> Sample:
        now = self._clock.now()
        if self._origin is None:
            self._origin = now
        row = self._row(self._times[0] + (now - self._origin))
        self._newest = Sample(
            time=now,
            zones=self._read_zones(row.get("zones", {}), now),
            battery=self._read_battery(row.get("battery"), now),
            throttled=_reading(row.get("cpu_throttled"), now, "throttled"),
            other_load=_reading(row.get("other_load"), now, "load of others"),
            cpu_pressure=_reading(row.get("psi_cpu_some_avg10"), now, "CPU pressure"),
        )
        return self._newest

    def _row(self, time: float) -> Row:
        """The recorded row at ``time``, its numbers interpolated towards the next one."""
        index = bisect.bisect_right(self._times, time) - 1
        before = self._rows[max(0, index)]
        if index < 0 or index + 1 >= len(self._rows):
            return before
        after = self._rows[index + 1]
        share = (time - self._times[index]) / (self._times[index + 1] - self._times[index])
        row = dict(before)
        row["zones"] = {
            name: {**zone, "c": _between(zone, after.get("zones", {}).get(name), "c", share)}
            for name, zone in before.get("zones", {}).items()
        }
        if isinstance(row.get("battery"), dict):
            row["battery"] = dict(row["battery"])
        for *table, key in NUMBERS:
            source, other = before, after
            target = row
            for name in table:
                source, other = source.get(name) or {}, other.get(name) or {}
                target = target.get(name) or {}
            if key in source:
                target[key] = _between(source, other, key, share)
        return row

    def _read_zones(self, recorded: Row, now: float) -> tuple[Zone, ...]:
        for name, zone in recorded.items():
            self._zones.setdefault(name, Validator(name, implausible_temperature))
            self._trips[name] = zone.get("passive_c"), zone.get("critical_c")
        zones = []
        for name, validator in self._zones.items():
            error = "" if name in recorded else "the zone has vanished"
            value = recorded.get(name, {}).get("c")
            zones.append(Zone(name, validator.reading(value, now, error), *self._trips[name]))
        return tuple(zones)

    def _read_battery(self, recorded: Row | None, now: float) -> Battery:
        if recorded is None and not self._battery_seen:
            return Battery(False, Reading(None, now, Quality.ABSENT, "battery"))
        self._battery_seen = True
        values = recorded or {}
        return Battery(
            present=True,
            charge=self._battery.reading(values.get("charge"), now),
            discharging=values.get("discharging"),
            on_ac=values.get("on_ac"),
            energy=_reading(values.get("energy_j"), now, "battery energy"),
            power=_reading(values.get("power_w"), now, "battery power"),
        )

    def describe(self) -> list[SensorStatus]:
        sample = self._newest or self.sample()
        note = f"{self.path.name}, {self.seconds:.0f} s: {self.header.get('note', 'no note')}"
        statuses = [SensorStatus("recording", "all sensors", Quality.OK, note)]
        for zone in sample.zones:
            detail = _text(zone.reading, "{:.1f} °C", self._zones[zone.name].fault)
            name = f"thermal/{zone.name}"
            statuses.append(SensorStatus(name, "temperature", zone.reading.quality, detail))
        charge = sample.battery.charge
        detail = _text(charge, "{:.0%}", self._battery.fault)
        statuses.append(SensorStatus("battery", "charge", charge.quality, detail))
        return statuses


def _between(before: Row, after: Row | None, key: str, share: float) -> Any:
    first, second = before.get(key), (after or {}).get(key)
    # Nothing lies between a sound value and a sentinel such as -273.15.
    implausible = IMPLAUSIBLE.get(key)
    if (
        first is None
        or second is None
        or (implausible and (implausible(first) or implausible(second)))
    ):
        return first
    return first + (second - first) * share


def _reading(value: float | bool | None, now: float, name: str) -> Reading:
    return absent(name) if value is None else Reading(float(value), now, Quality.OK, name)


def _text(reading: Reading, form: str, fault: str) -> str:
    if reading.ok and reading.value is not None:
        return form.format(reading.value)
    return fault or "not in the recording"


def _read_trace(path: Path) -> tuple[Row, list[Row]]:
    def fail(line: int, what: str) -> AppError:
        return AppError(f"{path}:{line}: not a sensor trace: {what}", EXIT_USAGE)

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AppError(f"{path}: the sensor trace cannot be read: {error}", EXIT_USAGE) from error
    objects: list[tuple[int, Row]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_reject)
        except ValueError as error:
            raise fail(number, f"invalid JSON: {error}") from None
        if not isinstance(value, dict):
            raise fail(number, "every line must be an object")
        objects.append((number, value))
    if not objects or objects[0][1].get("trace") != TRACE_FORMAT:
        raise fail(1, f'the first line must be a header with "trace": "{TRACE_FORMAT}"')
    rows = []
    previous = float("-inf")
    for number, row in objects[1:]:
        problem = _problem(row)
        if problem is None and row["t"] <= previous:
            problem = f"t {row['t']:g} does not come after {previous:g}"
        if problem is not None:
            raise fail(number, problem)
        previous = float(row["t"])
        rows.append(row)
    if not rows:
        raise fail(objects[0][0], "no row follows the header")
    return objects[0][1], rows


def _reject(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _problem(row: Row) -> str | None:
    """What is wrong with a row, or None."""
    if not _is_number(row.get("t")):
        return '"t" must be a number of seconds'
    zones, battery = row.get("zones", {}), row.get("battery")
    if not isinstance(zones, dict) or not all(isinstance(zone, dict) for zone in zones.values()):
        return '"zones" must be an object of objects'
    if not (battery is None or isinstance(battery, dict)):
        return '"battery" must be an object'
    tables = [(row, ROW_KEYS), *((zone, ZONE_KEYS) for zone in zones.values())]
    if battery is not None:
        tables.append((battery, BATTERY_KEYS))
    for table, keys in tables:
        for key, value in table.items():
            if key not in keys:
                return f'unknown key "{key}"; known here: {", ".join(sorted(keys))}'
            if key in ("zones", "battery") or value is None:
                continue
            if key in FLAGS and not isinstance(value, bool):
                return f'"{key}" must be true, false or null'
            if key not in FLAGS and not _is_number(value):
                return f'"{key}" must be a number or null'
    return None


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value)
