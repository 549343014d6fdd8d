"""Close calls that run again, and the battery that pays for them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from governor_samples import (
    COOL,
    HOT,
    LEVELS,
    NOON,
    PROFILE,
    a_policy,
    make_governor,
    make_sample,
    restarted,
    run,
)

from edge_app.clock import ManualClock
from edge_app.governor import Governor
from edge_app.sensors import Sample


def escalating(*overrides: str, clock: ManualClock | None = None) -> Governor:
    """A governor whose frames start at 2 bits, after its first step at 50 °C."""
    low = a_policy("confidence.start_bits=2", *overrides)
    governor = Governor(low, LEVELS, PROFILE, clock or ManualClock())
    governor.step(make_sample(0.0))
    return governor


def test_close_calls_run_again_at_the_ceiling_and_are_charged() -> None:
    clock = ManualClock()
    governor = escalating("confidence.burst=2", "confidence.max_per_s=1", clock=clock)
    assert governor.escalate(2, 0.5) is None
    assert [governor.escalate(2, 0.1) for _ in range(3)] == [8, 8, None]
    clock.advance(1.0)
    assert governor.escalate(2, 0.1) == 8
    assert governor.escalate(8, 0.0) is None


def test_second_runs_keep_to_the_ceiling() -> None:
    governor = escalating()
    run(governor, lambda t: make_sample(t, HOT), 1, 60)
    assert governor.level == 2 and governor.escalate(2, 0.0) is None


def test_no_second_run_while_paused() -> None:
    governor = escalating("thermal.critical_c=95")
    for second in (1.0, 2.0):
        governor.step(make_sample(second, 96.0))
    assert governor.paused and governor.escalate(1, 0.0) is None


def test_slow_frames_leave_no_time_for_a_second_run() -> None:
    governor = escalating("frame.deadline_ms=60")
    assert governor.escalate(2, 0.0) is None, "50 ms on average, but they vary"
    governor = escalating("frame.deadline_ms=70")
    assert governor.escalate(2, 0.0) == 8
    for _ in range(100):
        governor.observe_latency(2, 2.0 * PROFILE[2])
    assert governor.escalate(2, 0.0) is None


def test_another_policy_pays_for_its_own_second_runs() -> None:
    governor = escalating()
    governor.replace_policy(a_policy("confidence.escalate_below=0"))
    governor.step(make_sample(1.0))
    assert governor.escalate(2, 0.0) is None


UNTIL = ("battery.until=18:00:00", "battery.capacity_wh=10")


def on_battery(t: float, charge: float) -> Sample:
    return replace(make_sample(t, COOL, charge), wall=NOON + timedelta(seconds=t))


def test_battery_tells_how_long_it_lasts_and_what_happened() -> None:
    governor = make_governor(*UNTIL)
    decision = governor.step(on_battery(0.0, 0.9))
    assert decision.until_s == 6 * 3600.0
    assert decision.battery_end_s is not None and decision.battery_end_s > 0
    assert decision.to_json()["until_s"] == 21600.0
    assert len(decision.events) == 1 and "18:00" in decision.events[0].text
    assert governor.step(on_battery(1.0, 0.9)).events == ()


def test_battery_that_cannot_last_leaves_nothing_for_second_runs() -> None:
    governor = make_governor(*UNTIL, "confidence.start_bits=2", "levels.min_bits=2")
    decision = governor.step(on_battery(0.0, 0.06))
    assert [event.kind for event in decision.events] == ["cannot_last"]
    governor = make_governor("confidence.start_bits=2")
    governor.step(on_battery(0.0, 0.9))
    assert governor.escalate(2, 0.0) == 8, "no end, no limit"


def test_battery_survives_a_restart_and_another_policy() -> None:
    governor = make_governor()
    for second in range(5):
        governor.step(on_battery(float(second), 0.39))
    fresh = restarted(governor)
    assert fresh.step(on_battery(0.0, 0.41)).caps["battery"] == 6, "a gauge that bounces back"
    fresh.replace_policy(a_policy())
    assert fresh.step(on_battery(1.0, 0.41)).caps["battery"] == 6
