"""The caps, the ladder and the load at their exact bounds, and what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from governor_samples import LEVELS, a_policy, make_sample, ok
from hypothesis import given
from hypothesis import strategies as st

from edge_app.governor.backdown import Backdown
from edge_app.governor.caps import CAP_NAMES, Cap, Heat, ThermalLimits, failsafe_cap, thermal_cap
from edge_app.governor.ladder import Rung, build_ladder
from edge_app.governor.load import LoadCap, contention, others_idle

POLICY = a_policy()
LADDER = build_ladder(LEVELS, POLICY)
LIMITS = ThermalLimits(60.0, 80.0, 88.0, 95.0)


def heat(celsius: float, ahead: float = 0.0, integral: float = 0.0, critical: bool = False) -> Heat:
    return Heat("cpu", celsius, celsius + ahead, LIMITS, integral, critical)


# Heat ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("celsius", "integral", "current", "rung"),
    [
        # Budget 4 + 8 * headroom bits below control, 4 + 4 * headroom above.
        (70.0, 0.0, 5, 5),  # exactly 8 bits: enough to stay
        (70.0, -0.001, 5, 4),
        (70.0, 0.0, 4, 4),  # to rise it takes half a bit more
        (68.75, 0.0, 4, 5),  # 8.5 bits
        (68.75, -0.001, 4, 4),
        (80.0, 0.0, 3, 3),  # 4 bits at the temperature that is aimed at
        (80.0, 0.0, 2, 2),
        (90.0, 0.0, 2, 2),  # 2 bits half a span above
        (95.0, 0.0, 1, 1),
        (95.0, 0.0, 0, 0),  # 1 bit is not 1.5
        (97.5, 0.0, 0, 0),
        (100.0, 0.0, 5, 0),  # nothing is left, and the lowest rung runs
        (120.0, -4.0, 5, 0),
    ],
)
def test_thermal_budget_to_the_edge(
    celsius: float, integral: float, current: int, rung: int
) -> None:
    cap = thermal_cap(heat(celsius, integral=integral), current, LADDER, POLICY)
    assert cap.rung == rung and not cap.urgent


def test_what_the_thermal_cap_says() -> None:
    assert thermal_cap(None, 0, LADDER, POLICY) == Cap("thermal", 5, "no temperature")
    cap = thermal_cap(heat(69.96), 5, LADDER, POLICY)
    assert cap.why == "cpu 70.0 °C: budget 8.0 bits"
    cap = thermal_cap(heat(70.04, ahead=3.0), 5, LADDER, POLICY)
    assert cap.why == "cpu 70.0 °C, 73.0 °C ahead: budget 6.8 bits; 8 bits, 30 fps needs 8.0"
    cap = thermal_cap(heat(70.04), 4, LADDER, POLICY)
    assert cap.why == "cpu 70.0 °C: budget 8.0 bits; 8 bits, 30 fps needs 8.5"
    cap = thermal_cap(heat(120.0), 5, LADDER, POLICY)
    assert cap.why == "cpu 120.0 °C: budget 0.0 bits; 2 bits, 15 fps needs 1.0"
    cap = thermal_cap(heat(90.0, critical=True), 5, LADDER, POLICY)
    assert cap == Cap("thermal", 0, "cpu 90.0 °C: critical (88 °C)", urgent=True)


@pytest.mark.parametrize(
    ("state", "current", "rung", "why"),
    [
        ("seeing", 0, 5, "sensors are sound"),
        ("never", 5, 3, "why"),
        ("never", 0, 3, "why"),
        ("waiting", 4, 4, "why"),
        ("lost", 5, 2, "why"),
        ("lost", 2, 2, "why"),
        ("lost", 1, 1, "why"),
    ],
)
def test_blindness_is_urgent(state: str, current: int, rung: int, why: str) -> None:
    cap = failsafe_cap(state, "why", current, LADDER, POLICY)
    assert cap == Cap("failsafe", rung, why, urgent=True)


def test_names_of_the_caps() -> None:
    expected = ("thermal", "battery", "deadline", "load", "throttle", "failsafe", "policy")
    assert expected == CAP_NAMES
    assert Cap("load", 0, "").urgent is False


# Ladder -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "exceeds"),
    [
        ((4, 30.0), (4, 30.0), False),
        ((4, 30.1), (4, 30.0), True),
        ((6, 10.0), (4, 30.0), True),
        ((4, 30.0), (8, 15.0), False),
        ((4, 30.1), (8, 15.0), True),
        ((4, 0.0), (4, 0.0), False),
        ((2, 0.0), (8, 1000.0), True),
        ((2, 1000.0), (2, 0.0), False),
    ],
)
def test_exceeding_is_more_bits_a_frame_or_a_second(
    one: tuple[int, float], other: tuple[int, float], exceeds: bool
) -> None:
    assert Rung(*one, 0.0).exceeds(Rung(*other, 0.0)) is exceeds


@pytest.mark.parametrize(
    ("point", "rung"),
    [((8, 30.0), 5), ((8, 29.9), 4), ((4, 60.0), 3), ((2, 15.0), 1), ((2, 7.4), 0), ((1, 0.0), 0)],
)
def test_not_above(point: tuple[int, float], rung: int) -> None:
    assert LADDER.not_above(Rung(*point, 0.0)) == rung


@given(
    st.sampled_from([0.0, 5.0, 10.0, 30.0, 60.0]),
    st.sampled_from([0.0, 5.0, 10.0, 30.0, 60.0]),
    st.integers(0, 8),
)
def test_a_policy_never_raises(before: float, after: float, index: int) -> None:
    old = build_ladder(LEVELS, a_policy(f"frame.target_fps={before:g}", "frame.min_fps=2.5"))
    new = build_ladder(LEVELS, a_policy(f"frame.target_fps={after:g}", "frame.min_fps=2.5"))
    point = old.rungs[min(index, old.top)]
    adopted = new.not_above(point)
    assert adopted == 0 or not new.rungs[adopted].exceeds(point)
    assert all(rung.exceeds(point) for rung in new.rungs[adopted + 1 :])


# Steps and load -----------------------------------------------------------------------------------


def test_steps_begin_at_once_and_keep_their_distance() -> None:
    steps = Backdown(LADDER, 2, 30.0)
    assert steps.steps == 0 and steps.rung == 5
    assert steps.update(True, 5, -100.0) == 4 and steps.steps == 1
    assert steps.update(True, 4, -70.001) == 4
    assert steps.update(True, 4, -70.0) == 3
    assert steps.update(False, 3, -40.001) == 3
    assert steps.update(False, 3, -40.0) == 4
    assert steps.update(True, 1, 0.0) == 2, "from what runs, but not below the floor"
    assert steps.update(False, 1, 30.0) == 3


def test_steps_in_another_ladder() -> None:
    steps = Backdown(LADDER, 0, 30.0)
    steps.update(True, 4, 0.0)
    assert steps.steps == 2
    steps.replace(build_ladder((2, 4), POLICY), 1, 10.0)
    assert steps.rung == 1
    steps.replace(build_ladder((2,), POLICY), 1, 10.0)
    assert steps.rung == 1 and steps.update(True, 1, 9.999) == 1
    assert steps.update(False, 1, 10.0) == 2
    assert steps.update(False, 1, 20.0) == 2


def test_steps_after_a_restart() -> None:
    steps = Backdown(LADDER, 1, 30.0)
    steps.restore(0, 100.0)
    assert steps.update(True, 5, 100.0) == 4
    steps = Backdown(LADDER, 1, 30.0)
    steps.restore(1, 100.0)
    assert steps.rung == 4 and steps.update(False, 5, 129.999) == 4
    assert steps.update(False, 5, 130.0) == 5
    steps.restore(99, 100.0)
    assert steps.rung == 1


@pytest.mark.parametrize(
    ("others", "waiting", "wanted"),
    [
        (0.26, 40.1, True),
        (0.25, 40.1, False),
        (0.26, 40.0, False),
        (0.751, None, True),
        (0.75, None, False),
        (None, 90.0, False),
        (math.nan, 90.0, False),
    ],
)
def test_contention_to_the_edge(others: float | None, waiting: float | None, wanted: bool) -> None:
    sample = replace(make_sample(0.0), other_load=ok(others), cpu_pressure=ok(waiting))
    assert contention(sample, POLICY.load, 10.0) is wanted
    assert not contention(sample, POLICY.load, 10.001), "too old"
    deaf = a_policy("load.yield_to_others=false")
    assert not contention(sample, deaf.load, 10.0)


def test_old_pressure_is_none() -> None:
    sample = replace(make_sample(0.0), other_load=ok(0.5, 5.0), cpu_pressure=ok(90.0, 0.0))
    assert contention(sample, POLICY.load, 10.0)
    assert not contention(sample, POLICY.load, 10.001), "half the CPU alone is not enough"


@pytest.mark.parametrize(
    ("others", "waiting", "idle"),
    [
        (0.1, None, True),
        (0.1001, None, False),
        (None, 0.0, False),
        (0.1, 40.0, True),
        (0.1, 40.1, False),
    ],
)
def test_idle_to_the_edge(others: float | None, waiting: float | None, idle: bool) -> None:
    sample = replace(make_sample(0.0), other_load=ok(others), cpu_pressure=ok(waiting))
    assert others_idle(sample, POLICY.load, 10.0) is idle
    assert not others_idle(sample, POLICY.load, 10.001)


def test_load_cap() -> None:
    load = LoadCap(POLICY, LADDER)
    busy = replace(make_sample(0.0), other_load=ok(0.5), cpu_pressure=ok(90.0))
    assert load.update(busy, 5, 0.0) == Cap("load", 4, "other programs want the CPU")
    load.replace_policy(a_policy("load.step_s=3"), LADDER)
    assert load.update(busy, 4, 2.999).rung == 4
    assert load.update(busy, 4, 3.0).rung == 3
    assert load.update(busy, 3, 6.0).rung == 2
    assert load.update(busy, 2, 9.0).rung == 2, "frames are not shed for others' sake"
    load.replace_policy(a_policy("load.yield_to_others=false"), LADDER)
    relaxed = load.update(busy, 2, 100.0)
    assert (relaxed.rung, relaxed.why) == (3, "other programs wanted the CPU lately")
    assert LoadCap(POLICY, LADDER).update(make_sample(0.0), 5, 0.0).why.endswith("CPU alone")
