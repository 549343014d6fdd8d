"""Temperatures: zones with their trip points, and chips that are no zones."""

from __future__ import annotations

import errno

import pytest
from governor_samples import make_governor
from sensor_files import Device, Tree

from edge_app.sensors import Quality, Zone
from edge_app.sensors.validators import StuckDetector

ZONE = "sys/class/thermal/thermal_zone0"
HWMON = "sys/class/hwmon"

CPU_ZONE: Tree = {
    f"{ZONE}/type": "cpu-thermal",
    f"{ZONE}/mode": "enabled",
    f"{ZONE}/temp": "61000",
}
RYZEN: Tree = {
    f"{ZONE}/type": "acpitz",
    f"{ZONE}/temp": "16800",
    f"{HWMON}/hwmon0/name": "acpitz",
    f"{HWMON}/hwmon0/temp1_input": "16800",
    f"{HWMON}/hwmon1/name": "nvme",
    f"{HWMON}/hwmon1/temp1_input": "35850",
    f"{HWMON}/hwmon2/name": "k10temp",
    f"{HWMON}/hwmon2/temp1_input": "57250",
    f"{HWMON}/hwmon2/temp1_label": "Tctl",
    f"{HWMON}/hwmon2/temp3_input": "56000",
    f"{HWMON}/hwmon2/temp3_label": "Tccd1",
    f"{HWMON}/hwmon10/name": "nct6775",
    f"{HWMON}/hwmon10/temp1_input": "38000",
    f"{HWMON}/hwmon10/temp1_label": "SYSTIN",
    f"{HWMON}/hwmon10/temp2_input": "-63000",
    f"{HWMON}/hwmon10/temp2_label": "CPUTIN",
}
INTEL: Tree = {
    f"{HWMON}/hwmon3/name": "coretemp",
    f"{HWMON}/hwmon3/temp1_input": "70000",
    f"{HWMON}/hwmon3/temp1_label": "Package id 0",
    f"{HWMON}/hwmon3/temp1_crit": "100000",
    f"{HWMON}/hwmon3/temp2_input": "69000",
    f"{HWMON}/hwmon3/temp2_label": "Core 0",
}


def zones(device: Device) -> dict[str, Zone]:
    return {zone.name: zone for zone in device.sensors.sample().zones}


def values(device: Device) -> dict[str, float | None]:
    return {name: zone.reading.value for name, zone in zones(device).items()}


@pytest.mark.parametrize(
    ("text", "celsius"),
    [
        ("85000", 85.0),
        ("-32768000", None),
        ("0", None),
        ("127050", None),
        ("95", None),
        ("N/A", None),
    ],
)
def test_trips_that_firmware_left_unset(text: str, celsius: float | None) -> None:
    for kind in ("passive", "critical"):
        trip = {f"{ZONE}/trip_point_0_type": kind, f"{ZONE}/trip_point_0_temp": text}
        zone = zones(Device({**CPU_ZONE, **trip}))["cpu-thermal"]
        assert {"passive": zone.passive_c, "critical": zone.critical_c}[kind] == celsius


def test_trips_of_other_types_say_nothing() -> None:
    trips: Tree = {}
    for index, kind in enumerate(["active", "hot", "passive"]):
        trips[f"{ZONE}/trip_point_{index}_type"] = kind
        trips[f"{ZONE}/trip_point_{index}_temp"] = str(60000 + 10000 * index)
    zone = zones(Device({**CPU_ZONE, **trips}))["cpu-thermal"]
    assert (zone.passive_c, zone.critical_c) == (80.0, None)


def test_trips_set_after_boot_are_seen_within_a_minute() -> None:
    trip = f"{ZONE}/trip_point_0_temp"
    device = Device({**CPU_ZONE, f"{ZONE}/trip_point_0_type": "passive", trip: errno.EAGAIN})
    assert zones(device)["cpu-thermal"].passive_c is None
    device.files.tree[trip] = "90000"
    device.clock.advance(30.0)
    assert zones(device)["cpu-thermal"].passive_c is None
    device.clock.advance(30.0)
    assert zones(device)["cpu-thermal"].passive_c == 90.0


@pytest.mark.parametrize("temp", [errno.ENODATA, errno.EINVAL, errno.EACCES, "0", "-256000"])
def test_disabled_zone_that_never_worked_is_no_fault(temp: str | int) -> None:
    device = Device({**CPU_ZONE, f"{ZONE}/mode": "disabled", f"{ZONE}/temp": temp})
    assert zones(device)["cpu-thermal"].reading.quality is Quality.ABSENT
    assert "disabled" in device.status("thermal/cpu-thermal").detail


