"""What is made of the temperatures of thermal zones: filters, memory, pause, other policies."""

from __future__ import annotations

import math

import pytest
from governor_samples import COOL, a_policy
from tracking_samples import Feed, cool, gone, lost_tracker, make_tracker

from edge_app.governor import Event
from edge_app.governor.tracking import Sight, usable
from edge_app.sensors import Quality, Reading, Zone

OK, STUCK = Quality.OK, Quality.STUCK


@pytest.mark.parametrize(
    ("reading", "value"),
    [
        (Reading(7.0, 5.0, OK, ""), 7.0),
        (Reading(7, 15, OK, ""), 7.0),
        (Reading(7.0, 4.999, OK, ""), None),
        (Reading(7.0, 16.0, OK, ""), 7.0),
        (Reading(7.0, 15.0, STUCK, ""), None),
        (Reading(None, 15.0, OK, ""), None),
        (Reading(math.nan, 15.0, OK, ""), None),
        (Reading(7.0, math.inf, OK, ""), None),
        (Reading(7.0, -math.inf, OK, ""), None),
        (Reading("7", 15.0, OK, ""), None),  # type: ignore[arg-type]
        (Reading(7.0, "x", OK, ""), None),  # type: ignore[arg-type]
        (Reading(True, 15.0, OK, ""), None),
    ],
)
def test_usable(reading: Reading, value: float | None) -> None:
    assert usable(reading, 15.0, 10.0) == value


# Filters ------------------------------------------------------------------------------------------


def test_median_of_three_then_low_pass_of_three_seconds() -> None:
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0, 50.0))
    heat = feed(1.0, cool(1.0, 60.0)).heat
    # Of two the higher: the median of a first pair is on the careful side.
    share = 1.0 - math.exp(-1.0 / 3.0)
    assert heat is not None and heat.temperature_c == pytest.approx(50.0 + 10.0 * share)
    heat = feed(2.0, cool(2.0, 55.0)).heat
    expected = 50.0 + 10.0 * share
    expected += (55.0 - expected) * share
    assert heat is not None and heat.temperature_c == pytest.approx(expected)
    feed(3.0, cool(3.0, 120.0))
    assert feed.tracker.temperatures() == {"cpu-thermal": 60.0}, "of 60, 55 and 120"


def test_slope_is_the_least_squares_of_twenty_seconds_and_only_rises_count() -> None:
    feed = Feed(make_tracker())
    for second in range(60):
        feed(float(second), cool(float(second), 40.0 + 0.2 * second))
    heat = feed.tracker.heat
    assert heat is not None
    assert heat.forecast_c - heat.temperature_c == pytest.approx(15.0 * 0.2, rel=0.01)
    for second in range(60, 120):
        feed(float(second), cool(float(second), 52.0 - 0.2 * (second - 60)))
    heat = feed.tracker.heat
    assert heat is not None and heat.forecast_c == heat.temperature_c
    for second in range(120, 145):
        feed(float(second), cool(float(second), 40.0 + 2.0 * (second - 120)))
    heat = feed.tracker.heat
    assert heat is not None
    assert heat.forecast_c - heat.temperature_c == pytest.approx(7.5), "at most half a degree a s"


def test_slope_forgets_what_is_older_than_twenty_seconds() -> None:
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0, 40.0))
    for second in range(1, 22):
        feed(float(second), cool(float(second), 60.0))
    settled = feed.tracker.heat
    for second in range(22, 60):
        feed(float(second), cool(float(second), 60.0))
    later = feed.tracker.heat
    assert settled is not None and settled.forecast_c > settled.temperature_c + 1.0
    assert later is not None and later.forecast_c == pytest.approx(later.temperature_c, abs=0.01)


@pytest.mark.parametrize(("gap", "expected"), [(60.0, 80.0), (60.001, 50.0)])
def test_after_a_long_gap_the_filters_start_afresh(gap: float, expected: float) -> None:
    feed = Feed(make_tracker())
    for second in range(3):
        feed(float(second), cool(float(second), 80.0))
    heat = feed(2.0 + gap, cool(2.0 + gap, 50.0)).heat
    assert heat is not None and heat.temperature_c == pytest.approx(expected)
    assert heat.forecast_c == heat.temperature_c


