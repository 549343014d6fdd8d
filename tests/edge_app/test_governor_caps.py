"""The governor over time: blindness, battery, deadlines, load and what the policy forbids."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

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

from edge_app.errors import EXIT_USAGE, AppError
from edge_app.sensors import Quality, Sample


@pytest.mark.parametrize(
    "blind",
    [
        lambda t: make_sample(t, None),
        lambda t: Sample(t, (make_zone(None, t, Quality.MISSING),), no_battery(t)),
        lambda t: Sample(t, (make_zone(-273.15, t, Quality.IMPLAUSIBLE),), no_battery(t)),
        lambda t: Sample(t, (make_zone(COOL, t, Quality.STUCK),), no_battery(t)),
        lambda t: Sample(t, (make_zone(COOL, 10.0),), no_battery(t)),
        lambda t: Sample(t, (make_zone(math.nan, t),), no_battery(t)),
    ],
    ids=["vanished", "missing", "implausible", "stuck", "stale", "not a number"],
)
def test_lost_sensor_fails_safe_and_is_trusted_again_after_a_minute(
    blind: Callable[[float], Sample],
) -> None:
    governor = make_governor()
    run(governor, make_sample, 0, 10)
    lost = run(governor, blind, 10, 120)
    down = next(decision for decision in lost if decision.changed)
    # A stale reading counts from when it is too old.
    assert (down.bits, down.cause) == (2, "failsafe") and down.time <= 10 + 5 + 10 + 1
    assert "cpu-thermal" in down.why
    assert lost[-1].bits == 2 and lost[-1].temperature_c is None
    back = run(governor, make_sample, 130, 150)
    raises = [decision for decision in back if decision.changed]
    assert [decision.bits for decision in raises] == [4, 6, 8]
    assert raises[0].time >= 130 + 60


def test_lost_sensor_never_raises() -> None:
    governor = make_governor()
    run(governor, lambda t: make_sample(t, 90.0), 0, 30)
    lost = run(governor, lambda t: make_sample(t, None), 30, 2000)
    assert {decision.rung for decision in lost} == {0}, "it was critical when last seen"


def test_hiccups_of_a_sensor_do_not_hinder_a_raise() -> None:
    governor = make_governor()
    run(governor, lambda t: make_sample(t, HOT), 0, 30)

    def sample(t: float) -> Sample:
        return make_sample(t, None if t % 4 == 0 else COOL)

    assert run(governor, sample, 30, 150)[-1].bits == 8


def test_constant_firmware_zone_beside_a_working_one_does_not_matter() -> None:
    def sample(t: float) -> Sample:
        quality = Quality.STUCK if t > 300 else Quality.OK
        zones = (make_zone(27.8, t, quality, "acpitz"), make_zone(COOL, t, name="x86_pkg_temp"))
        return Sample(t, zones, no_battery(t))

    assert run(make_governor(), sample, 0, 600)[-1].bits == 8


def test_zone_stuck_at_a_high_value_does_not_hold_the_level_down() -> None:
    def sample(t: float) -> Sample:
        quality = Quality.STUCK if t > 300 else Quality.OK
        working = make_zone(COOL + t % 2, t, name="x86_pkg_temp")
        zones = (make_zone(75.0, t, quality, "acpitz"), working)
        return Sample(t, zones, no_battery(t))

    decisions = run(make_governor(), sample, 0, 600)
    assert decisions[299].bits == 4 and decisions[-1].bits == 8


def test_pause_outlasts_the_zone_that_called_for_it() -> None:
    governor = make_governor()

    def sample(t: float) -> Sample:
        zones = (make_zone(COOL, t, name="soc"),)
        if t < 5:
            zones += (make_zone(97.0, t, name="cpu"),)
        return Sample(t, zones, no_battery(t))

    run(governor, sample, 0, 60)
    assert governor.paused


def test_losing_one_of_two_working_zones_matters() -> None:
    def sample(t: float) -> Sample:
        zones = (make_zone(COOL, t, name="soc"),)
        if t < 100:
            zones += (make_zone(COOL, t, name="cpu"),)
        return Sample(t, zones, no_battery(t))

    decision = run(make_governor(), sample, 0, 120)[-1]
    assert (decision.bits, decision.cause) == (2, "failsafe") and "cpu" in decision.why


def test_device_without_thermal_sensor_has_its_own_cap() -> None:
    decision = run(make_governor(), lambda t: make_sample(t, None), 0, 60)[-1]
    assert (decision.bits, decision.cause) == (4, "failsafe")
    assert decision.why == "no thermal sensor on this device"


def test_resume_from_suspend_restarts_the_dwell() -> None:
    governor = make_governor()
    run(governor, lambda t: make_sample(t, HOT), 0, 30)
    decisions = run(governor, make_sample, 10_000, 60)
    first = next(decision for decision in decisions if decision.changed)
    assert first.time >= 10_020


# Deadline, load, policy ---------------------------------------------------------------------------


def test_slow_frames_lower_the_level_and_fast_ones_raise_it() -> None:
    governor = make_governor()

    def slowed(factor: float) -> Callable[[float], Sample]:
        def sample(t: float) -> Sample:
            for _ in range(10):
                governor.observe_latency(governor.level, PROFILE[governor.level] * factor)
            return make_sample(t)

        return sample

    assert run(governor, slowed(1.0), 0, 20)[-1].bits == 8
    slow = run(governor, slowed(4.0), 20, 60)
    assert (slow[-1].bits, slow[-1].cause) == (4, "deadline")
    assert governor.slowdown == pytest.approx(4.0, rel=0.05)
    assert run(governor, slowed(1.0), 80, 120)[-1].bits == 8


def test_yields_to_other_programs_down_to_the_lowest_level_at_full_rate() -> None:
    def busy(t: float) -> Sample:
        return replace(make_sample(t), other_load=ok(0.6, t), cpu_pressure=ok(70.0, t))

    governor = make_governor()
    decisions = run(governor, busy, 0, 200)
    assert (decisions[-1].rung, decisions[-1].cause) == (governor.ladder.full, "load")
    assert run(make_governor("load.yield_to_others=false"), busy, 0, 200)[-1].bits == 8


@pytest.mark.parametrize(
    ("others", "waiting", "yields"),
    [
        (0.2, 90.0, False),
        (0.6, 30.0, False),
        (0.6, 50.0, True),
        (0.6, None, False),
        (0.8, None, True),
    ],
)
def test_contention(others: float, waiting: float | None, yields: bool) -> None:
    sample = replace(make_sample(0.0), other_load=ok(others), cpu_pressure=ok(waiting))
    assert (make_governor().step(sample).cause == "load") is yields


def test_policy_is_the_cause_where_it_forbids_what_the_model_has() -> None:
    decision = make_governor("levels.max_bits=6").step(make_sample(0.0))
    assert (decision.bits, decision.cause) == (6, "policy")


def test_model_with_other_levels() -> None:
    decision = make_governor(levels=(8, 3)).step(make_sample(0.0, COOL, 0.15))
    assert decision.bits == 3
    with pytest.raises(AppError, match="permits|has 8 bits") as caught:
        make_governor("levels.max_bits=4", levels=(8,))
    assert caught.value.exit_code == EXIT_USAGE
