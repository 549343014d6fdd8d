"""Batteries whose drivers say little, or say it wrong."""

from __future__ import annotations

import errno

import pytest
from sensor_files import Device, Tree

from edge_app.sensors import Battery, Quality
from edge_app.sensors.gauge import GaugeWatch, charge_at_rest

BAT = "sys/class/power_supply/BAT0"
SECOND = "sys/class/power_supply/BAT1"
WH = 3600.0

PACK: Tree = {
    f"{BAT}/type": "Battery",
    f"{BAT}/status": "Discharging",
    f"{BAT}/energy_now": "30000000",
    f"{BAT}/energy_full": "40000000",
    f"{BAT}/voltage_now": "11400000",
    f"{BAT}/power_now": "8000000",
}
HAT: Tree = {
    f"{BAT}/type": "Battery",
    f"{BAT}/status": "Discharging",
    f"{BAT}/voltage_now": "3760000",
}


def battery(tree: Tree) -> Battery:
    return Device(tree).sensors.sample().battery


def without(tree: Tree, *names: str) -> Tree:
    return {path: content for path, content in tree.items() if path.split("/")[-1] not in names}


def test_board_that_says_only_a_voltage() -> None:
    device = Device(HAT)
    found = device.sensors.sample().battery
    assert found.charge.ok and found.charge.value == pytest.approx(0.4)
    assert found.energy.quality is Quality.ABSENT and found.full_j is None
    assert "estimated from 3.76 V" in device.status("battery").detail


@pytest.mark.parametrize("technology", ["LiFe", "NiMH"])
def test_voltage_that_tells_nothing(technology: str) -> None:
    device = Device({**HAT, f"{BAT}/technology": technology})
    charge = device.sensors.sample().battery.charge
    assert charge.quality is Quality.MISSING and charge.value is None


@pytest.mark.parametrize(
    ("volts", "charge"),
    [
        (4.2, 1.0),
        (4.18, 1.0),
        (3.9, 0.625),
        (3.0, 0.0),
        (2.5, 0.0),
        (7.52, 0.4),
        (12.6, 1.0),
        (16.8, 1.0),
        (1.2, None),
        (24.0, None),
        (0.0, None),
    ],
)
def test_charge_at_rest(volts: float, charge: float | None) -> None:
    expected = None if charge is None else pytest.approx(charge)
    assert charge_at_rest(volts, "Li-ion") == expected


def test_charge_at_rest_rises_with_the_voltage() -> None:
    charges = [charge_at_rest(3.0 + 0.01 * step, "Unknown") or 0.0 for step in range(120)]
    assert charges == sorted(charges)


@pytest.mark.parametrize(
    ("changes", "fraction"),
    [
        ({"capacity": "101"}, 1.0),
        ({"capacity": "71", "capacity_error_margin": "5"}, 0.71),
        ({"capacity": "50", "capacity_error_margin": "100"}, 0.75),
        ({"capacity": errno.ENODATA}, 0.75),
        ({"capacity": "N/A"}, 0.75),
        ({"energy_now": "41000000"}, 1.0),
    ],
)
def test_charge(changes: Tree, fraction: float) -> None:
    changed: Tree = {f"{BAT}/{name}": content for name, content in changes.items()}
    charge = battery({**PACK, **changed}).charge
    assert charge.ok and charge.value == pytest.approx(fraction)


def test_energy_from_capacity_and_what_is_full() -> None:
    tree: Tree = {**without(PACK, "energy_now"), f"{BAT}/capacity": "50"}
    found = battery(tree)
    assert found.energy.value == pytest.approx(20 * WH) and found.full_j == pytest.approx(40 * WH)


def test_charge_in_ampere_hours_needs_a_voltage_for_energy() -> None:
    tree: Tree = {
        **without(PACK, "energy_now", "energy_full", "voltage_now"),
        f"{BAT}/charge_now": "1500000",
        f"{BAT}/charge_full": "3000000",
    }
    found = battery(tree)
    assert found.charge.value == pytest.approx(0.5)
    assert found.energy.quality is Quality.ABSENT and found.full_j is None
    found = battery({**tree, f"{BAT}/voltage_now": "3700000"})
    assert found.energy.value == pytest.approx(1.5 * 3.7 * WH)
    # In millivolts: no such battery, so no energy rather than a thousandth of it.
    assert battery({**tree, f"{BAT}/voltage_now": "3700"}).energy.quality is Quality.ABSENT


def test_two_packs_one_in_watt_hours_and_one_in_ampere_hours() -> None:
    second: Tree = {
        f"{SECOND}/type": "Battery",
        f"{SECOND}/status": "Unknown",
        f"{SECOND}/charge_now": "1000000",
        f"{SECOND}/charge_full": "2000000",
        f"{SECOND}/voltage_now": "10000000",
        f"{SECOND}/power_now": "0",
    }
    device = Device({**PACK, **second})
    found = device.sensors.sample().battery
    assert found.energy.value == pytest.approx(40 * WH)
    assert found.full_j == pytest.approx(60 * WH)
    assert found.charge.value == pytest.approx((0.75 * 40 + 0.5 * 20) / 60)
    assert "together: BAT0, BAT1" in device.status("battery").detail
    # Without its voltage nobody knows how much there is in all.
    del device.files.tree[f"{SECOND}/voltage_now"]
    found = device.sensors.sample().battery
    assert found.full_j is None and found.charge.value == pytest.approx((0.75 + 0.5) / 2)


