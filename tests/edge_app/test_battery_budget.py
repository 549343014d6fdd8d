"""The battery cap: the budget for `until`, and what is told of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from battery_samples import FULL_J, NOON, TOP, WATTS, caps, kinds, make_sample, make_tracker

from edge_app.sensors import Sample


def test_a_budget_says_how_long_it_lasts_and_what_binds() -> None:
    tracker = make_tracker("battery.until=14:04:00", "battery.tiers=[]")
    cap = tracker.update(make_sample(0.0, 0.85, wall=NOON), 0.0, 3)
    # 80 % of 36 kJ in two hours and four minutes are 3.9 W; 2 % of that and 1 % of the battery are the margin.
    assert cap.rung == 2
    assert cap.why == (
        "battery 85.0 % must last until 14:04, 2 h 04 min; "
        "at 4 bits, 30 fps it would last until 14:06"
    )
    assert tracker.until_s == 7440.0
    assert tracker.end_s == pytest.approx(0.8 * FULL_J / 3.8)
    assert tracker.spare_w == 0.0
    assert tracker.update(make_sample(1.0, 0.85, wall=NOON), 1.0, 2).rung == 2
    assert tracker.spare_w == pytest.approx((0.8 * 0.98 - 0.01) * FULL_J / 7440 - 2.9, abs=0.01)


def test_enough_is_no_limit() -> None:
    tracker = make_tracker("battery.until=13:00:00", "battery.tiers=[]")
    cap = tracker.update(make_sample(0.0, 0.85, wall=NOON), 0.0, TOP)
    assert (cap.rung, cap.why) == (TOP, "battery 85.0 %")
    (event,) = tracker.events()
    assert (event.kind, event.text) == (
        "can_last",
        "can last until 13:00, 1 h 00 min; allows 8 bits, 30 fps now",
    )


def test_too_little_is_said_at_once_with_the_time_until_which_it_lasts() -> None:
    tracker = make_tracker("battery.until=18:00:00", "battery.tiers=[]")
    cap = tracker.update(make_sample(0.0, 0.85, wall=NOON), 0.0, TOP)
    text = "cannot last until 18:00: at 2 bits, 7.5 fps it lasts until 15:35"
    assert (cap.rung, cap.why) == (0, f"battery 85.0 % {text}")
    (event,) = tracker.events()
    assert (event.kind, event.text) == ("cannot_last", text)
    assert tracker.spare_w == 0.0
    caps(tracker, lambda t: make_sample(t, 0.85, wall=NOON + timedelta(seconds=t)), 1, 100)
    assert tracker.events() == ()
    # The clock was wrong: now there is enough, and that is said, too.
    later = NOON + timedelta(hours=5)
    caps(tracker, lambda t: make_sample(t, 0.84, wall=later + timedelta(seconds=t)), 101, 20)
    assert kinds(tracker) == ["until_moved", "can_last"]


@pytest.mark.parametrize(
    ("hours", "power_w", "kind"),
    [
        # At the lowest rung 28.8 kJ last 3.60 h, and 2.88 h if it takes a quarter more.
        (2.5, None, "can_last"),
        (3.0, None, "may_not_last"),
        (3.7, None, "cannot_last"),
        (3.0, 4.88, "can_last"),
    ],
)
def test_doubt_while_nothing_has_been_measured(
    hours: float, power_w: float | None, kind: str
) -> None:
    until = (NOON + timedelta(hours=hours)).time()
    tracker = make_tracker(f"battery.until={until}", "battery.tiers=[]")
    tracker.update(make_sample(0.0, 0.85, wall=NOON, power_w=power_w), 0.0, TOP)
    assert kinds(tracker) == [kind]


def test_how_doubt_is_worded() -> None:
    tracker = make_tracker("battery.until=15:00:00", "battery.tiers=[]")
    tracker.update(make_sample(0.0, 0.85, wall=NOON), 0.0, TOP)
    (event,) = tracker.events()
    assert event.text == (
        "may last until 15:00, 3 h 00 min, or only until 14:52; allows 2 bits, 15 fps now"
    )


def test_tier_and_budget_together_are_the_lower_of_the_two() -> None:
    tracker = make_tracker("battery.until=12:10:00")
    cap = tracker.update(make_sample(0.0, 0.15, wall=NOON), 0.0, TOP)
    assert cap.rung == 3 and "tier below 20 %" in cap.why
    strict = make_tracker("battery.until=13:00:00")
    cap = strict.update(make_sample(0.0, 0.15, wall=NOON), 0.0, TOP)
    assert cap.rung == 0 and "cannot last" in cap.why


def test_the_tiers_that_will_save_charge_are_counted_on() -> None:
    until = "battery.until=14:03:00"
    with_tiers, without = make_tracker(until), make_tracker(until, "battery.tiers=[]")
    sample = make_sample(0.0, 0.85, wall=NOON)
    assert with_tiers.update(sample, 0.0, TOP).rung == 3
    assert without.update(sample, 0.0, TOP).rung == 2


def test_reserve_is_kept_for_until() -> None:
    tracker = make_tracker("battery.until=13:00:00", "battery.reserve=50", "battery.tiers=[]")
    assert tracker.update(make_sample(0.0, 0.55, wall=NOON), 0.0, TOP).rung == 0
    assert tracker.end_s == pytest.approx(0.05 * FULL_J / 4.88)


def test_looks_and_raises_as_often_as_the_policy_says() -> None:
    tracker = make_tracker(
        "battery.until=14:04:00",
        "battery.tiers=[]",
        "battery.budget_s=20",
        "battery.budget_raise_s=40",
    )
    tracker.update(make_sample(0.0, 0.85, wall=NOON), 0.0, 2)
    near = NOON + timedelta(hours=1)
    rungs = [
        tracker.update(make_sample(t, 0.85, wall=near + timedelta(seconds=t)), t, 2).rung
        for t in (float(second) for second in range(1, 90))
    ]
    assert rungs.index(3) + 1 == 60


def test_no_clock_and_no_capacity_are_told_once() -> None:
    tracker = make_tracker("battery.until=18:00:00")
    assert set(caps(tracker, lambda t: make_sample(t, 0.5), 0, 5)) == {TOP}
    (event,) = tracker.events()
    assert (event.kind, event.text) == (
        "no_clock",
        "until 18:00: this device does not know the time of day",
    )
    assert tracker.until_s is None and tracker.spare_w is None

    bare = make_tracker("battery.until=18:00:00")
    sample = [make_sample(float(t), 0.5, wall=NOON, full_j=None) for t in range(5)]
    assert {bare.update(s, s.time, TOP).rung for s in sample} == {TOP}
    (event,) = bare.events()
    assert event.kind == "capacity_unknown"
    assert event.text == (
        "the battery does not say what it holds: it is learned from the first percents; "
        "set battery.capacity_wh to know it at once"
    )
    assert bare.until_s == 6 * 3600 and bare.end_s is None


def test_without_until_it_says_how_long_it_lasts_and_limits_nothing() -> None:
    tracker = make_tracker("battery.tiers=[]")
    assert tracker.update(make_sample(0.0, 0.10, wall=NOON), 0.0, 0).rung == TOP
    assert tracker.end_s == pytest.approx(0.05 * FULL_J / WATTS[0])
    assert tracker.until_s is None and tracker.spare_w is None
    tracker.update(make_sample(1.0, 0.10, False), 1.0, 0)
    assert tracker.end_s is None


def test_a_stuck_gauge_is_told() -> None:
    tracker = make_tracker("battery.until=18:00:00")
    caps(tracker, lambda t: make_sample(t, 0.5, wall=NOON + timedelta(seconds=t)), 0, 222)
    tracker.events()
    caps(tracker, lambda t: make_sample(t, 0.5, wall=NOON + timedelta(seconds=t)), 222, 5)
    (event,) = tracker.events()
    assert event.kind == "gauge_stuck"
    assert event.text == (
        "the gauge stands at 50% although charge is used; "
        "what is left is counted by the power model"
    )


def test_a_charger_for_a_minute_ends_the_plan() -> None:
    tracker = make_tracker("battery.until=14:04:00", "battery.tiers=[]")

    def at(t: float, discharging: bool) -> Sample:
        return make_sample(t, 0.85, discharging, wall=NOON + timedelta(seconds=t))

    caps(tracker, lambda t: at(t, True), 0, 5)
    assert len(tracker.events()) == 1
    assert caps(tracker, lambda t: at(t, False), 5, 59)[-1] == TOP
    caps(tracker, lambda t: at(t, True), 64, 5)
    assert tracker.events() == ()
    caps(tracker, lambda t: at(t, False), 69, 61)
    # Chosen afresh: nobody waits for the permission of a raise.
    assert caps(tracker, lambda t: at(t, True), 130, 1) == [3]
    assert len(tracker.events()) == 1


def test_until_passes_and_means_tomorrow() -> None:
    tracker = make_tracker("battery.until=12:01:00", "battery.tiers=[]")

    def at(t: float) -> Sample:
        return make_sample(t, 0.85, wall=NOON + timedelta(seconds=t))

    assert caps(tracker, at, 0, 60)[-1] == TOP
    assert kinds(tracker) == ["can_last"]
    assert caps(tracker, at, 60, 120)[-1] == 0
    assert kinds(tracker) == ["until_passed", "cannot_last"]
    assert tracker.until_s == 86400.0 - 119.0
