"""The sysfs readers on trees written here after the kernel's documented ABI."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from edge_app.clock import ManualClock
from edge_app.sensors import Quality, SysfsSensors
from edge_app.sensors.root import SysRoot

Tree = dict[str, str]

PI = {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/mode": "enabled",
    "sys/class/thermal/thermal_zone0/temp": "48312",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "110000",
    "sys/class/thermal/cooling_device0/type": "pwm-fan",
    "sys/class/thermal/cooling_device0/cur_state": "2",
    "proc/stat": "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 100 0 100 800 0 0 0 0 0 0\n",
}

LAPTOP = {
    "sys/class/thermal/thermal_zone0/type": "acpitz",
    "sys/class/thermal/thermal_zone0/temp": "27800",
    "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone1/temp": "61000",
    "sys/class/thermal/thermal_zone1/trip_point_0_type": "passive",
    "sys/class/thermal/thermal_zone1/trip_point_0_temp": "-32768000",
    "sys/class/thermal/thermal_zone1/trip_point_1_type": "passive",
    "sys/class/thermal/thermal_zone1/trip_point_1_temp": "97000",
    "sys/class/thermal/thermal_zone1/trip_point_2_type": "passive",
    "sys/class/thermal/thermal_zone1/trip_point_2_temp": "95000",
    "sys/class/thermal/thermal_zone1/trip_point_3_type": "critical",
    "sys/class/thermal/thermal_zone1/trip_point_3_temp": "103000",
    "sys/class/thermal/cooling_device0/type": "Processor",
    "sys/class/thermal/cooling_device0/cur_state": "0",
    "sys/class/power_supply/AC/type": "Mains",
    "sys/class/power_supply/AC/online": "0",
    "sys/class/power_supply/BAT0/type": "Battery",
    "sys/class/power_supply/BAT0/present": "1",
    "sys/class/power_supply/BAT0/status": "Discharging",
    "sys/class/power_supply/BAT0/energy_now": "30000000",
    "sys/class/power_supply/BAT0/energy_full": "40000000",
    "sys/class/power_supply/BAT0/power_now": "12500000",
    "sys/class/power_supply/hidpp_battery_0/type": "Battery",
    "sys/class/power_supply/hidpp_battery_0/scope": "Device",
    "sys/class/power_supply/hidpp_battery_0/capacity": "5",
    "sys/class/power_supply/hidpp_battery_0/status": "Discharging",
    "proc/pressure/cpu": "some avg10=12.50 avg60=3.00 avg300=1.00 total=99\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
}

PHONE = {
    "sys/class/thermal/thermal_zone0/type": "cpu-0-0",
    "sys/class/thermal/thermal_zone0/temp": "39500",
    "sys/class/thermal/cooling_device3/type": "thermal-cpufreq-0",
    "sys/class/thermal/cooling_device3/cur_state": "3",
    "sys/class/power_supply/bq27441-0/type": "Battery",
    "sys/class/power_supply/bq27441-0/status": "Discharging",
    "sys/class/power_supply/bq27441-0/charge_now": "1500000",
    "sys/class/power_supply/bq27441-0/charge_full": "3000000",
    "sys/class/power_supply/bq27441-0/voltage_min_design": "3800000",
    "sys/class/power_supply/bq27441-0/voltage_now": "4000000",
    "sys/class/power_supply/bq27441-0/current_now": "-500000",
    "sys/class/power_supply/usb/type": "USB",
    "sys/class/power_supply/usb/online": "0",
}


def write(root: Path, tree: Tree) -> None:
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if content.endswith("\n") else content + "\n")


class FaultyRoot(SysRoot):
    """Files that answer with an error, as drivers do and plain files cannot."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.errors: dict[str, int] = {}

    def read_bytes(self, path: str) -> bytes:
        for ending, number in self.errors.items():
            if path.endswith(ending):
                raise OSError(number, "the driver says no")
        return super().read_bytes(path)


def statuses(sensors: SysfsSensors) -> dict[str, Any]:
    return {status.name: status for status in sensors.describe()}


