"""`until` as a moment: time zones, jumps of the wall clock, midnight."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from edge_app.governor.decision import Event
from edge_app.governor.until import EndTime, duration, seconds_until

SUMMER = timezone(timedelta(hours=2))
NOON = datetime(2026, 6, 1, 12, tzinfo=SUMMER)
EVENING = time(18)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("until", "wall", "hours"),
    [
        (EVENING, NOON, 6),
        (EVENING, NOON.replace(hour=17, minute=30), 0.5),
        (EVENING, NOON.replace(hour=18), 24),
        (EVENING, NOON.replace(hour=18, second=1), 24 - 1 / 3600),
        (time(2), NOON, 14),
        # The night in which Berlin leaves daylight saving time has an hour more, and less in spring.
        (EVENING, datetime(2026, 10, 24, 20, tzinfo=BERLIN), 23),
        (EVENING, datetime(2026, 3, 28, 20, tzinfo=BERLIN), 21),
        (time(12), datetime(2026, 10, 25, 1, tzinfo=BERLIN), 12),
    ],
)
def test_the_next_time_that_clocks_show_it(until: time, wall: datetime, hours: float) -> None:
    assert seconds_until(until, wall) == pytest.approx(hours * 3600)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h 00 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert duration(2 * 3600 + 5 * 60 + 59) == "2 h 05 min"


def test_no_until_and_no_clock() -> None:
    nothing = EndTime(None)
    assert nothing.update(NOON, 5.0) is None
    assert nothing.at is None and nothing.name == ""
    blind = EndTime(EVENING)
    assert blind.update(None, 5.0) is None
    assert blind.at is None and blind.name == "18:00"
    assert blind.shown(3600.0, 5.0) == "in 1 h 00 min"


def test_without_a_clock_it_stays_where_it_was_and_passes() -> None:
    end = EndTime(EVENING)
    assert end.update(NOON, 100.0) is None
    assert end.at == 100.0 + 6 * 3600
    assert end.update(None, 5000.0) is None
    assert end.at == 100.0 + 6 * 3600
    assert end.update(None, 100.0 + 6 * 3600 - 0.1) is None
    passed = Event("until_passed", "18:00 has passed; from now on it means tomorrow")
    assert end.update(None, 100.0 + 6 * 3600) == passed
    assert end.at == 100.0 + 30 * 3600
    assert end.update(None, 100.0 + 60 * 3600) == passed
    assert end.at == 100.0 + 78 * 3600


def test_it_passes_and_means_tomorrow() -> None:
    end = EndTime(EVENING)
    end.update(NOON, 0.0)
    assert end.update(NOON + timedelta(hours=6, seconds=-1), 6 * 3600 - 1.0) is None
    assert end.update(NOON + timedelta(hours=6), 6 * 3600.0) == Event(
        "until_passed", "18:00 has passed; from now on it means tomorrow"
    )
    assert end.at == 30 * 3600
    assert end.update(NOON + timedelta(hours=6, seconds=1), 6 * 3600 + 1.0) is None


@pytest.mark.parametrize(
    ("jump", "text"),
    [
        (timedelta(hours=1), "the clock jumped by +1 h 00 min: 18:00 is in 4 h 59 min"),
        (timedelta(hours=-1), "the clock jumped by -1 h 00 min: 18:00 is in 6 h 59 min"),
        (timedelta(days=1), "the clock jumped by +24 h 00 min: 18:00 is in 5 h 59 min"),
        (timedelta(days=-1), "the clock jumped by -24 h 00 min: 18:00 is in 5 h 59 min"),
        (timedelta(seconds=30.5), "the clock jumped by +30 s: 18:00 is in 5 h 58 min"),
    ],
)
def test_a_jump_is_an_event(jump: timedelta, text: str) -> None:
    end = EndTime(EVENING)
    end.update(NOON, 0.0)
    assert end.update(NOON + timedelta(seconds=60) + jump, 60.0) == Event("until_moved", text)
    assert end.update(NOON + timedelta(seconds=61) + jump, 61.0) is None


@pytest.mark.parametrize("drift", [30.0, -30.0, 0.5])
def test_drift_is_followed_in_silence(drift: float) -> None:
    end = EndTime(EVENING)
    end.update(NOON, 0.0)
    assert end.update(NOON + timedelta(seconds=60 + drift), 60.0) is None
    assert end.at == pytest.approx(6 * 3600 - drift)


def test_a_new_offset_from_utc_is_an_event_without_a_jump() -> None:
    end = EndTime(EVENING)
    end.update(NOON, 0.0)
    winter = (NOON + timedelta(seconds=60)).astimezone(timezone(timedelta(hours=1)))
    assert end.update(winter, 60.0) == Event(
        "until_moved", "local time has changed: 18:00 is in 6 h 59 min"
    )
    assert end.at == 7 * 3600


def test_the_ends_of_the_calendar_change_nothing() -> None:
    end = EndTime(EVENING)
    end.update(NOON, 0.0)
    for wall in (
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=SUMMER),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
    ):
        assert end.update(wall, 1.0) is None
        assert end.at == 6 * 3600


def test_shown_as_people_write_it() -> None:
    end = EndTime(EVENING)
    end.update(NOON, 100.0)
    assert end.shown(3600.0, 100.0) == "13:00"
    assert end.shown(3600.0, 160.0) == "13:01"
    assert end.shown(12 * 3600.0, 100.0) == "00:00 in 1 d"
    assert end.shown(60 * 3600.0, 100.0) == "00:00 in 3 d"
    assert end.shown(1e15, 100.0).startswith("in ")
