"""The power of every rung, from the profile, the battery's driver and the fall of its charge."""

from __future__ import annotations

import math

import pytest
from governor_samples import a_policy

from edge_app.governor.drain import Drain
from edge_app.governor.energy import Profile
from edge_app.governor.ladder import build_ladder
from edge_app.sensors import Battery, Quality, Reading, absent

SECONDS = {2: 0.010, 4: 0.020, 6: 0.030, 8: 0.032}
PROFILE = Profile.from_seconds(SECONDS, 2.0, 3.0)
FULL_J = 36_000.0
# 7.5, 15 and 30 fps at 2 bits, then 4, 6 and 8 bits at 30 fps.
WATTS = [2.225, 2.45, 2.9, 3.8, 4.7, 4.88]
FULL, TOP = 2, 5


def make_drain(*overrides: str, profile: Profile = PROFILE) -> Drain:
    policy = a_policy(*overrides)
    return Drain(policy, build_ladder((2, 4, 6, 8), policy), profile)


def ok(value: float | None, time: float) -> Reading:
    return absent("") if value is None else Reading(value, time, Quality.OK, "")


def make_battery(
    time: float,
    power_w: float | None = None,
    energy_j: float | None = None,
    full_j: float | None = FULL_J,
    discharging: bool | None = True,
) -> Battery:
    return Battery(
        True, ok(0.5, time), discharging, None, ok(energy_j, time), ok(power_w, time), full_j
    )


def feed(
    drain: Drain,
    seconds: int,
    start: int = 0,
    rung: int = TOP,
    power_w: float | None = None,
    fps: float | None = None,
    watts: float | None = None,
    charge: float | None = 0.5,
    full_j: float | None = FULL_J,
) -> None:
    """One second after the other."""
    for second in range(start, start + seconds):
        battery = make_battery(float(second), power_w, full_j=full_j)
        drain.update(battery, charge, float(second), 1.0, rung, fps, watts)


def rung_watts(drain: Drain, full_j: float = FULL_J) -> list[float]:
    per_second = drain.per_second()
    assert per_second is not None
    return [rate * full_j for rate in per_second]


def test_the_profile_is_all_there_is_at_first() -> None:
    drain = make_drain()
    assert drain.level is None and drain.per_second() is None and drain.active_w(1.0) is None
    feed(drain, 1)
    assert drain.level == 0.5
    assert rung_watts(drain) == pytest.approx(WATTS)
    assert not drain.certain
    assert drain.active_w(1.0 / FULL_J) == pytest.approx(1.0)


def test_nothing_is_known_without_a_capacity_unless_the_policy_has_it() -> None:
    drain = make_drain()
    feed(drain, 1, full_j=None)
    assert drain.per_second() is None
    for bad in (0.0, -1.0, math.inf, math.nan):
        feed(drain, 1, full_j=bad)
        assert drain.per_second() is None
    stated = make_drain("battery.capacity_wh=20")
    feed(stated, 1, full_j=None)
    assert rung_watts(stated, 72_000.0) == pytest.approx(WATTS)
    feed(stated, 1, full_j=FULL_J)
    assert rung_watts(stated, 72_000.0) == pytest.approx(WATTS), "who states it knows it better"


def test_spends_what_the_profile_says_between_the_steps() -> None:
    drain = make_drain()
    feed(drain, 1)
    feed(drain, 10, start=1, rung=3)
    assert drain.level == pytest.approx(0.5 - 10 * 3.8 / FULL_J)
    feed(drain, 10, start=11, rung=3, watts=2.5)
    assert drain.level == pytest.approx(0.5 - (10 * 3.8 + 10 * 2.5) / FULL_J)
    feed(drain, 10, start=21, rung=3, watts=2.5, charge=None)
    assert drain.level == pytest.approx(0.5 - (10 * 3.8 + 20 * 2.5) / FULL_J)


def test_measured_power_takes_the_place_of_the_profile() -> None:
    drain = make_drain()
    feed(drain, 1, power_w=6.1)
    assert drain.certain
    assert rung_watts(drain) == pytest.approx([1.25 * watts for watts in WATTS])
    assert drain.active_w(1.0 / FULL_J) == pytest.approx(1.0 / 1.25)
    feed(drain, 10, start=1, power_w=6.1)
    assert drain.level == pytest.approx(0.5 - 10 * 6.1 / FULL_J)


@pytest.mark.parametrize("power_w", [-6.1, 6.1])
def test_the_sign_of_power_is_nobodys_business(power_w: float) -> None:
    drain = make_drain()
    feed(drain, 5, power_w=power_w)
    assert rung_watts(drain)[TOP] == pytest.approx(6.1)


@pytest.mark.parametrize(
    ("power_w", "believed"),
    [
        (0.0, False),
        (0.02 * 4.88 - 1e-6, False),
        (0.02 * 4.88 + 1e-6, True),
        (50 * 4.88 - 1e-3, True),
        (50 * 4.88 + 1e-3, False),
        (math.nan, False),
        (math.inf, False),
    ],
)
def test_power_in_other_units_is_not_believed(power_w: float, believed: bool) -> None:
    drain = make_drain()
    feed(drain, 5, power_w=power_w)
    assert drain.certain is believed
    assert rung_watts(drain)[TOP] == pytest.approx(power_w if believed else 4.88)


