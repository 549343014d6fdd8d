"""What levels cost here, as it is measured: times, energy, what disturbs, and on which machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edge_app.clock import ManualClock, RealClock
from edge_app.models import open_model
from edge_app.profiles.measuring import (
    Block,
    Machine,
    cpu_id,
    disturbances,
    frequency_governor,
    level_profile,
    measure,
    percentile,
    quick_times,
    versions,
)
from edge_app.profiles.store import FORMAT
from edge_app.sensors import Quality, Reading, Sample
from edge_app.sensors.root import Attribute, SysRoot

RAPL = "sys/class/powercap/intel-rapl:0"
BUSY_W, IDLE_W = 20.0, 5.0


class Package:
    """A machine whose package counts 5 W, and 20 W more while this process computes."""

    name = "a package"
    is_this_machine = False

    def __init__(self, source: str = "package-0") -> None:
        self._source = source

    def entries(self, path: str) -> list[str]:
        return ["intel-rapl:0"] if path == "sys/class/powercap" else []

    def read(self, path: str) -> Attribute:
        joules = time.perf_counter() * IDLE_W + time.process_time() * BUSY_W
        content = {
            f"{RAPL}/name": self._source,
            f"{RAPL}/max_energy_range_uj": str(10**15),
            f"{RAPL}/energy_uj": str(round(joules * 1e6)),
        }.get(path)
        return Attribute(None, "ENOENT") if content is None else Attribute(content)


def write(root: Path, files: dict[str, str]) -> SysRoot:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return SysRoot(root)


# One level ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "value"), [(0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.9, 4), (1.0, 4), (0.0, 1)]
)
def test_percentile(share: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], share) == value


def test_a_level_from_its_times() -> None:
    times = tuple(0.001 * number for number in (5, 1, 4, 2, 3, 6, 8, 7, 10, 9))
    level = level_profile(4, Block(times, 0.06, 0.9), 5.0)
    assert (level.bits, level.runs) == (4, 10)
    assert level.median_s == pytest.approx(0.0055)
    assert level.p90_s == pytest.approx(0.009)
    assert level.spread == pytest.approx((0.008 - 0.003) / 0.0055)
    # 0.9 J less 0.06 s of 5 W, over ten runs.
    assert level.joules == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("joules", "idle_w"), [(None, 5.0), (0.9, None), (0.3, 5.0), (0.2999, 5.0), (0.0, 0.0)]
)
def test_joules_that_do_not_stand_out_are_none(joules: float | None, idle_w: float | None) -> None:
    assert level_profile(4, Block((0.006,) * 10, 0.06, joules), idle_w).joules is None


# What disturbs --------------------------------------------------------------------------------------


def make_sample(**readings: float) -> Sample:
    return Sample(
        0.0, **{name: Reading(value, 0.0, Quality.OK, name) for name, value in readings.items()}
    )


@pytest.mark.parametrize(
    ("samples", "problems"),
    [
        ([], []),
        ([Sample(0.0)], []),
        ([make_sample(other_load=0.10, cpu_limit=1.0, throttled=0.0, under_voltage=0.0)], []),
        (
            [make_sample(other_load=0.11), make_sample(other_load=0.5), make_sample()],
            ["other programs used up to 50% of the CPUs"],
        ),
        ([make_sample(throttled=1.0), make_sample(throttled=0.0)], ["the CPU was throttled"]),
        (
            [make_sample(cpu_limit=0.99), make_sample(cpu_limit=0.7)],
            ["the CPU was limited to 70% of its highest frequency"],
        ),
        ([make_sample(under_voltage=1.0)], ["the power supply was too weak"]),
        ([Sample(0.0, throttled=Reading(1.0, 0.0, Quality.STALE, ""))], []),
    ],
)
def test_disturbances(samples: list[Sample], problems: list[str]) -> None:
    assert disturbances(samples) == problems


def test_disturbances_are_seen_while_measuring(tmp_path: Path) -> None:
    cpufreq = "sys/devices/system/cpu/cpufreq/policy0"
    root = write(
        tmp_path,
        {f"{cpufreq}/scaling_max_freq": "1200000", f"{cpufreq}/cpuinfo_max_freq": "2400000"},
    )
    machine = Machine(root, ManualClock())
    assert machine.disturbances() == []
    machine.block(None, 1.0)
    assert machine.disturbances() == ["the CPU was limited to 50% of its highest frequency"]
    assert machine.energy_source == ""


def test_idling_takes_as_long_as_it_is_told_to_and_reads_the_meter_each_second(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    base = "sys/class/hwmon/hwmon0"
    write(tmp_path, {f"{base}/name": "ina226", f"{base}/power1_input": "2500000"})
    machine = Machine(SysRoot(tmp_path), clock)
    block = machine.block(None, 90.5)
    assert block.times == () and block.seconds == pytest.approx(90.5)
    # Power is not taken to stay what it was for longer than a minute without a look.
    assert block.joules == pytest.approx(2.5 * 90.5)


def test_calls_are_timed_one_by_one() -> None:
    calls: list[float] = []
    machine = Machine(Package(), RealClock())
    block = machine.block(lambda: calls.append(time.perf_counter()), 0.05)
    assert len(block.times) == len(calls) >= 20
    assert all(taken > 0 for taken in block.times)
    assert sum(block.times) <= block.seconds
    assert block.joules is not None and block.joules > 0
    # However long they take, some are needed.
    slow = machine.block(lambda: time.sleep(0.002), 0.001)
    assert len(slow.times) == 20


# A real model ---------------------------------------------------------------------------------------


def test_measures_every_level_of_a_model() -> None:
    with open_model("digits") as program:
        profile = measure(program, 1, "normal", 0.1, Package(), RealClock())
    assert profile.format == FORMAT and profile.model == "digits"
    assert [level.bits for level in profile.levels] == [2, 4, 6, 8]
    for level in profile.levels:
        assert 0 < level.median_s <= level.p90_s and level.runs >= 20
        # Whatever else ran: a run took no more energy than its computing.
        assert level.joules is None or level.joules < BUSY_W
    assert profile.energy_source == "CPU package" and not profile.whole_device
    assert profile.idle_w is not None and profile.idle_w >= IDLE_W * 0.9
    assert profile.governor == "none" and profile.versions == versions()
    assert profile.conditions.threads == 1 and profile.conditions.memory == "normal"


def test_quick_times_of_every_level() -> None:
    with open_model("digits") as program:
        seconds = quick_times(program)
    assert sorted(seconds) == [2, 4, 6, 8] and all(taken > 0 for taken in seconds.values())


# The machine ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"proc/cpuinfo": "processor : 0\nmodel name : Fast CPU @ 2 GHz\n"}, "Fast CPU @ 2 GHz"),
        ({"proc/cpuinfo": "processor : 0\nModel : Raspberry Pi 5 Model B\n"}, "Raspberry Pi 5"),
        (
            {"proc/cpuinfo": "CPU part : 0xd08\n", "proc/device-tree/model": "Rock 5B\0"},
            "Rock 5B",
        ),
        (
            {"proc/cpuinfo": "CPU implementer : 0x41\nCPU part : 0xd0b\nCPU part : 0xd08\n"},
            "0x41 0xd0b",
        ),
        ({}, "unknown CPU"),
    ],
)
def test_identity_of_the_cpu(tmp_path: Path, files: dict[str, str], name: str) -> None:
    root = write(tmp_path, files)
    for directory in ("cpu0", "cpu1", "cpufreq", "cpuidle"):
        (tmp_path / "sys/devices/system/cpu" / directory).mkdir(parents=True)
    identity = cpu_id(root)
    assert identity.startswith(name) and identity.endswith(", 2 CPUs")


def test_frequency_governors(tmp_path: Path) -> None:
    assert frequency_governor(SysRoot(tmp_path)) == "none"
    base = "sys/devices/system/cpu/cpufreq"
    root = write(
        tmp_path,
        {
            f"{base}/policy0/scaling_governor": "schedutil\n",
            f"{base}/policy4/scaling_governor": "performance\n",
            f"{base}/policy6/scaling_governor": "schedutil\n",
            f"{base}/ondemand/scaling_governor": "no policy\n",
        },
    )
    assert frequency_governor(root) == "performance + schedutil"