def test_disabled_zone_that_works_counts() -> None:
    # User space looks after it, and the temperature is right all the same.
    device = Device({**CPU_ZONE, f"{ZONE}/mode": "disabled"})
    assert zones(device)["cpu-thermal"].reading.ok


def test_zone_that_is_disabled_later_is_lost() -> None:
    device = Device(CPU_ZONE)
    assert zones(device)["cpu-thermal"].reading.ok
    device.files.tree |= {f"{ZONE}/mode": "disabled", f"{ZONE}/temp": errno.ENODATA}
    device.clock.advance(6.0)
    assert zones(device)["cpu-thermal"].reading.quality is Quality.MISSING


@pytest.mark.parametrize(("kind", "text"), [("PMIC-Die", "100000"), ("INT3400 Thermal", "20000")])
def test_placeholder_is_no_sensor(kind: str, text: str) -> None:
    device = Device({f"{ZONE}/type": kind, f"{ZONE}/temp": text})
    assert zones(device)[kind].reading.quality is Quality.ABSENT
    assert "placeholder" in device.status(f"thermal/{kind}").detail
    device.files.tree[f"{ZONE}/temp"] = "54000"
    assert zones(device)[kind].reading.ok, "one that does measure"


def test_input_that_worked_is_missed() -> None:
    device = Device(RYZEN)
    device.sensors.sample()
    device.files.tree[f"{HWMON}/hwmon10/temp1_input"] = "-128000"
    reading = zones(device)["hwmon/nct6775/SYSTIN"].reading
    assert reading.quality is Quality.IMPLAUSIBLE


def test_amd_cpu_without_a_zone_is_obeyed_by_its_chip() -> None:
    device = Device(RYZEN)
    assert values(device) == {
        "acpitz": pytest.approx(16.8),
        "cpu/k10temp/Tctl": pytest.approx(57.25),
        "hwmon/nct6775/SYSTIN": pytest.approx(38.0),
        "hwmon/nct6775/CPUTIN": None,
    }
    obeyed = [name for name in values(device) if make_governor().obeys(name)]
    assert obeyed == ["acpitz", "cpu/k10temp/Tctl"]
    assert zones(device)["hwmon/nct6775/CPUTIN"].reading.quality is Quality.ABSENT
    assert "nothing connected" in device.status("thermal/hwmon/nct6775/CPUTIN").detail


def test_drives_are_left_to_sleep() -> None:
    device = Device(RYZEN)
    device.sensors.sample()
    assert not [path for path in device.files.asked if path.startswith(f"{HWMON}/hwmon1/temp")]
    assert "nvme" in device.status("hwmon/drives").detail


def test_chip_beside_a_zone_of_the_cpu_is_an_entry_that_no_policy_obeys() -> None:
    device = Device({**INTEL, f"{ZONE}/type": "x86_pkg_temp", f"{ZONE}/temp": "70000"})
    assert list(values(device)) == ["x86_pkg_temp", "hwmon/coretemp/Package id 0"]
    assert not make_governor().obeys("hwmon/coretemp/Package id 0")


def test_package_stands_for_its_cores() -> None:
    zone = zones(Device(INTEL))["cpu/coretemp/Package id 0"]
    assert zone.reading.value == pytest.approx(70.0)
    assert (zone.passive_c, zone.critical_c) == (None, 100.0)
    assert list(zones(Device(INTEL))) == ["cpu/coretemp/Package id 0"]


@pytest.mark.parametrize("name", ["cpu_thermal", "whatever"])
def test_chips_that_copy_a_zone_are_left_out(name: str) -> None:
    copy: Tree = {f"{HWMON}/hwmon0/name": name, f"{HWMON}/hwmon0/temp1_input": "61000"}
    if name == "whatever":
        copy[f"{HWMON}/hwmon0/device/temp"] = "61000"
    assert list(values(Device({**CPU_ZONE, **copy}))) == ["cpu-thermal"]


def test_name_stays_when_a_zone_appears_later() -> None:
    device = Device(INTEL)
    assert "cpu/coretemp/Package id 0" in values(device)
    device.files.tree |= {
        f"{ZONE}/type": "x86_pkg_temp",
        f"{ZONE}/temp": "70000",
        f"{HWMON}/hwmon4/name": "x86_pkg_temp",
    }
    assert list(values(device)) == ["x86_pkg_temp", "cpu/coretemp/Package id 0"]


def test_chips_are_renumbered_on_resume() -> None:
    device = Device(INTEL)
    before = values(device)
    device.files.rename(f"{HWMON}/hwmon3", f"{HWMON}/hwmon7")
    assert values(device) == before
    assert "hwmon7" in device.status("thermal/cpu/coretemp/Package id 0").detail


