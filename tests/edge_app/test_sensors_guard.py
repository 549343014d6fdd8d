"""The guard against reads that hang."""

from __future__ import annotations

import threading
import time as real_time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from governor_samples import make_governor

from edge_app.clock import ManualClock, RealClock
from edge_app.sensors import Battery, Quality, Reading, Sample, SensorStatus, SysfsSensors, Zone
from edge_app.sensors.guard import HANGS, HANGS_AFTER_S, GuardedRoot, GuardedSensors, aged
from edge_app.sensors.recorder import record
from edge_app.sensors.recording import RecordedRoot, load_recording
from edge_app.sensors.root import Attribute, SysRoot

TEMP = "sys/class/thermal/thermal_zone0/temp"
WALL = datetime(2030, 6, 1, 12, 0, tzinfo=UTC)


class Clock(ManualClock):
    """Waits for a healthy read however long it takes; passes its time only for one that hangs."""

    hangs = False

    def __init__(self, reached: threading.Event | None = None) -> None:
        super().__init__()
        self._reached = reached

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if self.hangs:
            assert self._reached is not None and self._reached.wait(60.0)
            self.advance(seconds)
            return event.is_set()
        return event.wait(60.0)


class HangingRoot(SysRoot):
    """Real files, one of which may keep its reader waiting."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        self.waiting = 0
        self.most_waiting = 0

    def read_bytes(self, path: str) -> bytes:
        if path == TEMP:
            self.waiting += 1
            self.most_waiting = max(self.waiting, self.most_waiting)
            self.reached.set()
            self.open.wait(60.0)
            self.waiting -= 1
        return super().read_bytes(path)


class Guarded:
    """A guarded board with one zone."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / TEMP
        self.file.parent.mkdir(parents=True)
        self.heat(48.0)
        (self.file.parent / "type").write_text("cpu-thermal\n")
        self.root = HangingRoot(directory)
        self.clock = Clock(self.root.reached)
        self.sensors = GuardedSensors(SysfsSensors(self.root, self.clock), self.clock)

    def heat(self, celsius: float) -> None:
        self.file.write_text(f"{celsius * 1000:.0f}\n")

    def hang(self) -> None:
        self.root.open.clear()
        self.root.reached.clear()
        self.clock.hangs = True

    def zone(self) -> Reading:
        (zone,) = self.sensors.sample().zones
        return zone.reading

    def recovered(self) -> Reading:
        """The first sound reading after the file answers again."""
        self.clock.hangs = False
        self.root.open.set()
        for _ in range(10_000):
            reading = self.zone()
            if reading.ok:
                return reading
            real_time.sleep(0.001)
        raise AssertionError("never recovered")


@pytest.fixture
def board(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path)


def test_sound_sensors_pass(board: Guarded) -> None:
    assert board.zone() == Reading(48.0, 0.0, Quality.OK, "cpu-thermal")
    assert "48.0 °C" in board.sensors.describe()[0].detail


def test_read_that_hangs_is_stale_then_missing_then_back(board: Guarded) -> None:
    assert board.zone().ok
    board.hang()
    assert board.zone() == Reading(48.0, 0.0, Quality.STALE, "cpu-thermal")
    assert board.clock.now() == HANGS_AFTER_S, "waited once"
    board.clock.advance(3.0)
    assert board.zone().quality is Quality.STALE
    board.clock.advance(1.0)
    assert board.zone() == Reading(None, 6.0, Quality.MISSING, "cpu-thermal")
    assert board.clock.now() == 6.0, "did not wait again"
    assert board.root.most_waiting == 1, "nobody else was sent after it"
    reading = board.recovered()
    assert reading.value == 48.0 and reading.time == 6.0, "a fresh one, not what came late"


def test_what_hangs_is_named(board: Guarded) -> None:
    board.sensors.sample()
    board.hang()
    board.sensors.sample()
    board.clock.advance(9.0)
    (status,) = board.sensors.describe()
    assert status.quality is Quality.MISSING
    assert "11 s" in status.detail and "thermal_zone0/temp" in status.detail
    assert board.recovered().ok
    assert len(board.sensors.describe()) > 1


def test_first_read_that_hangs_is_not_taken_for_a_device_without_sensors(board: Guarded) -> None:
    board.hang()
    governor = make_governor()
    for _ in range(20):
        decision = governor.step(board.sensors.sample())
        board.clock.advance(1.0)
    assert decision.cause == "failsafe"
    assert board.recovered().ok
    for second in range(300):
        board.heat(48.0 + 0.1 * (second % 7))
        decision = governor.step(board.sensors.sample())
        board.clock.advance(1.0)
    assert decision.cause != "failsafe"


class Broken:
    """A source with a mistake in it."""

    def sample(self) -> Sample:
        raise ZeroDivisionError("a mistake")

    def describe(self) -> list[SensorStatus]:
        raise ZeroDivisionError("a mistake")


def test_mistakes_reach_whoever_asked() -> None:
    sensors = GuardedSensors(Broken(), Clock())
    for call in (sensors.sample, sensors.describe):
        with pytest.raises(ZeroDivisionError, match="a mistake"):
            call()


