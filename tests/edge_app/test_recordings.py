"""Recordings of sensor files: reading them back, and what is wrong with a file."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from edge_app.clock import ManualClock
from edge_app.errors import EXIT_USAGE, AppError
from edge_app.recordings import find_trace, open_recording
from edge_app.sensors import Quality
from edge_app.sensors import recording as recording_module
from edge_app.sensors.recording import FORMAT, RecordedRoot, RecordedSensors, load_recording
from edge_app.sensors.root import Attribute

HEADER = {
    "recording": FORMAT,
    "made_by": "a test",
    "note": "written by hand",
    "wall": "2026-05-01T14:00:00+02:00",
}
ZONE = "sys/class/thermal/thermal_zone0"


def written(path: Path, *rows: Any, header: Any = HEADER) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in (header, *rows))
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_files_have_the_value_of_their_time(tmp_path: Path, name: str) -> None:
    path = written(
        tmp_path / name,
        [0, f"{ZONE}/type", "cpu-thermal"],
        [0, f"{ZONE}/temp", "48000\n"],
        [0, "sys/class/thermal/thermal_zone10/temp", "1"],
        [0, "sys/class/thermal/thermal_zone9/temp", {"errno": "ENODATA"}],
        [2, f"{ZONE}/temp", "52000"],
        [2.5, "sys/class/thermal/thermal_zone10/temp", None],
        {"end": 10},
    )
    clock = ManualClock(100.0)
    recording = load_recording(path)
    root = RecordedRoot(recording, clock)
    assert recording.seconds == 10 and recording.complete
    assert root.name == f"recording {name}" and not root.is_this_machine
    names = ["thermal_zone0", "thermal_zone9", "thermal_zone10"]
    assert root.entries("sys/class/thermal") == names
    assert root.read(f"{ZONE}/temp") == Attribute("48000")
    assert root.read("sys/class/thermal/thermal_zone9/temp") == Attribute(None, "ENODATA")
    assert root.read("sys/class/thermal/thermal_zone9/type") == Attribute(None, "ENOENT")
    assert root.read(ZONE) == Attribute(None, "EISDIR")
    assert root.entries("sys/class/hwmon") == []
    clock.advance(1.999)
    assert root.read(f"{ZONE}/temp") == Attribute("48000")
    clock.advance(0.001)
    assert root.read(f"{ZONE}/temp") == Attribute("52000")
    clock.advance(1.0)
    assert root.entries("sys/class/thermal") == names[:2]
    assert root.read("sys/class/thermal/thermal_zone10/temp") == Attribute(None, "ENOENT")
    clock.advance(1000.0)
    assert root.read(f"{ZONE}/temp") == Attribute("52000"), "after the end the last value holds"


def test_sensors_get_the_recorded_time_of_day(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", [0, f"{ZONE}/type", "cpu"], [5, f"{ZONE}/temp", "50000"])
    clock = ManualClock(77.0)
    sensors = open_recording(path, clock)
    assert isinstance(sensors, RecordedSensors) and sensors.seconds == 5
    first = sensors.sample()
    assert first.time == 77.0 and first.wall == datetime.fromisoformat(HEADER["wall"])
    assert first.zones[0].reading.quality is Quality.MISSING
    clock.advance(6.0)
    second = sensors.sample()
    assert second.wall is not None and second.wall.isoformat() == "2026-05-01T14:00:06+02:00"
    assert second.zones[0].reading.value == 50
    status, *_ = sensors.describe()
    assert status.detail == "x.jsonl, 5 s: written by hand"


def test_a_recording_without_a_time_of_day(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.jsonl", [0, "proc/stat", "cpu 1 2 3 4"], header={"recording": FORMAT}
    )
    assert open_recording(path, ManualClock()).sample().wall is None


def test_both_formats_open(tmp_path: Path) -> None:
    trace = open_recording(find_trace("sensor-lost"), ManualClock())
    assert trace.seconds > 100 and trace.sample().zones
    other = tmp_path / "other.jsonl"
    for text in ("", "[]\n", '{"seq": 0}\n', "[" * 10_000):
        other.write_text(text)
        with pytest.raises(AppError, match="neither a recording nor a trace") as caught:
            open_recording(other, ManualClock())
        assert caught.value.exit_code == EXIT_USAGE


ROW = [0, f"{ZONE}/temp", "1"]


@pytest.mark.parametrize(
    ("rows", "line", "what"),
    [
        ([], 1, "no row follows"),
        ([[5, "a", "1"], [4, "a", "2"]], 3, "t 4 comes before 5"),
        ([[5, "a", "1"], [5, "a", "2"]], 3, "a second value of a at 5 s"),
        ([[0, "a"]], 2, "a row must be"),
        (["text"], 2, "a row must be"),
        ([[-1, "a", "1"]], 2, "must be seconds since the start"),
        ([[True, "a", "1"]], 2, "must be seconds since the start"),
        ([[10**400, "a", "1"]], 2, "must be seconds since the start"),
        ([["0", "a", "1"]], 2, "must be seconds since the start"),
        ([[0, "/etc/passwd", "1"]], 2, "below the root"),
        ([[0, "sys/../etc", "1"]], 2, "below the root"),
        ([[0, "sys//a", "1"]], 2, "below the root"),
        ([[0, 7, "1"]], 2, "below the root"),
        ([[0, "a", 48000]], 2, "must be a text"),
        ([[0, "a", {"errno": 61}]], 2, "must be a text"),
        ([[0, "a", {"errno": "no data"}]], 2, "must be a text"),
        ([[0, "a", {"errno": "EIO", "x": 1}]], 2, "must be a text"),
        ([[0, "a", "1"], [0, "a/b", "1"]], 3, "a is both a file and a directory"),
        ([ROW, {"end": 5}, [6, "a", "1"]], 4, 'nothing may follow "end"'),
        ([[5, "a", "1"], {"end": 4}], 3, "t 4 comes before 5"),
        ([ROW, {"fin": 4}], 3, '"end" must be seconds'),
    ],
)
def test_rows_that_are_none(tmp_path: Path, rows: list[Any], line: int, what: str) -> None:
    path = written(tmp_path / "x.jsonl.gz", *rows)
    with pytest.raises(AppError) as caught:
        load_recording(path)
    assert caught.value.message.startswith(f"{path}:{line}: not a sensor recording: ")
    assert what in caught.value.message
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ({"recording": "edge-app/sysfs/2"}, 'must be a header with "recording"'),
        ({"trace": "edge-app/sensors/1"}, 'must be a header with "recording"'),
        ([0, "a", "1"], 'must be a header with "recording"'),
        (
            HEADER | {"wall": "2026-05-01T14:00:00"},
            '"wall" must be a date and time with its offset',
        ),
        (HEADER | {"wall": 7}, '"wall" must be a date and time with its offset'),
        (HEADER | {"wall": "9999-12-31T23:59:59+00:00"}, '"wall" must be a date'),
    ],
)
def test_headers_that_are_none(tmp_path: Path, header: Any, what: str) -> None:
    path = written(tmp_path / "x.jsonl", ROW, header=header)
    with pytest.raises(AppError, match="x.jsonl:1: not a sensor recording") as caught:
        load_recording(path)
    assert what in caught.value.message


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe{}\n", b"{'a': 1}\n", b'{"recording": NaN}\n', b"[" * 10_000 + b"\n"],
)
def test_lines_that_are_no_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(AppError, match="x.jsonl:1: .*invalid JSON"):
        load_recording(path)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_a_file_that_was_cut_off_gives_what_is_whole(tmp_path: Path, name: str) -> None:
    rows = [[time, f"{ZONE}/temp", str(40000 + 7919 * time % 20000)] for time in range(500)]
    path = written(tmp_path / name, [0, f"{ZONE}/type", "cpu"], *rows, {"end": 499})
    whole = load_recording(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    part = load_recording(path)
    assert whole.complete and not part.complete
    assert 100 < part.seconds < 499
    for time in (0.0, part.seconds):
        assert part.read(f"{ZONE}/temp", time) == whole.read(f"{ZONE}/temp", time)
    status, *_ = RecordedSensors(part, ManualClock()).describe()
    assert "cut off" in status.detail
    for keep in (0, 1, 15, 40):
        path.write_bytes(content[:keep])
        with pytest.raises(AppError, match="not a sensor recording") as caught:
            load_recording(path)
        assert caught.value.exit_code == EXIT_USAGE


def test_a_damaged_or_missing_file(tmp_path: Path) -> None:
    rows = [[time, f"{ZONE}/temp", str(40000 + 7919 * time % 20000)] for time in range(500)]
    path = written(tmp_path / "x.jsonl.gz", *rows)
    content = bytearray(path.read_bytes())
    for place in (300, len(content) - 6):
        damaged = content.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(AppError, match="x.jsonl.gz") as caught:
            load_recording(path)
        assert caught.value.exit_code == EXIT_USAGE
    for missing in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(AppError, match="cannot be read"):
            load_recording(missing)


def test_a_small_file_that_unpacks_to_a_huge_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 10_000_000))
    with pytest.raises(AppError, match="x.jsonl.gz:1: .*a line is too long"):
        load_recording(path)
    monkeypatch.setattr(recording_module, "MAX_BYTES", 1 << 20)
    path.write_bytes(gzip.compress(json.dumps(HEADER).encode() + b"\n" * 1_100_000))
    with pytest.raises(AppError, match="more than 1 MiB"):
        load_recording(path)
