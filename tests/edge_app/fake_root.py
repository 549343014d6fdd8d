"""A device in memory: its files in a dictionary, each a text, an error, or a function of time.

Errors that a kernel gives cannot be made with files in a directory, so this is a ``Root`` that the
real readers take. ``FakeRoot`` is only the files; ``Machine`` keeps those of a small board with
thermal zones, batteries, chargers and pressure information, as the kernel's ABI documents them
(Documentation/ABI/testing/sysfs-class-thermal, sysfs-class-power, Documentation/accounting/psi.rst).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from edge_app.clock import ManualClock
from edge_app.sensors import SysfsSensors
from edge_app.sensors.root import Attribute

THERMAL = "sys/class/thermal"
POWER = "sys/class/power_supply"
HWMON = "sys/class/hwmon"
CPUFREQ = "sys/devices/system/cpu/cpufreq/policy0"
TICKS_PER_S = 100
NOON = datetime(2030, 6, 1, 12, 0, tzinfo=timezone(timedelta(hours=2)))


@dataclass(frozen=True)
class Errno:
    """What ``open`` or ``read`` fails with, by name: ``Errno("ENODATA")``."""

    name: str


Value = str | Errno | None
"""What reading a path gives; None: there is no such file."""
Content = Value | Callable[[float], Value]
Below = Callable[[str], Value]


@dataclass
class Layer:
    """Something between the readers and the files: a fault.

    ``value`` is asked for every path that is read, with a function that reads what is below, and
    the seconds since the layer was laid. ``paths`` says which paths there may be; only a layer
    that adds some needs it.
    """

    value: Callable[[str, Below, float], Value]
    paths: Callable[[set[str]], set[str]] = lambda paths: paths


class FakeRoot:
    """A ``Root`` over a dictionary from path to content."""

    name = "a device in memory"
    is_this_machine = False

    def __init__(self, clock: ManualClock, files: dict[str, Content] | None = None) -> None:
        self.clock = clock
        self.files: dict[str, Content] = {} if files is None else files
        self._layers: list[tuple[Layer, float]] = []

    def lay(self, layer: Layer) -> None:
        """Put a layer on top of those that are there."""
        self._layers.append((layer, self.clock.now()))

    def lift(self, layer: Layer) -> None:
        """Take a layer away; nothing happens if it is not there."""
        self._layers = [(other, since) for other, since in self._layers if other is not layer]

    def read(self, path: str) -> Attribute:
        value = self._value(path, len(self._layers))
        if value is None:
            return Attribute(None, "ENOENT")
        if isinstance(value, Errno):
            return Attribute(None, value.name)
        return Attribute(value.strip("\0 \t\n"))

    def entries(self, path: str) -> list[str]:
        paths = set(self.files)
        for layer, _ in self._layers:
            paths = layer.paths(paths)
        prefix = path.rstrip("/") + "/"
        names: set[str] = set()
        for candidate in sorted(paths):
            if candidate.startswith(prefix):
                entry = candidate[len(prefix) :].partition("/")[0]
                if entry not in names and self._value(candidate, len(self._layers)) is not None:
                    names.add(entry)
        return sorted(names, key=lambda entry: (len(entry), entry))

    def _value(self, path: str, height: int) -> Value:
        """What ``path`` gives below the layer ``height``."""
        if height == 0:
            content = self.files.get(path)
            return content(self.clock.now()) if callable(content) else content
        layer, since = self._layers[height - 1]
        elapsed = self.clock.now() - since
        return layer.value(path, lambda other: self._value(other, height - 1), elapsed)


@dataclass
class Pack:
    """A battery of the device. Amounts in Wh and W; ``sign`` of the current as the driver has it:
    by the ABI negative while it discharges."""

    percent: float = 80.0
    full_wh: float = 20.0
    power_w: float = 5.0
    volts: float = 7.4
    status: str = "Discharging"
    present: bool = True
    sign: int = -1


@dataclass
class Machine:
    """A small board whose state is plain attributes; ``tick`` lets its time pass.

    ``celsius``: of each thermal zone, by type. ``busy``: share 0..1 of the CPU time that others
    use. ``pressure``: percent of time with some task waiting for a CPU. ``cooling``: state of the
    CPU's cooling device. ``passive_c``, ``critical_c``: trip points of all zones. ``jitter_c``: by what readings
    alternate from second to second, as no real thermometer stands still for minutes.
    """

    clock: ManualClock = field(default_factory=ManualClock)
    celsius: dict[str, float] = field(default_factory=lambda: {"cpu-thermal": 50.0})
    passive_c: float | None = 95.0
    critical_c: float | None = 110.0
    jitter_c: float = 0.1
    packs: dict[str, Pack] = field(default_factory=dict)
    chargers: dict[str, bool] = field(default_factory=dict)
    busy: float = 0.05
    pressure: float = 0.0
    cooling: int = 0
    under_voltage: bool = False
    wall: datetime = NOON

    def __post_init__(self) -> None:
        self.root = FakeRoot(self.clock)
        self._busy_ticks = self._idle_ticks = 1000.0
        self._add_cpu()
        for index, name in enumerate(self.celsius):
            self._add_zone(index, name)
        for name in self.packs:
            self._add_pack(name)
        for name in self.chargers:
            directory = f"{POWER}/{name}"
            self.root.files[f"{directory}/type"] = "Mains"
            self.root.files[f"{directory}/online"] = self._text(
                lambda n=name: int(self.chargers[n])
            )

    def sensors(self) -> SysfsSensors:
        """The real readers over this device's files."""
        return SysfsSensors(self.root, self.clock)

    def tick(self, seconds: float = 1.0) -> None:
        """Pass time; batteries in use discharge."""
        self.clock.advance(seconds)
        self.wall += timedelta(seconds=seconds)
        self._busy_ticks += self.busy * seconds * TICKS_PER_S
        self._idle_ticks += (1.0 - self.busy) * seconds * TICKS_PER_S
        for pack in self.packs.values():
            if pack.status == "Discharging":
                spent = pack.power_w * seconds / 3600.0 / pack.full_wh * 100.0
                pack.percent = max(0.0, pack.percent - spent)

    @staticmethod
    def _text(value: Callable[[], object]) -> Callable[[float], Value]:
        return lambda _: str(value())

    def _add_cpu(self) -> None:
        files = self.root.files
        files["proc/stat"] = lambda _: (
            f"cpu  {int(self._busy_ticks)} 0 0 {int(self._idle_ticks)} 0 0 0 0 0 0\n"
        )
        files["proc/pressure/cpu"] = lambda _: (
            f"some avg10={self.pressure:.2f} avg60=0.00 avg300=0.00 total=0\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
        )
        files[f"{THERMAL}/cooling_device0/type"] = "cpufreq-cpu0"
        files[f"{THERMAL}/cooling_device0/max_state"] = "4"
        files[f"{THERMAL}/cooling_device0/cur_state"] = self._text(lambda: self.cooling)
        files[f"{HWMON}/hwmon0/name"] = "rpi_volt"
        files[f"{HWMON}/hwmon0/in0_lcrit_alarm"] = self._text(lambda: int(self.under_voltage))
        files[f"{CPUFREQ}/cpuinfo_max_freq"] = "1800000"
        files[f"{CPUFREQ}/scaling_max_freq"] = "1800000"

    def _add_zone(self, index: int, name: str) -> None:
        files, directory = self.root.files, f"{THERMAL}/thermal_zone{index}"
        files[f"{directory}/type"] = name
        files[f"{directory}/mode"] = "enabled"
        files[f"{directory}/temp"] = lambda now: str(
            round((self.celsius[name] + self.jitter_c * (-1) ** int(now)) * 1000)
        )
        trips = {"passive": self.passive_c, "critical": self.critical_c}
        known = [(kind, celsius) for kind, celsius in trips.items() if celsius is not None]
        for number, (kind, celsius) in enumerate(known):
            files[f"{directory}/trip_point_{number}_type"] = kind
            files[f"{directory}/trip_point_{number}_temp"] = str(round(celsius * 1000))

    def _add_pack(self, name: str) -> None:
        pack = self.packs[name]

        def micro(value: Callable[[], float]) -> Callable[[float], Value]:
            return self._text(lambda: round(value() * 1e6))

        contents: dict[str, Content] = {
            "type": "Battery",
            "present": self._text(lambda: int(pack.present)),
            "status": self._text(lambda: pack.status),
            "capacity": self._text(lambda: round(pack.percent)),
            "energy_full": micro(lambda: pack.full_wh),
            "energy_now": micro(lambda: pack.full_wh * pack.percent / 100.0),
            "voltage_now": micro(lambda: pack.volts),
            "current_now": micro(lambda: pack.sign * pack.power_w / pack.volts),
        }
        for attribute, content in contents.items():
            self.root.files[f"{POWER}/{name}/{attribute}"] = content


def changed(
    wanted: Callable[[str], bool], change: Callable[[str, float], Value]
) -> Callable[[str, Below, float], Value]:
    """A layer's ``value`` that changes the text of the wanted paths and leaves the rest alone.

    ``change`` gets the text that is there and the seconds since the layer was laid; it is not
    asked about files that are not there or give an error anyway.
    """

    def value(path: str, below: Below, elapsed: float) -> Value:
        there = below(path)
        return change(there, elapsed) if isinstance(there, str) and wanted(path) else there

    return value


def without(paths: Iterable[str]) -> Layer:
    """A layer below which these paths, and all that lies in them, are gone."""
    gone = tuple(paths)

    def value(path: str, below: Below, _: float) -> Value:
        if any(path == other or path.startswith(other + "/") for other in gone):
            return None
        return below(path)

    return Layer(value)
