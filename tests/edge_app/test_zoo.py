"""Recordings of eight kinds of machines, played through the readers and the governor.

Each recording in ``zoo/`` was written by hand after the kernel's ABI documentation, with the traps
that such machines set. Beside it is what the sensors make of it. After a change of the readers that
is meant to change this, ``WRITE_GOLDEN=1 pytest tests/edge_app/test_zoo.py`` writes the texts anew;
look at the difference before it is committed.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.clock import ManualClock
from edge_app.governor import Decision, Governor, load_policy
from edge_app.replaying import sample_json
from edge_app.sensors import Quality, Sample, SysfsSensors
from edge_app.sensors.listing import Listed, ObservedRoot, SensorList
from edge_app.sensors.recorder import record
from edge_app.sensors.recording import RecordedRoot, RecordedSensors, load_recording
from edge_app.sensors.watched import WATCHED, watched_paths

ZOO = Path(__file__).parent / "zoo"
ANIMALS = sorted(path.stem for path in ZOO.glob("*.jsonl"))
POLICY = load_policy(None)
LEVELS = {2: 0.003, 4: 0.005, 6: 0.008, 8: 0.010}
JOULES_PER_WH = 3600.0


def described(name: str) -> str:
    """What `describe` says soon after the start, in the middle and at the end."""
    clock = ManualClock()
    sensors = RecordedSensors(load_recording(ZOO / f"{name}.jsonl"), clock)
    end = int(sensors.seconds)
    lines = []
    for second in range(end + 1):
        sensors.sample()
        if second in (1, end // 2, end):
            lines.append(f"after {second} s")
            for status in sensors.describe():
                quality = status.quality.value
                lines.append(f"  {status.name:<36} {quality:<12} {status.what}: {status.detail}")
        clock.advance(1.0)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", ANIMALS)
def test_description(name: str) -> None:
    golden = ZOO / f"{name}.txt"
    text = described(name)
    if os.environ.get("WRITE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@dataclass
class Story:
    """A recording played to its end at one sample a second."""

    samples: list[Sample] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    obeyed: set[str] = field(default_factory=set)

    def causes(self) -> set[str]:
        return {decision.cause for decision in self.decisions}

    def when(self, name: str) -> list[int]:
        """Seconds at which this reading of the sample was 1."""
        readings = [getattr(sample, name) for sample in self.samples]
        return [second for second, reading in enumerate(readings) if reading.value == 1]

    def zone(self, name: str, second: int = 0) -> float | None:
        """Its temperature if it can be trusted."""
        readings = {zone.name: zone.reading for zone in self.samples[second].zones}
        return readings[name].value if readings[name].ok else None

    def trips(self, name: str) -> tuple[float | None, float | None]:
        zones = {zone.name: zone for zone in self.samples[0].zones}
        return zones[name].passive_c, zones[name].critical_c

    def quality(self, name: str, second: int = 0) -> Quality:
        return {zone.name: zone.reading.quality for zone in self.samples[second].zones}[name]

    def events(self) -> list[str]:
        return [event.kind for decision in self.decisions for event in decision.events]


def play(name: str) -> Story:
    clock = ManualClock()
    sensors = RecordedSensors(load_recording(ZOO / f"{name}.jsonl"), clock)
    governor = Governor(POLICY, tuple(LEVELS), LEVELS, clock)
    story = Story()
    while clock.now() <= sensors.seconds:
        sample = sensors.sample()
        story.samples.append(sample)
        story.decisions.append(governor.step(sample))
        story.obeyed |= {zone.name for zone in sample.zones if governor.obeys(zone.name)}
        clock.advance(1.0)
    return story


def test_raspberry_pi_4() -> None:
    story = play("raspberry-pi-4")
    assert story.obeyed == {"cpu-thermal"} and story.trips("cpu-thermal") == (None, 110.0)
    assert set(story.when("under_voltage")) == set(range(60, 165))
    assert set(story.when("throttled")) >= set(range(60, 165))
    assert not story.samples[0].battery.present and story.samples[0].power.quality is Quality.ABSENT
    assert {"under_voltage", "throttled"} <= set(story.events())
    weak = story.decisions[60]
    assert (weak.cause, weak.bits) == ("throttle", 2)
    assert min(decision.bits for decision in story.decisions) == 2
    assert "failsafe" not in story.causes()


def test_raspberry_pi_5() -> None:
    story = play("raspberry-pi-5")
    assert story.obeyed == {"cpu-thermal"} and story.trips("cpu-thermal") == (None, 110.0)
    fans = {reading.value for reading in (sample.throttled for sample in story.samples)}
    assert fans == {0.0}, "a fan that turns does not hold the CPU down"
    assert story.when("under_voltage") == []
    assert story.zone("hwmon/rp1_adc/temp1") is not None
    assert "failsafe" not in story.causes()


def test_jetson_orin_nano() -> None:
    story = play("jetson-orin-nano")
    assert story.obeyed == {f"{name}-thermal" for name in ("cpu", "soc0", "soc1", "soc2", "tj")}
    assert story.trips("cpu-thermal") == story.trips("tj-thermal") == (99.0, 104.5)
    for second in (0, 100):
        assert story.quality("cv0-thermal", second) is Quality.IMPLAUSIBLE
        assert story.quality("cv1-thermal", second) is Quality.MISSING
        assert story.quality("PMIC-Die", second) is Quality.ABSENT
    power = story.samples[0].power
    assert power.value == pytest.approx(4.984 * 0.960) and "VDD_IN" in power.name
    assert story.samples[100].power.value == pytest.approx(4.952 * 1.91, rel=0.01)
    assert story.when("throttled") == []
    assert story.causes() == {"none"}, "units that are off are no reason for anything"


def test_rk3588() -> None:
    story = play("rk3588")
    assert story.obeyed == {"soc-thermal"}
    assert story.trips("soc-thermal") == (75.0, 115.0)
    assert story.trips("bigcore0-thermal") == (None, 115.0)
    throttled = story.when("throttled")
    assert throttled and all(40 < second < 110 for second in throttled)
    limits = {sample.cpu_limit.value for sample in story.samples}
    assert limits == {1.0, 0.75}
    assert story.samples[0].battery.on_ac is True and not story.samples[0].battery.present
    lowest = next(decision for decision in story.decisions if decision.rung == 0)
    assert lowest.cause == "thermal" and lowest.time < throttled[0], "before the kernel does it"
    assert "failsafe" not in story.causes()


def test_intel_nuc() -> None:
    story = play("intel-nuc")
    assert story.obeyed == {"acpitz", "acpitz#2", "x86_pkg_temp"}
    assert story.trips("x86_pkg_temp") == (None, None), "trip points of 0 are unset ones"
    assert story.trips("iwlwifi_1") == (None, None)
    assert story.trips("B0D4") == (None, None), "nothing gets as hot as 127 °C"
    assert story.quality("acpitz") is Quality.IMPLAUSIBLE
    assert story.quality("acpitz#2", 400) is Quality.STUCK
    assert story.quality("iwlwifi_1", 400) is Quality.ABSENT, "switched off, not broken"
    assert story.zone("x86_pkg_temp", 200) == 74.0
    assert not any("nvme" in zone.name for zone in story.samples[0].zones)
    assert {sample.power.quality for sample in story.samples} == {Quality.ABSENT}
    assert story.when("throttled") == [], "powerclamp's state is -1 while it does nothing"
    assert story.causes() == {"none", "thermal"}
    assert not any("sensor" in kind for kind in story.events())


def test_laptop_with_two_batteries_and_a_mouse() -> None:
    story = play("laptop-two-batteries")
    first, last = story.samples[0].battery, story.samples[-1].battery
    assert first.present and first.discharging is True and first.on_ac is False
    assert first.full_j == pytest.approx((20.12 + 54.87) * JOULES_PER_WH)
    assert first.energy.value == pytest.approx((19.31 + 31.42) * JOULES_PER_WH)
    assert first.charge.value == pytest.approx((0.95 * 20.12 + 0.57 * 54.87) / 74.99)
    assert first.power.value == pytest.approx(8.745)
    assert last.discharging is False and last.on_ac is True
    assert last.power.value == pytest.approx(-21.3), "it charges"
    plugged = [sample.battery.discharging for sample in story.samples]
    assert plugged.index(False) == 150
    used = story.samples[0].power
    assert used.value == pytest.approx(8.745) and "battery" in used.name
    drained = (first.energy.value or 0.0) - (story.samples[149].battery.energy.value or 0.0)
    assert drained == pytest.approx(8.8 * 140, rel=0.05)
    assert {sample.battery.charge.quality for sample in story.samples} == {Quality.OK}
    assert story.quality("hwmon/thinkpad/GPU") is Quality.ABSENT
    assert story.obeyed == {"acpitz", "x86_pkg_temp"}
    assert "failsafe" not in story.causes()


@pytest.mark.parametrize("name", ["vm", "container"])
def test_machines_that_feel_nothing(name: str) -> None:
    story = play(name)
    assert story.obeyed == set() and not story.samples[0].battery.present
    assert story.causes() == {"failsafe"}
    assert {decision.bits for decision in story.decisions} == {4}
    assert story.events() == ["no_thermal_sensor"]
    assert story.when("throttled") == []


def test_the_vm_s_stolen_time_is_the_load_of_others() -> None:
    loads = [sample.other_load.value for sample in play("vm").samples[1:]]
    assert all(load == pytest.approx(0.46, abs=0.03) for load in loads)


NONSENSE = (
    *("", "0", "-1", "61", "N/A", "nan", "inf", "1e9", "1_000", "0x1f", "\x00", "\ud800", "\u0663"),
    *("NC", "a#b", "-273150", "-32768000", "2147483647", "9" * 400, "9" * 5000, "-" + "9" * 400),
    *("cpu  " + "9 " * 10, "cpu  " + "9" * 400 + " 1 1 1 1", "cpu 1 2 3", "some avg10=1e999"),
    *("some avg10=" + "9" * 400, "max 100000", "100000 0", "100000 " + "9" * 400),
    *("nr_periods " + "9" * 400 + "\nnr_throttled 3", "Discharging", "Battery", "disabled"),
)
ERRORS = ("ENODATA", "EAGAIN", "EIO", "EINVAL", "EACCES", "ENODEV", "ENXIO")


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_no_content_of_any_file_stops_readers_or_governor(data: st.DataObject) -> None:
    """A recording comes from a stranger, and a driver may say anything."""
    name = data.draw(st.sampled_from(ANIMALS))
    lines = [json.loads(line) for line in (ZOO / f"{name}.jsonl").read_text().splitlines()]
    content = st.one_of(
        st.sampled_from(NONSENSE),
        st.builds(lambda error: {"errno": error}, st.sampled_from(ERRORS)),
        st.none(),
    )
    start = [row for row in lines[1:] if isinstance(row, list) and row[0] == 0]
    changed = {
        index: [data.draw(content), data.draw(content)]
        for index in data.draw(st.sets(st.integers(0, len(start) - 1), min_size=1, max_size=8))
    }
    later = []
    for index, (first, second) in changed.items():
        start[index][2] = first
        later.append([3, start[index][1], second])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in (lines[0], *start, *later)))
        recording = load_recording(path)
    clock = ManualClock()
    root = RecordedRoot(recording, clock)
    sensors, listed = SysfsSensors(root, clock), SensorList(root, clock)
    governor = Governor(POLICY, tuple(LEVELS), LEVELS, clock)
    for _ in range(7):
        sample = sensors.sample()
        decision = governor.step(sample)
        assert decision.bits in LEVELS and sensors.describe()
        for value in (sample_json(sample), decision.to_json(), *map(Listed.to_json, listed.read())):
            json.dumps(value, allow_nan=False)
        clock.advance(1.0)


# --- the recorder and the zoo ------------------------------------------------------------------


def is_watched(path: str) -> bool:
    directory, _, name = path.rpartition("/")
    parts = directory.split("/")
    return any(
        len(parts) == len(pattern := watched.directory.split("/"))
        and all(fnmatchcase(part, like) for part, like in zip(parts, pattern, strict=True))
        and any(fnmatchcase(name, like) for like in f"{watched.live} {watched.fixed}".split())
        for watched in WATCHED
    )


@pytest.mark.parametrize("name", ANIMALS)
def test_everything_that_is_read_would_be_recorded(name: str) -> None:
    clock = ManualClock()
    root = ObservedRoot(RecordedRoot(load_recording(ZOO / f"{name}.jsonl"), clock))
    sensors = SysfsSensors(root, clock)
    for _ in range(100):
        sensors.sample()
        clock.advance(1.0)
    # Our own control group: that of whoever records is another one.
    own = {"proc/self/cgroup"}
    assert {path for path in root.seen if not is_watched(path)} <= own
    assert {path for path in watched_paths(root) if not is_watched(path)} == set()


@pytest.mark.parametrize("name", ANIMALS)
def test_a_recording_of_a_recording_gives_the_same_samples(name: str, tmp_path: Path) -> None:
    clock = ManualClock()
    original = load_recording(ZOO / f"{name}.jsonl")
    seconds = min(original.seconds, 120.0)
    path = tmp_path / f"{name}.jsonl.gz"
    record(RecordedRoot(original, clock), clock, path, duration_s=seconds, interval_s=1.0)
    samples = []
    for recording in (original, load_recording(path)):
        clock = ManualClock()
        sensors = SysfsSensors(RecordedRoot(recording, clock), clock)
        played = []
        while clock.now() <= seconds:
            played.append(sensors.sample())
            clock.advance(1.0)
        samples.append(played)
    assert samples[0] == samples[1]
