"""The battery cap: tiers by charge, whatever the gauge does."""

from __future__ import annotations

import pytest
from governor_samples import COOL, make_battery, make_governor, make_sample, make_zone, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_app.governor import load_policy
from edge_app.governor.battery import active_tiers, battery_cap
from edge_app.governor.ladder import build_ladder
from edge_app.sensors import Sample

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

POLICY = load_policy(None)
LADDER = build_ladder((2, 4, 6, 8), POLICY)

charges = st.floats(0, 1)
helds = st.tuples(st.booleans(), st.booleans(), st.booleans())


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


# Over time ---------------------------------------------------------------------------------------


def test_battery_tiers_while_discharging() -> None:
    governor = make_governor()
    bits = {}
    for second in range(1000):
        decision = governor.step(make_sample(float(second), COOL, 1.0 - second / 1000))
        bits[round(1000 - second)] = decision.bits
    assert [bits[permille] for permille in (450, 390, 210, 190, 110, 90, 10)] == [
        8,
        6,
        6,
        4,
        4,
        2,
        2,
    ]


def test_gauge_that_bounces_back_does_not_raise() -> None:
    governor = make_governor()
    run(governor, lambda t: make_sample(t, COOL, 0.39), 0, 10)
    decisions = run(governor, lambda t: make_sample(t, COOL, 0.6), 10, 300)
    assert {decision.bits for decision in decisions} == {6}


def test_charger_ends_the_tiers_and_flapping_contacts_do_not() -> None:
    governor = make_governor()
    run(governor, lambda t: make_sample(t, COOL, 0.15), 0, 10)

    def flapping(t: float) -> Sample:
        return Sample(t, (make_zone(COOL, t),), make_battery(0.15, t, t % 2 == 0))

    assert {decision.bits for decision in run(governor, flapping, 10, 120)} == {4}

    def charging(t: float) -> Sample:
        return Sample(t, (make_zone(COOL, t),), make_battery(0.15, t, False))

    raises = [d for d in run(governor, charging, 130, 60) if d.changed]
    assert [(d.bits, d.cause) for d in raises] == [(6, "battery"), (8, "battery")]
    assert make_governor("battery.on_ac=apply").step(charging(0.0)).bits == 4


def test_unknown_direction_counts_as_discharging() -> None:
    sample = Sample(0.0, (make_zone(COOL, 0.0),), make_battery(0.15, 0.0, None))
    assert make_governor().step(sample).bits == 4


def test_unreadable_battery_keeps_its_cap_and_loses_a_rung_every_ten_minutes() -> None:
    governor = make_governor()
    run(governor, lambda t: make_sample(t, COOL, 0.5), 0, 10)

    def unreadable(t: float) -> Sample:
        return Sample(t, (make_zone(COOL, t),), make_battery(None, t))

    decisions = run(governor, unreadable, 10, 3000)
    assert [decisions[second].bits for second in (0, 580, 620, 1220, 1820, 2990)] == [
        8,
        8,
        6,
        4,
        2,
        2,
    ]
    assert decisions[-1].rung == governor.ladder.full
