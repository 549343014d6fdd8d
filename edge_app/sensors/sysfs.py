"""The sensors of this machine, read from /sys and /proc below one root."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from edge_app.clock import Clock
from edge_app.sensors.board import surroundings
from edge_app.sensors.cpufreq import FrequencyLimit
from edge_app.sensors.energy import EnergyMeter
from edge_app.sensors.hwmon import HwmonChips, HwmonTemperatures
from edge_app.sensors.load import CpuLoad, Load
from edge_app.sensors.power import PowerSupply
from edge_app.sensors.root import Root, SysRoot, place
from edge_app.sensors.thermal import THERMAL, ThermalZones
from edge_app.sensors.throttle import Throttle
from edge_app.sensors.types import Quality, Sample, SensorStatus
from edge_app.sensors.validators import Smoothed


class SysfsSensors:
    """Samples from the files below ``root`` (``Path("/")``, a copy of /sys and /proc, or any
    other ``Root``).

    A sensor that is not there is ABSENT, which is normal; one that fails is STALE for a few
    seconds and then MISSING. No failure of a file raises.
    """

    def __init__(self, root: Path | Root, clock: Clock) -> None:
        files: Root = SysRoot(root) if isinstance(root, Path) else root
        self._clock = clock
        self._files = files
        self._zones = ThermalZones(files)
        self._hwmon = HwmonChips(files)
        self._chips = HwmonTemperatures(files)
        self._throttle = Throttle(files)
        self._power = PowerSupply(files)
        self._energy = EnergyMeter(files, clock)
        self._cpu = CpuLoad(files)
        self._limit = FrequencyLimit(files)
        self._smoothed = Smoothed()
        self._newest: tuple[Sample, Load] | None = None

    def sample(self) -> Sample:
        time = self._clock.now()
        load = self._cpu.read(time)
        smoothed = self._smoothed.update(load.busy, time)
        zones = self._zones.read(time, smoothed)
        chips = self._hwmon.scan()
        throttling = self._throttle.read(time, chips)
        battery = self._power.read(time)
        sample = Sample(
            time=time,
            zones=zones + self._chips.read(time, smoothed, chips, zones),
            battery=battery,
            throttled=throttling.throttled,
            under_voltage=throttling.under_voltage,
            other_load=load.other,
            cpu_pressure=load.pressure,
            cpu_limit=self._limit.read(time),
            power=self._energy.reading(self._energy.read(chips, battery), time),
            wall=datetime.now().astimezone() if self._files.is_this_machine else None,
        )
        self._newest = sample, load
        return sample

    def describe(self) -> list[SensorStatus]:
        if self._newest is None:
            self.sample()
        assert self._newest is not None
        sample, load = self._newest
        temperatures = self._zones.describe(sample.zones) + self._chips.describe(sample.zones)
        if not sample.zones:
            temperatures.insert(0, self._no_zone())
        return [
            *temperatures,
            *self._throttle.describe(sample.throttled),
            self._limit.describe(sample.cpu_limit),
            *self._power.describe(sample.battery),
            self._energy.describe(),
            *self._cpu.describe(load),
        ]

    def busy_with(self) -> str:
        """The file that is being read now, or nothing. May be asked by any thread."""
        path = self._files.busy_with if isinstance(self._files, SysRoot) else ""
        return path and place(self._files, path)

    def _no_zone(self) -> SensorStatus:
        where = surroundings(self._files)
        why = f"hidden by this {where}" if where else "usual in containers and VMs"
        detail = f"no zone in {place(self._files, THERMAL)}; {why}"
        return SensorStatus("thermal", "temperature", Quality.ABSENT, detail)
