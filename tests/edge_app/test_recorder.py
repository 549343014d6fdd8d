"""Recordings of sensor files: what is written, what is left out, and what survives."""

from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from trees import tree

from edge_app.clock import ManualClock
from edge_app.errors import EXIT_BUG, EXIT_USAGE, AppError
from edge_app.sensors import SysfsSensors
from edge_app.sensors.listing import ObservedRoot
from edge_app.sensors.recorder import RESCAN_S, Recorded, record
from edge_app.sensors.recording import RecordedSensors, load_recording
from edge_app.sensors.root import Attribute, SysRoot

ZONE = "sys/class/thermal/thermal_zone0"


class Changing:
    """A root whose files change with a clock: each path has texts, errors or None by the time
    from which they hold."""

    is_this_machine = False
    name = "a test"

    def __init__(self, clock: ManualClock, files: dict[str, dict[float, str | int | None]]) -> None:
        self._clock, self._files = clock, files

    def _now(self, path: str) -> str | int | None:
        values = self._files.get(path, {})
        times = [time for time in values if time <= self._clock.now()]
        return values[max(times)] if times else None

    def read(self, path: str) -> Attribute:
        value = self._now(path)
        if isinstance(value, str):
            return Attribute(value)
        return Attribute(None, errno.errorcode[value] if value else "ENOENT")

    def entries(self, path: str) -> list[str]:
        prefix = f"{path}/" if path else ""
        return sorted(
            {
                name[len(prefix) :].partition("/")[0]
                for name in self._files
                if name.startswith(prefix) and self._now(name) is not None
            }
        )


def recorded(
    tmp_path: Path,
    clock: ManualClock,
    root: Any,
    seconds: float,
    name: str = "x.jsonl.gz",
    **more: Any,
) -> tuple[Path, Recorded]:
    path = tmp_path / name
    return path, record(root, clock, path, duration_s=seconds, interval_s=1.0, **more)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_what_was_recorded_plays_back(tmp_path: Path, name: str) -> None:
    clock = ManualClock(50.0)
    start = clock.now()
    supply = "sys/class/power_supply/BAT0"
    root = Changing(
        clock,
        {
            f"{ZONE}/type": {start: "cpu-thermal"},
            f"{ZONE}/temp": {start: "48000", start + 2: errno.EAGAIN, start + 3: "49000"},
            f"{ZONE}/trip_point_0_type": {start: "critical"},
            f"{ZONE}/trip_point_0_temp": {start: "110000"},
            f"{supply}/type": {start: "Battery"},
            f"{supply}/status": {start: "Discharging"},
            f"{supply}/capacity": {start: "80", start + 4: None},
            "proc/stat": {start: "cpu  1 2 3 4\ncpu0 1 2 3 4\nintr 5"},
        },
    )
    path, result = recorded(tmp_path, clock, root, 6.0, name, note="in its case")
    assert result == Recorded(6.0, 7, 8, path.stat().st_size, False)
    assert list(tmp_path.iterdir()) == [path]
    recording = load_recording(path)
    assert recording.header["note"] == "in its case" and recording.complete
    assert recording.seconds == 6.0
    values = [recording.read(f"{ZONE}/temp", time) for time in (0.0, 1.9, 2.0, 3.0)]
    again = Attribute(None, "EAGAIN")
    assert values == [Attribute("48000"), Attribute("48000"), again, Attribute("49000")]
    assert recording.read(f"{supply}/capacity", 3.9) == Attribute("80")
    assert recording.read(f"{supply}/capacity", 4.0) == Attribute(None, "ENOENT")
    assert recording.read("proc/stat", 0.0) == Attribute("cpu  1 2 3 4"), "only its first line"

    def samples(sensors: Any, clock: ManualClock, seconds: int) -> list[Any]:
        seen = []
        for _ in range(seconds):
            sample = sensors.sample()
            seen.append((sample.zones, sample.battery))
            clock.advance(1.0)
        return seen

    live, replayed = ManualClock(start), ManualClock(start)
    root._clock = live
    assert samples(RecordedSensors(recording, replayed), replayed, 7) == samples(
        SysfsSensors(root, live), live, 7
    )


