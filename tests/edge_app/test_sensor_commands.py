"""`edge-app sensors` as its users run it."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_app.cli import main
from edge_app.clock import ManualClock
from edge_app.recordings import RecordOptions, record_sensors
from edge_app.replaying import ReplayOptions, replay
from edge_app.sensors.recording import load_recording
from edge_app.sensors.root import SysRoot
from edge_app.watching import watch_sensors

ZOO = Path(__file__).parent / "zoo"
LAPTOP = ZOO / "laptop-two-batteries.jsonl"
NUC = ZOO / "intel-nuc.jsonl"


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A copy of the files of a device that has one zone and one battery."""
    zone, supply = "sys/class/thermal/thermal_zone0", "sys/class/power_supply/BAT0"
    return tree(
        tmp_path / "device",
        {
            f"{zone}/type": "cpu-thermal",
            f"{zone}/temp": "61250",
            f"{zone}/trip_point_0_type": "passive",
            f"{zone}/trip_point_0_temp": "80000",
            f"{supply}/type": "Battery",
            f"{supply}/status": "Discharging",
            f"{supply}/capacity": "50",
            f"{supply}/energy_now": "20000000",
            f"{supply}/energy_full": "40000000",
            "proc/stat": "cpu  1 2 3 4 0 0 0 0 0 0",
        },
    )


@dataclass(frozen=True)
class Result:
    """What a run in this process came to, with the names that `subprocess` gives."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the program in this process, which takes a tenth of the time: for what leaves signal
    handlers alone."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["edge-app", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return Result(int(ended.value.code or 0), output.out, output.err)

    monkeypatch.setenv("COLUMNS", "120")
    return run


# --- reads that hang ---------------------------------------------------------------------------


TAKEN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reading the temperature never returns. No file does that on purpose, so that the one function
    that reads files has to."""
    released, read = threading.Event(), SysRoot.read_bytes

    def read_bytes(root: SysRoot, path: str) -> bytes:
        if path.endswith("thermal_zone0/temp"):
            released.wait(60.0)
        return read(root, path)

    monkeypatch.setattr(SysRoot, "read_bytes", read_bytes)
    handlers = {number: signal.getsignal(number) for number in TAKEN}
    yield
    released.set()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("hangs")
def test_list_says_which_read_hangs(here: Any, device: Path) -> None:
    listed = lines(here("sensors", "list", "--json", "--sysroot", device).stdout)
    rows = {row["name"]: row for row in listed}
    zone = rows["cpu-thermal"]
    assert (zone["value"], zone["quality"]) == (None, "missing")
    assert "ETIMEDOUT" in zone["detail"]
    assert rows["battery charge"]["quality"] == "ok"


@pytest.mark.usefixtures("hangs")
def test_record_writes_down_which_read_hangs(device: Path, tmp_path: Path) -> None:
    target = tmp_path / "hang.jsonl"
    options = RecordOptions(target, duration=0.1, interval=0.1, sysroot=device)
    assert record_sensors(options) == 0
    rows = [row for row in lines(target.read_text()) if isinstance(row, list)]
    [zone] = [row for row in rows if row[1].endswith("thermal_zone0/temp")]
    assert zone[2] == {"errno": "ETIMEDOUT"}


@pytest.mark.usefixtures("hangs")
def test_watch_goes_on_while_a_read_hangs(device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch_sensors(device, 0.0) == 0
    assert "cpu-thermal (missing)" in capsys.readouterr().out


@pytest.mark.usefixtures("hangs")
def test_a_policy_is_checked_while_a_read_hangs(here: Any, device: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("schema = 1\n")
    assert here("policy", "check", policy, "--sysroot", device).returncode == 0


# --- list and watch ----------------------------------------------------------------------------


def test_list_as_json_has_value_unit_quality_trips_and_files(here: Any, device: Path) -> None:
    result = here("sensors", "list", "--json", "--sysroot", device)
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in lines(result.stdout)}
    assert rows["cpu-thermal"] == {
        "name": "cpu-thermal",
        "value": 61.25,
        "unit": "°C",
        "quality": "ok",
        "trips": {"passive": 80.0},
        "sources": ["sys/class/thermal/thermal_zone0/temp"],
        "detail": "",
    }
    energy = rows["battery energy"]
    assert (energy["value"], energy["unit"]) == (20.0, "Wh")
    assert energy["sources"] == ["sys/class/power_supply/BAT0/energy_now"]
    assert rows["battery charge"]["value"] == 50.0
    assert rows["charger"]["quality"] == "absent" and rows["charger"]["sources"] == []
    assert {"throttled", "under-voltage", "load of others", "CPU pressure", "power"} <= rows.keys()


def test_list_says_what_is_wrong(here: Any) -> None:
    result = here("sensors", "list", "--json", "--sysroot", NUC)
    rows = {row["name"]: row for row in lines(result.stdout)}
    assert rows["acpitz"]["quality"] == "implausible"
    assert "outside" in rows["acpitz"]["detail"]
    assert rows["acpitz#2"]["sources"] == ["sys/class/thermal/thermal_zone1/temp"]
    assert rows["x86_pkg_temp"]["sources"] == ["sys/class/thermal/thermal_zone6/temp"]
    core = rows["hwmon/coretemp/Package id 0"]
    assert core["sources"] == ["sys/class/hwmon/hwmon3/temp1_input"]
    assert core["trips"] == {"critical": 100.0}


def test_list_for_people(here: Any) -> None:
    result = here("sensors", "list", "--sysroot", LAPTOP)
    assert result.returncode == 0 and "\x1b" not in result.stdout
    assert re.search(r"x86_pkg_temp +48\.0 °C +ok", result.stdout)
    assert re.search(r"battery charge +67\.\d % +ok +sys/class/power_supply/BAT0", result.stdout)
    assert "hidpp" not in result.stdout, "a mouse does not power the machine"
    assert re.search(r"cooling/Processor x8 +0 of 10 +ok", result.stdout)
    assert re.search(r"cooling/intel_powerclamp +0 of 100 +ok", result.stdout), "it says -1"
    assert "and 7 more like it" in result.stdout
    assert re.search(r"battery/BAT0 +95\.0 % .*\n +battery/BAT1 +57\.0 %", result.stdout)


def test_list_of_rails_and_of_what_slows_the_cpu_down(here: Any) -> None:
    result = here("sensors", "list", "--json", "--sysroot", ZOO / "jetson-orin-nano.jsonl")
    rows = {(row["name"], row["unit"]): row for row in lines(result.stdout)}
    assert rows["rail/VDD_IN", "V"]["value"] == 4.984
    assert rows["rail/VDD_IN", "A"]["value"] == 0.96
    power = rows["power", "W"]
    assert power["value"] == pytest.approx(4.7846) and power["detail"] == "power (VDD_IN)"
    assert "sys/class/hwmon/hwmon1/curr1_input" in power["sources"]
    assert rows["cooling/pwm-fan", "of 3"]["quality"] == "ok"
    sources = rows["throttled", ""]["sources"]
    assert "sys/class/thermal/cooling_device3/cur_state" in sources
    assert "sys/class/thermal/cooling_device0/cur_state" not in sources, "that is the fan"


def test_this_machine_can_be_listed(here: Any) -> None:
    result = here("sensors", "list", "--json")
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in lines(result.stdout)}
    assert rows["load of others"]["quality"] == "ok", "known from the second look on"
    assert rows["load of others"]["sources"] == ["/proc/stat"]


