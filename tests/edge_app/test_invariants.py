"""What holds of the governor whatever happens: the invariants I1 to I16 of docs/governor.md.

Readings come from files through the real readers wherever the invariant is about readings. What
``Watch`` asserts at every step (I1 to I4, I8, I12, I15) holds in each test here, not only in the
one that is named after it. `--hypothesis-profile=soak` looks much longer.
"""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta, timezone
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fake_root import POWER, Errno, Layer, Machine, Pack, Value
from faults import BLINDING, FAULTS
from governor_samples import COOL, LEVELS, PROFILE, make_sample, make_zone, ok
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from rig import HOUR_S, Heat, Rig, Watch, changes, events, governor_of, policy_of

from edge_app.clock import ManualClock
from edge_app.governor import Decision, Governor
from edge_app.governor.arbiter import Arbiter
from edge_app.governor.backdown import Backdown
from edge_app.governor.battery import active_tiers, battery_cap
from edge_app.governor.caps import Cap, ThermalLimits, deadline_cap, failsafe_cap, thermal_cap
from edge_app.governor.caps import Heat as ZoneHeat
from edge_app.governor.ladder import build_ladder
from edge_app.policy.model import Confidence
from edge_app.sensors import Battery, Quality, Reading, Sample

POLICY = policy_of()
LADDER = build_ladder(LEVELS, POLICY)
TOP, FULL = LADDER.top, LADDER.full
RAISE_S = POLICY.stability.raise_dwell_s
BACKOFF_S = POLICY.stability.raise_backoff_max_s
FORGET_S = POLICY.stability.forget_s

