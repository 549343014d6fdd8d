"""The battery cap: tiers by charge, chargers, gauges that jump, and silence."""

from __future__ import annotations

from datetime import timedelta

import pytest
from battery_samples import (
    LADDER,
    NOON,
    POLICY,
    TOP,
    caps,
    kinds,
    make_sample,
    make_tracker,
    reading,
)
from governor_samples import a_policy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_app.governor.battery import active_tiers, battery_cap, drains
from edge_app.governor.caps import Cap
from edge_app.governor.ladder import Rung
from edge_app.sensors import NO_BATTERY, Battery, Quality, Reading, Sample, absent

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

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