def test_driver_that_counts_in_milliwatt_hours() -> None:
    tree: Tree = {**PACK, f"{BAT}/energy_now": "30000", f"{BAT}/energy_full": "40000"}
    found = battery(tree)
    assert found.charge.value == pytest.approx(0.75)
    assert found.energy.quality is Quality.ABSENT and found.full_j is None


@pytest.mark.parametrize(
    ("changes", "watts", "quality"),
    [
        ({}, 8.0, Quality.OK),
        ({"power_now": "-8000000"}, 8.0, Quality.OK),
        ({"power_now": "0", "current_now": "-1000000"}, 11.4, Quality.OK),
        ({"power_now": errno.ENODEV, "current_now": "1000000"}, 11.4, Quality.OK),
        ({"power_now": "65535000000000", "current_now": "1000000"}, 11.4, Quality.OK),
        ({"power_now": errno.ENODATA, "current_now": "1000"}, 0.0114, Quality.IMPLAUSIBLE),
        ({"power_now": "N/A"}, None, Quality.ABSENT),
    ],
)
def test_power(changes: Tree, watts: float | None, quality: Quality) -> None:
    changed: Tree = {f"{BAT}/{name}": content for name, content in changes.items()}
    power = battery({**PACK, **changed}).power
    assert power.quality is quality
    assert power.value == (None if watts is None else pytest.approx(watts))


def test_power_and_energy_that_were_there_are_missed() -> None:
    device = Device({**PACK, f"{BAT}/capacity": "75"})
    device.sensors.sample()
    for name in ("power_now", "energy_now", "energy_full"):
        device.files.tree[f"{BAT}/{name}"] = errno.EIO
    device.clock.advance(3.0)
    found = device.sensors.sample().battery
    assert (found.power.quality, found.energy.quality) == (Quality.STALE, Quality.STALE)
    device.clock.advance(3.0)
    found = device.sensors.sample().battery
    assert (found.power.quality, found.energy.quality) == (Quality.MISSING, Quality.MISSING)
    assert found.charge.ok


def test_pack_that_is_being_pulled_out_does_not_spoil_the_other() -> None:
    second: Tree = {path.replace("BAT0", "BAT1"): errno.ENODEV for path in PACK}
    second[f"{SECOND}/type"] = "Battery"
    second[f"{SECOND}/present"] = errno.ENODEV
    found = battery({**PACK, **second})
    assert found.charge.value == pytest.approx(0.75)
    assert found.energy.value == pytest.approx(30 * WH)


def test_energy_of_a_gauge_that_jumps_is_not_believed_either() -> None:
    device = Device(PACK)
    device.sensors.sample()
    device.files.tree[f"{BAT}/energy_now"] = "2000000"
    device.clock.advance(1.0)
    found = device.sensors.sample().battery
    assert (found.charge.quality, found.energy.quality) == (Quality.IMPLAUSIBLE,) * 2


def test_gauge_that_does_not_fall_while_energy_is_drawn_is_stuck() -> None:
    device = Device({**PACK, f"{BAT}/capacity": "50"})
    qualities = []
    # 8 W out of 40 Wh: a tenth has gone after half an hour.
    for _ in range(35):
        found = device.sensors.sample().battery
        qualities.append(found.charge.quality)
        device.clock.advance(60.0)
    assert qualities[30] is Quality.OK and qualities[31:] == [Quality.STUCK] * 4
    assert found.energy.quality is Quality.STUCK
    assert "although" in device.status("battery").detail
    device.files.tree[f"{BAT}/capacity"] = "49"
    assert device.sensors.sample().battery.charge.ok


@pytest.mark.parametrize(("drain_w", "full_j"), [(None, 1000.0), (10.0, None)])
def test_gauge_is_not_called_stuck_without_evidence(
    drain_w: float | None, full_j: float | None
) -> None:
    watch = GaugeWatch()
    verdicts = {watch.judge(0.5, float(time), drain_w, full_j)[0] for time in range(0, 9000, 10)}
    assert verdicts == {Quality.OK}


def test_charger_that_is_on_in_either_way() -> None:
    for online, on_ac in (("0", False), ("1", True), ("2", True)):
        charger = "sys/class/power_supply/usb"
        tree: Tree = {**PACK, f"{charger}/type": "USB", f"{charger}/online": online}
        assert battery(tree).on_ac is on_ac


def test_peripherals_charger_and_battery_do_not_count() -> None:
    pen = "sys/class/power_supply/pen"
    tree: Tree = {f"{pen}/scope": "Device", f"{pen}/online": "1", f"{pen}/capacity": "3"}
    for kind in ("Battery", "Wireless"):
        found = battery({**tree, f"{pen}/type": kind})
        assert not found.present and found.on_ac is None