def test_files_and_devices_that_come_and_go(tmp_path: Path) -> None:
    clock = ManualClock()
    root = Changing(
        clock,
        {
            f"{ZONE}/type": {0.0: "cpu"},
            f"{ZONE}/temp": {0.0: "48000"},
            f"{ZONE}/trip_point_0_temp": {0.0: "80000", 10.0: "70000"},
            "sys/class/power_supply/hidpp_battery_0/type": {0.0: "Battery", 3.0: None},
            "sys/class/power_supply/hidpp_battery_0/capacity": {0.0: "50", 3.0: None},
            "sys/class/power_supply/BAT1/type": {5.0: "Battery"},
        },
    )
    path, _ = recorded(tmp_path, clock, root, 2 * RESCAN_S)
    recording = load_recording(path)
    supplies = "sys/class/power_supply"
    assert recording.entries(supplies, 0.0) == ["hidpp_battery_0"]
    assert recording.read(f"{supplies}/hidpp_battery_0/capacity", 3.0).error == "ENOENT"
    assert recording.entries(supplies, RESCAN_S) == ["BAT1"]
    assert recording.read(f"{ZONE}/trip_point_0_temp", RESCAN_S - 1).text == "80000"
    assert recording.read(f"{ZONE}/trip_point_0_temp", RESCAN_S).text == "70000"


def test_only_what_is_watched_is_recorded(tmp_path: Path) -> None:
    supply = "sys/class/power_supply/BAT0"
    root = tree(
        tmp_path / "root",
        {
            f"{supply}/type": "Battery",
            f"{supply}/serial_number": "31337",
            f"{supply}/uevent": "POWER_SUPPLY_SERIAL_NUMBER=31337",
            "sys/class/dmi/id/product_name": "NUC8i5BEH",
            "sys/class/dmi/id/product_uuid": "31337",
            "sys/class/dmi/id/board_serial": "31337",
            "proc/device-tree/serial-number": "31337",
            "proc/sys/kernel/hostname": "anna",
            "etc/hostname": "anna",
        },
    )
    path, _ = recorded(tmp_path, ManualClock(), SysRoot(root), 0.0, "x.jsonl")
    text = path.read_text()
    assert "31337" not in text and "anna" not in text and str(tmp_path) not in text
    assert load_recording(path).paths == [
        "sys/class/dmi/id/product_name",
        f"{supply}/type",
    ]


def test_containers_are_recorded_without_their_names(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "root",
        {
            "proc/stat": "cpu 1 2 3 4",
            "run/.containerenv": 'name="anna"\nid="31337"',
            ".dockerenv": "",
        },
    )
    path, _ = recorded(tmp_path, ManualClock(), SysRoot(root), 0.0, "x.jsonl")
    assert "anna" not in path.read_text() and "31337" not in path.read_text()
    recording = load_recording(path)
    assert recording.read("run/.containerenv", 0.0) == recording.read(".dockerenv", 0.0)
    assert recording.read(".dockerenv", 0.0) == Attribute("")


def test_drives_are_let_sleep(tmp_path: Path) -> None:
    clock = ManualClock()
    chips = "sys/class/hwmon"
    values = {
        f"{chips}/hwmon0/name": {0.0: "drivetemp"},
        f"{chips}/hwmon0/temp1_input": {0.0: "31000"},
        f"{chips}/hwmon1/name": {0.0: "coretemp"},
        f"{chips}/hwmon1/temp1_input": {0.0: "52000"},
    }
    root = ObservedRoot(Changing(clock, values))
    path, _ = recorded(tmp_path, clock, root, 2 * RESCAN_S)
    assert f"{chips}/hwmon0/temp1_input" not in root.seen
    assert load_recording(path).paths == [
        f"{chips}/hwmon0/name",
        f"{chips}/hwmon1/name",
        f"{chips}/hwmon1/temp1_input",
    ]


