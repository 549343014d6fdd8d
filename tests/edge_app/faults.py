"""The fault catalogue: what sensors, batteries and clocks are known to do to a governor.

Each ``Fault`` begins on a ``Machine`` and ends again; the real readers meet it as they would on a
device. Faults that no sensor is part of (a policy half written, a full disk, a camera that hangs)
are scripts in ``test_fault_catalogue_scripts``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase

from fake_root import (
    CPUFREQ,
    HWMON,
    POWER,
    THERMAL,
    Below,
    Errno,
    Layer,
    Machine,
    Value,
    changed,
    without,
)

ZONE = f"{THERMAL}/thermal_zone0"
TEMPERATURE = f"{ZONE}/temp"
SECOND = f"{THERMAL}/thermal_zone1"
SPIKE_PERIOD_S = 60
HOUR_S, DAY_S = 3600.0, 86400.0

End = Callable[[], None]


@dataclass(frozen=True)
class Fault:
    """``begin`` disturbs a machine and returns what puts it right again.

    ``blinds``: whether the only thermometer says nothing that can be believed meanwhile.
    """

    name: str
    what: str
    begin: Callable[[Machine], End]
    blinds: bool = False


def _layer(make: Callable[[Machine], Layer]) -> Callable[[Machine], End]:
    def begin(machine: Machine) -> End:
        layer = make(machine)
        machine.root.lay(layer)
        return lambda: machine.root.lift(layer)

    return begin


def _once(happen: Callable[[Machine], None]) -> Callable[[Machine], End]:
    """Something that happens and is over: nothing to put right."""

    def begin(machine: Machine) -> End:
        happen(machine)
        return lambda: None

    return begin


def _reads(pattern: str, change: Callable[[str, float], Value]) -> Callable[[Machine], End]:
    """Files that match ``pattern`` read differently."""
    return _layer(lambda _: Layer(changed(lambda path: fnmatchcase(path, pattern), change)))


def _temperature_is(value: Value) -> Callable[[Machine], End]:
    return _reads(TEMPERATURE, lambda text, elapsed: value)


def _number(change: Callable[[int, float], int]) -> Callable[[str, float], Value]:
    """Changes whole numbers; what another fault has made nonsense of stays nonsense."""

    def changed_text(text: str, elapsed: float) -> Value:
        try:
            return str(change(int(text), elapsed))
        except ValueError:
            return text

    return changed_text


def _spike(text: str, elapsed: float) -> Value:
    return "124000" if int(elapsed) % SPIKE_PERIOD_S == SPIKE_PERIOD_S // 2 else text


def _stuck(machine: Machine) -> Layer:
    held = machine.root.read(TEMPERATURE).text
    return Layer(changed(lambda path: path == TEMPERATURE, lambda text, elapsed: held))


def _slow(machine: Machine) -> Layer:
    """Reading blocks for 2 s; no other time passes for the reader."""

    def change(text: str, elapsed: float) -> Value:
        machine.tick(2.0)
        return text

    return Layer(changed(lambda path: path == TEMPERATURE, change))


def _moved(old: str, new: str) -> Layer:
    """A directory has another name."""

    def value(path: str, below: Below, elapsed: float) -> Value:
        if path == old or path.startswith(old + "/"):
            return None
        if path.startswith(new + "/"):
            return below(old + path[len(new) :])
        return below(path)

    def paths(there: set[str]) -> set[str]:
        return {new + path[len(old) :] if path.startswith(old + "/") else path for path in there}

    return Layer(value, paths)


def _added(files: dict[str, str]) -> Layer:
    """Files that were not there before."""
    return Layer(
        lambda path, below, elapsed: files.get(path, below(path)),
        lambda there: there | set(files),
    )


def _second_zone(machine: Machine) -> End:
    """It stays when the fault is over, and agrees: a zone that goes away is another fault."""
    files = {f"{SECOND}/type": "soc-thermal", f"{SECOND}/temp": "84000"}
    machine.root.lay(_added(files))

    def end() -> None:
        machine.root.files[f"{SECOND}/temp"] = machine.root.files[TEMPERATURE]
        del files[f"{SECOND}/temp"]

    return end


def _gauge_jumps(text: str, elapsed: float) -> Value:
    return ("100", "0", "55")[int(elapsed) // 3 % 3]


def _without_energy(machine: Machine) -> Layer:
    """A gauge that gives percent only and jumps: 100, 0, 55."""

    def value(path: str, below: Below, elapsed: float) -> Value:
        if fnmatchcase(path, f"{POWER}/BAT*/energy_*"):
            return None
        text = below(path)
        jumps = isinstance(text, str) and fnmatchcase(path, f"{POWER}/BAT*/capacity")
        return _gauge_jumps("", elapsed) if jumps else text

    return Layer(value)


def _charger_flaps(machine: Machine) -> Layer:
    """The charger comes and goes each second, and the batteries' status with it."""

    def value(path: str, below: Below, elapsed: float) -> Value:
        text = below(path)
        plugged = int(elapsed) % 2 == 1
        if not isinstance(text, str):
            return text
        if fnmatchcase(path, f"{POWER}/AC*/online"):
            return str(int(plugged))
        if fnmatchcase(path, f"{POWER}/BAT*/status"):
            return "Charging" if plugged else "Discharging"
        return text

    return Layer(value)


def _second_battery(machine: Machine) -> Layer:
    directory = f"{POWER}/BAT9"
    files = {"type": "Battery", "present": "1", "status": "Unknown", "capacity": "100"}
    files |= {"energy_full": "20000000", "energy_now": "20000000", "power_now": "0"}
    return _added({f"{directory}/{name}": text for name, text in files.items()})


