"""The battery cap: tiers by charge and the budget for `until`, whatever the gauge does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest
from governor_samples import a_policy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_app.governor.battery import (
    BatteryTracker,
    active_tiers,
    battery_cap,
    drains,
)
from edge_app.governor.caps import Cap
from edge_app.governor.energy import Profile
from edge_app.governor.ladder import Rung, build_ladder
from edge_app.sensors import NO_BATTERY, Battery, Quality, Reading, Sample, absent

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

POLICY = a_policy()
LADDER = build_ladder((2, 4, 6, 8), POLICY)
PROFILE = Profile.from_seconds({2: 0.010, 4: 0.020, 6: 0.030, 8: 0.032}, 2.0, 3.0)
# 7.5, 15 and 30 fps at 2 bits, then 4, 6 and 8 bits at 30 fps.
WATTS = [2.225, 2.45, 2.9, 3.8, 4.7, 4.88]
TOP = LADDER.top
FULL_J = 36_000.0
NOON = datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))

charges = st.floats(0, 1)
helds = st.tuples(st.booleans(), st.booleans(), st.booleans())


# Tiers ----------------------------------------------------------------------------------------------


@unhurried
@given(charges, charges, helds)
def test_emptier_never_allows_more(one: float, other: float, held: tuple[bool, ...]) -> None:
    low, high = sorted((one, other))
    tiers, hysteresis = POLICY.battery.tiers, POLICY.battery.hysteresis

    def allowed(charge: float) -> int:
        active = active_tiers(charge, held, tiers, hysteresis)
        return battery_cap(charge, active, LADDER, tiers).rung

    assert allowed(low) <= allowed(high)


@pytest.mark.parametrize(
    ("charge", "held", "bits"),
    [
        (0.50, False, 8),
        (0.40, False, 8),
        (0.39, False, 6),
        (0.41, True, 6),
        (0.42, True, 8),
        (0.19, False, 4),
        (0.09, False, 2),
        (0.0, False, 2),
    ],
)
def test_tiers(charge: float, held: bool, bits: int) -> None:
    tiers = POLICY.battery.tiers
    active = active_tiers(charge, (held, False, False), tiers, POLICY.battery.hysteresis)
    assert LADDER.rungs[battery_cap(charge, active, LADDER, tiers).rung].bits == bits


def test_why_names_the_strictest_tier() -> None:
    tiers = POLICY.battery.tiers
    assert battery_cap(None, (), LADDER, ()) == Cap("battery", TOP, "no battery in use")
    assert battery_cap(0.5, (False,) * 3, LADDER, tiers) == Cap("battery", TOP, "battery 50.0 %")
    for order in (slice(None), slice(None, None, -1)):
        cap = battery_cap(0.15, (True, True, False)[order], LADDER, tiers[order])
        assert cap == Cap("battery", 3, "battery 15.0 %: in the tier below 20 %")
    # Of two tiers that allow the same the later one is named.
    policy = a_policy("battery.tiers=[{below=40, max_bits=4}, {below=20, max_bits=4}]")
    cap = battery_cap(0.1, (True, True), LADDER, policy.battery.tiers)
    assert cap.why.endswith("below 20 %")


@pytest.mark.parametrize(
    ("discharging", "on_ac", "used"),
    [
        (True, None, True),
        (True, True, True),
        (False, None, False),
        (False, False, False),
        (None, None, True),
        (None, False, True),
        (None, True, False),
    ],
)
def test_whether_charge_is_used(discharging: bool | None, on_ac: bool | None, used: bool) -> None:
    assert drains(Battery(True, absent(""), discharging, on_ac)) is used


def test_an_operating_point_in_words() -> None:
    assert Rung(4, 30.0).name == "4 bits, 30 fps"
    assert Rung(2, 7.5).name == "2 bits, 7.5 fps"
    assert Rung(8, 0.0).name == "8 bits"


# The tracker ----------------------------------------------------------------------------------------


def make_tracker(*overrides: str) -> BatteryTracker:
    policy = a_policy(*overrides)
    return BatteryTracker(policy, build_ladder((2, 4, 6, 8), policy), PROFILE)


def reading(value: float | None, time: float) -> Reading:
    quality = Quality.MISSING if value is None else Quality.OK
    return Reading(value, time, quality, "battery")


def make_sample(
    time: float,
    charge: float | None,
    discharging: bool | None = True,
    on_ac: bool | None = None,
    wall: datetime | None = None,
    full_j: float | None = FULL_J,
    power_w: float | None = None,
) -> Sample:
    power = absent("") if power_w is None else reading(power_w, time)
    battery = Battery(True, reading(charge, time), discharging, on_ac, power=power, full_j=full_j)
    return Sample(time, (), battery, wall=wall)


def caps(
    tracker: BatteryTracker, sample: Callable[[float], Sample], start: int, seconds: int
) -> list[int]:
    """The rung allowed in each second."""
    return [
        tracker.update(sample(float(second)), float(second), TOP).rung
        for second in range(start, start + seconds)
    ]


def kinds(tracker: BatteryTracker) -> list[str]:
    return [event.kind for event in tracker.events()]


def test_no_battery_is_no_limit() -> None:
    tracker = make_tracker("battery.until=18:00:00")
    cap = tracker.update(Sample(0.0, wall=NOON), 0.0, TOP)
    assert cap == Cap("battery", TOP, "no battery in use")
    assert (tracker.charge, tracker.end_s, tracker.spare_w) == (None, None, None)
    tracker.update(Sample(9.0, wall=NOON + timedelta(days=3)), 9.0, TOP)
    assert tracker.events() == (), "nobody without a battery wants to know of `until`"


def test_tiers_while_it_discharges() -> None:
    tracker = make_tracker()
    rungs = caps(tracker, lambda t: make_sample(t, 1.0 - t / 1000), 0, 1000)
    # The median of three lags by a second.
    assert [rungs[second] for second in (600, 601, 602, 800, 802, 900, 902, 999)] == [
        5, 5, 4, 4, 3, 3, 2, 2,
    ]  # fmt: skip


def test_median_of_three_against_spikes() -> None:
    tracker = make_tracker()
    caps(tracker, lambda t: make_sample(t, 0.5), 0, 3)
    assert tracker.charge == 0.5
    assert caps(tracker, lambda t: make_sample(t, 0.0), 3, 1) == [TOP]
    assert tracker.charge == 0.5
    assert caps(tracker, lambda t: make_sample(t, 0.5), 4, 5) == [TOP] * 5


def test_gauge_that_bounces_back_does_not_raise() -> None:
    tracker = make_tracker()
    caps(tracker, lambda t: make_sample(t, 0.39), 0, 10)
    assert set(caps(tracker, lambda t: make_sample(t, 0.6), 10, 300)) == {4}
    assert tracker.charge == 0.6


def test_a_charger_ends_the_tiers_and_comes_back_to_charge() -> None:
    tracker = make_tracker()
    assert caps(tracker, lambda t: make_sample(t, 0.15), 0, 3) == [3] * 3
    cap = tracker.update(make_sample(3.0, 0.15, False), 3.0, TOP)
    assert cap == Cap("battery", TOP, "on external power")
    # A loose contact: the running minimum goes on.
    assert caps(tracker, lambda t: make_sample(t, 0.3, False), 4, 58) == [TOP] * 58
    assert caps(tracker, lambda t: make_sample(t, 0.3), 62, 1) == [3]
    # A minute of it is a charger.
    assert caps(tracker, lambda t: make_sample(t, 0.3, False), 63, 61) == [TOP] * 61
    assert caps(tracker, lambda t: make_sample(t, 0.3), 124, 1) == [4]


def test_flapping_contacts_change_nothing_while_they_are_open() -> None:
    tracker = make_tracker()
    rungs = caps(tracker, lambda t: make_sample(t, 0.15 + t / 1000, t % 2 == 1), 0, 200)
    assert set(rungs[1::2]) == {3} and set(rungs[0::2]) == {TOP}


def test_tiers_may_also_hold_on_external_power() -> None:
    tracker = make_tracker("battery.on_ac=apply")
    assert caps(tracker, lambda t: make_sample(t, 0.15, False), 0, 3) == [3] * 3
    assert caps(tracker, lambda t: make_sample(t, 0.5, False), 3, 3)[-1] == TOP
    assert tracker.end_s is None


def test_hysteresis_over_time() -> None:
    tracker = make_tracker("battery.on_ac=apply")
    rungs = caps(tracker, lambda t: make_sample(t, 0.395 + 0.001 * t, False), 0, 30)
    # 42 % is reached at 25 s, seen through the median a second later.
    assert rungs == [4] * 26 + [TOP] * 4


# Silence --------------------------------------------------------------------------------------------


def test_unreadable_battery_keeps_its_cap_and_loses_a_rung_every_ten_minutes() -> None:
    tracker = make_tracker()
    caps(tracker, lambda t: make_sample(t, 0.5), 0, 10)
    rungs = caps(tracker, lambda t: make_sample(t, None), 10, 3000)
    # The last sound reading is at 9 s.
    assert [rungs[second] for second in (0, 598, 599, 1198, 1199, 1798, 1799, 2990)] == [
        5, 5, 4, 4, 3, 3, 2, 2,
    ]  # fmt: skip
    assert tracker.charge is None
    assert caps(tracker, lambda t: make_sample(t, 0.5), 3010, 1) == [TOP]


def test_silence_is_told_once_and_so_is_its_end() -> None:
    tracker = make_tracker()
    caps(tracker, lambda t: make_sample(t, 0.5), 0, 10)
    caps(tracker, lambda t: make_sample(t, None), 10, 9)
    assert tracker.events() == ()
    caps(tracker, lambda t: make_sample(t, None), 19, 100)
    (event,) = tracker.events()
    assert event.kind == "battery_lost"
    assert event.text == (
        "the battery gives no charge for 10 s; the level falls a step every 600 s"
    )
    cap = tracker.update(make_sample(119.0, None), 119.0, TOP)
    assert cap.why == "the battery gives no charge for 110 s"
    tracker.update(make_sample(120.0, 0.5), 120.0, TOP)
    (event,) = tracker.events()
    assert (event.kind, event.text) == ("battery_back", "the battery gives its charge again")


def test_a_cap_below_full_rate_is_not_raised_by_silence() -> None:
    tracker = make_tracker("battery.until=18:00:00")
    wall = NOON
    caps(tracker, lambda t: make_sample(t, 0.10, wall=wall), 0, 3)
    assert set(caps(tracker, lambda t: make_sample(t, None), 3, 2000)) == {0}


def test_nothing_is_spare_while_the_battery_is_silent() -> None:
    for until, spare_w in ((("battery.until=18:00:00",), 0.0), ((), None)):
        tracker = make_tracker(*until)
        tracker.update(make_sample(0.0, 0.5, wall=NOON), 0.0, TOP)
        tracker.update(make_sample(1.0, None), 1.0, TOP)
        assert tracker.spare_w == spare_w


def test_a_battery_that_has_never_been_read_decays_too() -> None:
    tracker = make_tracker()
    rungs = caps(tracker, lambda t: make_sample(t, None), 100, 700)
    assert [rungs[second] for second in (0, 599, 600)] == [5, 5, 4]
    assert kinds(tracker) == ["battery_lost"]


@pytest.mark.parametrize(
    "bad",
    [
        Reading(0.5, 0.0, Quality.STALE, ""),
        Reading(0.5, 0.0, Quality.IMPLAUSIBLE, ""),
        Reading(-0.001, 700.0, Quality.OK, ""),
        Reading(1.001, 700.0, Quality.OK, ""),
        Reading(float("nan"), 700.0, Quality.OK, ""),
        Reading(0.5, 639.9, Quality.OK, ""),
    ],
)
def test_what_cannot_be_relied_on_is_silence(bad: Reading) -> None:
    tracker = make_tracker()
    tracker.update(make_sample(0.0, 0.5), 0.0, TOP)
    cap = tracker.update(Sample(700.0, (), Battery(True, bad, True)), 700.0, TOP)
    assert (cap.rung, cap.why) == (TOP - 1, "the battery gives no charge for 700 s")
    fresh = Sample(700.0, (), Battery(True, Reading(0.5, 640.0, Quality.OK, ""), True))
    assert tracker.update(fresh, 700.0, TOP).rung == TOP


@pytest.mark.parametrize("charge", [0.0, 1.0])
def test_empty_and_full_are_charges(charge: float) -> None:
    tracker = make_tracker()
    tracker.update(make_sample(0.0, charge), 0.0, TOP)
    assert tracker.charge == charge


def test_a_battery_that_vanishes_is_missed() -> None:
    tracker = make_tracker()
    tracker.update(make_sample(0.0, 0.5), 0.0, TOP)
    gone = tracker.update(Sample(600.0, (), NO_BATTERY), 600.0, TOP)
    assert (gone.rung, gone.why) == (TOP - 1, "the battery gives no charge for 600 s")
    assert kinds(tracker) == ["battery_lost"]
    # Its charge, if anybody still claims to know one, counts for nothing, ...
    ghost = Battery(False, reading(0.9, 601.0), True)
    assert tracker.update(Sample(601.0, (), ghost), 601.0, TOP).rung == TOP - 1
    # ... but a charger does: then it was taken out on purpose.
    powered = Battery(False, absent(""), None, on_ac=True)
    assert tracker.update(Sample(602.0, (), powered), 602.0, TOP).rung == TOP
    assert caps(tracker, lambda t: Sample(t, (), NO_BATTERY), 603, 600)[-2:] == [TOP, TOP - 1]


# The budget -----------------------------------------------------------------------------------------


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


# Another policy, another process ---------------------------------------------------------------------


def test_a_reload_keeps_the_battery_and_the_cap_of_one_that_cannot_be_read() -> None:
    tracker = make_tracker()
    caps(tracker, lambda t: make_sample(t, 0.15), 0, 5)
    assert caps(tracker, lambda t: make_sample(t, None), 5, 2) == [3, 3]
    policy = a_policy("levels.max_bits=6", "battery.tiers=[]")
    tracker.replace(policy, build_ladder((2, 4, 6), policy), PROFILE)
    assert tracker.update(make_sample(7.0, None), 7.0, 3).rung == 3
    assert tracker.update(make_sample(8.0, 0.15), 8.0, 3).rung == 4


def test_a_reload_keeps_the_minimum_and_the_end_time() -> None:
    tracker = make_tracker("battery.until=14:00:00")
    tracker.update(make_sample(0.0, 0.39, wall=NOON), 0.0, TOP)
    tracker.events()
    same = a_policy("battery.until=14:00:00", "frame.target_fps=20", "frame.min_fps=5")
    tracker.replace(same, build_ladder((2, 4, 6, 8), same), PROFILE)
    tracker.update(make_sample(1.0, 0.6, wall=NOON + timedelta(hours=1)), 1.0, TOP)
    tracker.update(make_sample(2.0, 0.6, wall=NOON + timedelta(hours=1)), 2.0, TOP)
    assert tracker.charge == 0.6
    found = kinds(tracker)
    assert found[0] == "until_moved", "the clock is watched across a reload"
    other = a_policy("battery.until=16:00:00")
    tracker.replace(other, build_ladder((2, 4, 6, 8), other), PROFILE)
    cap = tracker.update(make_sample(3.0, 0.6, wall=NOON + timedelta(hours=1)), 3.0, TOP)
    assert tracker.until_s == 3 * 3600.0
    assert cap.rung <= 4, "39 % were seen"


def test_a_restart_remembers_the_minimum_unless_it_was_charged() -> None:
    tracker = make_tracker()
    caps(tracker, lambda t: make_sample(t, 0.19), 0, 3)
    state = tracker.state()
    for charge, rung in ((0.19, 3), (0.2399, 3), (0.2401, 4)):
        other = make_tracker()
        other.restore(state)
        assert caps(other, lambda t, c=charge: make_sample(t, c), 0, 3) == [rung] * 3  # type: ignore[misc]
    # Restarted again before anything was read.
    again = make_tracker()
    again.restore(state)
    assert again.state()["lowest"] == 0.19
    # A charger for a minute makes it worthless.
    charged = make_tracker()
    charged.restore(state)
    caps(charged, lambda t: make_sample(t, 0.21, False), 0, 61)
    assert caps(charged, lambda t: make_sample(t, 0.21), 61, 1) == [4]


def test_a_restart_remembers_how_fast_it_empties() -> None:
    tracker = make_tracker("battery.until=18:00:00")
    for second in range(300):
        charge = 0.9 - 0.01 * (second // 30)
        tracker.update(make_sample(float(second), charge, wall=NOON), float(second), TOP)
    other = make_tracker()
    other.restore(tracker.state())
    other.update(make_sample(0.0, 0.80), 0.0, TOP)
    assert other.end_s == pytest.approx(0.75 / (0.01 / 30), rel=0.2)


@pytest.mark.parametrize(
    "state", [None, 7, [], {"lowest": 7.0}, {"lowest": "x", "drain": 3}, {"lowest": -0.1}]
)
def test_restoring_nonsense_changes_nothing(state: object) -> None:
    tracker = make_tracker()
    tracker.restore(state)
    assert caps(tracker, lambda t: make_sample(t, 0.5), 0, 3) == [TOP] * 3
