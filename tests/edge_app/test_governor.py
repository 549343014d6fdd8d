"""The governor over time: heat, zones, throttling."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from governor_samples import (
    COOL,
    HOT,
    PROFILE,
    make_governor,
    make_sample,
    make_zone,
    no_battery,
    ok,
    run,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_app.governor import Decision, Governor
from edge_app.sensors import Sample

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_before_the_first_step_the_lowest_rung_holds() -> None:
    governor = make_governor()
    assert governor.level == 2 and governor.frame_interval_s == pytest.approx(1 / 7.5)


def test_first_step_starts_where_the_caps_allow() -> None:
    governor = make_governor()
    decision = governor.step(make_sample(0.0))
    assert (decision.bits, decision.cause, decision.changed) == (8, "none", False)
    assert decision.temperature_c == COOL and decision.battery_charge is None
    assert decision.caps == dict.fromkeys(
        ("thermal", "battery", "deadline", "load", "throttle", "failsafe", "policy"), 8
    )
    assert governor.level == 8 and governor.frame_interval_s == pytest.approx(1 / 30)


def test_heat_lowers_and_cooling_raises_one_rung_per_dwell() -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 10)
    hot = run(governor, lambda t: make_sample(t, HOT), 10, 60)
    assert hot[-1].bits == 2 and hot[-1].cause == "thermal"
    cool = run(governor, make_sample, 70, 200)
    raises = [decision for decision in cool if decision.changed]
    assert [d.bits for d in raises if d.bits != d.previous_bits] == [4, 6, 8]
    assert all(b.rung == a.rung + 1 for a, b in pairwise(raises))
    assert all(decision.cause == "thermal" for decision in raises)
    gaps = [b.time - a.time for a, b in pairwise(raises)]
    assert min(gaps) >= 20
    assert cool[-1].cause == "none"


def test_waiting_for_a_raise_is_announced() -> None:
    governor = make_governor()
    run(governor, lambda t: make_sample(t, HOT), 0, 30)
    waiting = [d for d in run(governor, make_sample, 30, 120) if d.next_raise_s is not None]
    first = waiting[0]
    assert first.next_raise_s == 20.0 and "next raise in 20 s" in first.why
    raised = next(d for d in waiting if d.changed)
    assert raised.time == pytest.approx(first.time + 20.0)


def test_critical_takes_the_lowest_rung_within_two_steps_and_pauses_above() -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 5)
    decisions = run(governor, lambda t: make_sample(t, 90.0), 5, 2)
    assert decisions[-1].rung == 0 and decisions[-1].cause == "thermal"
    assert "critical" in decisions[-1].why and not governor.paused
    run(governor, lambda t: make_sample(t, 96.0), 7, 2)
    assert governor.paused and governor.frame_interval_s == math.inf
    run(governor, lambda t: make_sample(t, 91.0), 9, 3)
    assert governor.paused, "five degrees of hysteresis"
    run(governor, lambda t: make_sample(t, 89.0), 12, 3)
    assert not governor.paused and math.isfinite(governor.frame_interval_s)


def test_single_spike_is_ignored() -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 5)
    decisions = run(governor, lambda t: make_sample(t, 124.0 if t % 10 == 5 else COOL), 5, 60)
    assert {decision.bits for decision in decisions} == {8}


def test_the_zone_nearest_to_its_own_limit_decides() -> None:
    def sample(t: float) -> Sample:
        zones = (make_zone(70.0, t, name="cpu"), make_zone(60.0, t, name="soc", critical_c=72.0))
        return Sample(t, zones, no_battery(t))

    decision = run(make_governor(), sample, 0, 5)[-1]
    assert decision.bits < 8 and decision.why.startswith("soc 60.0 °C")


def test_only_the_zones_of_the_policy_are_obeyed() -> None:
    def sample(t: float) -> Sample:
        zones = (make_zone(COOL, t), make_zone(110.0, t, name="nvme"))
        return Sample(t, zones, no_battery(t))

    assert run(make_governor(), sample, 0, 30)[-1].bits == 8
    assert run(make_governor('thermal.zones=["*"]'), sample, 0, 30)[-1].rung == 0


def test_throttling_by_the_kernel_steps_down_however_cool_it_claims_to_be() -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 5)
    decisions = run(governor, lambda t: replace(make_sample(t), throttled=ok(1.0, t)), 5, 200)
    assert decisions[0].bits == 6 and decisions[0].cause == "throttle"
    assert "throttles" in decisions[0].why
    assert decisions[-1].rung == 0


@settings(unhurried, max_examples=8)
@given(
    base=st.floats(40, 90),
    noise=st.lists(st.floats(-0.2, 0.2), min_size=50, max_size=50),
)
def test_noise_within_the_guard_never_flaps(base: float, noise: list[float]) -> None:
    """Constant temperature with noise: once it has settled, the level may drift one way."""
    governor = make_governor()

    def sample(t: float) -> Sample:
        return make_sample(t, base + noise[int(t * 7) % len(noise)])

    run(governor, sample, 0, 100)
    decisions = run(governor, sample, 100, 400)
    steps = [after.rung - before.rung for before, after in pairwise(decisions)]
    assert not (any(step > 0 for step in steps) and any(step < 0 for step in steps))


def test_a_raise_that_is_taken_back_waits_longer_each_time() -> None:
    """A plant whose temperature follows the level at once: any raise above 4 bits is too hot."""
    governor = make_governor()
    decisions: list[Decision] = []
    for second in range(3600):
        celsius = 76.0 if governor.level > 4 else 69.0
        decisions.append(governor.step(make_sample(float(second), celsius)))
    raises = [d.time for d in decisions if d.changed and d.bits > d.previous_bits == 4]
    gaps = [b - a for a, b in pairwise(raises)]
    assert gaps[0] < 60 and gaps[-1] >= 600
    assert sum(decision.changed for decision in decisions) <= 30


def slow_frames(governor: Governor, share: float | None, seconds: int) -> list[Decision]:
    """Frames take twice their profile while others are idle; the CPU runs at ``share`` of its
    highest frequency."""

    def sample(t: float) -> Sample:
        for _ in range(20):
            governor.observe_latency(governor.level, 2.0 * PROFILE[governor.level])
        return replace(make_sample(t), other_load=ok(0.0, t), cpu_frequency=ok(share, t))

    return run(governor, sample, 0, seconds)


@pytest.mark.parametrize(
    ("share", "throttled"), [(None, True), (1.0, True), (0.7, True), (0.5, False)]
)
def test_a_cpu_that_saves_power_is_slow_and_not_hot(share: float | None, throttled: bool) -> None:
    decisions = slow_frames(make_governor("frame.deadline_ms=0"), share, 120)
    assert any("throttle" == decision.cause for decision in decisions) is throttled
    assert any(decision.distrusted for decision in decisions) is throttled


def test_the_lowest_frequency_of_the_last_ten_seconds_counts() -> None:
    governor = make_governor("frame.deadline_ms=0")
    slow_frames(governor, 0.5, 30)
    later = [
        governor.step(replace(make_sample(t), other_load=ok(0.0, t), cpu_frequency=ok(1.0, t)))
        for t in (30.0 + second for second in range(9))
    ]
    assert not any(decision.distrusted for decision in later)
