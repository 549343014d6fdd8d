"""`edge-app sensors record` and `replay` as their users run them."""

from __future__ import annotations

import gzip
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from running import lines, on_a_terminal

from edge_app.clock import ManualClock
from edge_app.replaying import ReplayOptions, replay
from edge_app.sensors.recording import load_recording

ZOO = Path(__file__).parent / "zoo"
LAPTOP = ZOO / "laptop-two-batteries.jsonl"

# --- record ------------------------------------------------------------------------------------


def test_record_and_replay(edge_app: Any, device: Path, tmp_path: Path) -> None:
    path = tmp_path / "device.jsonl.gz"
    result = edge_app(
        "sensors", "record", "--sysroot", device, "--out", path, "--duration", 0.4,
        "--interval", 0.1, "--note", "on a desk",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert re.search(rf"{path}: 0 s, \d samples of 10 files, \d+ bytes\n$", result.stderr)
    assert str(path.stat().st_size) in result.stderr
    assert load_recording(path).header["note"] == "on a desk"
    result = edge_app("sensors", "replay", path, "--interval", 0.2)
    samples = [row["sample"] for row in lines(result.stdout)]
    assert [sample["t"] for sample in samples] == [0.0, 0.2, 0.4]
    assert samples[0]["zones"]["cpu-thermal"] == {
        "value": 61.25,
        "quality": "ok",
        "passive_c": 80.0,
        "critical_c": None,
    }
    assert samples[0]["battery"]["energy_j"] == {"value": 72000.0, "quality": "ok"}


def test_this_machine_can_be_recorded(edge_app: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    result = edge_app("sensors", "record", "--out", path, "--duration", 0)
    assert result.returncode == 0, result.stderr
    recording = load_recording(path)
    assert recording.header["machine"]["cpus"] >= 1
    assert recording.read("proc/stat", 0.0).text is not None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_leaves_a_readable_file(
    start_edge_app: Any, device: Path, tmp_path: Path, number: int, code: int
) -> None:
    path = tmp_path / "x.jsonl.gz"
    process = start_edge_app("sensors", "record", "--sysroot", device, "--out", path)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("recording: 0 of 600 s")
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "ended early" in errors and "Traceback" not in errors
    recording = load_recording(path)
    assert recording.complete
    assert json.loads(gzip.decompress(path.read_bytes()).splitlines()[-1])["interrupted"] is True
    assert list(tmp_path.glob("*.part")) == []


def test_a_kill_leaves_what_was_recorded_beside(
    start_edge_app: Any, device: Path, tmp_path: Path
) -> None:
    process = start_edge_app(
        "sensors", "record", "--sysroot", device, "-o", tmp_path / "x.jsonl.gz"
    )
    assert process.stderr is not None
    process.stderr.readline()
    process.kill()
    process.wait()
    recording = load_recording(tmp_path / "x.jsonl.gz.part")
    assert not recording.complete
    zone = "sys/class/thermal/thermal_zone0/temp"
    assert recording.read(zone, 0.0).text == "61250"


def test_a_full_disk_is_one_clear_error(edge_app: Any, device: Path, tmp_path: Path) -> None:
    full = tmp_path / "full.jsonl.gz"
    full.symlink_to("/dev/full")
    result = edge_app("sensors", "record", "--sysroot", device, "--out", full, "--duration", 5)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last == f"edge-app: {full}: cannot be written: No space left on device"
    assert "Traceback" not in result.stderr


def test_record_shows_its_progress_on_a_terminal(device: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    code, screen = on_a_terminal(
        "sensors",
        "record",
        "--sysroot",
        device,
        "--out",
        path,
        "--duration",
        0.3,
        "--interval",
        0.1,
    )
    assert code == 0 and "Traceback" not in screen
    assert screen.count("\r\x1b[Krecording: 0 of 0.3 s") >= 3
    assert re.search(rf"\r\x1b\[K{path}: 0 s, \d samples of 10 files, \d+ bytes", screen)


# --- replay ------------------------------------------------------------------------------------


def test_replay_with_a_policy_is_the_same_every_time(edge_app: Any) -> None:
    arguments = ("sensors", "replay", LAPTOP, "--preset", "balanced", "--model", "digits")
    first, second = edge_app(*arguments), edge_app(*arguments)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    rows = lines(first.stdout)
    assert len(rows) == 2 * 241
    samples = [row["sample"] for row in rows[::2]]
    decisions = [row["decision"] for row in rows[1::2]]
    assert [decision["t"] for decision in decisions] == [sample["t"] for sample in samples]
    assert samples[150]["on_ac"] and not samples[149]["on_ac"]
    assert {"bits", "cause", "why", "caps"} <= decisions[0].keys()


def test_replay_of_a_shipped_trace_follows_the_policy(here: Any, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[levels]\nmax_bits = 4\n")
    result = here("sensors", "replay", "sensor-lost", "--policy", policy, "--interval", 10)
    assert result.returncode == 0, result.stderr
    bits = {row["decision"]["bits"] for row in lines(result.stdout) if "decision" in row}
    assert bits == {2, 4}
    change = ("--set", "levels.max_bits=6", "--interval", 10)
    result = here("sensors", "replay", "sensor-lost", "--policy", policy, *change)
    bits = {row["decision"]["bits"] for row in lines(result.stdout) if "decision" in row}
    assert max(bits) == 6


def test_replay_at_a_speed_waits_and_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    pace = ManualClock()
    for clock in (None, pace):
        assert replay(ReplayOptions(str(ZOO / "vm.jsonl"), interval=50.0), clock) == 0
        outputs.append(capsys.readouterr().out)
    assert pace.now() == 100.0
    assert outputs[0] == outputs[1] and len(lines(outputs[0])) == 3


def test_replay_of_a_copy_of_files_is_one_moment(here: Any, device: Path) -> None:
    result = here("sensors", "replay", "--sysroot", device, "--preset", "balanced")
    sample, decision = lines(result.stdout)
    assert sample["sample"]["battery"]["discharging"] is True
    assert decision["decision"]["bits"] == 8


# --- wrong usage -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("/no/such/x.jsonl", "No such file or directory"),
        ("/", "Is a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_place_that_cannot_be_written(edge_app: Any, out: str, message: str) -> None:
    result = edge_app("sensors", "record", "--out", out)
    assert result.returncode == 2
    assert result.stderr.startswith(f"edge-app: --out {out}: {message}; give a file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a recording nor a trace"),
        (b'{"recording": "edge-app/sysfs/2"}\n', ":1: not a sensor recording: .*edge-app/sysfs/1"),
        (gzip.compress(b'{"recording": "edge-app/sysfs/1"}\n')[:20], "neither a recording nor"),
        (b'{"recording": "edge-app/sysfs/1"}\n[5, "a", "1"]\n[4, "a", "2"]\n', ":3: .*t 4 comes"),
    ],
)
def test_a_file_that_is_no_recording_is_one_clear_error(
    here: Any, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    result = here("sensors", "replay", path)
    assert result.returncode == 2 and result.stdout == ""
    assert re.fullmatch(rf"edge-app: {path}.*{message}.*\n", result.stderr), result.stderr


def test_a_recording_that_was_cut_off_plays_as_far_as_it_goes(here: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    whole = gzip.compress(LAPTOP.read_bytes())
    path.write_bytes(whole[: len(whole) // 2])
    result = here("sensors", "replay", path)
    assert result.returncode == 0
    assert "cut off" in result.stderr
    assert 10 < len(lines(result.stdout)) < 241