def test_power_that_stops_coming_is_kept_for_a_minute() -> None:
    drain = make_drain()
    feed(drain, 10, power_w=6.1)
    feed(drain, 60, start=10)
    assert rung_watts(drain)[TOP] == pytest.approx(6.1)
    level = drain.level
    assert level == pytest.approx(max(0.49, 0.5 - 69 * 6.1 / FULL_J))
    feed(drain, 1, start=70)
    assert rung_watts(drain)[TOP] == pytest.approx(4.88)
    assert not drain.certain
    # And where it comes back the fit starts afresh.
    feed(drain, 1, start=71, power_w=9.76)
    assert rung_watts(drain)[0] == pytest.approx(2 * 2.225)


def test_power_of_a_device_that_should_take_none_says_nothing() -> None:
    drain = make_drain(profile=Profile({}, 0.0, "none"))
    feed(drain, 3, power_w=5.0)
    assert drain.per_second() == [0.0] * 6
    assert not drain.certain


@pytest.mark.parametrize(
    ("energy_j", "level"),
    [
        (0.5299 * FULL_J, 0.5299),
        (0.4701 * FULL_J, 0.4701),
        (0.5301 * FULL_J, 0.5),
        (0.4699 * FULL_J, 0.5),
        (math.nan, 0.5),
    ],
)
def test_energy_counts_where_it_fits_the_charge(energy_j: float, level: float) -> None:
    drain = make_drain()
    drain.update(make_battery(0.0, energy_j=energy_j), 0.5, 0.0, 0.0, TOP, None, None)
    assert drain.level == pytest.approx(level)


def test_energy_beyond_its_range_is_clipped_and_old_energy_left_out() -> None:
    drain = make_drain()
    drain.update(make_battery(0.0, energy_j=1.02 * FULL_J), 1.0, 0.0, 0.0, TOP, None, None)
    assert drain.level == 1.0
    low = make_drain()
    low.update(make_battery(0.0, energy_j=-0.02 * FULL_J), 0.0, 0.0, 0.0, TOP, None, None)
    assert low.level == 0.0
    for full_j in (None, 0.0):
        bare = make_drain()
        battery = make_battery(0.0, energy_j=0.51 * FULL_J, full_j=full_j)
        bare.update(battery, 0.5, 0.0, 0.0, TOP, None, None)
        assert bare.level == 0.5
    for late, level in ((60.0, 0.51), (60.1, 0.5)):
        old = make_drain()
        old.update(make_battery(0.0, energy_j=0.51 * FULL_J), 0.5, late, 0.0, TOP, None, None)
        assert old.level == pytest.approx(level)


def test_out_of_use_and_after_a_gap_the_charge_is_read_afresh() -> None:
    drain = make_drain()
    feed(drain, 100)
    assert drain.level is not None and drain.level < 0.5
    drain.update(None, 0.5, 100.0, 1.0, TOP, None, None)
    assert drain.level is None
    feed(drain, 1, start=101)
    assert drain.level == 0.5
    feed(drain, 20, start=102)
    drain.update(make_battery(182.0), 0.5, 182.0, 60.0, TOP, None, None)
    assert drain.level == pytest.approx(0.49), "a minute is no gap"
    drain.update(make_battery(243.0), 0.5, 243.0, 60.1, TOP, None, None)
    assert drain.level == 0.5


def test_power_from_before_a_charger_does_not_count() -> None:
    drain = make_drain()
    feed(drain, 10, power_w=6.1)
    drain.update(None, None, 10.0, 1.0, TOP, None, None)
    feed(drain, 1, start=11)
    assert not drain.certain


def test_a_gauge_is_stuck_only_while_charge_is_surely_used() -> None:
    drain = make_drain()
    feed(drain, 1)
    feed(drain, 221, start=1)
    assert not drain.stuck
    feed(drain, 1, start=222)
    assert drain.stuck
    drain.update(make_battery(223.0, discharging=None), 0.5, 223.0, 1.0, TOP, None, None)
    assert not drain.stuck and drain.level == pytest.approx(0.49)
    feed(drain, 1, start=224)
    assert drain.stuck
    drain.update(make_battery(225.0), None, 225.0, 1.0, TOP, None, None)
    assert not drain.stuck


# What the source gives -----------------------------------------------------------------------------


def test_a_source_that_gives_less_than_a_rung_asks_for_limits_all_of_them() -> None:
    drain = make_drain()
    feed(drain, 3, fps=10.0)
    # 7.5 fps is less than it gives; 30 fps are not.
    assert rung_watts(drain) == pytest.approx([2.225, 2.3, 2.3, 2.6, 2.9, 2.96])
    # What a shed rung sees says nothing of the source, ...
    feed(drain, 60, start=3, rung=0, fps=7.5)
    assert rung_watts(drain)[TOP] == pytest.approx(2.96)
    # ... and full rate at a rung that asks for it ends the limit.
    feed(drain, 2, start=63, rung=FULL, fps=27.0)
    assert rung_watts(drain) == pytest.approx(WATTS)


