"""`edge-app sensors list` and `watch` as their users run them, reads that hang, and wrong usage."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import lines, on_a_terminal

from edge_app.recordings import RecordOptions, record_sensors
from edge_app.sensors.root import SysRoot
from edge_app.watching import watch_sensors

ZOO = Path(__file__).parent / "zoo"
LAPTOP = ZOO / "laptop-two-batteries.jsonl"
NUC = ZOO / "intel-nuc.jsonl"

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


def test_watch_changes_a_table_in_place_on_a_terminal() -> None:
    code, screen = on_a_terminal("sensors", "watch", "--sysroot", LAPTOP, "--duration", 1)
    assert code == 0 and "Traceback" not in screen
    assert screen.count("x86_pkg_temp") >= 2 and "48.0 °C" in screen
    assert "\x1b[1A" in screen, "the second table is drawn over the first"
    assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h") == 1, "the cursor is back"


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