def test_hardware_addresses_are_replaced(tmp_path: Path) -> None:
    clock = ManualClock()
    supplies = "sys/class/power_supply"
    root = Changing(
        clock,
        {
            f"{supplies}/hid-0c:e0:dc:aa:bb:cc-battery/type": {0.0: "Battery"},
            f"{supplies}/hid-0c:e0:dc:aa:bb:cc-battery/capacity": {0.0: "70", 1.0: "69"},
            f"{supplies}/hid-0c:e0:dc:aa:bb:dd-battery/type": {0.0: "Battery"},
            "sys/class/hwmon/hwmon3/name": {0.0: "hid_0c_e0_dc_aa_bb_cc_battery"},
            f"{ZONE}/type": {0.0: "cpu"},
        },
    )
    path, _ = recorded(tmp_path, clock, root, 2.0)
    recording = load_recording(path)
    assert recording.entries(supplies, 0.0) == [
        "hid-00:00:00:00:00:01-battery",
        "hid-00:00:00:00:00:02-battery",
    ]
    name = recording.read("sys/class/hwmon/hwmon3/name", 0.0).text
    assert name == "hid_00_00_00_00_00_01_battery", "the same battery, the same address"
    assert b"dc" not in gzip.decompress(path.read_bytes())


def test_stopping_leaves_a_whole_file(tmp_path: Path) -> None:
    clock = ManualClock()
    root = Changing(clock, {f"{ZONE}/temp": {0.0: "48000"}})
    path, result = recorded(tmp_path, clock, root, 600.0, stopping=lambda: clock.now() >= 3.5)
    assert result.interrupted and result.samples == 4
    recording = load_recording(path)
    assert recording.complete and recording.seconds == 3.0
    assert json.loads(gzip.decompress(path.read_bytes()).splitlines()[-1]) == {
        "end": 3.0,
        "samples": 4,
        "interrupted": True,
    }


def test_a_slow_device_does_not_lead_to_a_burst_of_samples(tmp_path: Path) -> None:
    clock = ManualClock()

    class Slow(Changing):
        def read(self, path: str) -> Attribute:
            if clock.now() == 2.0:
                clock.advance(4.5)
            return super().read(path)

    times: list[float] = []
    root = Slow(clock, {f"{ZONE}/temp": {0.0: "48000"}})
    recorded(tmp_path, clock, root, 9.0, progress=lambda at: times.append(at.seconds))
    assert times == [0.0, 1.0, 2.0, 6.5, 7.5, 8.5, 9.0]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    lines = []
    for name in ("a.jsonl", "b.jsonl"):
        clock = ManualClock()
        root = Changing(clock, {f"{ZONE}/temp": {0.0: "48000", 2.0: "49000"}})
        path, _ = recorded(tmp_path, clock, root, 4.0, name)
        lines.append(path.read_text().splitlines()[1:])
    assert lines[0] == lines[1]
    packed, _ = recorded(tmp_path, ManualClock(), SysRoot(tmp_path), 0.0)
    flags_and_time = packed.read_bytes()[3:8]
    assert flags_and_time == bytes(5), "neither the file's name nor when it was compressed"


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    clock = ManualClock()
    root = Changing(clock, {f"{ZONE}/temp": {0.0: "48000"}})
    path = tmp_path / "x.jsonl.gz"
    path.write_text("older")
    seen: list[str] = []
    recorded(tmp_path, clock, root, 2.0, progress=lambda at: seen.append(path.read_text()))
    assert seen == ["older"] * 3
    assert load_recording(path).seconds == 2.0


def test_a_kill_keeps_what_was_recorded(tmp_path: Path) -> None:
    clock = ManualClock()
    root = Changing(
        clock, {f"{ZONE}/temp": {float(time): str(40000 + time) for time in range(100)}}
    )
    copies: list[bytes] = []

    def copy(at: Any) -> None:
        copies.append((tmp_path / "x.jsonl.gz.part").read_bytes())

    recorded(tmp_path, clock, root, 60.0, progress=copy)
    left = tmp_path / "left.jsonl.gz.part"
    left.write_bytes(copies[45])
    recording = load_recording(left)
    assert not recording.complete and 35 <= recording.seconds <= 45


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="--out .*No such file or directory; give") as caught:
        recorded(tmp_path, ManualClock(), SysRoot(tmp_path), 1.0, "no/such/x.jsonl")
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("name", ["full.jsonl", "full.jsonl.gz"])
def test_a_full_disk(tmp_path: Path, name: str) -> None:
    clock = ManualClock()
    root = Changing(clock, {f"{ZONE}/temp": {0.0: "48000"}})
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(AppError, match="cannot be written: No space left on device") as caught:
        recorded(tmp_path, clock, root, 60.0, name)
    assert caught.value.exit_code == EXIT_BUG
    assert os.listdir(tmp_path) == [name]
