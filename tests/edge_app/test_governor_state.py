"""The governor as a whole: events, policies that change, jumps of time."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from governor_samples import (
    COOL,
    HOT,
    LEVELS,
    NOON,
    PROFILE,
    a_policy,
    make_governor,
    make_sample,
    no_battery,
    ok,
    run,
    slow_sample,
)

from edge_app.clock import ManualClock
from edge_app.errors import EXIT_USAGE, AppError
from edge_app.governor import Decision, Event, Governor
from edge_app.governor.energy import LevelCost, Profile
from edge_app.governor.wallclock import WallClock
from edge_app.sensors import Sample


def kinds(decisions: list[Decision]) -> list[str]:
    return [event.kind for decision in decisions for event in decision.events]


# What the frame path sees -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_bits", "celsius", "first"),
    [(8, COOL, 8), (4, COOL, 4), (5, COOL, 4), (2, COOL, 2), (6, HOT, 2)],
)
def test_frames_start_at_the_level_of_the_policy_as_far_as_allowed(
    start_bits: int, celsius: float, first: int
) -> None:
    governor = make_governor(f"confidence.start_bits={start_bits}")
    governor.step(make_sample(0.0, celsius))
    assert governor.first_level == first <= governor.level


def test_first_level_of_a_model_without_so_low_a_level() -> None:
    governor = make_governor("confidence.start_bits=2", levels=(6, 8))
    governor.step(make_sample(0.0))
    assert (governor.first_level, governor.level) == (6, 8)


def test_profile_or_seconds() -> None:
    profile = Profile({8: LevelCost(0.04, 0.1), 4: LevelCost(0.02, 0.05)}, 2.0, "test")
    governor = Governor(a_policy(), LEVELS, profile, ManualClock())
    for _ in range(100):
        governor.observe_latency(8, 0.08)
        governor.observe_latency(6, 99.0)
    assert governor.slowdown == pytest.approx(2.0, rel=0.01), "unknown levels tell nothing"


# Time ---------------------------------------------------------------------------------------------


def test_suspend_is_told_and_restarts_the_dwell() -> None:
    governor = make_governor()
    run(governor, lambda t: make_sample(t, HOT), 0, 30)
    assert kinds(run(governor, make_sample, 30, 20)) == []
    quiet = governor.step(make_sample(109.0))
    assert quiet.events == ()
    back = governor.step(make_sample(169.001))
    assert back.events == (Event("suspended", "no sample for 60 s"),)
    assert back.next_raise_s == 20.0


@pytest.mark.parametrize("jump_s", [5.001, -5.001, 86400.0, -86400.0])
def test_jump_of_the_wall_clock_is_told_and_restarts_the_dwell(jump_s: float) -> None:
    governor = make_governor()

    def sample(t: float) -> Sample:
        ahead = jump_s if t >= 60 else 0.0
        return replace(
            make_sample(t, HOT if t < 30 else COOL), wall=NOON + timedelta(seconds=t + ahead)
        )

    before = run(governor, sample, 0, 60)
    assert before[-1].next_raise_s is not None and before[-1].next_raise_s < 20
    after = governor.step(sample(60.0))
    assert after.events == (Event("clock_jump", f"the wall clock jumped by {jump_s:+.0f} s"),)
    assert after.next_raise_s == 20.0
    assert governor.step(sample(61.0)).events == ()


def test_wall_clock() -> None:
    wall = WallClock()
    assert wall.update(None, 0.0) == 0.0
    assert wall.update(NOON, 1.0) == 0.0, "the first one tells nothing"
    assert wall.update(NOON + timedelta(seconds=5), 1.0) == 0.0, "that is drift"
    assert wall.update(NOON + timedelta(seconds=10.5), 1.0) == 5.5, "not added up"
    assert wall.update(None, 2.0) == 0.0
    assert wall.update(NOON + timedelta(seconds=10.5 - 5), 2.0) == -6.0
    assert wall.update((NOON + timedelta(seconds=5.5)).astimezone(UTC), 2.0) == 0.0
    assert wall.update(datetime(1, 1, 1), 2.0) == 0.0
    assert wall.update(NOON + timedelta(seconds=5.5), 2.0) == 0.0


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf, None, "x", 3.0])
def test_time_never_goes_backwards(nonsense: float) -> None:
    governor = make_governor()
    assert governor.step(make_sample(10.0)).time == 10.0
    assert governor.step(replace(make_sample(10.0), time=nonsense)).time == 10.0
    assert governor.step(make_sample(11.0)).time == 11.0
    fresh = make_governor()
    assert fresh.step(replace(make_sample(0.0), time=nonsense)).time in (0.0, 3.0)


# Events -------------------------------------------------------------------------------------------


def test_healthy_machine_has_nothing_to_tell() -> None:
    governor = make_governor()
    assert kinds(run(governor, lambda t: make_sample(t, COOL + t % 3), 0, 600)) == []


def test_device_without_thermometer_is_told_once() -> None:
    decisions = run(make_governor(), lambda t: make_sample(t, None), 0, 60)
    text = "no thermal sensor on this device: 4 bits at most"
    assert decisions[0].events == (Event("no_thermal_sensor", text),)
    assert kinds(decisions) == ["no_thermal_sensor"]
    late = make_governor()
    late.step(make_sample(0.0))
    assert late.step(Sample(1.0, (), no_battery(1.0))).events == ()


def test_loss_and_return_of_a_sensor_are_told() -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 10)
    lost = run(governor, lambda t: make_sample(t, None), 10, 30)
    assert kinds(lost) == ["sensor_lost"]
    assert kinds(run(governor, make_sample, 40, 100)) == ["sensor_back"]


def test_pause_is_told() -> None:
    governor = make_governor()
    decisions = run(governor, lambda t: make_sample(t, 96.0 if 5 <= t < 20 else 80.0), 0, 40)
    assert kinds(decisions) == ["paused", "resumed"]
    paused = [decision for decision in decisions if decision.paused]
    assert paused and all(decision.why.endswith("; paused") for decision in paused)
    assert all("next raise" not in decision.why for decision in paused)


def test_thermometer_that_lies_is_found_out_by_slow_frames() -> None:
    governor = make_governor()
    run(governor, slow_sample(governor, 1.0), 0, 60)
    decisions = run(governor, slow_sample(governor, 1.6), 60, 90)
    found = next(decision for decision in decisions if decision.distrusted)
    assert found.time <= 60 + 30 + 2 and found.distrusted == ("cpu-thermal",)
    assert sorted(set(kinds(decisions))) == ["distrusted", "throttled"]
    assert found.bits <= 2 and found.caps["failsafe"] == 2
    assert decisions[-1].bits == 2 and "not believed" in next(
        decision.why for decision in decisions if decision.cause == "failsafe"
    )


@pytest.mark.parametrize(
    ("others", "waiting", "accused"),
    [
        (0.10, None, True),
        (0.101, None, False),
        (None, None, False),
        (0.05, 40.0, True),
        (0.05, 40.1, False),
    ],
)
def test_slow_frames_on_a_busy_machine_accuse_nobody(
    others: float | None, waiting: float | None, accused: bool
) -> None:
    governor = make_governor("load.yield_to_others=false")
    slow = slow_sample(governor, 1.6)

    def sample(t: float) -> Sample:
        return replace(slow(t), other_load=ok(others, t), cpu_pressure=ok(waiting, t))

    decisions = run(governor, sample, 0, 100)
    assert ("distrusted" in kinds(decisions)) is accused
    assert any(decision.caps["throttle"] < 8 for decision in decisions) is accused


def test_without_frames_it_is_not_known_how_slow_they_are() -> None:
    governor = make_governor()
    for _ in range(100):
        governor.observe_latency(8, PROFILE[8] * 1.6)

    def idle(t: float) -> Sample:
        return replace(make_sample(t, 55.0), other_load=ok(0.05, t))

    assert kinds(run(governor, idle, 0, 200)) == []


def test_weak_supply_is_told() -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 5)
    weak = governor.step(replace(make_sample(5.0), under_voltage=ok(1.0, 5.0)))
    assert (weak.bits, weak.cause) == (6, "throttle")
    assert weak.why.startswith("weak power supply")
    assert weak.events == (Event("under_voltage", "weak power supply: its voltage is too low"),)


def test_old_flags_do_not_count() -> None:
    governor = make_governor()
    flags = replace(make_sample(20.0), throttled=ok(1.0, 9.999), under_voltage=ok(1.0, 9.999))
    assert governor.step(flags).cause == "none"
    flags = replace(make_sample(21.0), throttled=ok(1.0, 11.0))
    assert governor.step(flags).cause == "throttle"


def test_identical_temperatures_while_the_rung_changed_are_found_out() -> None:
    governor = make_governor()

    def sample(t: float) -> Sample:
        busy = 50 <= t < 200
        pressure = ok(70.0 if busy else 0.0, t)
        return replace(make_sample(t, COOL), other_load=ok(0.6, t), cpu_pressure=pressure)

    decisions = run(governor, sample, 0, 320)
    assert decisions[280].cause != "failsafe"
    assert decisions[-1].cause == "failsafe" and "stuck (50 °C)" in decisions[-1].why


# Another policy -----------------------------------------------------------------------------------


def test_another_policy_applies_from_the_next_step_on() -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 5)
    governor.replace_policy(a_policy("levels.max_bits=4"))
    assert governor.level == 8 and governor.policy.levels.max_bits == 8
    decision = governor.step(make_sample(5.0))
    assert (decision.bits, decision.changed, decision.previous_bits) == (4, True, 8)
    assert decision.cause == "policy" and governor.policy.levels.max_bits == 4
    text = "policy balanced applies from now on"
    assert decision.events == (Event("policy_reloaded", text),)
    assert governor.step(make_sample(6.0)).events == ()


def test_another_policy_never_raises_without_a_dwell() -> None:
    governor = make_governor("levels.max_bits=4")
    run(governor, make_sample, 0, 100)
    governor.replace_policy(a_policy("stability.raise_dwell_s=30"))
    decisions = run(governor, make_sample, 100, 100)
    raises = [decision for decision in decisions if decision.changed]
    assert [(d.time, d.bits) for d in raises] == [(130.0, 6), (160.0, 8)]
    assert all(decision.cause == "policy" for decision in raises)
    assert decisions[0].next_raise_s == 30.0


def test_another_rate_is_a_change_with_a_cause() -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 5)
    governor.replace_policy(a_policy("frame.target_fps=20"))
    decision = governor.step(make_sample(5.0))
    assert (decision.changed, decision.cause, decision.fps) == (True, "policy", 20.0)
    governor.replace_policy(a_policy("frame.target_fps=40"))
    decision = governor.step(make_sample(6.0))
    # 8 bits at 40 frames a second are more than 8 bits at 20.
    assert (decision.bits, decision.fps) == (4, 40.0)
    governor.replace_policy(a_policy("frame.target_fps=40"))
    assert not governor.step(make_sample(7.0)).changed


def test_policy_that_permits_no_level_changes_nothing() -> None:
    governor = make_governor(levels=(8,))
    run(governor, make_sample, 0, 5)
    with pytest.raises(AppError, match="has 8 bits") as caught:
        governor.replace_policy(a_policy("levels.max_bits=4"))
    assert caught.value.exit_code == EXIT_USAGE
    assert governor.step(make_sample(5.0)).events == ()


def test_another_policy_before_the_first_step() -> None:
    governor = make_governor()
    governor.replace_policy(a_policy("levels.max_bits=6"))
    decision = governor.step(make_sample(0.0))
    assert (decision.bits, decision.cause) == (6, "policy")


def test_another_policy_does_not_forgive_a_lost_sensor() -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 10)
    run(governor, lambda t: make_sample(t, None), 10, 30)
    governor.replace_policy(a_policy("thermal.control_c=70"))
    decisions = run(governor, make_sample, 40, 59)
    assert {decision.bits for decision in decisions} == {2}


# The end ------------------------------------------------------------------------------------------


def test_fail_safe_is_the_lowest_rung_and_stays_it() -> None:
    clock = ManualClock(50.0)
    governor = Governor(a_policy(), LEVELS, PROFILE, clock)
    run(governor, make_sample, 40, 10)
    decision = governor.fail_safe("the governor has stopped: boom")
    assert (decision.time, decision.rung, decision.cause, decision.changed) == (
        50.0,
        0,
        "failsafe",
        True,
    )
    assert decision.previous_bits == 8 and decision.caps == {"failsafe": 2}
    assert decision.why == "the governor has stopped: boom" and decision.next_raise_s is None
    assert decision.events == (Event("failsafe", "the governor has stopped: boom"),)
    assert governor.level == 2 and governor.frame_interval_s == pytest.approx(1 / 7.5)
    assert [d.rung for d in run(governor, make_sample, 51, 15)] == [0] * 15