def test_raspberry_pi_without_battery(tmp_path: Path) -> None:
    write(tmp_path, PI)
    clock = ManualClock(5.0)
    sensors = SysfsSensors(tmp_path, clock)
    sample = sensors.sample()
    (zone,) = sample.zones
    assert (zone.name, zone.reading.value) == ("cpu-thermal", pytest.approx(48.312))
    assert zone.reading.quality is Quality.OK and zone.reading.time == 5.0
    assert zone.passive_c is None and zone.critical_c == pytest.approx(110.0)
    assert not sample.battery.present
    assert sample.battery.charge.quality is Quality.ABSENT
    assert sample.throttled.quality is Quality.ABSENT, "a fan that turns does not throttle the CPU"
    assert sample.other_load.quality is Quality.ABSENT, "load is known from the second sample on"
    assert sample.cpu_pressure.quality is Quality.ABSENT
    assert statuses(sensors)["battery"].quality is Quality.ABSENT
    assert "48.3 °C, critical 110 °C" in statuses(sensors)["thermal/cpu-thermal"].detail


def test_load_between_two_samples(tmp_path: Path) -> None:
    write(tmp_path, PI)
    sensors = SysfsSensors(tmp_path, ManualClock())
    sensors.sample()
    # 200 ticks passed, 50 of them idle or waiting for a disk.
    write(tmp_path, {"proc/stat": "cpu  200 0 150 840 10 0 0 0 0 0\n"})
    assert sensors.sample().other_load.value == pytest.approx(0.75)


def test_laptop(tmp_path: Path) -> None:
    write(tmp_path, LAPTOP)
    sample = SysfsSensors(tmp_path, ManualClock()).sample()
    zones = {zone.name: zone for zone in sample.zones}
    assert set(zones) == {"acpitz", "x86_pkg_temp"}
    package = zones["x86_pkg_temp"]
    assert package.passive_c == pytest.approx(95.0), "the lowest one that is set"
    assert package.critical_c == pytest.approx(103.0)
    battery = sample.battery
    assert battery.present and battery.discharging is True and battery.on_ac is False
    assert battery.charge.value == pytest.approx(0.75), "the mouse does not count"
    assert battery.energy.value == pytest.approx(30 * 3600)
    assert battery.power.value == pytest.approx(12.5)
    assert sample.throttled.value == 0
    assert sample.cpu_pressure.value == 12.5


def test_phone_with_charge_and_negative_current(tmp_path: Path) -> None:
    write(tmp_path, PHONE)
    sample = SysfsSensors(tmp_path, ManualClock()).sample()
    battery = sample.battery
    assert battery.charge.value == pytest.approx(0.5)
    assert battery.energy.value == pytest.approx(1.5 * 3.8 * 3600)
    assert battery.power.value == pytest.approx(2.0), "out of the battery is positive"
    assert battery.discharging is True
    assert sample.throttled.value == 1


@pytest.mark.parametrize("current", ["500000", "-500000"])
def test_sign_of_the_current_decides_nothing(tmp_path: Path, current: str) -> None:
    bat = "sys/class/power_supply/bq27441-0"
    tree = {**PHONE, f"{bat}/current_now": current, f"{bat}/status": "Charging"}
    write(tmp_path, tree)
    battery = SysfsSensors(tmp_path, ManualClock()).sample().battery
    assert battery.discharging is False
    assert battery.power.value == pytest.approx(-2.0)


@pytest.mark.parametrize(
    ("status", "online", "expected"),
    [
        ("Full", "1", False),
        ("Not charging", "1", False),
        ("Unknown", "1", False),
        ("Unknown", "0", True),
        ("Discharging", "1", True),
    ],
)
def test_direction(tmp_path: Path, status: str, online: str, expected: bool) -> None:
    ac, bat = "sys/class/power_supply/AC/online", "sys/class/power_supply/BAT0/status"
    write(tmp_path, {**LAPTOP, bat: status, ac: online})
    assert SysfsSensors(tmp_path, ManualClock()).sample().battery.discharging is expected


def test_direction_unknown_without_charger_and_status(tmp_path: Path) -> None:
    bat = "sys/class/power_supply/gauge"
    write(tmp_path, {f"{bat}/type": "Battery", f"{bat}/capacity": "80"})
    battery = SysfsSensors(tmp_path, ManualClock()).sample().battery
    assert battery.discharging is None and battery.on_ac is None and battery.power.value is None
    assert battery.charge.value == pytest.approx(0.8)


def test_two_batteries_weigh_by_their_size(tmp_path: Path) -> None:
    second = "sys/class/power_supply/BAT1"
    write(
        tmp_path,
        {
            **LAPTOP,
            f"{second}/type": "Battery",
            f"{second}/status": "Not charging",
            f"{second}/energy_now": "1000000",
            f"{second}/energy_full": "10000000",
        },
    )
    battery = SysfsSensors(tmp_path, ManualClock()).sample().battery
    assert battery.charge.value == pytest.approx(31 / 50)
    assert battery.discharging is True, "one of them is in use"


