"""What is remembered of thermal zones: filters, loss and recovery, pause, policies, restarts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from governor_samples import COOL, a_policy, make_zone, no_battery

from edge_app.governor import Event
from edge_app.governor.tracking import Sight, ThermalTracker, usable
from edge_app.sensors import Quality, Reading, Sample, Zone

POLICY = a_policy()
OK, MISSING, STUCK = Quality.OK, Quality.MISSING, Quality.STUCK


def make_tracker(*overrides: str) -> ThermalTracker:
    return ThermalTracker(a_policy(*overrides))


class Feed:
    """Gives a tracker samples and keeps the time between them."""

    def __init__(self, tracker: ThermalTracker, start: float = 0.0) -> None:
        self.tracker = tracker
        self.time: float | None = None
        self.start = start

    def __call__(self, time: float, *zones: Zone, effort: float | None = None) -> ThermalTracker:
        step = 0.0 if self.time is None else time - self.time
        self.time = time
        self.tracker.update(Sample(time, zones, no_battery(time)), time, step, effort)
        return self.tracker


def steady(feed: Feed, start: int, seconds: int, zone: Callable[[float], Zone]) -> ThermalTracker:
    for second in range(start, start + seconds):
        feed(float(second), zone(float(second)))
    return feed.tracker


def cool(time: float, celsius: float = COOL, name: str = "cpu-thermal") -> Zone:
    return make_zone(celsius, time, name=name)


def gone(time: float, name: str = "cpu-thermal") -> Zone:
    return make_zone(None, time, MISSING, name)


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


# Losing sight -------------------------------------------------------------------------------------


def test_no_zone_at_all() -> None:
    tracker = Feed(make_tracker())(0.0)
    assert tracker.sight == Sight("never") and tracker.heat is None and not tracker.fresh
    tracker = Feed(make_tracker())(0.0, make_zone(None, 0.0, Quality.ABSENT))
    assert tracker.sight == Sight("never")
    tracker = Feed(make_tracker())(0.0, cool(0.0, name="nvme"))
    assert tracker.sight == Sight("never"), "the policy does not name it"


def test_silence_is_a_hiccup_then_waiting_then_loss() -> None:
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0))
    assert feed(5.0, gone(5.0)).sight == Sight("seeing")
    assert feed(5.001, gone(5.001)).sight == Sight("waiting", "cpu-thermal missing for 5 s")
    assert feed(9.999, gone(9.999)).sight.state == "waiting" and feed.tracker.events == []
    lost = feed(10.0, gone(10.0))
    assert lost.sight == Sight("lost", "cpu-thermal missing for 10 s")
    assert lost.events == [Event("sensor_lost", "cpu-thermal missing for 10 s")]
    feed(11.0, gone(11.0))
    assert len(lost.events) == 1, "told once"
    assert lost.heat is not None and not lost.fresh, "what was known last keeps its hold"


def test_silence_counts_from_when_the_last_value_was_read() -> None:
    feed = Feed(make_tracker())
    feed(4.0, cool(0.0))
    assert feed(9.999, cool(0.0)).sight.state == "waiting"
    assert feed(10.0, cool(0.0)).sight.state == "lost"
    feed = Feed(make_tracker())
    feed(4.0, cool(8.0))
    assert feed(14.0, gone(14.0)).sight.state == "lost", "nothing is read in the future"


def test_one_that_never_worked_is_lost_after_the_same_time() -> None:
    feed = Feed(make_tracker())
    blank = Sight("never", "no temperature from cpu-thermal yet")
    assert feed(3.0, gone(3.0)).sight == blank
    assert feed(8.5, gone(8.5)).sight == blank
    assert feed(12.9, gone(12.9)).sight == blank
    assert feed(13.0, gone(13.0)).sight.state == "lost"


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        (lambda t: make_zone(-273.15, t, Quality.IMPLAUSIBLE), "implausible (-273.15 °C)"),
        (lambda t: make_zone(COOL, t, Quality.STUCK), "stuck (50 °C)"),
        (lambda t: make_zone(COOL, 0.0), "stale (50 °C)"),
        (lambda t: make_zone(math.nan, t), "stale"),
        (lambda t: cool(t, name="gpu"), "gone"),
    ],
)
def test_what_is_wrong_is_said(zone: Callable[[float], Zone], words: str) -> None:
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0))
    sight = feed(7.0, zone(7.0)).sight
    assert sight == Sight("waiting", f"cpu-thermal {words} for 7 s")


def lost_tracker() -> Feed:
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0))
    feed(10.0, gone(10.0))
    feed.tracker.events.clear()
    return feed


def test_trust_returns_after_a_minute_of_sound_readings() -> None:
    feed = lost_tracker()
    assert feed(20.0, cool(20.0)).sight == Sight(
        "lost", "cpu-thermal is back for 0 s, not trusted yet"
    )
    assert feed(79.999, cool(79.999)).sight.state == "lost"
    tracker = feed(80.0, cool(80.0))
    assert tracker.sight == Sight("seeing")
    assert tracker.events == [Event("sensor_back", "cpu-thermal has been sound for 60 s")]


def test_a_hiccup_starts_the_minute_anew_and_is_still_a_loss() -> None:
    feed = lost_tracker()
    feed(20.0, cool(20.0))
    assert feed(60.0, gone(60.0)).sight.state == "lost"
    feed(61.0, cool(61.0))
    assert feed(120.999, cool(120.999)).sight.state == "lost"
    assert feed(121.0, cool(121.0)).sight == Sight("seeing")


def test_a_gap_is_no_minute_of_sound_readings() -> None:
    feed = lost_tracker()
    feed(20.0, cool(20.0))
    assert feed(4000.0, cool(4000.0)).sight.state == "lost"
    assert feed(4059.0, cool(4059.0)).sight.state == "lost"
    assert feed(4060.0, cool(4060.0)).sight == Sight("seeing")


def test_the_worst_of_several_zones_decides() -> None:
    feed = Feed(make_tracker())
    for second in range(8):
        time = float(second)
        feed(time, cool(time), cool(0.0, name="soc"), cool(time, name="tj"))
    assert feed.tracker.sight == Sight("waiting", "soc stale (50 °C) for 7 s")
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0), cool(0.0, name="soc"))
    feed(6.0, cool(6.0))
    assert feed(10.0, cool(10.0), gone(10.0, "tj")).sight == Sight("lost", "soc gone for 10 s")


def test_beside_a_working_zone_the_stuck_and_the_never_working_do_not_count() -> None:
    feed = Feed(make_tracker())
    for second in range(100):
        time = float(second)
        stuck = make_zone(27.8, time, STUCK if second else OK, "acpitz")
        feed(time, cool(time), stuck, gone(time, "soc"))
        assert feed.tracker.sight == Sight("seeing")
    feed(100.0, gone(100.0), make_zone(27.8, 100.0, STUCK, "acpitz"), gone(100.0, "soc"))
    assert feed.tracker.sight.state == "lost", "without it they do"


def test_a_stuck_zone_gives_no_heat() -> None:
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0, 77.0), cool(0.0, name="soc"))
    heat = feed(1.0, make_zone(77.0, 1.0, STUCK), cool(1.0, name="soc")).heat
    assert heat is not None and heat.zone == "soc"
    heat = feed(2.0, cool(2.0, 76.0), cool(2.0, name="soc")).heat
    assert heat is not None and heat.zone == "cpu-thermal"


def test_identical_for_long_while_the_effort_swung_is_stuck() -> None:
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0), effort=1.0)
    feed(100.0, cool(100.0), effort=0.6)
    assert feed(299.999, cool(299.999), effort=0.6).fresh
    assert not feed(300.0, cool(300.0), effort=0.6).fresh
    assert feed.tracker.temperatures() == {} and not feed.tracker.cool()
    assert feed(306.0, cool(306.0)).sight == Sight("waiting", "cpu-thermal stuck (50 °C) for 6 s")
    assert feed(307.0, cool(307.0, 50.5)).fresh, "it moves"


@pytest.mark.parametrize("efforts", [(1.0, 0.61), (None, None), (0.0, 0.39)])
def test_identical_while_nothing_changed_is_an_idle_machine(
    efforts: tuple[float | None, float | None],
) -> None:
    feed = Feed(make_tracker())
    for second in range(0, 4000, 10):
        feed(float(second), cool(float(second)), effort=efforts[second > 100])
    assert feed.tracker.fresh


def test_cool_is_clearly_below_where_heat_counts_in_every_working_zone() -> None:
    feed = Feed(make_tracker())
    assert not feed.tracker.cool(), "nothing is known"
    assert feed(0.0, cool(0.0, 59.999)).cool()
    assert not Feed(make_tracker())(0.0, cool(0.0, 60.0)).cool()
    assert not Feed(make_tracker())(0.0, cool(0.0), cool(0.0, 60.0, "soc")).cool()
    assert not feed(1.0, gone(1.0)).cool()


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


# Restarts -----------------------------------------------------------------------------------------


def test_state_has_the_zones_that_have_worked() -> None:
    feed = Feed(make_tracker())
    feed(0.0, cool(0.0, name="soc"), cool(0.0), gone(0.0, "tj"))
    feed(12.0, cool(12.0, name="soc"), gone(12.0), gone(12.0, "tj"))
    assert feed.tracker.state(13.0) == [
        {"zone": "cpu-thermal", "silent_s": 13.0, "lost": True},
        {"zone": "soc", "silent_s": 1.0, "lost": False},
    ]


def test_a_lost_zone_stays_lost_over_a_restart() -> None:
    fresh = make_tracker()
    fresh.restore(lost_tracker().tracker.state(12.0), 0.0)
    feed = Feed(fresh)
    assert feed(0.0).sight == Sight("lost", "cpu-thermal gone for 12 s")
    assert fresh.events == [], "that is known"
    assert feed(1.0, cool(1.0)).sight.state == "lost" and fresh.fresh
    assert feed(60.999, cool(60.999)).sight.state == "lost"
    assert feed(61.0, cool(61.0)).sight == Sight("seeing")
    assert fresh.heat is not None and fresh.heat.temperature_c == COOL


def test_silence_adds_up_over_restarts() -> None:
    tracker, now = make_tracker(), 0.0
    Feed(tracker)(0.0, cool(0.0))
    for _ in range(3):
        state = tracker.state(now + 3.0)
        tracker, now = make_tracker(), 500.0
        tracker.restore(state, now)
        Feed(tracker)(now, gone(now))
    assert tracker.sight.state == "waiting"
    assert Feed(tracker)(now + 1.0, gone(now + 1.0)).sight.state == "lost"


def test_a_zone_that_worked_before_the_restart_is_not_one_that_never_did() -> None:
    fresh = make_tracker()
    fresh.restore([{"zone": "cpu-thermal", "silent_s": 0.5, "lost": False}], 100.0)
    feed = Feed(fresh)
    assert feed(100.0).sight == Sight("seeing") and fresh.heat is None
    assert feed(109.5).sight.state == "lost"


@pytest.mark.parametrize(
    "state",
    [
        None,
        5,
        {"zone": "cpu-thermal", "silent_s": 99.0, "lost": True},
        [None, 5, "cpu", {}],
        [{"zone": 5, "silent_s": 99.0, "lost": True}],
        [{"zone": "", "silent_s": 99.0, "lost": True}],
        [{"zone": "nvme", "silent_s": 99.0, "lost": True}],
        [{"zone": "cpu-thermal", "silent_s": None, "lost": True}],
        [{"zone": "cpu-thermal", "silent_s": -1.0, "lost": True}],
    ],
)
def test_restored_nonsense_is_ignored(state: object) -> None:
    tracker = make_tracker()
    tracker.restore(state, 0.0)
    assert Feed(tracker)(0.0).sight == Sight("never")


def test_restored_rows_that_make_sense_count_beside_those_that_do_not() -> None:
    tracker = make_tracker()
    row = {"zone": "cpu-thermal", "silent_s": 2.0, "lost": "yes"}
    tracker.restore([None, {"zone": "nvme", "silent_s": 1.0}, row], 0.0)
    assert Feed(tracker)(4.0).sight == Sight("waiting", "cpu-thermal gone for 6 s")