def test_chip_that_vanishes_is_missed() -> None:
    device = Device(INTEL)
    device.sensors.sample()
    device.files.remove(f"{HWMON}/hwmon3")
    device.clock.advance(6.0)
    (zone,) = zones(device).values()
    assert zone.reading.quality is Quality.MISSING
    assert "vanished" in device.status("thermal/cpu/coretemp/Package id 0").detail


@pytest.mark.parametrize(
    ("file", "text", "quality"),
    [("fault", "1", Quality.MISSING), ("enable", "0", Quality.ABSENT), ("fault", "0", Quality.OK)],
)
def test_chips_own_word_on_an_input(file: str, text: str, quality: Quality) -> None:
    device = Device({**INTEL, f"{HWMON}/hwmon3/temp1_{file}": text})
    (zone,) = zones(device).values()
    assert zone.reading.quality is quality


@pytest.mark.parametrize(
    ("number", "quality"),
    [(errno.EAGAIN, Quality.STALE), (errno.ENXIO, Quality.STALE), (errno.ENODEV, Quality.STALE)],
)
def test_failing_chip_is_stale_then_missing_then_back(number: int, quality: Quality) -> None:
    device = Device(INTEL)
    device.sensors.sample()
    device.files.tree[f"{HWMON}/hwmon3/temp1_input"] = number
    device.clock.advance(4.0)
    (zone,) = zones(device).values()
    assert (zone.reading.quality, zone.reading.value) == (quality, 70.0)
    device.clock.advance(2.0)
    (zone,) = zones(device).values()
    assert zone.reading.quality is Quality.MISSING
    assert errno.errorcode[number] in device.status(f"thermal/{zone.name}").detail
    device.files.tree[f"{HWMON}/hwmon3/temp1_input"] = "71000"
    (zone,) = zones(device).values()
    assert zone.reading.ok


def test_container_and_virtual_machine_are_named_as_the_reason() -> None:
    assert "hidden by this container" in Device({".dockerenv": ""}).status("thermal").detail
    assert (
        "hidden by this container"
        in Device({"run/systemd/container": "lxc"}).status("thermal").detail
    )
    machines: list[Tree] = [
        {"sys/class/dmi/id/product_name": "KVM"},
        {"sys/hypervisor/type": "xen"},
    ]
    for machine in machines:
        assert "hidden by this virtual machine" in Device(machine).status("thermal").detail
    real: Tree = {"sys/class/dmi/id/sys_vendor": "LENOVO"}
    assert "usual in" in Device(real).status("thermal").detail
    assert "usual in" in Device({}).status("thermal").detail


def held(detector: StuckDetector, start: int, seconds: int, load: float) -> float | None:
    """Seconds until a value that stands still from ``start`` on is called stuck."""
    for second in range(seconds):
        if detector.stuck(50.0, float(start + second), load if second > 5 else 0.1):
            return float(second)
    return None


def flickering(every_s: int) -> StuckDetector:
    """One that stood still for ``every_s`` seconds at a time for an hour."""
    detector = StuckDetector()
    for second in range(3600):
        assert not detector.stuck(40.0 + (second // every_s) % 2, float(second), 0.1)
    return detector


def test_a_thermometer_that_always_flickered_is_found_a_minute_after_it_should_have_moved() -> None:
    assert held(flickering(2), 3600, 600, load=0.9) == 66.0
    assert held(flickering(21), 3600, 600, load=0.9) == 216.0
    assert held(flickering(50), 3600, 600, load=0.9) == 300.0, "never later than the others"
    assert held(StuckDetector(), 3600, 600, load=0.9) == 300.0
    assert held(flickering(21), 3600, 600, load=0.4) is None, "nothing that it should have followed"


def test_noise_does_not_end() -> None:
    assert held(flickering(2), 3600, 600, load=0.1) == 120.0
    assert held(flickering(20), 3600, 600, load=0.1) == 200.0
    assert held(flickering(21), 3600, 3600, load=0.1) is None


def test_steps_that_become_slow_are_no_noise() -> None:
    """A fine thermometer of an idle device that settles: up by a digit, later and later, then still."""
    detector, now = StuckDetector(), 0.0
    for step in range(200):
        for _ in range(max(1, 3600 // (201 - step) // 18)):
            assert not detector.stuck(30.0 + step / 10, now, 0.1)
            now += 1.0
    assert held(detector, int(now), 3600, load=0.1) is None


def test_few_changes_are_no_habit() -> None:
    detector = StuckDetector()
    for second in range(50):
        detector.stuck(40.0 + second % 2, float(second), 0.1)
    assert held(detector, 50, 600, load=0.9) == 300.0
