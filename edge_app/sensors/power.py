"""Batteries and chargers of the Linux power-supply class.

Files and units: Documentation/ABI/testing/sysfs-class-power. Energy is in µWh, charge in µAh,
power in µW, current in µA, voltage in µV. The ABI says that a negative current discharges; many
drivers disagree, so that only ``status`` and the chargers decide the direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edge_app.sensors.gauge import GaugeWatch, charge_at_rest
from edge_app.sensors.root import Root, place, printable
from edge_app.sensors.types import Battery, Quality, Reading, SensorStatus, absent
from edge_app.sensors.validators import Validator, implausible_charge

POWER = "sys/class/power_supply"
MICRO = 1e-6
JOULES_PER_WH = 3600.0
NAME = "battery"
PACKS = ("Battery", "UPS")
VOLTAGE_RANGE = (1.0, 1000.0)
LEAST_WH = 0.2
"""What holds less is no battery that runs a computer, but a driver that counts in mWh or mAh."""
POWER_RANGE_W = (0.05, 1000.0)
"""Of a battery in use. A driver that reports mA for µA lands below."""


@dataclass(frozen=True)
class _Pack:
    """One battery. ``fraction`` as read; joules where the driver gives enough to tell."""

    fraction: float | None
    energy_j: float | None
    full_j: float | None
    status: str
    power_w: float | None
    estimated_from_v: float | None


def _implausible_energy(joules: float) -> str | None:
    return None if math.isfinite(joules) and joules >= 0 else f"{joules:g} J"


def _implausible_power(watts: float) -> str | None:
    low, high = POWER_RANGE_W
    if watts <= 0 and -watts <= high:
        return None
    return None if low <= watts <= high else f"{watts:g} W while it powers this device"


class _Optional:
    """A value that not every battery gives: absent until it was there once."""

    def __init__(self, name: str, implausible: Callable[[float], str | None]) -> None:
        self._validator = Validator(name, implausible)
        self._seen = False

    def reading(self, value: float | None, time: float) -> Reading:
        self._seen = self._seen or value is not None
        if not self._seen:
            return absent(self._validator.name)
        return self._validator.reading(value, time)


class PowerSupply:
    """The batteries that power this device, and its chargers.

    Batteries of peripherals (``scope`` is ``Device``: a mouse, a headset) do not count.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._validator = Validator(NAME, implausible_charge)
        self._energy = _Optional("battery energy", _implausible_energy)
        self._power = _Optional("battery power", _implausible_power)
        self._gauge = GaugeWatch()
        self._seen = False
        self._packs: dict[str, _Pack] = {}

    def read(self, time: float) -> Battery:
        self._packs = {}
        chargers: list[bool] = []
        for entry in self._root.entries(POWER):
            directory = f"{POWER}/{entry}"
            kind = self._root.read(f"{directory}/type").text or ""
            if self._root.read(f"{directory}/scope").text == "Device":
                continue
            if kind in PACKS:
                present = self._root.read(f"{directory}/present")
                # A battery that is being pulled out answers ENODEV until its directory is gone.
                if present.text != "0" and present.error != "ENODEV":
                    self._packs[entry] = self._pack(directory)
            elif kind:
                online = self._root.read(f"{directory}/online").number()
                if online is not None:
                    chargers.append(online > 0)
        on_ac = any(chargers) if chargers else None
        packs = list(self._packs.values())
        if not packs:
            return self._without_packs(time, on_ac)
        self._seen = True
        discharging = _discharging(packs, on_ac)
        magnitude = _sum([pack.power_w for pack in packs])
        power = None
        if magnitude is not None and discharging is not None:
            power = magnitude if discharging else -magnitude
        power_reading = self._power.reading(power, time)
        full_j = _sum([pack.full_j for pack in packs])
        drain = power_reading.value if power_reading.ok and discharging else None
        charge = self._charge(packs, time, drain, full_j)
        energy = self._energy.reading(_sum([pack.energy_j for pack in packs]), time)
        if energy.ok and charge.quality in (Quality.IMPLAUSIBLE, Quality.STUCK):
            # The same gauge says both.
            energy = Reading(energy.value, time, charge.quality, energy.name)
        return Battery(True, charge, discharging, on_ac, energy, power_reading, full_j)

    def _without_packs(self, time: float, on_ac: bool | None) -> Battery:
        if self._seen:
            reading = self._validator.reading(None, time, "the battery has vanished")
            return Battery(True, reading, None, on_ac)
        return Battery(False, Reading(None, time, Quality.ABSENT, NAME), None, on_ac)

    def _charge(
        self, packs: list[_Pack], time: float, drain_w: float | None, full_j: float | None
    ) -> Reading:
        fraction = _combined(packs)
        reading = self._validator.reading(fraction, time, "no charge that makes sense is given")
        if not reading.ok or fraction is None:
            return reading
        quality, fault = self._gauge.judge(fraction, time, drain_w, full_j)
        if quality is not Quality.OK:
            self._validator.fault = fault
        return Reading(fraction, time, quality, NAME)

    def _pack(self, directory: str) -> _Pack:
        def number(name: str, scale: float = MICRO) -> float | None:
            return self._root.read(f"{directory}/{name}").number(scale)

        def first(*names: str) -> float | None:
            return next((value for name in names if (value := number(name))), None)

        def volts(*names: str) -> float | None:
            low, high = VOLTAGE_RANGE
            found = (number(name) for name in names)
            return next((value for value in found if value and low <= value <= high), None)

        voltage = volts("voltage_now", "voltage_avg")
        nominal = volts("voltage_min_design") or voltage
        energy, full = number("energy_now"), first("energy_full", "energy_full_design")
        fraction = _ratio(energy, full)
        if energy is None:
            charge, charge_full = number("charge_now"), first("charge_full", "charge_full_design")
            fraction = _ratio(charge, charge_full)
            if nominal is not None and charge is not None:
                energy = charge * nominal
            if nominal is not None and charge_full is not None:
                full = charge_full * nominal
        capacity = number("capacity", 0.01)
        margin = number("capacity_error_margin", 1.0)
        if capacity is not None and (margin is None or margin < 100):
            # The driver knows its gauge: it has corrected what the plain ratio has not.
            fraction = _not_above_full(capacity)
        estimated = None
        if fraction is None and voltage is not None:
            technology = self._root.read(f"{directory}/technology").text
            fraction = charge_at_rest(voltage, technology or "Unknown")
            estimated = None if fraction is None else voltage
        if full is not None and full < LEAST_WH:
            energy = full = None
        if energy is None and full is not None and fraction is not None:
            energy = fraction * full
        power = number("power_now")
        if not power or abs(power) > POWER_RANGE_W[1]:
            current = first("current_now", "current_avg")
            if current is not None and voltage is not None:
                power = current * voltage
        return _Pack(
            fraction=fraction,
            energy_j=None if energy is None else energy * JOULES_PER_WH,
            full_j=None if full is None else full * JOULES_PER_WH,
            status=self._root.read(f"{directory}/status").text or "Unknown",
            power_w=None if power is None else abs(power),
            estimated_from_v=estimated,
        )

    def describe(self, battery: Battery) -> list[SensorStatus]:
        """One status for the battery and one for the charger."""
        if not battery.present:
            detail = f"none in {place(self._root, POWER)}; the battery cap does not apply"
            status = SensorStatus(NAME, "charge", Quality.ABSENT, detail)
        elif battery.charge.ok:
            parts = [f"{battery.charge.value:.0%}", _direction(battery.discharging)]
            if battery.energy.ok and battery.energy.value is not None:
                parts.append(f"{battery.energy.value / JOULES_PER_WH:.1f} Wh left")
            if battery.power.ok and battery.power.value is not None:
                parts.append(f"{abs(battery.power.value):.1f} W")
            for pack in self._packs.values():
                if pack.estimated_from_v is not None:
                    parts.append(f"estimated from {pack.estimated_from_v:.2f} V")
            if len(self._packs) > 1:
                parts.append(f"together: {', '.join(map(printable, self._packs))}")
            status = SensorStatus(NAME, "charge", Quality.OK, ", ".join(parts))
        else:
            status = SensorStatus(NAME, "charge", battery.charge.quality, self._validator.fault)
        if battery.on_ac is None:
            charger = SensorStatus("charger", "connected", Quality.ABSENT, "not reported")
        else:
            detail = "yes" if battery.on_ac else "no"
            charger = SensorStatus("charger", "connected", Quality.OK, detail)
        return [status, charger]


