"""Invariants I7 to I10 of docs/governor.md, faults, clocks and policies, and everything at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta, timezone
from typing import Any

import pytest
from fake_root import Machine, Pack
from faults import BLINDING, FAULTS
from governor_samples import COOL, LEVELS
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from invariants import (
    BACKOFF_S,
    FORGET_S,
    LADDER,
    POLICY,
    RAISE_S,
    TOP,
    fault_names,
    few,
    restarted,
    seconds,
)
from rig import Heat, Rig, events

# I7: whatever happened, it comes back -------------------------------------------------------------


@few
@given(names=st.lists(fault_names, min_size=1, max_size=3, unique=True), lasting=seconds)
def test_i07_after_any_faults_the_highest_level_comes_back(names: list[str], lasting: int) -> None:
    machine = Machine(packs={"BAT0": Pack(full_wh=1000.0)}, chargers={"AC": False})
    rig = Rig(machine, heat=Heat())
    rig.run(10)
    ends = [FAULTS[name].begin(rig.machine) for name in names]
    rig.run(lasting, lambda _: rig.frames(1.5))
    for end in ends:
        end()
    for _ in range(int((len(LADDER.rungs) * BACKOFF_S + FORGET_S) / 4)):
        rig.frames(1.0)
        if rig.second(4.0).rung == TOP:
            break
    assert rig.governor.level == 8
    rig.run(30, lambda _: rig.frames(1.0))
    assert rig.governor.level == 8


# I8: blind means careful --------------------------------------------------------------------------


@few
@given(name=st.sampled_from(BLINDING), before=st.integers(1, 40), lasting=st.integers(11, 60))
def test_i08_a_lost_sensor_is_the_fail_safe_within_its_time(
    name: str, before: int, lasting: int
) -> None:
    rig = Rig(heat=Heat())
    rig.run(before)
    end = FAULTS[name].begin(rig.machine)
    blind = rig.run(lasting)
    allowed = rig.governor.ladder.at_most(POLICY.failsafe.lost_thermal_sensor_bits)
    late = int(POLICY.failsafe.after_s) + 1
    assert all(decision.rung <= allowed for decision in blind[late - 1 :])
    end()
    waiting = rig.run(int(POLICY.failsafe.recover_s) - 1)
    assert all(decision.rung <= allowed for decision in waiting), "trusted too soon"
    assert rig.run(200)[-1].bits == 8


def test_i08_a_thermometer_that_lies_is_not_trusted_with_a_raise() -> None:
    """It says 50 °C for ever while the kernel throttles: every frame takes twice its time."""
    rig = Rig()
    rig.run(60, lambda _: rig.frames(1.0))
    FAULTS["stuck"].begin(rig.machine)
    FAULTS["kernel throttles"].begin(rig.machine)
    decisions = rig.run(240, lambda _: rig.frames(2.0))
    assert decisions[-1].distrusted == ("cpu-thermal",)
    allowed = rig.governor.ladder.at_most(POLICY.failsafe.lost_thermal_sensor_bits)
    assert decisions[-1].rung <= allowed
    assert any(event.text for decision in decisions for event in decision.events)


# I9: the wall clock is not the governor's clock ---------------------------------------------------


@few
@given(
    jumps=st.dictionaries(
        st.integers(1, 118), st.sampled_from([-86400, -3600, -1, 1, 3600, 86400]), max_size=5
    ),
    temperatures=st.lists(st.floats(40.0, 90.0), min_size=4, max_size=4),
)
def test_i09_jumps_of_the_wall_clock_change_no_decision(
    jumps: dict[int, int], temperatures: list[float]
) -> None:
    """Other than that a raise waits for its dwell again; so here it gets only hotter."""

    def log(jumps: dict[int, int]) -> list[tuple[object, ...]]:
        rig = Rig()
        lines = []
        for second in range(120):
            rig.machine.wall += timedelta(seconds=jumps.get(second, 0))
            rig.machine.celsius["cpu-thermal"] = sorted(temperatures)[second // 30]
            rig.frames(1.3, 2)
            made = rig.second()
            lines.append((made.rung, made.cause, made.caps, made.forecast_c, made.slowdown))
        return lines

    assert log(jumps) == log({})


@pytest.mark.parametrize("jump_s", [-86400, 86400])
def test_i09_a_raise_waits_again_after_a_jump(jump_s: int) -> None:
    rig = Rig()
    rig.machine.celsius["cpu-thermal"] = 85.0
    low = rig.run(60)[-1].rung
    rig.machine.celsius["cpu-thermal"] = COOL
    while (rig.second().next_raise_s or 99.0) > 2.0:
        pass
    rig.machine.wall += timedelta(seconds=jump_s)
    assert {decision.rung for decision in rig.run(int(RAISE_S))} == {low}
    assert rig.run(3)[-1].rung == low + 1


@pytest.mark.parametrize("hours", [-24.0, -2.0, 2.0, 24.0])
@pytest.mark.parametrize("daylight_saving", [False, True])
def test_i09_until_is_a_time_of_day_and_is_found_again(hours: float, daylight_saving: bool) -> None:
    """The wall clock is set, or stays right while local time changes."""
    rig = Rig(Machine(packs={"BAT0": Pack(full_wh=60.0)}), "battery.until=18:00:00")
    before = rig.run(30)[-1]
    wall = rig.machine.wall
    if daylight_saving:
        offset = (wall.utcoffset() or timedelta()) + timedelta(hours=hours / 24.0)
        rig.machine.wall = wall.astimezone(timezone(offset))
    else:
        rig.machine.wall += timedelta(hours=hours)
    after = rig.run(3)
    due = rig.machine.wall.replace(hour=18, minute=0, second=0)
    if due <= rig.machine.wall:
        due += timedelta(days=1)
    assert before.until_s is not None
    assert after[-1].until_s == pytest.approx((due - rig.machine.wall).total_seconds(), abs=2.0)
    assert "until_moved" in events(after), "it is told"
    assert after[-1].rung <= before.rung


# I10: another policy ------------------------------------------------------------------------------

policies = st.sampled_from(
    [
        (),
        ("levels.max_bits=4",),
        ("levels.min_bits=4",),
        ("levels.min_bits=6", "levels.max_bits=6"),
        ("frame.target_fps=10",),
        ("thermal.control_c=60", "thermal.on_c=47"),
        ("stability.raise_dwell_s=5",),
        ("stability.raise_dwell_s=60", "failsafe.after_s=4"),
        ("confidence.start_bits=2",),
        ("battery.tiers=[]",),
    ]
)


@few
@given(reloads=st.lists(st.tuples(st.integers(1, 40), policies), min_size=1, max_size=6))
def test_i10_a_reload_lowers_at_the_next_step_and_raises_after_a_dwell(
    reloads: list[tuple[int, Sequence[str]]],
) -> None:
    rig = Rig()
    rig.run(3)
    for length, overrides in reloads:
        before = rig.watch.newest
        assert before is not None
        rig.reload(*overrides)
        changed = rig.second()
        assert changed.bits <= rig.policy.levels.max_bits
        # A policy that permits nothing so low may raise, but not above its lowest rung.
        if changed.rung > 0:
            assert changed.bits * changed.fps <= before.bits * before.fps
        for decision in rig.run(min(length, int(rig.policy.stability.raise_dwell_s) - 1)):
            assert decision.rung <= changed.rung, "raised without a dwell"


def test_i10_reloading_ever_again_never_raises() -> None:
    rig = Rig()
    rig.machine.celsius["cpu-thermal"] = 85.0
    rig.run(60)
    low = rig.watch.newest
    assert low is not None and low.bits == 2
    rig.machine.celsius["cpu-thermal"] = COOL
    for _ in range(30):
        rig.reload()
        assert rig.run(10)[-1].rung <= low.rung


# All of it at once --------------------------------------------------------------------------------


class AnythingGoes(RuleBasedStateMachine):
    """Heat, faults, reloads, suspends, clock jumps, slow frames and restarts, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[str, Any] = {}

    @initialize(ambient=st.floats(0.0, 45.0), k_per_w=st.floats(3.0, 15.0))
    def start(self, ambient: float, k_per_w: float) -> None:
        machine = Machine(packs={"BAT0": Pack(percent=60.0)}, chargers={"AC": False})
        self.rig = Rig(machine, heat=Heat(ambient, k_per_w))

    @rule(length=st.integers(1, 30))
    def seconds_pass(self, length: int) -> None:
        self.rig.run(length)

    @rule(ambient=st.floats(0.0, 60.0))
    def weather(self, ambient: float) -> None:
        assert self.rig.heat is not None
        self.rig.heat.ambient_c = ambient

    @rule(name=fault_names)
    def fault_begins(self, name: str) -> None:
        if name not in self.ends:
            self.ends[name] = FAULTS[name].begin(self.rig.machine)

    @rule(data=st.data())
    def fault_ends(self, data: st.DataObject) -> None:
        if self.ends:
            self.ends.pop(data.draw(st.sampled_from(sorted(self.ends))))()

    @rule(overrides=policies)
    def reload(self, overrides: Sequence[str]) -> None:
        self.rig.reload(*overrides)
        self.rig.second()

    @rule(gap=st.floats(61.0, 90_000.0))
    def suspend(self, gap: float) -> None:
        before = self.rig.watch.newest
        self.rig.machine.tick(gap)
        decision = self.rig.second()
        assert before is None or decision.rung <= before.rung, "raised by a suspend"

    @rule(hours=st.sampled_from([-24, -1, 1, 24]))
    def wall_clock_jumps(self, hours: int) -> None:
        self.rig.machine.wall += timedelta(hours=hours)

    @rule(slow=st.floats(0.5, 20.0), count=st.integers(1, 60))
    def frames_take(self, slow: float, count: int) -> None:
        self.rig.frames(slow, count)

    @rule(bits=st.sampled_from(LEVELS), margin=st.floats(0.0, 1.0), count=st.integers(1, 40))
    def unsure(self, bits: int, margin: float, count: int) -> None:
        for _ in range(count):
            self.rig.watch.asked(bits, margin, self.rig.machine.clock.now())

    @rule()
    def restart(self) -> None:
        before = self.rig.watch.newest
        restarted(self.rig)
        decision = self.rig.second()
        assert before is None or decision.rung <= before.rung, "raised by a restart"

    @invariant()
    def every_second_has_a_rung(self) -> None:
        """The watch has held the others at each step."""
        rig = getattr(self, "rig", None)
        if rig is not None and rig.watch.newest is not None:
            watch = rig.watch
            spent = sum(watch.seconds_in.values())
            assert math.isclose(spent, watch.newest.time - watch.began, abs_tol=1e-3)

    def teardown(self) -> None:
        for end in self.ends.values():
            end()


TestAnythingGoes = AnythingGoes.TestCase
TestAnythingGoes.settings = settings(few, stateful_step_count=20)
