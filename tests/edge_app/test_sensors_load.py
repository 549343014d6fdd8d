"""CPU times, pressure and quotas."""

from __future__ import annotations

import errno

import pytest
from sensor_files import Device, Tree

from edge_app.sensors import Quality

STAT = "proc/stat"
SYSTEM = "proc/pressure/cpu"
MEMBERSHIP = "proc/self/cgroup"
GROUP = "sys/fs/cgroup/app.slice"


def stall(percent: str) -> str:
    return f"some avg10={percent} avg60=0.00 avg300=0.00 total=5\n"


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ("cpu  100 0 0 100", "cpu  130 0 20 150", 0.5),
        ("cpu  0 0 0 0 0 0 0 0 0 0", "cpu  10 10 10 50 10 0 0 10 10 10", 0.4),
        ("cpu  500 0 0 500 90", "cpu  600 0 0 600 80", 100 / 190),
    ],
)
def test_load_of_others(before: str, after: str, share: float) -> None:
    device = Device({STAT: before})
    device.sensors.sample()
    device.files.tree[STAT] = f"{after}\ncpu0 1 2 3 4\nintr 5"
    load = device.sensors.sample().other_load
    assert load.ok and load.value == pytest.approx(share)


@pytest.mark.parametrize("content", [errno.EACCES, "", "cpu  N/A", "cpu  1 2 3", "cpu0 1 2 3 4"])
def test_times_that_cannot_be_read(content: str | int) -> None:
    device = Device({STAT: content})
    for _ in range(2):
        device.clock.advance(1.0)
        assert device.sensors.sample().other_load.quality is Quality.ABSENT
    assert "cannot be read" in device.status("load").detail


def test_times_that_were_there_are_missed() -> None:
    device = Device({STAT: "cpu 10 0 0 10"})
    device.sensors.sample()
    device.files.tree[STAT] = "cpu 20 0 0 20"
    assert device.sensors.sample().other_load.value == pytest.approx(0.5)
    device.files.tree[STAT] = errno.EIO
    assert device.sensors.sample().other_load.quality is Quality.STALE
    device.clock.advance(6.0)
    assert device.sensors.sample().other_load.quality is Quality.MISSING


def test_within_a_tick_the_load_stays_known() -> None:
    device = Device({STAT: "cpu 10 0 0 10"})
    device.sensors.sample()
    device.files.tree[STAT] = "cpu 20 0 0 20"
    device.sensors.sample()
    assert device.sensors.sample().other_load.value == pytest.approx(0.5)


def test_counters_that_fall_are_a_new_start() -> None:
    device = Device({STAT: "cpu 1000 0 0 1000"})
    device.sensors.sample()
    device.files.tree[STAT] = "cpu 10 0 0 10"
    device.sensors.sample()
    device.files.tree[STAT] = "cpu 10 0 0 20"
    assert device.sensors.sample().other_load.value == 0.0


def pressure_of(tree: Tree) -> tuple[float | None, str]:
    device = Device(tree)
    return device.sensors.sample().cpu_pressure.value, device.status("pressure").detail


def test_pressure_of_the_system_comes_first() -> None:
    tree: Tree = {SYSTEM: stall("3.50"), MEMBERSHIP: "0::/app.slice"}
    value, detail = pressure_of({**tree, f"{GROUP}/cpu.pressure": stall("9.00")})
    assert value == 3.5 and SYSTEM in detail


@pytest.mark.parametrize("system", [errno.ENOENT, errno.EOPNOTSUPP, ""])
def test_pressure_of_the_group_stands_in(system: str | int) -> None:
    tree: Tree = {SYSTEM: system, MEMBERSHIP: "1:cpu:/x\n0::/app.slice\n"}
    value, detail = pressure_of({**tree, f"{GROUP}/cpu.pressure": stall("9.00")})
    assert value == 9.0 and "app.slice" in detail


@pytest.mark.parametrize("membership", ["0::/", "0::/docker/1a2b", errno.ENOENT])
def test_pressure_of_the_group_in_a_container(membership: str | int) -> None:
    tree: Tree = {MEMBERSHIP: membership, "sys/fs/cgroup/cpu.pressure": stall("4.00")}
    assert pressure_of(tree)[0] == 4.0


@pytest.mark.parametrize("membership", ["4:cpu:/x", "0::/../other"])
def test_no_pressure_without_a_group(membership: str) -> None:
    tree: Tree = {MEMBERSHIP: membership, "sys/fs/cgroup/cpu.pressure": stall("4.00")}
    value, detail = pressure_of(tree)
    assert value is None and "load of others" in detail


def test_load_average_is_never_asked() -> None:
    device = Device({"proc/loadavg": "9.00 9.00 9.00 1/2 3"})
    device.sensors.sample()
    device.sensors.describe()
    assert "proc/loadavg" not in device.files.asked


def test_pressure_out_of_range_and_pressure_that_goes() -> None:
    device = Device({SYSTEM: stall("250.00")})
    assert device.sensors.sample().cpu_pressure.quality is Quality.IMPLAUSIBLE
    device.files.tree[SYSTEM] = errno.EIO
    assert device.sensors.sample().cpu_pressure.quality is Quality.MISSING
    assert "any more" in device.status("pressure").detail


def quota(periods: int, throttled: int) -> Tree:
    return {
        MEMBERSHIP: "0::/app.slice",
        f"{GROUP}/cpu.max": "150000 100000",
        f"{GROUP}/cpu.stat": f"usage_usec 9\nnr_periods {periods}\nnr_throttled {throttled}\n",
    }


def test_quota_that_is_used_up_is_pressure() -> None:
    device = Device({SYSTEM: stall("1.00"), **quota(100, 10)})
    assert device.sensors.sample().cpu_pressure.value == 1.0
    assert device.status("quota").detail == "1.5 CPUs"
    for step in range(1, 61):
        device.clock.advance(1.0)
        device.files.tree |= quota(100 + 10 * step, 10 + 8 * step)
        sample = device.sensors.sample()
    assert sample.cpu_pressure.value == pytest.approx(80.0)
    assert device.status("quota").detail == "1.5 CPUs, used up in 80 % of the time".replace(
        " %", "%"
    )
    for _ in range(60):
        device.clock.advance(1.0)
        sample = device.sensors.sample()
    assert sample.cpu_pressure.value == 1.0, "nothing runs, nothing waits"


def test_quota_alone() -> None:
    device = Device(quota(100, 10))
    device.sensors.sample()
    device.clock.advance(1.0)
    device.files.tree |= quota(110, 10)
    assert device.sensors.sample().cpu_pressure.quality is Quality.ABSENT, "others stay unseen"
    for step in range(1, 31):
        device.clock.advance(1.0)
        device.files.tree |= quota(110 + 10 * step, 10 + 10 * step)
        sample = device.sensors.sample()
    assert sample.cpu_pressure.ok and sample.cpu_pressure.value == pytest.approx(95.0, abs=1.0)


@pytest.mark.parametrize("limit", ["max 100000", "", "N/A", "100000 0", errno.EACCES])
def test_no_quota(limit: str | int) -> None:
    device = Device({**quota(10, 0), f"{GROUP}/cpu.max": limit})
    device.sensors.sample()
    device.files.tree |= {**quota(20, 10), f"{GROUP}/cpu.max": limit}
    assert device.sensors.sample().cpu_pressure.quality is Quality.ABSENT
    assert not [status for status in device.sensors.describe() if status.name == "quota"]
