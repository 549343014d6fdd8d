"""The caps as functions: monotone in everything that makes it worse."""

from __future__ import annotations

import pytest
from governor_samples import SLOW_CPU, a_policy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_app.governor import load_policy
from edge_app.governor.backdown import Backdown
from edge_app.governor.caps import (
    Heat,
    ThermalLimits,
    deadline_cap,
    failsafe_cap,
    thermal_budget,
    thermal_cap,
    thermal_limits,
)
from edge_app.governor.energy import LevelCost, Profile
from edge_app.governor.ladder import Rung, build_ladder
from edge_app.governor.slowdown import Slowdown
from edge_app.sensors import Quality, Reading, Zone

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

POLICY = a_policy()
LADDER = build_ladder((2, 4, 6, 8), POLICY)
LIMITS = ThermalLimits(65.0, 78.0, 88.0, 95.0)
PROFILE = {2: 0.010, 4: 0.020, 6: 0.030, 8: 0.040}

temperatures = st.floats(-40, 125)
rungs = st.integers(0, LADDER.top)
integrals = st.floats(-4, 0)


def heat(temperature: float, rise: float = 0.0, integral: float = 0.0) -> Heat:
    critical = temperature >= LIMITS.critical_c
    return Heat("cpu", temperature, temperature + rise, LIMITS, integral, critical)


def zone(passive: float | None, critical: float | None) -> Zone:
    return Zone("cpu", Reading(50.0, 0.0, Quality.OK, "cpu"), passive, critical)


def test_ladder() -> None:
    assert [(rung.bits, rung.fps, rung.cost) for rung in LADDER.rungs] == [
        (2, 7.5, 0.5),
        (2, 15.0, 1.0),
        (2, 30.0, 2.0),
        (4, 30.0, 4.0),
        (6, 30.0, 6.0),
        (8, 30.0, 8.0),
    ]
    assert Rung(2, 15.0, 1.0) == Rung(2, 15.0, 3.0) != Rung(2, 30.0, 1.0)
    assert LADDER.full == 2
    assert [LADDER.at_most(bits) for bits in (1, 2, 3, 4, 7, 8)] == [2, 2, 2, 3, 4, 5]
    assert LADDER.rungs[0].interval_s == pytest.approx(1 / 7.5)


def test_ladder_with_unpinned_and_with_low_rates() -> None:
    unpinned = build_ladder((4, 8), load_policy(None, "fastest"))
    assert [(r.bits, r.fps) for r in unpinned.rungs] == [(4, 2.5), (4, 5.0), (4, 0.0), (8, 0.0)]
    assert unpinned.rungs[2].interval_s == 0.0
    slow = build_ladder((2, 4), load_policy(None, overrides=["frame.target_fps=6"]))
    assert [rung.fps for rung in slow.rungs] == [3.0, 6.0, 6.0], "1.5 would be below min_fps"
    usual = build_ladder((2, 8), load_policy(None))
    points = [(rung.fps, rung.cost) for rung in usual.rungs]
    assert points == [(3.75, 0.25), (7.5, 0.5), (15.0, 1.0), (30.0, 2.0), (30.0, 8.0)]
    assert usual.full == 3
    lowest = build_ladder((2,), load_policy(None, overrides=["frame.min_fps=30"]))
    assert [rung.fps for rung in lowest.rungs] == [30.0], "no lower rate is allowed"


def costs(levels: dict[int, float], *overrides: str) -> list[float]:
    """Of the ladder for levels that take so many seconds, rounded."""
    policy = a_policy(*overrides)
    ladder = build_ladder(tuple(levels), policy, Profile.from_seconds(levels, 2.0, 5.0))
    return [round(rung.cost, 3) for rung in ladder.rungs]


def test_rungs_cost_what_they_take_in_power() -> None:
    # All of 8 bits' time, 40 ms at 30 frames a second, is more than there is.
    assert costs(PROFILE) == [0.6, 1.2, 2.4, 4.8, 7.2, 8.0]
    assert costs(PROFILE, "frame.target_fps=20") == [1.0, 2.0, 4.0, 6.0, 8.0]
    assert costs(SLOW_CPU) == [1.2, 2.4, 4.8, 8.0, 8.0, 8.0]
    assert costs(SLOW_CPU, "levels.max_bits=4") == [0.6, 1.2, 2.4, 4.0]
    # Where even the lowest level fills the CPU, only fewer frames save.
    slower = {bits: 4.0 * taken for bits, taken in SLOW_CPU.items()}
    assert costs(slower) == [4.8, 8.0, 8.0, 8.0, 8.0, 8.0]
    # What the policy leaves to the source is taken to be a camera.
    assert costs(SLOW_CPU, "frame.target_fps=0", "frame.min_fps=3") == [0.48, 0.96, 4.8] + [8.0] * 3


