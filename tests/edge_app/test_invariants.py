"""What holds of the governor whatever happens: the invariants I1 to I6 of docs/governor.md.

Readings come from files through the real readers wherever the invariant is about readings. What
``Watch`` asserts at every step (I1 to I4, I8, I12, I15) holds in each test of the invariants, not only
in the one that is named after it. `--hypothesis-profile=soak` looks much longer.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from fake_root import Layer, Machine, Pack, Value
from governor_samples import PROFILE, make_sample, make_zone, ok
from hypothesis import assume, example, given
from hypothesis import strategies as st
from invariants import (
    FULL,
    LADDER,
    POLICY,
    RAISE_S,
    TOP,
    celsius,
    few,
    fewer,
    fractions,
    many,
    of_qualities,
    wild_numbers,
    wild_texts,
)
from rig import HOUR_S, Heat, Rig, Watch, changes, governor_of

from edge_app.governor import Decision
from edge_app.governor.arbiter import Arbiter
from edge_app.governor.backdown import Backdown
from edge_app.governor.battery import active_tiers, battery_cap
from edge_app.governor.caps import Cap, ThermalLimits, deadline_cap, failsafe_cap, thermal_cap
from edge_app.governor.caps import Heat as ZoneHeat
from edge_app.sensors import Battery, Sample

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
    critical=st.floats(POLICY.thermal.critical_c, 124.0),
)
@example(before=[20.0, 20.0], critical=POLICY.thermal.critical_c)
def test_i02_critical_reaches_the_lowest_rung_in_two_ticks(
    before: list[float], critical: float
) -> None:
    rig = Rig()
    for temperature in before:
        rig.machine.celsius["cpu-thermal"] = temperature
        rig.second()
    # The least of what is read, in turn, is critical, too.
    rig.machine.celsius["cpu-thermal"] = critical + rig.machine.jitter_c
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
