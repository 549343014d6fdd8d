"""Whatever files say, sensors neither raise nor pass nonsense on as sound."""

from __future__ import annotations

import errno
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_files import Device, Tree
from test_sensors import LAPTOP, PHONE, PI

from edge_app.sensors import Quality, Reading, Sample

CPU = "sys/devices/system/cpu"
HWMON = "sys/class/hwmon"

EVERYTHING: Tree = {
    **PI,
    **LAPTOP,
    **PHONE,
    f"{HWMON}/hwmon0/name": "coretemp",
    f"{HWMON}/hwmon0/temp1_input": "70000",
    f"{HWMON}/hwmon0/temp1_label": "Package id 0",
    f"{HWMON}/hwmon0/temp1_crit": "100000",
    f"{HWMON}/hwmon0/temp1_fault": "0",
    f"{HWMON}/hwmon1/name": "ina3221",
    f"{HWMON}/hwmon1/in1_label": "VDD_IN",
    f"{HWMON}/hwmon1/in1_input": "5000",
    f"{HWMON}/hwmon1/curr1_input": "900",
    f"{HWMON}/hwmon2/name": "rpi_volt",
    f"{HWMON}/hwmon2/in0_lcrit_alarm": "0",
    f"{HWMON}/hwmon3/name": "soctherm_oc",
    f"{HWMON}/hwmon3/oc1_event_cnt": "0",
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": "123456789",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
    "sys/bus/iio/devices/iio:device0/name": "ina3221x",
    "sys/bus/iio/devices/iio:device0/rail_name_0": "POM_5V_IN",
    "sys/bus/iio/devices/iio:device0/in_power0_input": "3000",
    f"{CPU}/cpufreq/policy0/scaling_max_freq": "2000000",
    f"{CPU}/cpufreq/policy0/cpuinfo_max_freq": "2000000",
    f"{CPU}/intel_pstate/max_perf_pct": "100",
    f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "0",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "0",
    "proc/self/cgroup": "0::/app.slice",
    "sys/fs/cgroup/app.slice/cpu.max": "100000 100000",
    "sys/fs/cgroup/app.slice/cpu.stat": "nr_periods 10\nnr_throttled 1",
    "sys/fs/cgroup/app.slice/cpu.pressure": "some avg10=1.00 avg60=0.00 avg300=0.00 total=1",
}

ERRORS = [
    errno.ENOENT,
    errno.EAGAIN,
    errno.ENODATA,
    errno.ENODEV,
    errno.EIO,
    errno.EINVAL,
    errno.EACCES,
    errno.ENXIO,
]
NONSENSE = [
    "",
    "N/A",
    "nan",
    "0",
    "-1",
    "61",
    "-273150",
    "-32768000",
    "2147483647",
    "9" * 400,
    "²",
    "a\n\x1b",
]
CONTENT = st.one_of(
    st.sampled_from(ERRORS),
    st.sampled_from(NONSENSE),
    st.integers(-(2**40), 2**40).map(str),
    st.text(max_size=12),
)
CHANGES = st.dictionaries(st.sampled_from(sorted(EVERYTHING)), CONTENT, max_size=8)
STEPS = st.lists(st.tuples(CHANGES, st.sampled_from([0.0, 0.5, 1.0, 6.0, 4000.0])), max_size=6)

RANGES = {
    "throttled": (0.0, 1.0),
    "under_voltage": (0.0, 1.0),
    "other_load": (0.0, 1.0),
    "cpu_pressure": (0.0, 100.0),
    "cpu_limit": (0.0, 1.0),
    "power": (0.0, math.inf),
}


def check(reading: Reading, low: float, high: float, now: float) -> None:
    if reading.quality in (Quality.OK, Quality.STALE, Quality.STUCK):
        assert reading.value is not None and low <= reading.value <= high, reading
    if reading.quality in (Quality.MISSING, Quality.ABSENT):
        assert reading.value is None, reading
    assert reading.time <= now
    assert isinstance(reading.quality, Quality) and reading.name


def check_sample(sample: Sample) -> None:
    for zone in sample.zones:
        check(zone.reading, -40.0, 125.0, sample.time)
        for trip in (zone.passive_c, zone.critical_c):
            assert trip is None or 25.0 <= trip <= 125.0
    for name, (low, high) in RANGES.items():
        check(getattr(sample, name), low, high, sample.time)
    battery = sample.battery
    check(battery.charge, 0.0, 1.0, sample.time)
    check(battery.energy, 0.0, math.inf, sample.time)
    check(battery.power, -1000.0, 1000.0, sample.time)
    assert battery.full_j is None or battery.full_j > 0


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_nothing_raises_and_nothing_absurd_is_sound(steps: list[tuple[Tree, float]]) -> None:
    device = Device(EVERYTHING)
    known: set[str] = set()
    for changes, seconds in [({}, 0.0), *steps]:
        device.files.tree |= changes
        sample = device.sensors.sample()
        check_sample(sample)
        names = [zone.name for zone in sample.zones]
        assert len(set(names)) == len(names) and known <= set(names), "once seen, never forgotten"
        known |= set(names)
        for status in device.sensors.describe():
            assert status.detail and f"{status.name}{status.what}{status.detail}".isprintable()
        device.clock.advance(seconds)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(sorted({path.rpartition("/")[0] for path in EVERYTHING}))))
def test_directories_come_and_go(gone: set[str]) -> None:
    device = Device(EVERYTHING)
    before: Any = device.sensors.sample()
    for directory in gone:
        device.files.remove(directory)
    device.clock.advance(10.0)
    check_sample(device.sensors.sample())
    device.files.tree = dict(EVERYTHING)
    device.clock.advance(1.0)
    after = device.sensors.sample()
    assert [z.reading.quality for z in after.zones] == [z.reading.quality for z in before.zones]
    assert after.under_voltage.ok and after.cpu_limit.ok and after.battery.charge.ok
