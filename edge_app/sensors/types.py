"""What a sample consists of. All times are seconds of the clock that the sensors were given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Quality(StrEnum):
    """How far a reading can be trusted."""

    OK = "ok"
    STALE = "stale"
    """The newest value that could be read is a few seconds old."""
    IMPLAUSIBLE = "implausible"
    """A value was read that this sensor cannot have: a sentinel, a wrong unit, out of range."""
    STUCK = "stuck"
    """The value has not moved although what it measures must have."""
    MISSING = "missing"
    """The sensor was there, or its file is, but it gives no value."""
    ABSENT = "absent"
    """This device has no such sensor. Normal, not a fault."""


@dataclass(frozen=True)
class Reading:
    """One value, when it was read, and what it is worth.

    ``value`` is None where there is none; for an implausible reading it is what was read.
    """

    value: float | None
    time: float
    quality: Quality
    name: str

    @property
    def ok(self) -> bool:
        return self.quality is Quality.OK


@dataclass(frozen=True)
class Zone:
    """A thermal zone, named by its type (indices change from boot to boot).

    ``reading`` in degrees Celsius. ``passive_c``/``critical_c``: the lowest trip points of these
    types, where the kernel throttles and where it shuts down; None where there are none.
    """

    name: str
    reading: Reading
    passive_c: float | None = None
    critical_c: float | None = None


def absent(name: str) -> Reading:
    """What a device gives that has no such sensor."""
    return Reading(None, 0.0, Quality.ABSENT, name)


@dataclass(frozen=True)
class Battery:
    """All batteries that power the device, as one.

    ``charge``: fraction 0..1. ``discharging``: None if it cannot be told. ``on_ac``: whether a
    charger is connected; None if the device does not say. ``energy``: what is left, in joules;
    ``full_j``: what there is when full, in joules. ``power``: watts out of the battery; negative
    while it charges.
    """

    present: bool
    charge: Reading
    discharging: bool | None = None
    on_ac: bool | None = None
    energy: Reading = absent("battery energy")
    power: Reading = absent("battery power")
    full_j: float | None = None


NO_BATTERY = Battery(False, absent("battery"))


@dataclass(frozen=True)
class Sample:
    """Everything that was read in one go.

    ``wall``: local date and time with its offset, for what a policy says in times of day; None
    if the clock is not known. The rest are readings:
    ``throttled``: 1 while the kernel or the firmware holds the CPU's frequency down because of
    heat, else 0. ``under_voltage``: 1 while the power supply is too weak. ``other_load``: share
    0..1 of all CPU time used by other processes. ``cpu_pressure``: percent of the last 10 s in
    which some task waited for a CPU (Linux pressure stall information, `some avg10`).
    ``cpu_limit``: highest frequency that is allowed now as a share of the hardware's highest.
    ``cpu_frequency``: the one that runs now, as such a share, of the CPU that is slowest at this
    moment. ``power``: watts that the device (or, as its name then says, a part of it) takes.
    """

    time: float
    zones: tuple[Zone, ...] = ()
    battery: Battery = NO_BATTERY
    throttled: Reading = absent("throttled")
    under_voltage: Reading = absent("under-voltage")
    other_load: Reading = absent("load of others")
    cpu_pressure: Reading = absent("CPU pressure")
    cpu_limit: Reading = absent("CPU frequency limit")
    cpu_frequency: Reading = absent("CPU frequency")
    power: Reading = absent("power")
    wall: datetime | None = None


@dataclass(frozen=True)
class SensorStatus:
    """One line for `edge-app doctor`: what there is, what it measures, whether it works."""

    name: str
    what: str
    quality: Quality
    detail: str


class SensorSource(Protocol):
    """Where samples come from."""

    def sample(self) -> Sample:
        """Read everything once. Never raises because a sensor fails: the quality says so."""
        ...

    def describe(self) -> list[SensorStatus]:
        """What can and cannot be seen, according to the newest sample (taking one if none)."""
        ...
