"""The energy meter over counters, rails and batteries."""

from __future__ import annotations

import errno

import pytest
from sensor_files import Device, Files, Tree

from edge_app.clock import ManualClock
from edge_app.sensors import Quality
from edge_app.sensors.energy import EnergyMeter

RAPL = "sys/class/powercap/intel-rapl:0"
DRAM = "sys/class/powercap/intel-rapl:0:2"
PSYS = "sys/class/powercap/intel-rapl:1"
INA = "sys/class/hwmon/hwmon4"
BAT = "sys/class/power_supply/BAT0"

PACKAGE: Tree = {
    f"{RAPL}/name": "package-0",
    f"{RAPL}/energy_uj": "1000000",
    f"{RAPL}/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl:0:0/name": "core",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "500000",
    "sys/class/powercap/intel-rapl-mmio:0/name": "package-0",
    "sys/class/powercap/intel-rapl-mmio:0/energy_uj": "1000000",
}
ORIN: Tree = {
    f"{INA}/name": "ina3221",
    f"{INA}/in1_label": "VDD_IN",
    f"{INA}/in1_input": "5000",
    f"{INA}/curr1_input": "1200",
    f"{INA}/in2_label": "VDD_CPU_GPU_CV",
    f"{INA}/in2_input": "5000",
    f"{INA}/curr2_input": "300",
    f"{INA}/in7_label": "sum of shunt voltages",
    f"{INA}/in7_input": "12",
}
DRAINED: Tree = {
    f"{BAT}/type": "Battery",
    f"{BAT}/status": "Discharging",
    f"{BAT}/capacity": "60",
    f"{BAT}/power_now": "5000000",
}


class Meter:
    """A meter over a tree, and its clock."""

    def __init__(self, tree: Tree) -> None:
        self.files = Files(tree)
        self.clock = ManualClock(100.0)
        self.meter = EnergyMeter(self.files, self.clock)

    def after(self, seconds: float, **content: str | int) -> tuple[float | None, float | None]:
        """Joules and watts after some time, with other content in files below RAPL's zone."""
        self.clock.advance(seconds)
        self.files.tree |= {f"{RAPL}/{name}": text for name, text in content.items()}
        reading = self.meter.read()
        return reading.joules, reading.watts

    def step(self, changes: Tree, seconds: float = 1.0) -> tuple[float | None, float | None]:
        self.files.tree |= changes
        return self.after(seconds)


def test_counter_of_a_package() -> None:
    meter = Meter(PACKAGE)
    assert meter.after(0.0) == (0.0, None)
    assert meter.after(2.0, energy_uj="21000000") == (pytest.approx(20.0), pytest.approx(10.0))
    assert meter.after(1.0, energy_uj="26000000") == (pytest.approx(25.0), pytest.approx(5.0))
    assert meter.meter.read().source == "CPU package"


def test_memory_counts_with_the_package() -> None:
    meter = Meter({**PACKAGE, f"{DRAM}/name": "dram", f"{DRAM}/energy_uj": "0"})
    meter.after(0.0)
    joules, _ = meter.step({f"{RAPL}/energy_uj": "11000000", f"{DRAM}/energy_uj": "2000000"})
    assert joules == pytest.approx(12.0)


def test_counter_wraps_at_its_range() -> None:
    meter = Meter({**PACKAGE, f"{RAPL}/energy_uj": "262143000000"})
    meter.after(0.0)
    joules, _ = meter.after(1.0, energy_uj="9671150")
    assert joules == pytest.approx(10.0)


def test_counter_that_suspend_set_back_is_no_wrap() -> None:
    meter = Meter(PACKAGE)
    meter.after(0.0)
    meter.after(1.0, energy_uj="6000000")
    assert meter.after(1.0, energy_uj="100000") == (pytest.approx(5.0), 0.0)
    assert meter.after(1.0, energy_uj="3100000") == (pytest.approx(8.0), pytest.approx(3.0))


def test_fast_counter_is_believed_up_to_a_kilowatt() -> None:
    meter = Meter(PACKAGE)
    meter.after(0.0)
    assert meter.after(4.0, energy_uj="3601000000") == (pytest.approx(3600.0), pytest.approx(900.0))
    assert meter.after(4.0, energy_uj="8001000000")[0] == pytest.approx(3600.0)


def test_after_a_long_gap_nobody_knows_how_often_it_wrapped() -> None:
    meter = Meter(PACKAGE)
    meter.after(0.0)
    assert meter.after(3600.0, energy_uj="9000000")[0] == 0.0
    assert meter.after(1.0, energy_uj="10000000")[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("platform", "joules", "source"),
    [("21000000", 20.0, "platform"), ("3000000", 10.0, "CPU package"), ("0", 10.0, "CPU package")],
)
def test_platform_is_believed_if_it_counts_more(platform: str, joules: float, source: str) -> None:
    meter = Meter({**PACKAGE, f"{PSYS}/name": "psys", f"{PSYS}/energy_uj": "1000000"})
    meter.after(0.0)
    changes: Tree = {f"{RAPL}/energy_uj": "11000000", f"{PSYS}/energy_uj": platform}
    assert meter.step(changes)[0] == pytest.approx(joules)
    assert meter.meter.read().source == source
    changes = {f"{RAPL}/energy_uj": "21000000", f"{PSYS}/energy_uj": "41000000"}
    assert meter.step(changes)[0] == pytest.approx(2 * joules)


