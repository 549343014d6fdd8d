"""What a sample consists of. All times are seconds of the clock that the sensors were given."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Battery:
    """All batteries that power the device, as one.

    ``charge``: fraction 0..1. ``discharging``: None if it cannot be told. ``on_ac``: whether a
    charger is connected; None if the device does not say. ``energy_j``: what is left, in joules.
    ``power_w``: flow out of the battery; negative while it charges.
    """

    present: bool
    charge: Reading
    discharging: bool | None = None
    on_ac: bool | None = None
    energy_j: float | None = None
    power_w: float | None = None


@dataclass(frozen=True)
class Sample:
    """Everything that was read in one go.

    ``cpu_throttled``: the kernel holds the CPU's frequency down because of heat. ``other_load``:
    share 0..1 of all CPU time used by other processes. ``psi_cpu_some_avg10``: percent of the
    last 10 s in which some task waited for a CPU (Linux pressure stall information).
    """

    time: float
    zones: tuple[Zone, ...]
    battery: Battery
    cpu_throttled: bool | None = None
    other_load: float | None = None
    psi_cpu_some_avg10: float | None = None


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