def test_nine_tenths_of_the_rate_is_the_rate() -> None:
    drain = make_drain()
    feed(drain, 3, fps=27.0)
    assert rung_watts(drain) == pytest.approx(WATTS)
    feed(drain, 60, start=3, fps=26.9)
    assert rung_watts(drain)[TOP] == pytest.approx(2 + 0.096 * 26.9, rel=1e-3)


def test_the_rate_is_smoothed_and_the_first_second_of_a_rung_left_out() -> None:
    drain = make_drain()
    feed(drain, 1, fps=1.0)
    assert rung_watts(drain) == pytest.approx(WATTS), "partly another rung's"
    feed(drain, 1, start=1, fps=20.0)
    feed(drain, 1, start=2, fps=10.0)
    smoothed = 20.0 - 10.0 * (1.0 - math.exp(-0.1))
    assert rung_watts(drain)[TOP] == pytest.approx(2 + 0.096 * smoothed)
    feed(drain, 1, start=3, rung=4, fps=1.0)
    feed(drain, 1, start=4, rung=4, fps=5.0)
    assert rung_watts(drain)[TOP] == pytest.approx(2 + 0.096 * 5.0)


@pytest.mark.parametrize("fps", [None, 0.0, -3.0, math.nan, math.inf])
def test_no_rate_is_no_limit(fps: float | None) -> None:
    drain = make_drain()
    feed(drain, 5, fps=fps)
    assert rung_watts(drain) == pytest.approx(WATTS)


def test_an_unpinned_rate_is_what_the_source_gives() -> None:
    drain = make_drain("frame.target_fps=0")
    feed(drain, 1)
    # As fast as it goes: idle and 3 W without a pause.
    assert rung_watts(drain)[FULL:] == pytest.approx([5.0] * 4)
    feed(drain, 2, start=1, fps=20.0)
    assert rung_watts(drain)[FULL:] == pytest.approx([2.6, 3.2, 3.8, 3.92])


def test_frames_that_start_low_are_predicted_low() -> None:
    drain = make_drain("confidence.start_bits=4")
    feed(drain, 1)
    assert rung_watts(drain) == pytest.approx([*WATTS[:4], 3.8, 3.8])


def test_another_policy_predicts_for_its_own_ladder() -> None:
    drain = make_drain()
    feed(drain, 3)
    policy = a_policy(
        "frame.target_fps=10",
        "frame.min_fps=2.5",
        "battery.capacity_wh=20",
        "confidence.start_bits=2",
    )
    drain.replace(policy, build_ladder((2, 4), policy), PROFILE)
    feed(drain, 1, start=3, rung=1)
    assert rung_watts(drain, 72_000.0) == pytest.approx([2.075, 2.15, 2.3, 2.3])
    assert drain.level is not None and drain.level < 0.5


def test_another_profile_is_believed_afresh() -> None:
    policy = a_policy()
    ladder = build_ladder((2, 4, 6, 8), policy)
    dearer = Profile.from_seconds(SECONDS, 4.0, 6.0)
    for power_w in (None, 9.76):
        drain = make_drain()
        for second in range(400):
            charge = 0.9 - (second // 20) * 0.01
            battery = make_battery(float(second), power_w)
            drain.update(battery, charge, float(second), 1.0, TOP, None, None)
        learned = rung_watts(drain)
        drain.replace(policy, ladder, Profile.from_seconds(SECONDS, 2.0, 3.0))
        assert rung_watts(drain) == learned, "it says the same"
        drain.replace(policy, ladder, dearer)
        assert not drain.certain and drain.level is None
        feed(drain, 1, start=400)
        assert rung_watts(drain) == pytest.approx([2 * watts for watts in WATTS])


def test_state_takes_what_was_learned_along() -> None:
    drain = make_drain()
    for second in range(400):
        charge = 0.9 - (second // 20) * 0.005
        drain.update(make_battery(float(second), 5.0), charge, float(second), 1.0, TOP, None, None)
    other = make_drain()
    other.restore(drain.state())
    feed(other, 1, start=0, power_w=5.0)
    assert rung_watts(other)[TOP] == pytest.approx(rung_watts(drain)[TOP])
    assert rung_watts(other)[TOP] == pytest.approx(0.005 * FULL_J / 20, rel=0.04)
    # Learned of measured power: of no use to who has none.
    silent = make_drain()
    silent.restore(drain.state())
    feed(silent, 1)
    assert rung_watts(silent)[TOP] == pytest.approx(4.88)


@pytest.mark.parametrize("state", [None, 3, [], {}, {"measured": None}, {"measured": "yes"}])
def test_restoring_nonsense_changes_nothing(state: object) -> None:
    drain = make_drain()
    drain.restore(state)
    drain.restore({"measured": True, "gauge": {"fallen": -1}})
    feed(drain, 1)
    assert rung_watts(drain) == pytest.approx(WATTS)
