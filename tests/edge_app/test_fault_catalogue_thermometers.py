"""Faults of thermometers: silent ones and wrong ones, and what the governor makes of each."""

from __future__ import annotations

import threading

import pytest
from fake_root import Errno, Layer, Machine, changed
from faults import BLINDING, FAULTS, TEMPERATURE
from governor_samples import LEVELS, PROFILE, a_policy
from rig import Heat, Rig, begin, changes, events

from edge_app.clock import ManualClock
from edge_app.governor import Governor
from edge_app.sensors import Quality, SysfsSensors
from edge_app.sensors.guard import GuardedSensors

AFTER_S = 10
RECOVER_S = 60

# The thermometer is silent ------------------------------------------------------------------------


@pytest.mark.parametrize("name", BLINDING)
def test_a_silent_thermometer_is_waited_for_and_then_feared(name: str) -> None:
    rig = Rig()
    begin(rig, name)
    decisions = rig.run(AFTER_S + 1)
    assert {decision.bits for decision in decisions[: AFTER_S - 2]} == {8}, "hiccups are normal"
    lost = decisions[-1]
    assert (lost.bits, lost.cause, lost.temperature_c) == (2, "failsafe", None)
    assert "cpu-thermal" in lost.why
    assert events(decisions) == ["sensor_lost"]


@pytest.mark.parametrize("name", BLINDING)
def test_a_thermometer_that_returns_is_trusted_after_a_minute(name: str) -> None:
    rig = Rig()
    rig.run(30)
    end = FAULTS[name].begin(rig.machine)
    rig.run(20)
    end()
    back = rig.run(RECOVER_S)
    assert {decision.bits for decision in back[:-1]} == {2}
    later = rig.run(4 * 20 + 1)
    assert later[-1].bits == 8
    assert "sensor_back" in events(back + later)


@pytest.mark.parametrize("name", BLINDING)
def test_a_thermometer_that_never_worked_means_care_from_the_start(name: str) -> None:
    rig = Rig()
    FAULTS[name].begin(rig.machine)
    assert max(decision.bits for decision in rig.run(60)) <= 4


def test_a_hiccup_is_no_loss() -> None:
    """EAGAIN for three seconds, again and again."""
    rig = Rig()
    change = changed(
        lambda path: path == TEMPERATURE,
        lambda text, elapsed: Errno("EAGAIN") if int(elapsed) % 20 < 3 else text,
    )
    assert rig.run(10)[-1].bits == 8
    rig.machine.root.lay(Layer(change))
    decisions = rig.run(120)
    assert changes(decisions) == 0 and decisions[-1].bits == 8
    assert events(decisions) == []


# The thermometer is wrong -------------------------------------------------------------------------


def test_a_stuck_thermometer_is_found_by_the_load_that_it_does_not_follow() -> None:
    rig = Rig()
    begin(rig, "stuck")

    def work_and_rest(second: int) -> None:
        rig.machine.busy = 0.9 if second // 60 % 2 else 0.05

    decisions = rig.run(420, work_and_rest)
    assert rig.sample is not None and rig.sample.zones[0].reading.quality is Quality.STUCK
    assert (decisions[-1].bits, decisions[-1].cause) == (2, "failsafe")
    assert "sensor_lost" in events(decisions)


def test_a_stuck_cold_thermometer_is_distrusted_when_frames_get_slow() -> None:
    """It says 50 °C while the firmware throttles, which nothing but the frames' time tells."""
    rig = Rig()
    rig.run(60, lambda _: rig.frames(1.0))
    FAULTS["stuck"].begin(rig.machine)
    decisions = rig.run(240, lambda _: rig.frames(1.6))
    assert decisions[-1].distrusted == ("cpu-thermal",)
    assert decisions[-1].bits == 2
    assert "distrusted" in events(decisions)


def test_a_thermometer_that_settles_where_it_was_distrusted_is_believed_again() -> None:
    """Distrusted while it warmed up, at what is its steady temperature on the low level."""
    rig = Rig(heat=Heat(celsius=41.0))
    rig.run(50, lambda _: rig.frames(1.5))
    assert rig.run(1)[-1].distrusted == ("cpu-thermal",)
    assert rig.heat is not None
    rig.heat.celsius = rig.heat.ambient_c = rig.machine.celsius["cpu-thermal"]
    rig.heat.k_per_w = 0.0
    decisions = rig.run(1950, lambda _: rig.frames(1.0, 1))
    assert decisions[-1].bits == 8
    assert events(decisions).count("trusted") == 1