def test_joules_count_where_there_are_some() -> None:
    levels = {2: LevelCost(0.01, 0.030), 4: LevelCost(0.01, 0.060), 8: LevelCost(0.02, 0.061)}
    ladder = build_ladder((2, 4, 8), POLICY, Profile(levels, 2.0, "measured"))
    assert [round(rung.cost, 2) for rung in ladder.rungs[2:]] == [3.93, 8.0, 8.0]
    nothing = build_ladder((2, 8), POLICY, Profile({}, 2.0, "none"))
    assert [rung.cost for rung in nothing.rungs] == [0.5, 1.0, 2.0, 8.0], (
        "in proportion to the bits"
    )


def test_what_hardly_saves_or_is_even_dearer_is_no_step_of_its_own() -> None:
    assert costs({2: 0.0191, 8: 0.0200}) == [1.91, 3.82, 8.0, 8.0]
    assert costs({2: 0.0189, 8: 0.0200}) == [1.89, 3.78, 7.56, 8.0]
    assert costs({2: 0.0300, 8: 0.0200}) == [3.0, 6.0, 8.0, 8.0]


def test_steps_of_a_ladder() -> None:
    ladder = build_ladder((2, 4, 6, 8), POLICY, Profile.from_seconds(SLOW_CPU, 2.0, 5.0))
    assert [ladder.below(rung) for rung in range(6)] == [0, 0, 1, 2, 2, 2]
    assert [ladder.above(rung) for rung in range(6)] == [1, 2, 5, 5, 5, 5]
    assert [LADDER.below(rung) for rung in range(6)] == [0, 0, 1, 2, 3, 4]
    assert [LADDER.above(rung) for rung in range(6)] == [1, 2, 3, 4, 5, 5]


def test_thermal_cap_goes_by_steps_and_says_why() -> None:
    ladder = build_ladder((2, 4, 6, 8), POLICY, Profile.from_seconds(SLOW_CPU, 2.0, 5.0))
    cap = thermal_cap(heat(72.0), 3, ladder, POLICY)
    alike = "4 bits, 30 fps needs as much as 8 bits, 30 fps: 8.0"
    assert (cap.rung, cap.why) == (2, f"cpu 72.0 °C: budget 7.7 bits; {alike}")
    # Within the step that runs there is no hurdle: it heats no more.
    assert thermal_cap(heat(71.0), 3, ladder, POLICY).rung == 5
    cap = thermal_cap(heat(71.0), 2, ladder, POLICY)
    assert cap.rung == 2 and cap.why.endswith(": 8.5")


def test_backing_down_goes_by_steps() -> None:
    ladder = build_ladder((2, 4, 6, 8), POLICY, Profile.from_seconds(SLOW_CPU, 2.0, 5.0))
    backdown = Backdown(ladder, 0, 30.0)
    seen = [
        backdown.update(second < 60, backdown.rung, float(second)) for second in range(0, 180, 30)
    ]
    assert seen == [2, 1, 2, 5, 5, 5]


def test_policy_that_permits_no_level() -> None:
    with pytest.raises(ValueError, match=r"levels.min_bits..max_bits is 2..4, but the model has 8"):
        build_ladder((8,), a_policy("levels.max_bits=4"))


def test_limits_follow_the_device_where_it_is_stricter() -> None:
    thermal = POLICY.thermal
    assert thermal_limits(zone(None, None), thermal) == ThermalLimits(65, 78, 88, 95)
    assert thermal_limits(zone(90, 110), thermal) == ThermalLimits(65, 78, 88, 95)
    assert thermal_limits(zone(75, 90), thermal) == ThermalLimits(60, 73, 82, 87)
    assert thermal_limits(zone(None, 80), thermal) == ThermalLimits(57, 70, 72, 77)
    blind = a_policy("thermal.use_trips=false").thermal
    assert thermal_limits(zone(75, 90), blind) == ThermalLimits(65, 78, 88, 95)


def test_budget_at_the_corners() -> None:
    assert thermal_budget(heat(65.0), 4.0) == pytest.approx(12.0)
    assert thermal_budget(heat(78.0), 4.0) == pytest.approx(4.0)
    assert thermal_budget(heat(91.0), 4.0) == pytest.approx(0.0)


@unhurried
@given(temperatures, temperatures, st.floats(0, 10), integrals, rungs)
def test_hotter_never_allows_more(
    one: float, other: float, rise: float, integral: float, current: int
) -> None:
    cool, hot = sorted((one, other))
    allowed = [
        thermal_cap(heat(t, rise, integral), current, LADDER, POLICY).rung for t in (cool, hot)
    ]
    assert allowed[0] >= allowed[1]


