"""Whether thermal zones are seen: loss and recovery, stuck and silent ones, restarts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from governor_samples import COOL, make_zone
from tracking_samples import Feed, cool, gone, lost_tracker, make_tracker

from edge_app.governor import Event
from edge_app.governor.tracking import Sight
from edge_app.sensors import Quality, Zone

OK, STUCK = Quality.OK, Quality.STUCK

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
