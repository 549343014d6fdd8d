"""The sensors of this machine, read from /sys and /proc below one root."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from edge_app.clock import Clock
from edge_app.sensors.load import CpuLoad, Load
from edge_app.sensors.power import PowerSupply
from edge_app.sensors.root import Root, SysRoot
from edge_app.sensors.thermal import CpuThrottle, ThermalZones
from edge_app.sensors.types import Sample, SensorStatus
from edge_app.sensors.validators import Smoothed


class SysfsSensors:
    """Samples from the files below ``root`` (``Path("/")`` or a copy of /sys and /proc).

    A sensor that is not there is ABSENT, which is normal; one that fails is STALE for a few
    seconds and then MISSING. No failure of a file raises.
    """

    def __init__(self, root: Path | Root, clock: Clock) -> None:
        files: Root = SysRoot(root) if isinstance(root, Path) else root
        self._clock = clock
        self._files = files
        self._zones = ThermalZones(files)
        self._throttle = CpuThrottle(files)
        self._power = PowerSupply(files)
        self._cpu = CpuLoad(files)
        self._smoothed = Smoothed()
        self._newest: tuple[Sample, Load] | None = None

    def sample(self) -> Sample:
        time = self._clock.now()
        load = self._cpu.read(time)
        sample = Sample(
            time=time,
            zones=self._zones.read(time, self._smoothed.update(load.busy, time)),
            battery=self._power.read(time),
            throttled=self._throttle.read(time),
            other_load=load.other,
            cpu_pressure=load.pressure,
            wall=datetime.now().astimezone() if self._files.is_this_machine else None,
        )
        self._newest = sample, load
        return sample

    def describe(self) -> list[SensorStatus]:
        if self._newest is None:
            self.sample()
        assert self._newest is not None
        sample, load = self._newest
        return [
            *self._zones.describe(sample.zones),
            self._throttle.describe(sample.throttled),
            *self._power.describe(sample.battery),
            *self._cpu.describe(load),
        ]