@unhurried
@given(temperatures, st.floats(0, 10), st.floats(0, 10), integrals, integrals, rungs)
def test_rising_and_past_excess_never_allow_more(
    temperature: float, one: float, other: float, some: float, more: float, current: int
) -> None:
    slow, fast = sorted((one, other))
    more, some = sorted((some, more))

    def allowed(rise: float, integral: float) -> int:
        return thermal_cap(heat(temperature, rise, integral), current, LADDER, POLICY).rung

    assert allowed(slow, some) >= allowed(fast, some)
    assert allowed(slow, some) >= allowed(slow, more)


@unhurried
@given(temperatures, integrals, rungs)
def test_a_raise_needs_a_guard_that_staying_does_not(
    temperature: float, integral: float, current: int
) -> None:
    warm = heat(temperature, integral=integral)
    allowed = thermal_cap(warm, current, LADDER, POLICY).rung
    if allowed > current:
        # Having arrived there it stays, and so it would half a bit hotter.
        assert thermal_cap(warm, allowed, LADDER, POLICY).rung >= allowed
        budget = thermal_budget(warm, POLICY.thermal.sustainable_bits)
        assert LADDER.rungs[allowed].cost + POLICY.stability.guard_bits <= budget


def test_critical_is_the_lowest_rung() -> None:
    assert thermal_cap(heat(88.0), LADDER.top, LADDER, POLICY).rung == 0
    assert thermal_cap(None, 0, LADDER, POLICY).rung == LADDER.top


@unhurried
@given(st.floats(0.1, 20), st.floats(0.1, 20), st.floats(0, 3), st.floats(0, 3), rungs)
def test_slower_or_less_certain_never_allows_more(
    one: float, other: float, sure: float, unsure: float, current: int
) -> None:
    fast, slow = sorted((one, other))
    sure, unsure = sorted((sure, unsure))

    def allowed(mean: float, deviation: float) -> int:
        return deadline_cap(mean, deviation, PROFILE, current, LADDER, 0.1).rung

    assert allowed(fast, sure) >= allowed(slow, sure)
    assert allowed(fast, sure) >= allowed(fast, unsure)
    assert allowed(slow, unsure) >= LADDER.full, "shedding frames makes none of them faster"


@pytest.mark.parametrize(
    ("slowdown", "current_bits", "bits"),
    [(1.0, 8, 8), (2.4, 8, 8), (2.4, 2, 6), (2.6, 8, 6), (4.0, 8, 4), (6.0, 8, 2), (99.0, 8, 2)],
)
def test_deadline(slowdown: float, current_bits: int, bits: int) -> None:
    current = LADDER.at_most(current_bits)
    cap = deadline_cap(slowdown, 0.0, PROFILE, current, LADDER, 0.1)
    assert LADDER.rungs[cap.rung].bits == bits


def test_no_deadline_and_no_profile() -> None:
    assert deadline_cap(99.0, 9.0, PROFILE, 0, LADDER, 0.0).rung == LADDER.top
    assert deadline_cap(99.0, 9.0, {}, 0, LADDER, 0.1).rung == LADDER.top


@pytest.mark.parametrize(
    ("state", "current", "expected"),
    [("seeing", 0, 5), ("never", 5, 3), ("waiting", 4, 4), ("lost", 5, 2), ("lost", 1, 1)],
)
def test_failsafe(state: str, current: int, expected: int) -> None:
    assert failsafe_cap(state, "", current, LADDER, POLICY).rung == expected


@unhurried
@given(st.floats(0.2, 8), st.floats(0.2, 8))
def test_slowdown_finds_a_new_constant_soon(before: float, now: float) -> None:
    slowdown = Slowdown()
    for _ in range(200):
        slowdown.observe(before)
    for _ in range(60):
        slowdown.observe(now)
    assert abs(slowdown.mean - now) <= 0.05 * abs(before - now) + 0.02 * now


def test_one_hiccup_does_not_move_the_slowdown() -> None:
    slowdown = Slowdown()
    for index in range(300):
        slowdown.observe(1.0 + 0.05 * (-1) ** index)
    slowdown.observe(100.0)
    assert slowdown.mean < 1.1 and slowdown.mean + 1.645 * slowdown.deviation < 1.3


@pytest.mark.parametrize("ratio", [float("nan"), float("inf"), 0.0, -1.0])
def test_slowdown_ignores_nonsense(ratio: float) -> None:
    slowdown = Slowdown()
    slowdown.observe(ratio)
    assert slowdown.mean == 1.0


def test_backdown_steps_down_and_up_by_the_period() -> None:
    backdown = Backdown(LADDER, floor=2, period_s=30.0)
    current, seen = 5, []
    for second in range(0, 300, 10):
        current = backdown.update(100 <= second < 260, current, float(second))
        seen.append(current)
    assert seen == [5] * 10 + [4] * 3 + [3] * 3 + [2] * 12 + [3] * 2
