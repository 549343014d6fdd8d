"""Batteries and chargers of the Linux power-supply class.

Files and units: Documentation/ABI/testing/sysfs-class-power. Energy is in µWh, charge in µAh,
power in µW, current in µA, voltage in µV. The ABI says that a negative current discharges; many
drivers disagree, so that only ``status`` and the chargers decide the direction.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_app.sensors.root import Root, place
from edge_app.sensors.types import Battery, Quality, Reading, SensorStatus, absent
from edge_app.sensors.validators import JumpDetector, Validator, implausible_charge

POWER = "sys/class/power_supply"
MICRO = 1e-6
JOULES_PER_WH = 3600.0
NAME = "battery"
PACKS = ("Battery", "UPS")


@dataclass(frozen=True)
class _Pack:
    """One battery. ``fraction`` as read; joules where the driver gives enough to tell."""

    fraction: float | None
    energy_j: float | None
    full_j: float | None
    status: str
    power_w: float | None


class PowerSupply:
    """The batteries that power this device, and its chargers.

    Batteries of peripherals (``scope`` is ``Device``: a mouse, a headset) do not count.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._validator = Validator(NAME, implausible_charge)
        self._jumps = JumpDetector()
        self._seen = False

    def read(self, time: float) -> Battery:
        packs: list[_Pack] = []
        chargers: list[bool] = []
        for entry in self._root.entries(POWER):
            directory = f"{POWER}/{entry}"
            kind = self._root.read(f"{directory}/type").text or ""
            if self._root.read(f"{directory}/scope").text == "Device":
                continue
            if kind in PACKS:
                if self._root.read(f"{directory}/present").text != "0":
                    packs.append(self._pack(directory))
            elif kind:
                online = self._root.read(f"{directory}/online").number()
                if online is not None:
                    chargers.append(online > 0)
        on_ac = any(chargers) if chargers else None
        if not packs:
            return self._without_packs(time, on_ac)
        self._seen = True
        discharging = _discharging(packs, on_ac)
        energies = [pack.energy_j for pack in packs]
        powers = [pack.power_w for pack in packs]
        magnitude = _sum(powers)
        power = None
        if magnitude is not None and discharging is not None:
            power = magnitude if discharging else -magnitude
        return Battery(
            present=True,
            charge=self._charge(packs, time),
            discharging=discharging,
            on_ac=on_ac,
            energy=_reading(_sum(energies), time, "battery energy"),
            power=_reading(power, time, "battery power"),
            full_j=_sum([pack.full_j for pack in packs]),
        )

    def _without_packs(self, time: float, on_ac: bool | None) -> Battery:
        if self._seen:
            reading = self._validator.reading(None, time, "the battery has vanished")
            return Battery(True, reading, None, on_ac)
        return Battery(False, Reading(None, time, Quality.ABSENT, NAME), None, on_ac)

    def _charge(self, packs: list[_Pack], time: float) -> Reading:
        fraction = _combined(packs)
        reading = self._validator.reading(fraction, time, "no charge that makes sense is given")
        if reading.ok and fraction is not None and self._jumps.jumped(fraction, time):
            self._validator.fault = f"the gauge jumped to {fraction:.0%}"
            return Reading(fraction, time, Quality.IMPLAUSIBLE, NAME)
        return reading

    def _pack(self, directory: str) -> _Pack:
        def number(name: str, scale: float = MICRO) -> float | None:
            return self._root.read(f"{directory}/{name}").number(scale)

        def first(*names: str) -> float | None:
            return next((value for name in names if (value := number(name))), None)

        voltage = first("voltage_now", "voltage_avg")
        nominal = first("voltage_min_design", "voltage_now", "voltage_avg")
        energy, full = number("energy_now"), first("energy_full", "energy_full_design")
        fraction = _ratio(energy, full)
        if energy is None:
            charge, charge_full = number("charge_now"), first("charge_full", "charge_full_design")
            fraction = _ratio(charge, charge_full)
            if nominal is not None:
                energy = None if charge is None else charge * nominal
                full = None if charge_full is None else charge_full * nominal
        capacity = number("capacity", 0.01)
        margin = number("capacity_error_margin", 1.0)
        if capacity is not None and (margin is None or margin < 100):
            # The driver knows its gauge: it has corrected what the plain ratio has not.
            fraction = capacity
            if energy is None and full is not None:
                energy = fraction * full
        power = number("power_now")
        if not power:
            current = first("current_now", "current_avg")
            if current is not None and voltage is not None:
                power = current * voltage
        return _Pack(
            fraction=fraction,
            energy_j=None if energy is None else energy * JOULES_PER_WH,
            full_j=None if full is None else full * JOULES_PER_WH,
            status=self._root.read(f"{directory}/status").text or "Unknown",
            power_w=None if power is None else abs(power),
        )

    def describe(self, battery: Battery) -> list[SensorStatus]:
        """One status for the battery and one for the charger."""
        if not battery.present:
            detail = f"none in {place(self._root, POWER)}; the battery cap does not apply"
            status = SensorStatus(NAME, "charge", Quality.ABSENT, detail)
        elif battery.charge.ok:
            parts = [f"{battery.charge.value:.0%}", _direction(battery.discharging)]
            if battery.energy.value is not None:
                parts.append(f"{battery.energy.value / JOULES_PER_WH:.1f} Wh left")
            if battery.power.value is not None:
                parts.append(f"{abs(battery.power.value):.1f} W")
            status = SensorStatus(NAME, "charge", Quality.OK, ", ".join(parts))
        else:
            status = SensorStatus(NAME, "charge", battery.charge.quality, self._validator.fault)
        if battery.on_ac is None:
            charger = SensorStatus("charger", "connected", Quality.ABSENT, "not reported")
        else:
            detail = "yes" if battery.on_ac else "no"
            charger = SensorStatus("charger", "connected", Quality.OK, detail)
        return [status, charger]


def _reading(value: float | None, time: float, name: str) -> Reading:
    return absent(name) if value is None else Reading(value, time, Quality.OK, name)


def _ratio(now: float | None, full: float | None) -> float | None:
    if now is None or full is None or full <= 0:
        return None
    # A gauge that has not relearned its full charge goes a little above it.
    ratio = now / full
    return 1.0 if 1.0 < ratio <= 1.1 else ratio


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