def test_everything_ages() -> None:
    def reading(name: str, quality: Quality = Quality.OK) -> Reading:
        return Reading(1.0, 10.0, quality, name)

    sample = Sample(
        time=10.0,
        zones=(
            Zone("good", reading("good"), 80.0, 90.0),
            Zone("odd", reading("odd", Quality.IMPLAUSIBLE)),
        ),
        battery=Battery(True, reading("battery"), True, False, reading("e"), reading("p"), 99.0),
        throttled=reading("throttled"),
        under_voltage=reading("under-voltage"),
        other_load=reading("load"),
        cpu_pressure=reading("pressure"),
        cpu_limit=reading("limit"),
        wall=WALL,
    )

    def qualities(aged_sample: Sample) -> list[Quality]:
        battery = aged_sample.battery
        readings = [zone.reading for zone in aged_sample.zones]
        readings += [battery.charge, battery.energy, battery.power, aged_sample.throttled]
        readings += [aged_sample.under_voltage, aged_sample.other_load, aged_sample.cpu_pressure]
        return [reading.quality for reading in [*readings, aged_sample.cpu_limit]]

    soon, late = aged(sample, 12.0), aged(sample, 16.0)
    stale = Quality.STALE
    assert qualities(soon) == [stale, Quality.IMPLAUSIBLE] + [stale] * 8
    assert qualities(late) == [Quality.MISSING] * 10
    assert soon.power.quality is late.power.quality is Quality.ABSENT, "there was never one"
    assert (soon.battery.discharging, soon.battery.on_ac) == (True, False)
    assert (late.battery.discharging, late.battery.on_ac) == (None, None)
    assert late.zones[0].passive_c == 80.0 and late.battery.full_j == 99.0
    assert late.time == 16.0 and late.wall is not None and (late.wall - WALL).seconds == 6


def test_real_clock(tmp_path: Path) -> None:
    clock = RealClock(speed=0.01)  # two seconds are more than three minutes
    sensors = GuardedSensors(SysfsSensors(tmp_path, clock), clock)
    assert sensors.sample().zones == ()


# File by file, for commands ----------------------------------------------------------------------

BATTERY = "sys/class/power_supply/BAT0/capacity"


@pytest.fixture
def hanging(tmp_path: Path) -> HangingRoot:
    """A board whose temperature can be made to hang, and whose battery cannot."""
    for path, text in ((TEMP, "48000"), (BATTERY, "80")):
        file = tmp_path / path
        file.parent.mkdir(parents=True)
        file.write_text(text + "\n")
    (tmp_path / TEMP).with_name("type").write_text("cpu-thermal\n")
    (tmp_path / BATTERY).with_name("type").write_text("Battery\n")
    return HangingRoot(tmp_path)


class Patient(RealClock):
    """Waits only for reads that return."""

    def __init__(self, root: HangingRoot) -> None:
        super().__init__()
        self._root = root

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if self._root.open.is_set():
            return event.wait(60.0)
        # Whatever else is read meanwhile returns at once.
        deadline = real_time.monotonic() + 60.0
        while not event.wait(0.01) and not self._root.reached.is_set():
            assert real_time.monotonic() < deadline
        self._root.reached.clear()
        return event.wait(0.05)


def test_only_the_file_that_hangs_is_missing(hanging: HangingRoot) -> None:
    root = GuardedRoot(hanging, Patient(hanging))
    assert root.read(TEMP).text == "48000" and root.name == str(hanging.root)
    assert not root.is_this_machine
    hanging.open.clear()
    hanging.reached.clear()
    assert root.read(TEMP) == HANGS == Attribute(None, "ETIMEDOUT")
    assert HANGS.exists, "it is there, and gives no value"
    begin = real_time.monotonic()
    for _ in range(100):
        assert root.read(TEMP) == HANGS
        assert root.read(BATTERY).text == "80"
    assert real_time.monotonic() - begin < 30.0 and hanging.most_waiting == 1
    hanging.open.set()
    # What was read too late is dropped; the next read is a new one.
    until = real_time.monotonic() + 60.0
    while root.read(TEMP) == HANGS:
        assert real_time.monotonic() < until
    assert root.read(TEMP).text == "48000"
    assert root.entries("sys/class/thermal") == ["thermal_zone0"]


def test_a_guarded_read_raises_what_it_raised() -> None:
    class Broken(SysRoot):
        def entries(self, path: str) -> list[str]:
            raise MemoryError(path)

    with pytest.raises(MemoryError, match="sys/class"):
        GuardedRoot(Broken(), RealClock()).entries("sys/class")


def test_a_recording_tells_which_file_hangs(hanging: HangingRoot, tmp_path: Path) -> None:
    hanging.open.clear()
    target, clock = tmp_path / "hang.jsonl", Patient(hanging)
    recorded = record(GuardedRoot(hanging, clock), clock, target, duration_s=0.2, interval_s=0.1)
    hanging.open.set()
    assert recorded.samples >= 2
    played = RecordedRoot(load_recording(target), ManualClock())
    assert played.read(TEMP) == HANGS
    assert played.read(BATTERY).text == "80"
