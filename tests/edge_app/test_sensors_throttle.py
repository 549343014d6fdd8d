"""Throttling, under-voltage and frequency limits, from everything that can tell."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from sensor_files import Device, Files, Tree

from edge_app.clock import ManualClock
from edge_app.sensors import Quality, SysfsSensors
from edge_app.sensors.board import ASK_EVERY_S, Board, FirmwareFlags

THERMAL = "sys/class/thermal"
CPU = "sys/devices/system/cpu"
FLAGS = "sys/devices/platform/soc/soc:firmware/get_throttled"
FLAGS_PI5 = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
SUPPLY = "sys/class/hwmon/hwmon1"


def cooler(kind: str, state: str, highest: str = "4", index: int = 0) -> Tree:
    directory = f"{THERMAL}/cooling_device{index}"
    return {
        f"{directory}/type": kind,
        f"{directory}/cur_state": state,
        f"{directory}/max_state": highest,
    }


@pytest.mark.parametrize(
    ("kind", "state", "throttled"),
    [
        ("thermal-cpufreq-0", "2", 1.0),
        ("cpufreq-cpu0", "0", 0.0),
        ("Processor", "1", 1.0),
        ("intel_powerclamp", "-1", 0.0),
        ("intel_powerclamp", "3", 1.0),
        ("pwm-fan", "4", None),
        ("thermal-devfreq-0", "2", None),
        ("TCC Offset", "3", None),
        ("thermal-cpufreq-0", "2147483647", None),
        ("thermal-cpufreq-0", "", None),
    ],
)
def test_cooling_devices(kind: str, state: str, throttled: float | None) -> None:
    device = Device(cooler(kind, state))
    assert device.sensors.sample().throttled.value == throttled
    if state.isdecimal() and int(state) <= 4:
        assert device.status("cooling").detail == f"{kind} at {state} of 4"


def test_cooling_devices_that_are_alike_share_a_line() -> None:
    tree = {**cooler("Processor", "0", "10", 0), **cooler("Processor", "0", "10", 1)}
    device = Device({**tree, **cooler("pwm-fan", "2", index=2)})
    assert device.status("cooling").detail == "Processor x2 at 0 of 10, pwm-fan at 2 of 4"


def test_cooling_device_that_can_do_nothing_says_nothing() -> None:
    assert Device(cooler("Processor", "0", "0")).sensors.sample().throttled.value is None


@pytest.mark.parametrize("path", [FLAGS, FLAGS_PI5])
@pytest.mark.parametrize(
    ("text", "throttled", "under_voltage", "detail"),
    [
        ("0", 0, 0, "now: none; earlier: none"),
        ("50000", 0, 0, "now: none; earlier: under-voltage, throttled"),
        ("50005", 1, 1, "now: under-voltage, throttled; earlier: under-voltage, throttled"),
        ("0x2", 1, 0, "now: frequency capped; earlier: none"),
        ("80008", 1, 0, "now: soft temperature limit; earlier: soft temperature limit"),
        ("1", 0, 1, "now: under-voltage; earlier: none"),
    ],
)
def test_flags_of_a_raspberry_pi(
    path: str, text: str, throttled: float, under_voltage: float, detail: str
) -> None:
    device = Device({path: text})
    sample = device.sensors.sample()
    assert (sample.throttled.value, sample.under_voltage.value) == (throttled, under_voltage)
    assert device.status("firmware").detail == detail


@pytest.mark.parametrize("content", [errno.EIO, "", "N/A", "-1", "123456789abc"])
def test_flags_that_cannot_be_read(content: str | int) -> None:
    device = Device({FLAGS: "0"})
    assert device.sensors.sample().under_voltage.ok
    device.files.tree[FLAGS] = content
    device.clock.advance(4.0)
    sample = device.sensors.sample()
    assert (sample.throttled.quality, sample.under_voltage.quality) == (Quality.STALE,) * 2
    device.clock.advance(2.0)
    sample = device.sensors.sample()
    assert (sample.throttled.quality, sample.under_voltage.quality) == (Quality.MISSING,) * 2
    assert device.status("firmware").quality is Quality.MISSING


def test_cooling_device_outlives_flags() -> None:
    device = Device({FLAGS: "2", **cooler("cpufreq-cpu0", "0")})
    assert device.sensors.sample().throttled.value == 1.0
    assert "firmware (frequency capped)" in device.status("cpu throttle").detail
    device.files.tree[FLAGS] = errno.EIO
    reading = device.sensors.sample().throttled
    assert reading.ok and reading.value == 0.0


@pytest.mark.parametrize(("alarm", "value"), [("0", 0.0), ("1", 1.0)])
def test_under_voltage_by_the_monitor(alarm: str, value: float) -> None:
    device = Device({f"{SUPPLY}/name": "rpi_volt", f"{SUPPLY}/in0_lcrit_alarm": alarm})
    reading = device.sensors.sample().under_voltage
    assert reading.ok and reading.value == value
    assert device.sensors.sample().throttled.quality is Quality.ABSENT, "that is not heat"


def test_under_voltage_by_a_monitor_that_fails() -> None:
    device = Device({f"{SUPPLY}/name": "rpi_volt", f"{SUPPLY}/in0_lcrit_alarm": errno.EIO})
    assert device.sensors.sample().under_voltage.quality is Quality.MISSING
    assert "EIO" in device.status("under-voltage").detail
    device.files.remove(SUPPLY)
    assert device.sensors.sample().under_voltage.quality is Quality.MISSING, "it was there once"


def test_under_voltage_of_a_board_that_does_not_watch_its_supply() -> None:
    device = Device(cooler("cpufreq-cpu0", "0"))
    assert device.sensors.sample().under_voltage.quality is Quality.ABSENT
    assert device.status("under-voltage").quality is Quality.ABSENT


def script(tmp_path: Path, body: str) -> tuple[str, ...]:
    """A program in place of `vcgencmd`, which counts in a file how often it was asked."""
    program = tmp_path / "vcgencmd"
    program.write_text(f'#!/bin/sh\necho x >> "{tmp_path}/asked"\n{body}\n')
    program.chmod(0o755)
    return (str(program), "get_throttled")


def asked(tmp_path: Path) -> int:
    file = tmp_path / "asked"
    return len(file.read_text().split()) if file.exists() else 0


def test_program_is_asked_every_ten_seconds_where_there_is_no_file(tmp_path: Path) -> None:
    root = Files({"dev/vcio": ""}, is_this_machine=True)
    flags = FirmwareFlags(root, script(tmp_path, "echo throttled=0x50005"))
    board = Board(root, flags)
    state = board.read(0.0, ())
    assert state.held_down is True and state.under_voltage.value == 1.0
    board.read(ASK_EVERY_S - 0.1, ())
    assert asked(tmp_path) == 1
    board.read(ASK_EVERY_S, ())
    assert asked(tmp_path) == 2


@pytest.mark.parametrize(
    ("tree", "here"),
    [({"dev/vcio": "", FLAGS: "0"}, True), ({"dev/vcio": ""}, False), ({"dev/null": ""}, True)],
)
def test_program_is_not_asked(tmp_path: Path, tree: Tree, here: bool) -> None:
    root = Files(tree, is_this_machine=here)
    Board(root, FirmwareFlags(root, script(tmp_path, "echo throttled=0x0"))).read(0.0, ())
    assert asked(tmp_path) == 0


@pytest.mark.parametrize(
    ("body", "problem"), [("echo VCHI >&2; exit 255", "VCHI"), ("echo what", "not hexadecimal")]
)
def test_program_that_fails_is_explained(tmp_path: Path, body: str, problem: str) -> None:
    root = Files({"dev/vcio": ""}, is_this_machine=True)
    board = Board(root, FirmwareFlags(root, script(tmp_path, body)))
    state = board.read(0.0, ())
    assert state.held_down is None and state.under_voltage.quality is Quality.MISSING
    assert problem in board.describe(state)[1].detail


def test_program_that_is_not_installed(tmp_path: Path) -> None:
    root = Files({"dev/vcio": ""}, is_this_machine=True)
    board = Board(root, FirmwareFlags(root, (str(tmp_path / "vcgencmd"),)))
    state = board.read(0.0, ())
    assert "no program" in board.describe(state)[1].detail


def test_over_current_of_a_jetson_counts_while_it_rises() -> None:
    directory = "sys/class/hwmon/hwmon2"
    count = f"{directory}/oc3_event_cnt"
    device = Device({f"{directory}/name": "soctherm_oc", count: "5"})
    assert device.sensors.sample().throttled.quality is Quality.ABSENT, "nothing to compare with"
    assert device.sensors.sample().throttled.value == 0.0
    device.files.tree[count] = "6"
    assert device.sensors.sample().throttled.value == 1.0
    assert "over-current" in device.status("cpu throttle").detail
    assert device.sensors.sample().throttled.value == 0.0


def test_x86_counters_count_while_they_rise() -> None:
    core, package = (
        f"{CPU}/cpu1/thermal_throttle/{what}_throttle_count" for what in ("core", "package")
    )
    device = Device({core: "100", package: "7"})
    assert device.sensors.sample().throttled.quality is Quality.ABSENT
    assert "second sample" in device.status("cpu throttle").detail
    assert device.sensors.sample().throttled.value == 0.0
    device.files.tree[package] = "8"
    assert device.sensors.sample().throttled.value == 1.0
    device.files.tree[core] = "0"
    assert device.sensors.sample().throttled.value == 0.0, "set back by suspend"
    device.files.tree[core] = errno.EACCES
    assert device.sensors.sample().throttled.value == 0.0
    device.files.tree[core] = "500"
    assert device.sensors.sample().throttled.value == 0.0, "rose while nobody could look"


def policy(index: int, allowed: str | int, highest: str = "2000000") -> Tree:
    directory = f"{CPU}/cpufreq/policy{index}"
    return {f"{directory}/scaling_max_freq": allowed, f"{directory}/cpuinfo_max_freq": highest}


@pytest.mark.parametrize(
    ("tree", "share"),
    [
        (policy(0, "1000000"), 0.5),
        ({**policy(0, "1400000", "1400000"), **policy(4, "1600000")}, 0.8),
        (policy(0, "2100000"), 1.0),
        ({**policy(0, "2000000"), f"{CPU}/intel_pstate/max_perf_pct": "60"}, 0.6),
        ({**policy(0, "2000000"), f"{CPU}/intel_pstate/max_perf_pct": "N/A"}, 1.0),
        ({**policy(0, errno.EBUSY), **policy(1, "1000000")}, 0.5),
    ],
)
def test_frequency_limit(tree: Tree, share: float) -> None:
    reading = Device(tree).sensors.sample().cpu_limit
    assert reading.ok and reading.value == pytest.approx(share)


def test_fast_cluster_that_is_switched_off_limits() -> None:
    device = Device({**policy(0, "1400000", "1400000"), **policy(4, "2000000")})
    assert device.sensors.sample().cpu_limit.value == 1.0
    device.files.remove(f"{CPU}/cpufreq/policy4")
    assert device.sensors.sample().cpu_limit.value == pytest.approx(0.7)


@pytest.mark.parametrize("content", [errno.EIO, "", "<unsupported>", "0"])
def test_frequency_limit_that_cannot_be_read(content: str | int) -> None:
    device = Device(policy(0, content))
    assert not device.sensors.sample().cpu_limit.ok
    assert device.status("cpu frequency").quality in (Quality.MISSING, Quality.IMPLAUSIBLE)


def test_frequency_limit_is_absent_without_cpufreq(tmp_path: Path) -> None:
    sample = SysfsSensors(tmp_path, ManualClock()).sample()
    assert sample.cpu_limit.quality is Quality.ABSENT


def running(number: int, now: str | int, highest: str) -> Tree:
    directory = f"{CPU}/cpufreq/policy{number}"
    return {f"{directory}/scaling_cur_freq": now, f"{directory}/cpuinfo_max_freq": highest}


def test_the_frequency_that_runs_now_is_that_of_the_slowest_cpus() -> None:
    device = Device({**running(0, "600000", "1800000"), **running(4, "2400000", "2400000")})
    assert device.sensors.sample().cpu_frequency.value == pytest.approx(1 / 3)
    boosted = Device(running(0, "1900000", "1800000")).sensors.sample().cpu_frequency
    assert boosted.value == 1.0


@pytest.mark.parametrize("content", [errno.EIO, "", "0", "x"])
def test_a_frequency_that_cannot_be_read(content: str | int) -> None:
    assert not Device(running(0, content, "1800000")).sensors.sample().cpu_frequency.ok