def test_capacity_wins_unless_the_gauge_disowns_it(tmp_path: Path) -> None:
    bat = "sys/class/power_supply/BAT0"
    write(tmp_path, {**LAPTOP, f"{bat}/capacity": "71"})
    assert SysfsSensors(tmp_path, ManualClock()).sample().battery.charge.value == pytest.approx(
        0.71
    )
    write(tmp_path, {f"{bat}/capacity_error_margin": "100"})
    assert SysfsSensors(tmp_path, ManualClock()).sample().battery.charge.value == pytest.approx(
        0.75
    )


def test_nothing_at_all_is_described_not_an_error(tmp_path: Path) -> None:
    sensors = SysfsSensors(tmp_path, ManualClock())
    sample = sensors.sample()
    assert sample.zones == () and not sample.battery.present
    found = statuses(sensors)
    assert found["thermal"].quality is Quality.ABSENT and "containers" in found["thermal"].detail
    assert {status.quality for status in found.values()} == {Quality.ABSENT}
    assert all(str(tmp_path) in found[name].detail for name in ("thermal", "battery", "load"))


@pytest.mark.parametrize(
    "content", ["-40001", "200000", "-273150", "-32768000", "0", "61", "2147483647"]
)
def test_implausible_temperature(tmp_path: Path, content: str) -> None:
    write(tmp_path, {**PI, "sys/class/thermal/thermal_zone0/temp": content})
    sensors = SysfsSensors(tmp_path, ManualClock())
    (zone,) = sensors.sample().zones
    assert zone.reading.quality is Quality.IMPLAUSIBLE
    status = statuses(sensors)["thermal/cpu-thermal"]
    assert status.quality is Quality.IMPLAUSIBLE and "°C" in status.detail


@pytest.mark.parametrize("content", ["", "N/A", "48.5", "nan"])
def test_temperature_that_is_no_number(tmp_path: Path, content: str) -> None:
    write(tmp_path, {**PI, "sys/class/thermal/thermal_zone0/temp": content})
    (zone,) = SysfsSensors(tmp_path, ManualClock()).sample().zones
    assert zone.reading.quality is Quality.MISSING and zone.reading.value is None


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EAGAIN, errno.ENODATA, errno.EIO])
def test_failing_driver_is_stale_then_missing_then_back(tmp_path: Path, number: int) -> None:
    write(tmp_path, PI)
    root, clock = FaultyRoot(tmp_path), ManualClock()
    sensors = SysfsSensors(root, clock)
    assert sensors.sample().zones[0].reading.ok
    root.errors["thermal_zone0/temp"] = number
    clock.advance(4.0)
    reading = sensors.sample().zones[0].reading
    assert reading.quality is Quality.STALE
    assert (reading.value, reading.time) == (pytest.approx(48.312), 0.0)
    clock.advance(2.0)
    reading = sensors.sample().zones[0].reading
    assert reading.quality is Quality.MISSING and reading.value is None
    assert errno.errorcode[number] in statuses(sensors)["thermal/cpu-thermal"].detail
    root.errors.clear()
    assert sensors.sample().zones[0].reading.ok


def test_one_bad_zone_leaves_the_others_alone(tmp_path: Path) -> None:
    write(tmp_path, LAPTOP)
    root = FaultyRoot(tmp_path)
    root.errors["thermal_zone0/temp"] = errno.ENODATA
    qualities = {
        z.name: z.reading.quality for z in SysfsSensors(root, ManualClock()).sample().zones
    }
    assert qualities == {"acpitz": Quality.MISSING, "x86_pkg_temp": Quality.OK}


def test_zone_that_vanishes_stays_in_the_list(tmp_path: Path) -> None:
    write(tmp_path, PI)
    clock = ManualClock()
    sensors = SysfsSensors(tmp_path, clock)
    sensors.sample()
    (tmp_path / "sys/class/thermal/thermal_zone0").rename(tmp_path / "gone")
    clock.advance(6.0)
    (zone,) = sensors.sample().zones
    assert zone.reading.quality is Quality.MISSING
    assert "vanished" in statuses(sensors)["thermal/cpu-thermal"].detail