def test_what_a_stranger_wrote_does_not_steer_the_terminal(edge_app: Any, tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone0"
    rows = [
        {"recording": "edge-app/sysfs/1"},
        [0, f"{zone}/type", "cpu\x1b[2J[bold]x"],
        [0, f"{zone}/temp", "50000"],
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for command in (["list"], ["watch", "--duration", "0"]):
        result = edge_app("sensors", *command, "--sysroot", path)
        assert result.returncode == 0, result.stderr
        assert "\x1b" not in result.stdout and "[2J[bold]x" in result.stdout


def test_watch_prints_a_line_a_second(edge_app: Any, device: Path) -> None:
    result = edge_app("sensors", "watch", "--sysroot", device, "--duration", 1)
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert "cpu-thermal 61.2 °C" in first and "battery charge 50.0 %" in first
    assert float(second.split()[0]) >= 1.0


def test_watch_ends_with_ctrl_c(start_edge_app: Any, device: Path) -> None:
    process = start_edge_app("sensors", "watch", "--sysroot", device)
    assert process.stdout is not None
    assert "cpu-thermal" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and errors == ""


def on_a_terminal(*arguments: object) -> tuple[int, str]:
    """Exit code, and everything that was written to the screen."""
    terminal, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "edge_app", *map(str, arguments)],
        stdout=child,
        stderr=child,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "50"},
    ) as process:
        os.close(child)
        screen = bytearray()
        while True:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # Linux: the other side was closed
                break
            screen += chunk
    os.close(terminal)
    return process.returncode, screen.decode()


def test_watch_changes_a_table_in_place_on_a_terminal() -> None:
    code, screen = on_a_terminal("sensors", "watch", "--sysroot", LAPTOP, "--duration", 1)
    assert code == 0 and "Traceback" not in screen
    assert screen.count("x86_pkg_temp") >= 2 and "48.0 °C" in screen
    assert "\x1b[1A" in screen, "the second table is drawn over the first"
    assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h") == 1, "the cursor is back"


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
    ("arguments", "message"),
    [
        (["list", "--sysroot", "/no/such"], "--sysroot /no/such: no such directory"),
        (["watch", "--sysroot", "/no/such"], "--sysroot /no/such: no such directory"),
        (["list", "--sysroot", "x" * 300], "--sysroot x+: File name too long"),
        (["replay", "x" * 300], "x+: File name too long"),
        (["replay", "~nobody-here/x"], "home directory"),
        (["record"], "--out"),
        (["record", "--out", "x", "--interval", "0"], "--interval"),
        (["record", "--out", "x", "--duration", "nan"], "--duration"),
        (["record", "--out", "x", "--duration", "inf"], "--duration.*not a finite number"),
        (["replay"], "give either a RECORDING or --sysroot"),
        (["replay", "vm", "--sysroot", "/"], "give either a RECORDING or --sysroot"),
        (["replay", "sensor-lots"], "sensor-lots: no such trace or file; did you mean sensor-lost"),
        (["replay", "sensor-lost", "--preset", "lavish"], "balanced"),
        (["replay", "sensor-lost", "--policy", "/no/such.toml"], "/no/such.toml"),
        (["replay", "sensor-lost", "--set", "levels.max=6"], "levels.max"),
        (
            ["replay", "sensor-lost", "--model", "digits"],
            "--model needs --policy, --preset or --set",
        ),
        (["replay", "sensor-lost", "--speed", "inf"], "--speed.*not a finite number"),
    ],
)
def test_wrong_usage_is_exit_code_2(here: Any, arguments: list[str], message: str) -> None:
    result = here("sensors", *arguments)
    assert result.returncode == 2, result.stderr
    assert result.stdout == "" and "Traceback" not in result.stderr
    assert re.search(message, result.stderr), result.stderr


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