def test_counter_for_root_only_is_normal() -> None:
    device = Device({**PACKAGE, f"{RAPL}/energy_uj": errno.EACCES})
    assert device.sensors.sample().power.quality is Quality.ABSENT
    detail = device.status("power").detail
    assert "root only, which is normal" in detail and "no battery" in detail


def test_counter_that_fails_later_is_missed_and_nothing_stands_in_for_it() -> None:
    meter = Meter({**PACKAGE, **ORIN})
    meter.after(0.0)
    meter.after(1.0, energy_uj="6000000")
    assert meter.after(1.0, energy_uj=errno.EIO) == (None, None)
    assert meter.meter.read().quality is Quality.MISSING
    assert meter.after(1.0, energy_uj="16000000")[0] == pytest.approx(15.0), "it went on counting"


def test_rail_that_feeds_all_others() -> None:
    meter = Meter(ORIN)
    assert meter.after(0.0) == (0.0, pytest.approx(6.0))
    joules, watts = meter.step({f"{INA}/curr1_input": "1600"}, 2.0)
    assert (joules, watts) == (pytest.approx(14.0), pytest.approx(8.0))
    assert meter.meter.read().source == "VDD_IN"
    assert meter.meter.read().quality is Quality.OK


def test_rails_are_added_up_where_none_feeds_all() -> None:
    meter = Meter({**ORIN, f"{INA}/in1_label": "VDD_GPU_SOC"})
    assert meter.after(0.0)[1] == pytest.approx(7.5)
    assert meter.meter.read().source == "VDD_GPU_SOC + VDD_CPU_GPU_CV"
    assert meter.step({f"{INA}/in2_enable": "0"})[1] == pytest.approx(6.0)
    assert meter.step({f"{INA}/curr1_input": errno.EAGAIN}) == (None, None)
    assert "cannot be read" in meter.meter.describe().detail


def test_rail_without_load() -> None:
    assert Meter({**ORIN, f"{INA}/curr1_input": "-4"}).after(0.0)[1] == 0.0


def test_chip_that_multiplies_itself() -> None:
    chip: Tree = {f"{INA}/name": "ina226", f"{INA}/power1_input": "4250000"}
    meter = Meter({**chip, f"{INA}/in1_input": "5000", f"{INA}/curr1_input": "9999"})
    assert meter.after(0.0)[1] == pytest.approx(4.25)


def test_rails_of_older_jetson_systems() -> None:
    iio = "sys/bus/iio/devices/iio:device0"
    tree: Tree = {
        f"{iio}/name": "ina3221x",
        f"{iio}/rail_name_0": "POM_5V_IN",
        f"{iio}/in_power0_input": "3400",
        f"{iio}/rail_name_1": "POM_5V_GPU",
        f"{iio}/in_power1_input": "500",
    }
    meter = Meter(tree)
    assert meter.after(0.0)[1] == pytest.approx(3.4)
    assert meter.meter.read().source == "POM_5V_IN"


def test_battery_counts_while_it_powers_the_device() -> None:
    meter = Meter(DRAINED)
    assert meter.after(0.0) == (0.0, pytest.approx(5.0))
    joules, watts = meter.step({f"{BAT}/power_now": "7000000"}, 10.0)
    assert (joules, watts) == (pytest.approx(60.0), pytest.approx(7.0))
    assert meter.step({f"{BAT}/status": "Charging"}) == (None, None)
    assert meter.meter.read().quality is Quality.ABSENT
    assert "not in use" in meter.meter.describe().detail
    joules, _ = meter.step({f"{BAT}/status": "Discharging"}, 10.0)
    assert joules == pytest.approx(60.0), "what flowed meanwhile is not the battery's"
    assert meter.after(1.0)[0] == pytest.approx(67.0)


@pytest.mark.parametrize("power", [errno.ENODATA, "100", "N/A"])
def test_battery_that_does_not_tell_its_power(power: str | int) -> None:
    meter = Meter({**DRAINED, f"{BAT}/power_now": power})
    assert meter.after(0.0) == (None, None)
    assert "does not tell its power" in meter.meter.describe().detail


def test_power_of_a_sample() -> None:
    device = Device(ORIN)
    power = device.sensors.sample().power
    assert power.ok and power.value == pytest.approx(6.0) and power.name == "power (VDD_IN)"
    assert device.status("power").detail == "VDD_IN: 6.00 W"
    device = Device(PACKAGE)
    assert device.sensors.sample().power.quality is Quality.ABSENT, "nothing to compare with"
    assert "second sample" in device.status("power").detail
    device.clock.advance(1.0)
    device.files.tree[f"{RAPL}/energy_uj"] = "4000000"
    assert device.sensors.sample().power.value == pytest.approx(3.0)