def test_renumbered_zones_keep_their_names(tmp_path: Path) -> None:
    write(tmp_path, LAPTOP)
    sensors = SysfsSensors(tmp_path, ManualClock())
    sensors.sample()
    thermal = tmp_path / "sys/class/thermal"
    (thermal / "thermal_zone0").rename(thermal / "thermal_zone7")
    values = {zone.name: zone.reading.value for zone in sensors.sample().zones}
    assert values == {"acpitz": pytest.approx(27.8), "x86_pkg_temp": pytest.approx(61.0)}


def test_zones_of_one_type_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, {**LAPTOP, "sys/class/thermal/thermal_zone1/type": "acpitz"})
    names = [zone.name for zone in SysfsSensors(tmp_path, ManualClock()).sample().zones]
    assert names == ["acpitz", "acpitz#2"]


def run_stuck(tmp_path: Path, busy_share: float) -> Quality:
    """Quality of a constant zone after 200 s idle and 200 s at ``busy_share`` of the CPUs."""
    write(tmp_path, PI)
    clock = ManualClock()
    sensors = SysfsSensors(tmp_path, clock)
    busy = idle = 0
    quality = Quality.ABSENT
    for second in range(400):
        share = busy_share if second >= 200 else 0.0
        busy += round(100 * share)
        idle += round(100 * (1 - share))
        write(tmp_path, {"proc/stat": f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\n"})
        quality = sensors.sample().zones[0].reading.quality
        clock.advance(1.0)
    return quality


def test_constant_while_the_load_changes_is_stuck(tmp_path: Path) -> None:
    assert run_stuck(tmp_path, 0.9) is Quality.STUCK


def test_constant_while_nothing_happens_is_not(tmp_path: Path) -> None:
    assert run_stuck(tmp_path, 0.1) is Quality.OK


def test_charge_out_of_range(tmp_path: Path) -> None:
    write(tmp_path, {**LAPTOP, "sys/class/power_supply/BAT0/capacity": "255"})
    charge = SysfsSensors(tmp_path, ManualClock()).sample().battery.charge
    assert charge.quality is Quality.IMPLAUSIBLE


def test_gauge_that_jumps_is_not_believed_until_it_settles(tmp_path: Path) -> None:
    write(tmp_path, LAPTOP)
    clock = ManualClock()
    sensors = SysfsSensors(tmp_path, clock)
    qualities = []
    for capacity in ["80", "0", "80", *["55"] * 70]:
        write(tmp_path, {"sys/class/power_supply/BAT0/capacity": capacity})
        qualities.append(sensors.sample().battery.charge.quality)
        clock.advance(1.0)
    assert qualities[:4] == [Quality.OK, Quality.IMPLAUSIBLE, Quality.OK, Quality.IMPLAUSIBLE]
    assert qualities[62] is Quality.IMPLAUSIBLE and qualities[-1] is Quality.OK


def test_battery_that_is_pulled_out_is_missing_not_absent(tmp_path: Path) -> None:
    write(tmp_path, LAPTOP)
    clock = ManualClock()
    sensors = SysfsSensors(tmp_path, clock)
    assert sensors.sample().battery.charge.ok
    (tmp_path / "sys/class/power_supply/BAT0").rename(tmp_path / "gone")
    clock.advance(10.0)
    battery = sensors.sample().battery
    assert battery.present and battery.charge.quality is Quality.MISSING


def test_battery_bay_that_is_empty_is_no_battery(tmp_path: Path) -> None:
    write(tmp_path, {**LAPTOP, "sys/class/power_supply/BAT0/present": "0"})
    assert not SysfsSensors(tmp_path, ManualClock()).sample().battery.present


def test_nothing_is_written(tmp_path: Path) -> None:
    write(tmp_path, {**PI, **LAPTOP})

    def content() -> dict[str, tuple[bytes, int]]:
        files = (path for path in tmp_path.rglob("*") if path.is_file())
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before = content()
    sensors = SysfsSensors(tmp_path, ManualClock())
    sensors.sample()
    sensors.describe()
    assert content() == before


def test_this_machine() -> None:
    sensors = SysfsSensors(Path("/"), ManualClock())
    sensors.sample()
    sample = sensors.sample()
    assert all(-40 <= (zone.reading.value or 0) for zone in sample.zones if zone.reading.ok)
    assert {status.what for status in sensors.describe()} >= {"temperature", "charge"}
