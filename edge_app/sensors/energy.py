"""How much energy the device uses: RAPL counters, current monitors, or its battery.

RAPL: Documentation/power/powercap/powercap.rst, `energy_uj` counts microjoules and wraps at
`max_energy_range_uj`; only root may read it on most systems (CVE-2020-8694). Monitors: the hwmon
chips `ina3221` and `ina2xx`, and on older Jetson systems the IIO device `ina3221x`
(`in_powerN_input` in mW). Battery: the power that its driver reports while it discharges.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from edge_app.clock import Clock
from edge_app.sensors.hwmon import Chip, HwmonChips
from edge_app.sensors.power import PowerSupply
from edge_app.sensors.root import Root, place
from edge_app.sensors.types import Battery, Quality, Reading, SensorStatus, absent

POWERCAP = "sys/class/powercap"
IIO = "sys/bus/iio/devices"
MICRO = 1e-6
MOST_W = 1000.0
"""A counter that rose faster was set back (suspend), not wrapped."""
GAP_S = 60.0
"""Over a longer time without a look, power is not taken to have stayed what it was, and a counter
may have wrapped more than once."""
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN")
"""Jetson: the rail that feeds all others on the module. Boards without it: the sum of rails."""
RAIL_CHIPS = re.compile(r"ina3221|ina2\d\d")


@dataclass(frozen=True)
class EnergyReading:
    """``joules`` since the meter's first reading, never falling; None if nothing can tell.
    ``watts``: mean power since the reading before, or now; None at first. ``source``: what was
    measured."""

    joules: float | None
    watts: float | None
    source: str
    quality: Quality


@dataclass(frozen=True)
class _Look:
    """What a source is shown: seconds since the look before (0 at first), and what others have
    read already."""

    seconds: float
    chips: tuple[Chip, ...]
    battery: Battery


class _Source(Protocol):
    """Something that counts energy, or gives power, which is then integrated."""

    @property
    def name(self) -> str: ...

    @property
    def problem(self) -> str:
        """Why ``step`` gave None."""
        ...

    def step(self, look: _Look) -> tuple[float, float | None] | None:
        """Joules used since the look before, and watts; None if it cannot tell now."""
        ...


class _Counter:
    """One RAPL zone."""

    def __init__(self, root: Root, directory: str) -> None:
        self._root = root
        self._path = f"{directory}/energy_uj"
        self._range = root.read(f"{directory}/max_energy_range_uj").number(MICRO)
        self._last: float | None = None
        self.problem = ""

    def step(self, seconds: float) -> float | None:
        """Joules since the step before, 0 at first; None if it cannot be read."""
        answer = self._root.read(self._path)
        now = answer.number(MICRO)
        if now is None or now < 0:
            self.problem = answer.problem
            return None
        before, self._last = self._last, now
        if before is None or not 0 < seconds <= GAP_S:
            return 0.0
        used = now - before
        if used < 0 and self._range:
            used += self._range
        return used if 0 <= used <= MOST_W * seconds else 0.0


class _Rapl:
    """The packages with their memory, or the whole platform (`psys`) where that counts too.

    On boards that do not wire it up `psys` is there and stands still, or counts less than the
    CPU alone: it is believed if it counted more over the first stretch of time.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self.name = "CPU package"
        self.problem = f"no counter in {place(root, POWERCAP)}"
        self._parts: list[_Counter] = []
        self._platform: list[_Counter] = []
        for entry in root.entries(POWERCAP):
            # intel-rapl-mmio counts the same packages again.
            if not re.fullmatch(r"intel-rapl:\d+(:\d+)?", entry):
                continue
            directory = f"{POWERCAP}/{entry}"
            zone = root.read(f"{directory}/name").text or ""
            if zone == "psys":
                self._platform.append(_Counter(root, directory))
            elif zone.startswith("package") or zone == "dram":
                self._parts.append(_Counter(root, directory))

    def step(self, look: _Look) -> tuple[float, float | None] | None:
        parts = self._sum(self._parts, look.seconds)
        platform = self._sum(self._platform, look.seconds)
        if parts and platform is not None:
            if platform > parts:
                parts, self.name, self._parts = platform, "platform", self._platform
            self._platform = []
        used = parts if parts is not None else platform
        if used is None:
            return None
        return used, used / look.seconds if look.seconds > 0 else None

    def _sum(self, counters: list[_Counter], seconds: float) -> float | None:
        total = 0.0
        for counter in counters:
            used = counter.step(seconds)
            if used is None:
                self.problem = f"energy_uj: {counter.problem}"
                if counter.problem == "EACCES":
                    self.problem = "energy_uj is for root only, which is normal"
                return None
            total += used
        return total if counters else None