def _wall(jump: timedelta) -> Callable[[Machine], End]:
    def happen(machine: Machine) -> None:
        machine.wall += jump

    return _once(happen)


def _quota(machine: Machine) -> Layer:
    return _added(
        {
            "sys/fs/cgroup/cpu.max": "50000 100000",
            "sys/fs/cgroup/cpu.stat": "usage_usec 1\nnr_periods 100\nnr_throttled 90\n",
        }
    )


MOUSE = {
    f"{POWER}/hidpp_battery_0/{name}": text
    for name, text in {
        "type": "Battery",
        "scope": "Device",
        "present": "1",
        "status": "Discharging",
        "capacity": "3",
    }.items()
}
BROKEN_READS = (
    ("ENODATA", "a zone that is disabled"),
    ("EAGAIN", "a driver that is busy: not an OSError in Python's buffered files"),
    ("EIO", "a bus that does not answer"),
    ("EINVAL", "a driver without calibration"),
    ("EACCES", "a file that only root may read"),
)
NONSENSE = (
    ("empty", "", "an empty file"),
    ("not a number", "N/A", "text instead of a number"),
    ("zero", "0", "a sensor that is switched off"),
    ("absolute zero", "-273150", "a sentinel: no temperature known"),
    ("unset", "-32768000", "a sentinel: a register that nobody wrote"),
    ("largest integer", str(2**31 - 1), "an overflow"),
    ("degrees", "61", "degrees where millidegrees are due"),
)

CATALOGUE = (
    Fault("missing file", "the temperature file is gone", _temperature_is(None), blinds=True),
    Fault(
        "directory vanishes",
        "the whole zone is gone in mid-run",
        _layer(lambda _: without([ZONE])),
        blinds=True,
    ),
    *(Fault(name, what, _temperature_is(Errno(name)), blinds=True) for name, what in BROKEN_READS),
    *(Fault(name, what, _temperature_is(text), blinds=True) for name, text, what in NONSENSE),
    Fault("stuck", "the temperature keeps its value for ever", _layer(_stuck)),
    Fault("slow read", "reading the temperature blocks for 2 s", _layer(_slow)),
    Fault("spike", "124 °C for one reading a minute", _reads(TEMPERATURE, _spike)),
    Fault("drift", "10 °C too much", _reads(TEMPERATURE, _number(lambda milli, t: milli + 10_000))),
    Fault(
        "drift down",
        "10 °C too little, slowly",
        _reads(TEMPERATURE, _number(lambda milli, t: milli - min(10_000, int(20 * t)))),
    ),
    Fault(
        "step",
        "30 °C more from one second to the next",
        _reads(TEMPERATURE, _number(lambda milli, t: milli + 30_000)),
    ),
    Fault(
        "zone renumbered",
        "thermal_zone0 is thermal_zone7 from now on",
        _layer(lambda _: _moved(ZONE, f"{THERMAL}/thermal_zone7")),
    ),
    Fault("two zones disagree", "another zone says 84 °C", _second_zone),
    Fault(
        "hwmon renamed",
        "hwmon0 is hwmon5 after a resume",
        _layer(lambda _: _moved(f"{HWMON}/hwmon0", f"{HWMON}/hwmon5")),
    ),
    Fault("battery jumps", "the gauge says 100, 0, 55 %", _layer(_without_energy)),
    Fault(
        "current sign flipped",
        "a positive current while discharging",
        _reads(f"{POWER}/BAT*/current_now", _number(lambda micro, t: -micro)),
    ),
    Fault("charger flaps", "plugged and unplugged each second", _layer(_charger_flaps)),
    Fault(
        "time to empty is nonsense",
        "31 years, from a gauge of 15 %",
        _layer(lambda _: _added({f"{POWER}/BAT0/time_to_empty_now": "999999999"})),
    ),
    Fault("no battery", "all batteries are pulled", _layer(lambda _: without([f"{POWER}/BAT0"]))),
    Fault("two batteries", "a second, full one appears", _layer(_second_battery)),
    Fault("mouse battery", "a mouse with 3 %", _layer(lambda _: _added(MOUSE))),
    Fault("suspend", "an hour passes between two readings", _once(lambda m: m.tick(HOUR_S))),
    Fault("clock a day ahead", "the wall clock leaps forward", _wall(timedelta(days=1))),
    Fault("clock a day back", "the wall clock leaps back", _wall(timedelta(days=-1))),
    Fault(
        "no pressure information",
        "a kernel without PSI",
        _layer(lambda _: without(["proc/pressure"])),
    ),
    Fault("cgroup quota", "the container may use half a CPU", _layer(_quota)),
    Fault(
        "kernel throttles",
        "the CPU's cooling device is in use",
        _reads(f"{THERMAL}/cooling_device0/cur_state", lambda text, t: "2"),
    ),
    Fault(
        "frequency capped",
        "the highest frequency allowed falls to a third",
        _reads(f"{CPUFREQ}/scaling_max_freq", lambda text, t: "600000"),
    ),
    Fault(
        "weak power supply",
        "under-voltage",
        _reads(f"{HWMON}/hwmon*/in0_lcrit_alarm", lambda text, t: "1"),
    ),
)
FAULTS = {fault.name: fault for fault in CATALOGUE}
BLINDING = tuple(fault.name for fault in CATALOGUE if fault.blinds)
