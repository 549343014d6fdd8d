"""What the sensors of a simulated device say, and how they lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from edge_app.governor.simulation.devices import Device
from edge_app.governor.simulation.noise import Noise
from edge_app.governor.simulation.plant import Cell
from edge_app.sensors import NO_BATTERY, Battery, Quality, Reading, Sample, Zone, absent
from edge_app.sensors.validators import Validator, implausible_charge, implausible_temperature

ZONE = "cpu-thermal"
GAUGE_PERIOD_S = 10.0
POWER_NOISE = 0.02
LOAD_NOISE = 0.01
FULL_PRESSURE = 80.0
"""Percent of time in which some task waits for a CPU while other programs use all of them."""
DAY = datetime(2026, 6, 1, tzinfo=timezone(timedelta(0)))
"""A day without a change of daylight saving time."""


@dataclass(frozen=True)
class Fault:
    """A fault of the thermometer from ``start_s`` to ``end_s``.

    ``kind``: ``missing`` (no value), ``sentinel`` (``value``, or absolute zero), ``stuck`` (at
    ``value``, or at what it last said), ``spike`` (``value`` for one reading every
    ``every_s``), ``drift`` (``value`` deg C an hour) or ``unit`` (degrees for millidegrees).
    """

    kind: str
    start_s: float
    end_s: float = math.inf
    value: float | None = None
    every_s: int = 300

    def __post_init__(self) -> None:
        if self.kind not in ("missing", "sentinel", "stuck", "spike", "drift", "unit"):
            raise ValueError(f"no fault of the thermometer is called {self.kind!r}")

    def apply(self, measured: float, before: float, now: float) -> float | None:
        """What is read instead of ``measured``; ``before``: the last reading without fault."""
        if not self.start_s <= now < self.end_s:
            return measured
        match self.kind:
            case "missing":
                return None
            case "sentinel":
                return -273.15 if self.value is None else self.value
            case "stuck":
                return before if self.value is None else self.value
            case "spike":
                hit = int(now - self.start_s) % self.every_s == 0
                return 124.0 if hit and self.value is None else self.value if hit else measured
            case "drift":
                return measured + (self.value or 0.0) * (now - self.start_s) / 3600.0
            case _:
                return measured / 1000.0


@dataclass(frozen=True)
class Truth:
    """The state of a device that its sensors measure."""

    chip_c: float
    clock: float
    others: float
    watts: float
    cell: Cell | None


class Instruments:
    """Sensors with noise, quantisation and faults; their readings are judged as real ones are.

    ``energy_error``: by how much of itself the battery's stated capacity is wrong.
    """

    def __init__(
        self, device: Device, noise: Noise, faults: Sequence[Fault] = (), energy_error: float = 0.0
    ) -> None:
        self._device = device
        self._noise = noise
        self._faults = faults
        self._energy_error = energy_error
        self._thermometer = Validator(ZONE, implausible_temperature)
        self._gauge = Validator("battery", implausible_charge)
        self._sound_c = 0.0
        self._charge = device.start_charge
        self._gauge_due = 0.0
        self._wall = DAY + timedelta(hours=device.start_hour)

    def sample(self, truth: Truth, now: float) -> Sample:
        """Read everything at ``now``."""
        device, noise = self._device, self._noise
        others = max(0.0, min(1.0, truth.others + noise.draw(LOAD_NOISE)))
        throttled = absent("throttled")
        if device.tells_throttling:
            throttled = _ok(1.0 if truth.clock < 1.0 else 0.0, now, "throttled")
        return Sample(
            time=now,
            zones=(self._zone(truth.chip_c, now),),
            battery=self._battery(truth, now),
            throttled=throttled,
            other_load=_ok(others, now, "load of others"),
            cpu_pressure=_ok(others * others * FULL_PRESSURE, now, "CPU pressure"),
            wall=self._wall + timedelta(seconds=now),
        )

    def _zone(self, chip_c: float, now: float) -> Zone:
        device = self._device
        measured = _stepped(chip_c + self._noise.draw(device.noise_c), device.step_c)
        read: float | None = measured
        for fault in self._faults:
            read = fault.apply(measured, self._sound_c, now)
            if read != measured:
                break
        else:
            self._sound_c = measured
        reading = self._thermometer.reading(read, now)
        return Zone(ZONE, reading, device.passive_c, device.critical_c)

    def _battery(self, truth: Truth, now: float) -> Battery:
        cell = truth.cell
        if cell is None:
            return NO_BATTERY
        pack, noise = cell.pack, self._noise
        if now >= self._gauge_due:
            self._gauge_due = now + GAUGE_PERIOD_S
            said = _stepped(cell.charge + noise.draw(pack.gauge_noise), pack.gauge_step)
            self._charge = max(0.0, min(1.0, said))
        full_j = pack.capacity_wh * 3600.0 * (1.0 + self._energy_error)
        energy, power = absent("battery energy"), absent("battery power")
        if pack.tells_energy:
            energy = _ok(self._charge * full_j, now, "battery energy")
        if pack.tells_power:
            watts = truth.watts * (1.0 + noise.draw(POWER_NOISE))
            power = _ok(round(watts, 3), now, "battery power")
        return Battery(
            present=True,
            charge=self._gauge.reading(self._charge, now),
            discharging=truth.watts > 0,
            energy=energy,
            power=power,
            full_j=full_j if pack.tells_energy else None,
        )


def _ok(value: float, now: float, name: str) -> Reading:
    return Reading(value, now, Quality.OK, name)


def _stepped(value: float, step: float) -> float:
    return round(round(value / step) * step, 6)
