"""Every fault of the catalogue, and what the governor makes of throttling, batteries, time and load.

Two kinds of test. `test_no_fault_breaks_an_invariant` takes all faults: the invariants hold while
a fault lasts and after it, and the highest level comes back. The others, here and in
`test_fault_catalogue_thermometers`, say what exactly is expected of each fault.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_root import Machine, Pack
from faults import CATALOGUE, FAULTS
from governor_samples import COOL
from rig import Heat, Rig, begin, changes, events


def on_battery(percent: float = 80.0, **pack: float) -> Machine:
    """A machine with a battery in use and a charger that is not connected."""
    return Machine(packs={"BAT0": Pack(percent=percent, **pack)}, chargers={"AC": False})


@pytest.mark.parametrize("fault", CATALOGUE, ids=lambda fault: fault.name)
def test_no_fault_breaks_an_invariant(fault: object) -> None:
    name = getattr(fault, "name", "")
    rig = Rig(on_battery(), heat=Heat(k_per_w=6.0, settle_s=30.0))
    rig.run(60, lambda _: rig.frames(1.0, 2))
    end = FAULTS[name].begin(rig.machine)
    rig.run(70, lambda _: rig.frames(1.0, 2))
    end()
    for _ in range(400):
        rig.frames(1.0, 2)
        if rig.second().rung == rig.governor.ladder.top:
            return
    raise AssertionError(f"still at {rig.governor.level} bits: {rig.watch.newest}")


def test_the_documentation_names_every_fault() -> None:
    text = (Path(__file__).parents[2] / "docs" / "governor.md").read_text(encoding="utf-8")
    missing = [fault.name for fault in CATALOGUE if f"| {fault.name} | {fault.what} |" not in text]
    assert not missing


# Throttling and power supply ----------------------------------------------------------------------


def test_the_kernels_own_throttling_steps_down() -> None:
    rig = Rig()
    begin(rig, "kernel throttles")
    decisions = rig.run(100)
    assert (decisions[0].rung, decisions[0].cause) == (4, "throttle"), "the surest sign: at once"
    assert decisions[-1].rung == 0, "a rung every 30 s, and the fail-safe"
    assert events(decisions) == ["throttled", "distrusted"], "50 °C cannot be"


def test_a_hot_device_that_the_kernel_throttles_tells_the_truth() -> None:
    rig = Rig()
    rig.machine.celsius["cpu-thermal"] = 70.0
    begin(rig, "kernel throttles")
    decisions = rig.run(100)
    assert [decision.rung for decision in decisions[::30]] == [4, 3, 2, 1]
    assert events(decisions) == ["throttled"]


def test_a_weak_power_supply_is_told() -> None:
    rig = Rig()
    begin(rig, "weak power supply")
    decisions = rig.run(10)
    assert decisions[-1].rung == rig.governor.ladder.top - 1
    assert decisions[-1].cause == "throttle" and "weak power supply" in decisions[-1].why
    assert "under_voltage" in events(decisions)


def test_hwmon_is_found_under_its_new_number() -> None:
    rig = Rig()
    begin(rig, "hwmon renamed")
    FAULTS["weak power supply"].begin(rig.machine)
    assert "under_voltage" in events(rig.run(5))


# Batteries ----------------------------------------------------------------------------------------


def test_a_gauge_that_jumps_is_not_believed() -> None:
    rig = Rig(on_battery())
    begin(rig, "battery jumps")
    decisions = rig.run(90)
    assert changes(decisions) == 0, "0 % lasted for three seconds"


def test_the_sign_of_the_current_does_not_matter() -> None:
    def logged(flipped: bool) -> list[str]:
        rig = Rig(on_battery(), "battery.until=18:00:00")
        if flipped:
            FAULTS["current sign flipped"].begin(rig.machine)
        return [json.dumps(decision.to_json()) for decision in rig.run(120)]

    assert logged(True) == logged(False)


def test_a_flapping_charger_does_not_flap_the_level() -> None:
    rig = Rig(on_battery(15.0))
    assert rig.run(30)[-1].bits == 4
    FAULTS["charger flaps"].begin(rig.machine)
    decisions = rig.run(300)
    assert changes(decisions) == 0 and decisions[-1].bits == 4


def test_a_time_to_empty_is_not_asked() -> None:
    def logged(nonsense: bool) -> list[str]:
        rig = Rig(on_battery(45.0), "battery.until=18:00:00")
        if nonsense:
            FAULTS["time to empty is nonsense"].begin(rig.machine)
        return [json.dumps(decision.to_json()) for decision in rig.run(120)]

    assert logged(True) == logged(False)


def test_a_pulled_battery_holds_its_cap_and_loses_a_rung_every_ten_minutes() -> None:
    rig = Rig(on_battery(35.0))
    assert rig.run(30)[-1].bits == 6
    FAULTS["no battery"].begin(rig.machine)
    assert rig.run(120)[-1].bits == 6
    assert rig.run(600)[-1].bits == 4


def test_a_device_without_a_battery_has_no_battery_cap() -> None:
    rig = Rig()
    decision = rig.run(5)[-1]
    assert decision.battery_charge is None and decision.caps["battery"] == 8


def test_two_batteries_are_one() -> None:
    rig = Rig(on_battery(30.0))
    assert rig.run(30)[-1].bits == 6
    FAULTS["two batteries"].begin(rig.machine)
    decisions = rig.run(300)
    assert decisions[-1].battery_charge == pytest.approx(0.65, abs=0.03)


def test_a_mouse_is_not_the_system_battery() -> None:
    rig = Rig(Machine())
    begin(rig, "mouse battery")
    decision = rig.run(30)[-1]
    assert decision.bits == 8 and decision.battery_charge is None


# Time ---------------------------------------------------------------------------------------------


def test_after_a_suspend_the_dwell_starts_again() -> None:
    rig = Rig()
    rig.machine.celsius["cpu-thermal"] = 85.0
    rig.run(60)
    rig.machine.celsius["cpu-thermal"] = COOL
    rig.run(15)
    FAULTS["suspend"].begin(rig.machine)
    decisions = rig.run(25)
    assert {decision.rung for decision in decisions[:20]} == {0}
    assert decisions[-1].rung == 1


def test_after_a_suspend_old_heat_is_forgotten() -> None:
    rig = Rig()
    rig.machine.celsius["cpu-thermal"] = 76.0
    rig.run(60)
    rig.machine.celsius["cpu-thermal"] = 30.0
    FAULTS["suspend"].begin(rig.machine)
    assert rig.run(1)[-1].temperature_c == pytest.approx(30.0, abs=0.2)


@pytest.mark.parametrize("name", ["clock a day ahead", "clock a day back"])
def test_a_clock_that_jumps_means_until_again(name: str) -> None:
    rig = Rig(on_battery(90.0), "battery.until=18:00:00")
    before = rig.run(30)[-1]
    FAULTS[name].begin(rig.machine)
    decisions = rig.run(5)
    assert before.until_s is not None and decisions[-1].until_s is not None
    assert decisions[-1].until_s == pytest.approx(before.until_s - 5.0, abs=1.0)
    assert {"clock_jump", "until_moved"} & set(events(decisions))
    assert changes([before, *decisions]) == 0


# Load ---------------------------------------------------------------------------------------------


def test_without_pressure_information_only_much_load_counts() -> None:
    rig = Rig()
    begin(rig, "no pressure information")
    rig.machine.busy = 0.5
    assert rig.run(60)[-1].bits == 8
    rig.machine.busy = 0.9
    decisions = rig.run(60)
    assert decisions[-1].bits < 8 and decisions[-1].cause == "load"


def test_a_quota_is_seen_by_the_time_that_frames_take() -> None:
    """Half a CPU: frames take four times their profile, and the deadline follows."""
    rig = Rig(None, "frame.deadline_ms=100")
    begin(rig, "cgroup quota")
    decisions = rig.run(60, lambda _: rig.frames(4.0))
    assert decisions[-1].bits < 8
    assert decisions[-1].cause in ("deadline", "throttle")
