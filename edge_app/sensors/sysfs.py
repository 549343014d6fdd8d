"""The sensors of this machine, read from /sys and /proc below one root."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from edge_app.clock import Clock
from edge_app.sensors.board import surroundings
from edge_app.sensors.cpufreq import CurrentFrequency, FrequencyLimit
from edge_app.sensors.energy import EnergyMeter
from edge_app.sensors.hwmon import HwmonChips, HwmonTemperatures
from edge_app.sensors.load import CpuLoad, Load
from edge_app.sensors.power import PowerSupply
from edge_app.sensors.root import Root, SysRoot, place
from edge_app.sensors.thermal import THERMAL, ThermalZones
from edge_app.sensors.throttle import Throttle
from edge_app.sensors.types import Quality, Sample, SensorStatus
from edge_app.sensors.validators import Smoothed


class _Readers:
    """One reader for each kind of sensor. Making them reads files already."""

    def __init__(self, files: Root, clock: Clock) -> None:
        self.zones = ThermalZones(files)
        self.hwmon = HwmonChips(files)
        self.temperatures = HwmonTemperatures(files)
        self.throttle = Throttle(files)
        self.power = PowerSupply(files)
        self.energy = EnergyMeter(files, clock)
        self.cpu = CpuLoad(files)
        self.limit = FrequencyLimit(files)
        self.frequency = CurrentFrequency(files)
        self.smoothed = Smoothed()


class SysfsSensors:
    """Samples from the files below ``root`` (``Path("/")``, a copy of /sys and /proc, or any
    other ``Root``).

    A sensor that is not there is ABSENT, which is normal; one that fails is STALE for a few
    seconds and then MISSING. No failure of a file raises.
    """

    def __init__(self, root: Path | Root, clock: Clock) -> None:
        self._clock = clock
        self._files: Root = SysRoot(root) if isinstance(root, Path) else root
        self._readers: _Readers | None = None
        self._newest: tuple[Sample, Load] | None = None

    def sample(self) -> Sample:
        # Not before: only whoever asks for samples is prepared for files that hang.
        readers = self._readers = self._readers or _Readers(self._files, self._clock)
        time = self._clock.now()
        load = readers.cpu.read(time)
        smoothed = readers.smoothed.update(load.busy, time)
        zones = readers.zones.read(time, smoothed)
        chips = readers.hwmon.scan()
        throttling = readers.throttle.read(time, chips)
        battery = readers.power.read(time)
        sample = Sample(
            time=time,
            zones=zones + readers.temperatures.read(time, smoothed, chips, zones),
            battery=battery,
            throttled=throttling.throttled,
            under_voltage=throttling.under_voltage,
            other_load=load.other,
            cpu_pressure=load.pressure,
            cpu_limit=readers.limit.read(time),
            cpu_frequency=readers.frequency.read(time),
            power=readers.energy.reading(readers.energy.read(chips, battery), time),
            wall=datetime.now().astimezone() if self._files.is_this_machine else None,
        )
        self._newest = sample, load
        return sample

    def describe(self) -> list[SensorStatus]:
        if self._newest is None:
            self.sample()
        assert self._newest is not None and self._readers is not None
        (sample, load), readers = self._newest, self._readers
        return [
            *([] if sample.zones else [self._no_zone()]),
            *readers.zones.describe(sample.zones),
            *readers.temperatures.describe(sample.zones),
            *readers.throttle.describe(sample.throttled),
            readers.limit.describe(sample.cpu_limit),
            *readers.power.describe(sample.battery),
            readers.energy.describe(),
            *readers.cpu.describe(load),
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