class _Rails:
    """Current monitors: the rail that feeds all others, or the sum of all rails."""

    problem = "no current monitor"

    def __init__(self, root: Root) -> None:
        self._root = root
        self.name = ""
        self._watts: float | None = None
        self._boards = [
            f"{IIO}/{entry}"
            for entry in root.entries(IIO)
            if root.read(f"{IIO}/{entry}/name").text == "ina3221x"
        ]

    def step(self, look: _Look) -> tuple[float, float | None] | None:
        rails = self._iio()
        for chip in look.chips:
            if RAIL_CHIPS.fullmatch(chip.name):
                rails |= self._hwmon(chip)
        if not rails:
            self._watts = None
            return None
        totals = [name for name in rails if name in TOTAL_RAILS]
        self.name = totals[0] if totals else " + ".join(rails)
        values = [rails[name] for name in totals[:1] or rails]
        known = [value for value in values if value is not None]
        before, self._watts = self._watts, None
        if len(known) < len(values):
            self.problem = f"{self.name} cannot be read"
            return None
        # An unloaded rail's offset may lie below zero.
        watts = self._watts = max(0.0, sum(known))
        return _area(before, watts, look.seconds), watts

    def _iio(self) -> dict[str, float | None]:
        rails = {}
        for board in self._boards:
            for entry in self._root.entries(board):
                match = re.fullmatch(r"rail_name_(\d)", entry)
                label = self._root.read(f"{board}/{entry}").label if match else ""
                if match and label:
                    power = self._root.read(f"{board}/in_power{match[1]}_input")
                    rails[label] = power.number(1e-3)
        return rails

    def _hwmon(self, chip: Chip) -> dict[str, float | None]:
        def number(name: str, scale: float) -> float | None:
            return self._root.read(f"{chip.directory}/{name}").number(scale)

        if "power1_input" in chip.files:
            name = f"{chip.name} ({chip.directory.rpartition('/')[2]})"
            return {name: number("power1_input", MICRO)}
        rails = {}
        # Channels above 3 of an ina3221 are shunt voltages and their sum.
        for channel in "123":
            if not {f"in{channel}_input", f"curr{channel}_input"} <= chip.files:
                continue
            if number(f"in{channel}_enable", 1.0) == 0:
                continue
            label = self._root.read(f"{chip.directory}/in{channel}_label").label
            if label == "NC":
                continue
            volts = number(f"in{channel}_input", 1e-3)
            amperes = number(f"curr{channel}_input", 1e-3)
            rails[label or f"{chip.name} channel {channel}"] = (
                None if volts is None or amperes is None else volts * amperes
            )
        return rails


class _Drain:
    """The battery, while it powers the device."""

    name = "battery"

    def __init__(self) -> None:
        self.problem = ""
        self._watts: float | None = None

    def step(self, look: _Look) -> tuple[float, float | None] | None:
        before, self._watts = self._watts, None
        battery = look.battery
        if not battery.present:
            self.problem = "no battery"
        elif not battery.discharging:
            self.problem = "the battery is not in use"
        elif not battery.power.ok or battery.power.value is None:
            self.problem = "the battery does not tell its power"
        else:
            self._watts = battery.power.value
            return _area(before, self._watts, look.seconds), self._watts
        return None


def _area(before: float | None, now: float, seconds: float) -> float:
    """Joules of a stretch of time with this power at its ends."""
    if before is None or not 0 < seconds <= GAP_S:
        return 0.0
    return (before + now) / 2.0 * seconds


class EnergyMeter:
    """Counts energy with the best source there is: RAPL, current monitors, the battery.

    The first that answers is kept: what the others measure is something else. Power is integrated
    from reading to reading, so that rails and batteries should be read about once a second.
    """

    def __init__(self, root: Root, clock: Clock) -> None:
        self._clock = clock
        self._hwmon = HwmonChips(root)
        self._supply = PowerSupply(root)
        self._sources: list[_Source] = [_Rapl(root), _Rails(root), _Drain()]
        self._chosen: _Source | None = None
        self._time: float | None = None
        self._joules = 0.0
        self._newest = EnergyReading(None, None, "", Quality.ABSENT)

    def read(
        self, chips: tuple[Chip, ...] | None = None, battery: Battery | None = None
    ) -> EnergyReading:
        """What was used until now. ``chips`` and ``battery``: if they have just been read."""
        now = self._clock.now()
        seconds = 0.0 if self._time is None else now - self._time
        self._time = now
        look = _Look(
            seconds,
            self._hwmon.scan() if chips is None else chips,
            self._supply.read(now) if battery is None else battery,
        )
        candidates = self._sources if self._chosen is None else [self._chosen]
        for source in candidates:
            step = source.step(look)
            if step is not None:
                self._chosen = source
                self._joules += step[0]
                self._newest = EnergyReading(self._joules, step[1], source.name, Quality.OK)
                return self._newest
        # A battery that is not in use is no fault.
        lost = self._chosen is not None and not isinstance(self._chosen, _Drain)
        quality = Quality.MISSING if lost else Quality.ABSENT
        self._newest = EnergyReading(None, None, candidates[0].name if lost else "", quality)
        return self._newest

    def reading(self, energy: EnergyReading, time: float) -> Reading:
        """Power for a sample."""
        name = f"power ({energy.source})" if energy.source else "power"
        if energy.quality is Quality.OK and energy.watts is None:
            return absent(name)
        return Reading(energy.watts, time, energy.quality, name)

    def describe(self) -> SensorStatus:
        """What is measured, or why nothing is."""
        newest = self._newest
        if newest.quality is Quality.OK:
            watts = "known from the second sample on"
            if newest.watts is not None:
                watts = f"{newest.watts:.2f} W"
            detail = f"{newest.source}: {watts}"
        else:
            candidates = self._sources if self._chosen is None else [self._chosen]
            detail = "; ".join(source.problem for source in candidates)
        return SensorStatus("power", "power used", newest.quality, detail)