@pytest.mark.parametrize("absurd", [130.0, -41.0, 0.1, math.inf])
def test_absurd_values_are_silence_whatever_the_source_says(absurd: float) -> None:
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0))
    tracker = feed(1.0, cool(1.0, absurd))
    assert not tracker.fresh and tracker.temperatures() == {}
    assert tracker.heat is not None and tracker.heat.temperature_c == COOL


def test_zone_with_the_least_headroom_is_the_heat() -> None:
    feed = Feed(make_tracker())
    near = Zone("soc", Reading(60.0, 0.0, OK, "soc"), passive_c=65.0)
    heat = feed(0.0, cool(0.0, 70.0), near).heat
    assert heat is not None and heat.zone == "soc" and heat.limits.control_c == 63.0
    heat = feed(1.0, cool(1.0, 77.0), near).heat
    assert heat is not None and heat.zone == "cpu-thermal"


def test_trip_points_that_appear_later_hold_and_stay() -> None:
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0, 60.0))
    with_trips = Zone("cpu-thermal", Reading(60.0, 1.0, OK, ""), passive_c=65.0)
    heat = feed(1.0, with_trips).heat
    assert heat is not None and heat.limits.control_c == 63.0
    heat = feed(2.0, cool(2.0, 60.0)).heat
    assert heat is not None and heat.limits.control_c == 63.0
    lower = Zone("cpu-thermal", Reading(60.0, 3.0, OK, ""), passive_c=60.0)
    heat = feed(3.0, lower).heat
    assert heat is not None and heat.limits.control_c == 58.0


@pytest.mark.parametrize(("celsius", "critical"), [(87.999, False), (88.0, True)])
def test_critical_is_of_the_median_of_any_zone(celsius: float, critical: bool) -> None:
    heat = Feed(make_tracker())(0.0, cool(0.0), cool(0.0, celsius, "soc")).heat
    assert heat is not None and heat.critical is critical


# Memory of excess ---------------------------------------------------------------------------------


def integral_after(feed: Feed, time: float, celsius: float) -> float:
    heat = feed(time, cool(time, celsius)).heat
    assert heat is not None
    return heat.integral_bits


def test_integral_fills_while_too_hot_and_fades_otherwise() -> None:
    feed = Feed(make_tracker("thermal.forecast_s=0"))
    assert integral_after(feed, 0.0, 91.0) == 0.0
    # One span too hot: 2 * 4 bits in 60 s. What is given with a sample is what came before it.
    assert integral_after(feed, 1.0, 91.0) == pytest.approx(0.0)
    assert integral_after(feed, 2.0, 91.0) == pytest.approx(-8.0 / 60.0)
    assert integral_after(feed, 5.0, 91.0) == pytest.approx(-16.0 / 60.0)
    for second in range(6, 100):
        integral_after(feed, float(second), 91.0)
    assert integral_after(feed, 100.0, 91.0) == -4.0, "never more than the sustainable bits"
    for second in range(101, 130):
        integral_after(feed, float(second), 50.0)
    before = integral_after(feed, 130.0, 50.0)
    after = integral_after(feed, 131.0, 50.0)
    # 28 °C below control, where the span is 13 °C: the further away, the sooner it is forgotten.
    fading = math.exp(-28.0 / 13.0 / 600.0)
    assert -4.0 < before < after and after == pytest.approx(before * fading, rel=1e-6)


def test_integral_fades_by_e_in_ten_minutes_where_heat_begins_to_count() -> None:
    feed = Feed(make_tracker("thermal.forecast_s=0"))
    for second in range(100):
        integral_after(feed, float(second), 91.0)
    for second in range(100, 200):
        integral_after(feed, float(second), 65.0)
    before = integral_after(feed, 200.0, 65.0)
    for second in range(201, 800):
        integral_after(feed, float(second), 65.0)
    assert integral_after(feed, 800.0, 65.0) == pytest.approx(before / math.e, rel=1e-4)
    feed = Feed(make_tracker("thermal.forecast_s=0"))
    feed(0.0, cool(0.0, 91.0))
    feed(1.0, cool(1.0, 91.0))
    for second in range(2, 100):
        integral_after(feed, float(second), 78.0)
    before = integral_after(feed, 100.0, 78.0)
    assert integral_after(feed, 200.0, 78.0) == pytest.approx(before, abs=1e-3), "not at control"


