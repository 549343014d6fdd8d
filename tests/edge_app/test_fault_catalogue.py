"""Every fault of the catalogue, and what the governor makes of it.

Two kinds of test. `test_no_fault_breaks_an_invariant` takes all of them: the invariants hold while
a fault lasts and after it, and the highest level comes back. The others say what exactly is
expected of each fault.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_root import Errno, Layer, Machine, Pack, changed
from faults import BLINDING, CATALOGUE, FAULTS, TEMPERATURE
from governor_samples import COOL, LEVELS, PROFILE, a_policy, make_sample
from rig import Heat, Rig, changes, events

from edge_app.clock import ManualClock
from edge_app.governor import Governor
from edge_app.sensors import Quality, SysfsSensors, Zone
from edge_app.sensors.guard import GuardedSensors

AFTER_S = 10
RECOVER_S = 60
LOW_FPS = 7.5


def on_battery(percent: float = 80.0, **pack: float) -> Machine:
    """A machine with a battery in use and a charger that is not connected."""
    return Machine(packs={"BAT0": Pack(percent=percent, **pack)}, chargers={"AC": False})


def begin(rig: Rig, name: str, calm_s: int = 30) -> None:
    """Some calm, in which the highest level runs, and then the fault."""
    assert rig.run(calm_s)[-1].bits == 8
    FAULTS[name].begin(rig.machine)


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


# Policies -----------------------------------------------------------------------------------------


def test_a_policy_that_comes_in_mid_tick_waits_for_the_next() -> None:
    """Replaced while a step is under way: that step is of one piece."""
    clock = ManualClock()
    governor = Governor(a_policy(), LEVELS, PROFILE, clock)
    governor.step(make_sample(0.0))
    other = a_policy("levels.max_bits=2")

    class Zones(tuple[Zone, ...]):
        def __iter__(self) -> Iterator[Zone]:
            governor.replace_policy(other)
            return super().__iter__()

    sample = make_sample(1.0)
    during = governor.step(replace(sample, zones=Zones(sample.zones)))
    assert (during.bits, governor.level) == (8, 8)
    after = governor.step(make_sample(2.0))
    assert (after.bits, governor.level, after.cause) == (2, 2, "policy")


def test_a_half_written_policy_leaves_the_old_one(tmp_path: Path) -> None:
    from edge_app.policy.layers import resolve
    from edge_app.policy.watcher import PolicyWatcher, Rejected, Reloaded

    path = tmp_path / "policy.toml"
    path.write_text("[levels]\nmax_bits = 8\n")
    clock = ManualClock()
    watcher = PolicyWatcher(lambda: resolve(path), clock)
    whole = "[levels]\nmax_bits = 4\n"
    for length in range(1, len(whole)):
        clock.advance(3.0)
        path.write_text(whole[:length] + "=")
        told = watcher.poll()
        assert told is None or isinstance(told, Rejected)
        assert watcher.current.policy.levels.max_bits == 8
    clock.advance(3.0)
    path.write_text(whole)
    told = watcher.poll()
    assert isinstance(told, Reloaded) and told.policy.levels.max_bits == 4


# Disks, cameras, models ---------------------------------------------------------------------------

FULL_DISK = """
import json, logging, resource, sys
from pathlib import Path
from edge_app.state_file import StateFile
logging.basicConfig(format="%(message)s")
state = StateFile(Path(sys.argv[1]))
state.save({"rung": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))
state.save({"rung": 2})
state.save({"rung": 3})
print(json.dumps(state.load()))
"""


def test_a_full_disk_keeps_the_old_state_and_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "governor.json"
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert json.loads(ran.stdout) == {"rung": 1}
    assert ran.stderr.count("cannot be saved") == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name], "nothing half-written stays"


def test_a_camera_that_hangs_is_no_slow_machine() -> None:
    """No frames for five minutes after slow ones: what was slow then says nothing now."""
    rig = Rig()
    rig.run(30, lambda _: rig.frames(1.0))
    rig.run(20, lambda _: rig.frames(1.3))
    before = rig.governor.level
    decisions = rig.run(300)
    assert decisions[-1].distrusted == ()
    assert decisions[-1].bits == before


def test_a_burst_of_frames_is_only_frames() -> None:
    rig = Rig(None, "confidence.start_bits=2")
    rig.run(30)
    granted = [rig.watch.asked(2, 0.0, rig.machine.clock.now()) for _ in range(1000)]
    assert sum(bits is not None for bits in granted) <= rig.policy.confidence.burst
    rig.frames(1.0, 10_000)
    assert rig.run(30)[-1].bits == 8


def test_a_burst_of_absurd_times_does_not_last() -> None:
    rig = Rig()
    rig.run(30)
    for seconds in (0.0, -1.0, math.nan, math.inf, 1e9):
        rig.governor.observe_latency(8, seconds)
    rig.run(60, lambda _: rig.frames(1.0))
    for _ in range(300):
        rig.frames(1.0)
        rig.second()
    assert rig.governor.level == 8


def test_a_ceiling_that_falls_between_the_runs_of_a_frame_is_kept_to() -> None:
    """A frame starts at 2 bits, the policy changes, and then it asks for more."""
    rig = Rig(None, "confidence.start_bits=2")
    rig.run(5)
    assert rig.governor.first_level == 2 and rig.governor.level == 8
    rig.reload("levels.max_bits=2")
    rig.second()
    assert rig.governor.escalate(2, 0.0) is None


def test_another_model_in_mid_frame_knows_its_own_levels() -> None:
    """The next model has fewer levels; what remains of the old one's state must not matter."""
    rig = Rig(None, "confidence.start_bits=2")
    rig.run(5)
    saved = json.loads(json.dumps(rig.governor.state()))
    governor = Governor(rig.policy, (2, 4), {2: 0.01, 4: 0.02}, rig.machine.clock)
    governor.restore(saved)
    assert governor.level in (2, 4) and governor.first_level in (2, 4)
    assert governor.escalate(8, 0.0) is None
    decision = governor.step(make_sample(rig.machine.clock.now()))
    assert decision.bits == 4
    assert governor.escalate(2, 0.0) == 4