examples = settings.default.max_examples if settings.default else 100
many = settings(
    max_examples=examples // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
few = settings(many, max_examples=max(5, examples // 10))
"""For what takes a tenth of a second or more an example; more of them in the soak profile."""
fewer = settings(few, max_examples=max(3, examples // 30))

celsius = st.floats(-30.0, 124.0)
fractions = st.floats(0.0, 1.0)
seconds = st.integers(1, 60)
fault_names = st.sampled_from(sorted(FAULTS))
wild_numbers = st.one_of(
    st.none(),
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -273.15, -32768.0, 2.0**31, 61000.0]),
    celsius,
)
wild_texts = st.one_of(
    st.none(),
    st.sampled_from(["ENODATA", "EAGAIN", "EIO", "EINVAL", "EACCES", "ENODEV"]).map(Errno),
    st.sampled_from(["", "N/A", "nan", "inf", "-273150", "9" * 400, "1_0", "0x10", "61000"]),
    st.integers(-(2**63), 2**63).map(str),
    st.integers(-40, 130).map(lambda degrees: str(degrees * 1000)),
    st.text(max_size=20),
)


def of_qualities(values: st.SearchStrategy[float | None], name: str) -> st.SearchStrategy[Reading]:
    times = st.one_of(st.floats(), st.floats(0.0, 1e4))
    return st.builds(Reading, values, times, st.sampled_from(Quality), st.just(name))


# I1: always a level of the ladder -----------------------------------------------------------------

wild_samples = st.builds(
    Sample,
    time=st.one_of(st.floats(), st.floats(0.0, 1e4)),
    zones=st.lists(
        st.builds(
            lambda reading, trips: replace(make_zone(None, 0.0), reading=reading, **trips),
            of_qualities(wild_numbers, "cpu"),
            st.fixed_dictionaries({"passive_c": celsius, "critical_c": celsius}),
        ),
        max_size=2,
    ).map(tuple),
    battery=st.builds(
        Battery,
        present=st.booleans(),
        charge=of_qualities(wild_numbers, "battery"),
        discharging=st.sampled_from([True, False, None]),
        on_ac=st.sampled_from([True, False, None]),
        energy=of_qualities(wild_numbers, "battery energy"),
        power=of_qualities(wild_numbers, "battery power"),
        full_j=wild_numbers,
    ),
    throttled=of_qualities(wild_numbers, "throttled"),
    under_voltage=of_qualities(wild_numbers, "under-voltage"),
    other_load=of_qualities(wild_numbers, "load of others"),
    cpu_pressure=of_qualities(wild_numbers, "CPU pressure"),
    cpu_limit=of_qualities(wild_numbers, "CPU frequency limit"),
    power=of_qualities(wild_numbers, "power"),
)


@many
@given(samples=st.lists(wild_samples, max_size=12), times=st.lists(st.floats(), max_size=4))
def test_i01_always_a_level_of_the_ladder_for_any_sample(
    samples: list[Sample], times: list[float]
) -> None:
    governor = governor_of("levels.min_bits=4", "levels.max_bits=6", "battery.until=18:00:00")
    watch = Watch(governor)
    for sample in samples:
        for time in times:
            governor.observe_latency(governor.level, time)
            governor.escalate(4, time)
        decision = governor.step(sample)
        watch.decided(sample, decision)
        json.dumps(decision.to_json(), allow_nan=False)


@few
@given(
    ticks=st.lists(
        st.dictionaries(st.integers(0, 60), wild_texts, max_size=8), min_size=1, max_size=12
    )
)
def test_i01_always_a_level_of_the_ladder_for_any_file(ticks: list[dict[int, Value]]) -> None:
    rig = Rig(Machine(packs={"BAT0": Pack()}, chargers={"AC": False}), "battery.until=18:00:00")
    paths = sorted(rig.machine.root.files)
    torn: dict[str, Value] = {}
    rig.machine.root.lay(Layer(lambda path, below, _: torn[path] if path in torn else below(path)))
    for tick in ticks:
        torn.clear()
        torn.update({paths[index % len(paths)]: value for index, value in tick.items()})
        rig.second()


# I2: critical means the lowest rung ---------------------------------------------------------------


@few
@given(
    before=st.lists(st.floats(20.0, 85.0), max_size=30),
    critical=st.floats(POLICY.thermal.critical_c + 0.01, 124.0),
)
def test_i02_critical_reaches_the_lowest_rung_in_two_ticks(
    before: list[float], critical: float
) -> None:
    rig = Rig()
    for temperature in before:
        rig.machine.celsius["cpu-thermal"] = temperature
        rig.second()
    rig.machine.celsius["cpu-thermal"] = critical
    decisions = rig.run(2)
    assert decisions[-1].rung == 0
    assert rig.governor.level == 2 and rig.governor.frame_interval_s >= 0.1


@pytest.mark.parametrize("lower_dwell_s", [0, 600])
def test_i02_critical_waits_for_no_dwell(lower_dwell_s: int) -> None:
    rig = Rig(None, f"stability.lower_dwell_s={lower_dwell_s}", "stability.raise_dwell_s=600")
    rig.run(5)
    assert rig.governor.level == 8
    rig.machine.celsius["cpu-thermal"] = 90.0
    assert rig.run(2)[-1].rung == 0


# I3, I4: calm -------------------------------------------------------------------------------------

stretches = st.lists(
    st.tuples(
        st.integers(1, 90),
        st.sampled_from([45.0, 70.0, 76.0, 77.5, 79.0, 84.0, 89.0]),
        st.sampled_from([1.0, 0.42, 0.39, 0.12, 0.05]),
        st.sampled_from([0.0, 90.0]),
        st.sampled_from([0.8, 1.0, 1.5, 4.0]),
    ),
    min_size=1,
    max_size=12,
)


@few
@given(stretches=stretches, dwell=st.sampled_from([5, 20, 45]))
def test_i03_raises_are_a_dwell_away_from_any_change(
    stretches: list[tuple[int, float, float, float, float]], dwell: int
) -> None:
    governor = governor_of(f"stability.raise_dwell_s={dwell}")
    watch = Watch(governor)
    now = 0.0
    for length, temperature, charge, pressure, slow in stretches:
        for _ in range(length):
            now += 1.0
            governor.observe_latency(governor.level, PROFILE[governor.level] * slow)
            busy = ok(0.9 if pressure else 0.1, now)
            sample = replace(
                make_sample(now, temperature, charge),
                other_load=busy,
                cpu_pressure=ok(pressure, now),
            )
            watch.decided(sample, governor.step(sample))


@few
@given(seed=st.integers(0, 2**32), holds_s=st.sampled_from([1, 3, 10, 25]))
def test_i04_changes_per_hour_are_bounded_whatever_the_caps_say(seed: int, holds_s: int) -> None:
    random = Random(seed)
    arbiter = Arbiter(LADDER, POLICY.stability, limited=False)
    moved: list[int] = []
    for second in range(int(HOUR_S)):
        if second % holds_s == 0:
            caps = [
                Cap("thermal", random.randint(0, TOP), ""),
                Cap("load", random.choice([3, TOP]), ""),
            ]
        before = arbiter.rung
        arbiter.move(caps, float(second))
        if arbiter.rung != before:
            moved.append(second)
    assert len(moved) <= 2 * HOUR_S / RAISE_S + TOP


@many
@given(limit=st.integers(1, TOP), lasts_s=st.integers(1, 100))
def test_i04_a_rung_that_always_fails_is_tried_ever_less(limit: int, lasts_s: int) -> None:
    """A cap allows everything, and takes the rung ``limit`` back ``lasts_s`` after each raise."""
    arbiter = Arbiter(LADDER, POLICY.stability, limited=False)
    arbiter.move([Cap("thermal", limit - 1, "")], 0.0)
    failures, above = 0, 0
    after_five: list[int] = []
    for second in range(1, 2 * int(HOUR_S), 2):
        above = above + 2 if arbiter.rung >= limit else 0
        before = arbiter.rung
        arbiter.move([Cap("thermal", limit - 1 if above > lasts_s else limit, "")], float(second))
        if arbiter.rung != before and failures >= 5:
            after_five.append(second)
        failures += arbiter.rung < before
    assert failures > 5
    for index, since in enumerate(after_five):
        assert sum(second - since < HOUR_S for second in after_five[index:]) <= 12


# I5: every cap is monotone ------------------------------------------------------------------------

LIMITS = ThermalLimits(65.0, 78.0, 88.0, 95.0)
rungs = st.integers(0, TOP)
excess = st.floats(0.0, 60.0)


def heat(celsius: float, slope: float, integral: float) -> ZoneHeat:
    ahead = celsius + min(max(slope, 0.0), 0.5) * POLICY.thermal.forecast_s
    return ZoneHeat("cpu", celsius, ahead, LIMITS, integral, celsius >= LIMITS.critical_c)


@many
@given(
    celsius=celsius,
    slope=st.floats(-1.0, 1.0),
    integral=st.floats(-8.0, 0.0),
    hotter=excess,
    steeper=st.floats(0.0, 1.0),
    longer=st.floats(0.0, 4.0),
    current=rungs,
)
def test_i05_thermal_cap_falls_with_heat_slope_and_past_excess(
    celsius: float,
    slope: float,
    integral: float,
    hotter: float,
    steeper: float,
    longer: float,
    current: int,
) -> None:
    cooler = thermal_cap(heat(celsius, slope, integral), current, LADDER, POLICY)
    worse = heat(celsius + hotter, slope + steeper, integral - longer)
    assert thermal_cap(worse, current, LADDER, POLICY).rung <= cooler.rung


@many
@given(
    mean=st.floats(0.1, 20.0),
    deviation=st.floats(0.0, 5.0),
    more=st.floats(0.0, 20.0),
    wider=st.floats(0.0, 5.0),
    current=rungs,
    deadline=st.floats(0.001, 1.0),
    later=st.floats(0.0, 1.0),
)
def test_i05_deadline_cap_falls_with_slowdown_and_rises_with_the_deadline(
    mean: float,
    deviation: float,
    more: float,
    wider: float,
    current: int,
    deadline: float,
    later: float,
) -> None:
    def cap(mean: float, deviation: float, deadline: float) -> int:
        return deadline_cap(mean, deviation, PROFILE, current, LADDER, deadline).rung

    assert cap(mean + more, deviation + wider, deadline) <= cap(mean, deviation, deadline)
    assert cap(mean, deviation, deadline) <= cap(mean, deviation, deadline + later)


@many
@given(charge=fractions, less=fractions, held=st.lists(st.booleans(), min_size=3, max_size=3))
def test_i05_battery_tiers_fall_with_charge(charge: float, less: float, held: list[bool]) -> None:
    def cap(charge: float) -> int:
        tiers = POLICY.battery.tiers
        active = active_tiers(charge, held, tiers, POLICY.battery.hysteresis)
        return battery_cap(charge, active, LADDER, tiers).rung

    assert cap(max(0.0, charge - less)) <= cap(charge)


@many
@given(history=st.lists(st.tuples(st.booleans(), rungs), max_size=20), current=rungs)
def test_i05_pressure_never_allows_more_than_none(
    history: list[tuple[bool, int]], current: int
) -> None:
    def cap(pressure: bool) -> int:
        backdown = Backdown(LADDER, FULL, 30.0)
        for step, (pressed, rung) in enumerate(history):
            backdown.update(pressed, rung, 10.0 * step)
        return backdown.update(pressure, current, 10.0 * len(history))

    assert cap(True) <= cap(False)


@many
@given(current=rungs)
def test_i05_blindness_only_takes_away(current: int) -> None:
    states = ("seeing", "waiting", "lost")
    caps = [failsafe_cap(state, "", current, LADDER, POLICY).rung for state in states]
    assert caps == sorted(caps, reverse=True)


# I6: constant inputs, a constant ceiling ----------------------------------------------------------


def settled(temperature: float, charge: float) -> list[Decision]:
    """The last ten minutes of an hour in which nothing changes."""
    governor = governor_of()
    decisions = []
    for second in range(0, int(HOUR_S), 10):
        decisions.append(governor.step(make_sample(float(second), temperature, charge)))
    return decisions[-60:]


@few
@given(temperature=st.floats(20.0, 95.0), charge=fractions, hotter=excess, emptier=fractions)
def test_i06_constant_readings_give_a_constant_ceiling_that_falls_with_heat_and_charge(
    temperature: float, charge: float, hotter: float, emptier: float
) -> None:
    assume(temperature + hotter <= 124.0)
    calm = settled(temperature, charge)
    worse = settled(temperature + hotter, max(0.0, charge - emptier))
    assert changes(calm) == changes(worse) == 0
    assert worse[-1].rung <= calm[-1].rung


@fewer
@given(ambient=st.floats(10.0, 45.0), k_per_w=st.floats(4.0, 14.0), hotter=st.floats(5.0, 20.0))
def test_i06_a_heating_device_settles_and_settles_lower_where_it_is_hotter(
    ambient: float, k_per_w: float, hotter: float
) -> None:
    def last_hour(ambient: float) -> list[int]:
        governor = governor_of()
        plant = Heat(ambient, k_per_w)
        running = []
        for second in range(0, 2 * int(HOUR_S), 3):
            cost = governor.ladder.rungs[running[-1]].cost if running else 0.0
            celsius = plant.second(0.0 if governor.paused else cost, 3.0)
            decision = governor.step(make_sample(float(second), celsius))
            running.append(decision.rung)
        return running[-1200:]

    cool, hot = last_hour(ambient), last_hour(ambient + hotter)
    for rungs in (cool, hot):
        assert max(rungs) - min(rungs) <= 2, "settles, or swings by a rung or two"
        # A raise that is taken back only after `revert_s` was none in vain and doubles no dwell: on
        # some plants one follows the other as fast as these two times allow.
        stability = POLICY.stability
        cycle_s = stability.raise_dwell_s + stability.revert_s
        assert sum(a != b for a, b in pairwise(rungs)) <= 2 * HOUR_S / cycle_s
    assert min(hot) <= min(cool) and max(hot) <= max(cool)


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


# I11: the frame path ------------------------------------------------------------------------------

_audited: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _audited is not None and threading.current_thread() is threading.main_thread():
        _audited.append(event)


@contextmanager
def audited() -> Iterator[list[str]]:
    """Every audit event of this thread: each opened file, socket, process. A hook stays for the
    life of the interpreter, so that there is one, and it is deaf outside of this block."""
    global _audited
    if _hook not in _hooked:
        sys.addaudithook(_hook)
        _hooked.append(_hook)
    _audited = seen = []
    try:
        yield seen
    finally:
        _audited = None


_hooked: list[Any] = []


def frames(governor: Governor, clock: ManualClock, count: int) -> int:
    """What the frame path does, ``count`` times."""
    escalated = 0
    for index in range(count):
        bits = governor.first_level
        if not governor.paused and governor.frame_interval_s < math.inf:
            governor.observe_latency(bits, PROFILE[bits] * 1.1)
            again = governor.escalate(bits, 0.05 if index % 2 else 0.5)
            if again is not None:
                escalated += 1
                governor.observe_latency(again, PROFILE[again] * 1.1)
        clock.advance(0.033)
    return escalated


def escalating_governor(clock: ManualClock) -> Governor:
    governor = governor_of("confidence.start_bits=2", clock=clock)
    governor.step(make_sample(clock.now()))
    return governor


def test_i11_the_frame_path_does_no_io() -> None:
    clock = ManualClock()
    governor = escalating_governor(clock)
    with audited() as seen:
        with Path("/dev/null").open():
            pass
        assert "open" in seen, "the audit works"
        seen.clear()
        assert frames(governor, clock, 1000) > 50
    assert seen == []


def test_i11_the_frame_path_does_not_grow() -> None:
    clock = ManualClock()
    governor = escalating_governor(clock)
    frames(governor, clock, 5000)
    gc.collect()
    tracemalloc.start()
    try:
        frames(governor, clock, 100)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        frames(governor, clock, 20_000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1024, f"{after - before} bytes after 20 000 frames"


def test_i11_there_is_no_lock_in_the_governor() -> None:
    """Nothing that the governor holds is a lock, at any depth."""
    clock = ManualClock()
    governor = escalating_governor(clock)
    locks = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event)
    seen: set[int] = set()
    pending: list[Any] = [governor]
    while pending:
        thing = pending.pop()
        if id(thing) in seen or isinstance(thing, type | type(sys)) or callable(thing):
            continue
        seen.add(id(thing))
        assert not isinstance(thing, locks), f"{thing!r} is a lock"
        pending.extend(gc.get_referents(thing))
    assert len(seen) > 50


# I12: escalations ---------------------------------------------------------------------------------


@many
@given(
    asks=st.lists(
        st.tuples(st.floats(0.0, 3.0), st.sampled_from(LEVELS), st.floats(-1.0, 2.0)), max_size=80
    ),
    burst=st.integers(1, 12),
    rate=st.floats(0.1, 10.0),
    ceiling=st.sampled_from(LEVELS),
)
def test_i12_escalations_stay_in_the_bucket_and_below_the_ceiling(
    asks: list[tuple[float, int, float]], burst: int, rate: float, ceiling: int
) -> None:
    clock = ManualClock()
    confidence = Confidence(start_bits=2, burst=burst, max_per_s=rate)
    policy = policy_of(f"levels.max_bits={ceiling}", "frame.deadline_ms=0")
    governor = Governor(
        policy.model_copy(update={"confidence": confidence}), LEVELS, PROFILE, clock
    )
    governor.step(make_sample(clock.now()))
    watch = Watch(governor)
    for pause, bits, margin in asks:
        clock.advance(pause)
        granted = watch.asked(bits, margin, clock.now())
        if granted is not None:
            assert margin < confidence.escalate_below


# I13: the energy budget ---------------------------------------------------------------------------


@fewer
@given(
    full_wh=st.floats(5.0, 40.0),
    hours=st.floats(0.5, 3.0),
    error=st.floats(0.75, 1.25),
    percent=st.floats(40.0, 100.0),
)
def test_i13_it_lasts_until_then_or_says_that_it_cannot(
    full_wh: float, hours: float, error: float, percent: float
) -> None:
    """The device takes ``error`` times what the profile says; the gauge gives whole percents."""
    pack = Pack(percent=percent, full_wh=full_wh)
    machine = Machine(packs={"BAT0": pack})
    due = machine.wall + timedelta(hours=hours)
    rig = Rig(machine, f"battery.until={due:%H:%M:%S}", "battery.tiers=[]", power_error=error)
    for name in ("energy_now", "current_now"):
        del machine.root.files[f"{POWER}/BAT0/{name}"]
    decision = rig.second()
    declared = "cannot_last" in events([decision])
    while machine.wall < due and pack.percent > POLICY.battery.reserve - 1.0:
        decision = rig.second(10.0)
        declared = declared or "cannot_last" in events([decision])
    if machine.wall < due - timedelta(seconds=1):
        assert declared and decision.rung == 0, f"ended {due - machine.wall} too soon"


# I14: the same again ------------------------------------------------------------------------------


def decision_log(names: Sequence[str], temperatures: Sequence[float]) -> str:
    rig = Rig(Machine(packs={"BAT0": Pack()}, chargers={"AC": False}), "battery.until=18:00:00")
    lines = []
    for name, temperature in zip(names, temperatures, strict=True):
        rig.machine.celsius["cpu-thermal"] = temperature
        end = FAULTS[name].begin(rig.machine)
        lines += rig.run(20, lambda _: rig.frames(1.4, 3))
        end()
    return "\n".join(json.dumps(line.to_json(), separators=(",", ":")) for line in lines)


@few
@given(data=st.lists(st.tuples(fault_names, st.floats(40.0, 95.0)), min_size=1, max_size=4))
def test_i14_the_same_inputs_give_the_same_log(data: list[tuple[str, float]]) -> None:
    names, temperatures = zip(*data, strict=True)
    assert decision_log(names, temperatures) == decision_log(names, temperatures)


@pytest.mark.slow
def test_i14_the_log_does_not_depend_on_the_process() -> None:
    """Neither on the order of sets and dictionaries nor on anything else of an interpreter."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_invariants as t; "
        "print(t.decision_log(['stuck', 'charger flaps', 'two zones disagree'], [60, 84, 50]))"
    )
    logs = {
        subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parent)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(logs) == 1 and len(logs.pop().splitlines()) == 60


# I15: accounts ------------------------------------------------------------------------------------


@few
@given(data=st.lists(st.tuples(fault_names, st.floats(40.0, 95.0)), min_size=1, max_size=4))
def test_i15_every_change_has_one_cause_and_every_second_a_rung(
    data: list[tuple[str, float]],
) -> None:
    rig = Rig(Machine(packs={"BAT0": Pack()}, chargers={"AC": False}))
    decisions: list[Decision] = []
    for name, temperature in data:
        rig.machine.celsius["cpu-thermal"] = temperature
        end = FAULTS[name].begin(rig.machine)
        decisions += rig.run(30)
        end()
    spent = sum(rig.watch.seconds_in.values())
    assert spent == pytest.approx(decisions[-1].time - decisions[0].time)
    for decision in decisions:
        lowest = min(decision.caps.values())
        if decision.changed and decision.bits < decision.previous_bits:
            assert decision.caps[decision.cause] == lowest and decision.why


# I16: restarts ------------------------------------------------------------------------------------


def restarted(rig: Rig, clock: ManualClock | None = None) -> None:
    """The process ends and starts again: only what ``state`` gave is left."""
    saved = json.loads(json.dumps(rig.governor.state(), allow_nan=False))
    rig.sensors = rig.machine.sensors()
    rig.governor = rig.new_governor()
    rig.governor.restore(saved)
    rig.watch = Watch(rig.governor)


@few
@given(name=st.sampled_from(BLINDING), every=st.integers(1, 9), count=st.integers(2, 12))
def test_i16_a_crash_loop_does_not_reset_the_fail_safe(name: str, every: int, count: int) -> None:
    rig = Rig()
    rig.run(20)
    FAULTS[name].begin(rig.machine)
    rig.run(12)
    allowed = rig.governor.ladder.at_most(POLICY.failsafe.lost_thermal_sensor_bits)
    for _ in range(count):
        restarted(rig)
        assert all(decision.rung <= allowed for decision in rig.run(every))


@few
@given(every=st.integers(1, 19), count=st.integers(1, 20))
def test_i16_a_crash_loop_does_not_raise(every: int, count: int) -> None:
    rig = Rig()
    rig.machine.celsius["cpu-thermal"] = 85.0
    low = rig.run(60)[-1].rung
    rig.machine.celsius["cpu-thermal"] = COOL
    for _ in range(count):
        restarted(rig)
        assert all(decision.rung <= low for decision in rig.run(every))


def test_i16_the_back_off_survives() -> None:
    """A rung that failed keeps its longer dwell across a restart."""
    rig = Rig()
    waits = []
    for _ in range(4):
        rig.machine.celsius["cpu-thermal"] = COOL
        while rig.governor.level < 8:
            rig.second()
        rig.machine.celsius["cpu-thermal"] = 79.0
        rig.run(30)
    rig.machine.celsius["cpu-thermal"] = COOL
    restarted(rig)
    for _ in range(400):
        decision = rig.second()
        waits.append(decision.next_raise_s or 0.0)
    assert max(waits) > 2 * RAISE_S


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@many
@given(garbage=st.dictionaries(st.text(max_size=8), json_values), data=st.data())
def test_i16_any_state_file_is_survived(garbage: dict[str, Any], data: st.DataObject) -> None:
    governor = governor_of()
    governor.step(make_sample(0.0))
    state = governor.state()
    torn = {key: data.draw(json_values | st.just(value)) for key, value in state.items()}
    for saved in (garbage, torn, {}):
        other = governor_of()
        other.restore(saved)
        watch = Watch(other)
        for second in range(3):
            sample = make_sample(float(second))
            watch.decided(sample, other.step(sample))


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