def test_integral_fills_before_a_case_that_warms_up_slowly_is_too_hot() -> None:
    """A degree a minute: by a minute's trend two more in two minutes, by the forecast none."""

    def first_filled(per_s: float) -> float:
        feed = Feed(make_tracker("thermal.forecast_s=0"))
        for second in range(2000):
            celsius = 70.0 + per_s * second
            if integral_after(feed, float(second), celsius) < 0.0:
                return celsius
        return math.inf

    assert first_filled(1.0 / 60.0) == pytest.approx(76.1, abs=0.15)
    assert first_filled(0.5 / 60.0) == pytest.approx(77.05, abs=0.15)
    # A fall is not counted on.
    feed = Feed(make_tracker("thermal.forecast_s=0"))
    for second in range(60):
        integral_after(feed, float(second), 82.0 - 0.1 * second)
    full = integral_after(feed, 60.0, 75.0)
    assert full < integral_after(feed, 70.0, 74.0) < integral_after(feed, 71.0, 74.0) < 0.0


def test_what_the_memory_looks_ahead_by_is_forgotten_in_a_gap() -> None:
    feed = Feed(make_tracker("thermal.forecast_s=0"))
    feed(0.0, cool(0.0, 40.0))
    feed(61.0, cool(61.0, 77.0))
    assert integral_after(feed, 62.0, 77.0) == integral_after(feed, 63.0, 77.0) == 0.0


def test_integral_is_empty_after_a_gap() -> None:
    feed = Feed(make_tracker("thermal.forecast_s=0"))
    for second in range(100):
        integral_after(feed, float(second), 91.0)
    integral_after(feed, 159.0, 50.0)
    assert integral_after(feed, 160.0, 50.0) < -3.0
    integral_after(feed, 220.001, 50.0)
    assert integral_after(feed, 221.0, 50.0) == 0.0


# Pause --------------------------------------------------------------------------------------------


def test_pause_begins_at_the_limit_and_ends_five_degrees_below() -> None:
    feed = Feed(make_tracker())
    seen = []
    for time, celsius in enumerate((94.999, 95.0, 95.0, 90.0, 90.0, 89.999, 89.999)):
        seen.append(feed(float(time), cool(float(time), celsius)).paused)
    assert seen == [False, True, True, True, True, True, False]
    assert feed.tracker.events == [
        Event("paused", "0.0 °C above the temperature at which inference pauses"),
        Event("resumed", "5.0 °C below the temperature at which inference pauses"),
    ]


# Policies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "obeyed"),
    [("cpu-thermal", True), ("CPU-thermal#2", True), ("nvme", False), ("x86_pkg_temp", True)],
)
def test_zones_are_named_by_patterns_without_their_number(name: str, obeyed: bool) -> None:
    assert make_tracker().obeys(name) is obeyed
    assert make_tracker('thermal.zones=["CPU-thermal"]').obeys("cpu-thermal#1")


def test_another_policy_keeps_trust_and_brings_its_limits() -> None:
    feed = lost_tracker()
    feed.tracker.replace_policy(a_policy("thermal.control_c=70"))
    tracker = feed(11.0, gone(11.0))
    assert tracker.sight.state == "lost" and tracker.events == []
    assert tracker.heat is not None and tracker.heat.limits.control_c == 70.0


def test_another_policy_forgets_zones_that_it_does_not_name() -> None:
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0), cool(0.0, 96.0, "soc"))
    assert feed.tracker.paused
    feed.tracker.replace_policy(a_policy('thermal.zones=["cpu*"]'))
    assert feed.tracker.paused, "the next sample decides"
    assert feed.tracker.heat is not None and feed.tracker.heat.zone == "cpu-thermal"
    assert not feed(1.0, cool(1.0), cool(1.0, 96.0, "soc")).paused
    feed.tracker.replace_policy(a_policy('thermal.zones=["gpu"]'))
    assert feed.tracker.heat is None
    assert feed(2.0, cool(2.0)).sight == Sight("never")
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0, 96.0))
    feed.tracker.replace_policy(a_policy('thermal.zones=["gpu"]'))
    assert not feed.tracker.paused


def test_another_policy_bounds_the_integral() -> None:
    feed = Feed(make_tracker("thermal.forecast_s=0"))
    for second in range(100):
        integral_after(feed, float(second), 91.0)
    feed.tracker.replace_policy(a_policy("thermal.sustainable_bits=2"))
    assert integral_after(feed, 100.0, 50.0) == -2.0