def test_slow_frames_of_a_hot_device_are_no_lie() -> None:
    rig = Rig()
    rig.machine.celsius["cpu-thermal"] = 77.0
    decisions = rig.run(240, lambda _: rig.frames(1.6))
    assert all(decision.distrusted == () for decision in decisions)


def test_slow_frames_because_of_others_are_no_lie() -> None:
    rig = Rig()
    rig.machine.busy = 0.8
    decisions = rig.run(240, lambda _: rig.frames(1.6))
    assert all(decision.distrusted == () for decision in decisions)


def test_a_spike_is_ignored() -> None:
    rig = Rig()
    begin(rig, "spike")
    decisions = rig.run(240)
    assert changes(decisions) == 0 and max(d.temperature_c or 0.0 for d in decisions) < 51.0


def test_a_step_up_is_believed() -> None:
    rig = Rig()
    rig.machine.celsius["cpu-thermal"] = 60.0
    begin(rig, "step")
    decisions = rig.run(5)
    assert decisions[1].rung == 0, "90 °C is critical: the second reading counts"
    assert decisions[-1].cause == "thermal"


def test_drift_up_lowers_too_soon_rather_than_too_late() -> None:
    rig = Rig()
    rig.machine.celsius["cpu-thermal"] = 68.0
    begin(rig, "drift")
    assert rig.run(120)[-1].bits <= 4


def test_drift_down_is_told_by_the_kernel() -> None:
    """Nothing in the file betrays it; that the CPU is throttled does."""
    rig = Rig()
    rig.machine.celsius["cpu-thermal"] = 68.0
    begin(rig, "drift down")
    rig.run(30)
    FAULTS["kernel throttles"].begin(rig.machine)
    assert rig.run(120)[-1].bits < 8


def test_a_renumbered_zone_is_the_same_zone() -> None:
    rig = Rig()
    begin(rig, "zone renumbered")
    decisions = rig.run(60)
    assert changes(decisions) == 0 and events(decisions) == []
    assert decisions[-1].temperature_c == pytest.approx(50.0, abs=0.2)


def test_of_two_zones_the_hotter_counts() -> None:
    rig = Rig()
    begin(rig, "two zones disagree")
    decisions = rig.run(60)
    assert decisions[-1].cause == "thermal" and decisions[-1].bits == 2
    assert "soc-thermal" in decisions[-1].why


def test_a_slow_read_delays_and_does_not_lower() -> None:
    rig = Rig()
    begin(rig, "slow read")
    decisions = rig.run(60)
    assert decisions[-1].time - decisions[0].time >= 59 * 3.0
    assert changes(decisions) == 0


def test_a_read_that_hangs_for_ever_is_given_up() -> None:
    """A real thread that never returns; the governor goes on and goes blind."""
    hangs, release = threading.Event(), threading.Event()

    class Patient(ManualClock):
        """Waits for a read that will end, however slow this machine is; for one that hangs it
        lets the time pass at once."""

        def wait(self, event: threading.Event, seconds: float) -> bool:
            if not hangs.is_set():
                event.wait()
            return super().wait(event, seconds)

    def temperature(_: float) -> str:
        if hangs.is_set():
            release.wait()
        return "50000"

    clock = Patient()
    machine = Machine(clock)
    machine.root.files[TEMPERATURE] = temperature
    sensors = GuardedSensors(SysfsSensors(machine.root, clock), clock)
    governor = Governor(a_policy(), LEVELS, PROFILE, clock)
    assert governor.step(sensors.sample()).bits == 8
    hangs.set()
    qualities = []
    for _ in range(15):
        clock.advance(1.0)
        sample = sensors.sample()
        qualities.append(sample.zones[0].reading.quality)
        decision = governor.step(sample)
    release.set()
    assert (decision.bits, decision.cause) == (2, "failsafe")
    assert qualities[0] is Quality.STALE and qualities[-1] is Quality.MISSING