def _ratio(now: float | None, full: float | None) -> float | None:
    if now is None or full is None or full <= 0:
        return None
    return _not_above_full(now / full)


def _not_above_full(fraction: float) -> float:
    """A gauge that has not relearned what is full goes a little above it."""
    return 1.0 if 1.0 < fraction <= 1.1 else fraction


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _combined(packs: list[_Pack]) -> float | None:
    """Charge of all packs together, weighted with their capacity where that is known.

    A pack that gives nonsense makes the whole nonsense: it may be the one in use.
    """
    fractions = [pack.fraction for pack in packs]
    if None in fractions:
        return None
    known = [fraction for fraction in fractions if fraction is not None]
    for fraction in known:
        if implausible_charge(fraction):
            return fraction
    weights = [pack.full_j for pack in packs]
    total = _sum(weights)
    if total is None or total <= 0:
        return sum(known) / len(known)
    return (
        sum(fraction * (weight or 0.0) for fraction, weight in zip(known, weights, strict=True))
        / total
    )


def _discharging(packs: list[_Pack], on_ac: bool | None) -> bool | None:
    statuses = {pack.status for pack in packs}
    if "Discharging" in statuses:
        return True
    if statuses & {"Charging", "Full", "Not charging"}:
        return False
    return None if on_ac is None else not on_ac


def _direction(discharging: bool | None) -> str:
    if discharging is None:
        return "direction unknown"
    return "discharging" if discharging else "not discharging"
