"""The budget as functions, and the rung it chooses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.governor.budget import Budget, lasts_s, with_margin

DRAIN = [1e-5, 2e-5, 4e-5, 8e-5]
TIERS = ((0.4, 2), (0.2, 1))


@pytest.mark.parametrize(
    ("charge", "rung", "tiers", "seconds"),
    [
        (0.65, 2, (), 15000),
        (0.65, 0, (), 60000),
        (0.05, 3, (), 0),
        (0.04, 3, (), 0),
        (0.60, 3, TIERS, 0.20 / 8e-5 + 0.20 / 4e-5 + 0.15 / 2e-5),
        (0.60, 3, TIERS[::-1], 0.20 / 8e-5 + 0.20 / 4e-5 + 0.15 / 2e-5),
        (0.60, 1, TIERS, 0.55 / 2e-5),
        (0.40, 3, TIERS, 0.20 / 4e-5 + 0.15 / 2e-5),
        (0.10, 3, TIERS, 0.05 / 2e-5),
        (0.60, 3, ((0.03, 0),), 0.55 / 8e-5),
    ],
)
def test_how_long_it_lasts(
    charge: float, rung: int, tiers: tuple[tuple[float, int], ...], seconds: float
) -> None:
    assert lasts_s(charge, 0.05, rung, DRAIN, tiers) == pytest.approx(seconds)


def test_what_takes_nothing_lasts_for_ever() -> None:
    assert lasts_s(0.5, 0.05, 1, [0.0, 0.0]) == math.inf
    assert lasts_s(0.5, 0.05, 1, [0.0, 1e-4]) == pytest.approx(4500)
    assert lasts_s(0.5, 0.05, 1, [0.0, 1e-4], ((0.2, 0),)) == math.inf


def test_rungs_that_save_nothing_are_passed_over() -> None:
    drain = [1e-5, 2e-5, 4e-5, 4e-5, 4e-5]
    budget = Budget(4, 0.05, (), 10.0, 60.0)
    assert budget.update(0.65, 10000.0, drain, 0.0) == 4
    assert budget.update(0.65, 20000.0, drain, 10.0) == 1, "three rungs that take the same"
    assert budget.update(0.65, 40000.0, drain, 20.0) == 0
    for second in range(30, 90, 10):
        assert budget.update(0.65, 20000.0, drain, float(second)) == 0
    assert budget.update(0.65, 20000.0, drain, 90.0) == 1
    for second in range(100, 160, 10):
        assert budget.update(0.65, 10000.0, drain, float(second)) == 1
    assert budget.update(0.65, 10000.0, drain, 160.0) == 4


fractions = st.floats(0.0, 1.0)


@settings(deadline=None)
@given(fractions, fractions, st.integers(0, 3), st.integers(0, 3), st.floats(1.0, 9.0))
def test_less_charge_a_higher_rung_or_more_power_never_lasts_longer(
    one: float, other: float, some: int, another: int, more: float
) -> None:
    low, high = sorted((one, other))
    down, up = sorted((some, another))
    assert lasts_s(low, 0.05, up, DRAIN, TIERS) <= lasts_s(high, 0.05, up, DRAIN, TIERS)
    # Sums of the same terms in another order may differ in the last digit.
    longest = lasts_s(low, 0.05, down, DRAIN, TIERS) * (1 + 1e-12)
    assert lasts_s(low, 0.05, up, DRAIN, TIERS) <= longest
    hungrier = [rate * more for rate in DRAIN]
    assert lasts_s(low, 0.05, up, hungrier, TIERS) <= lasts_s(low, 0.05, up, DRAIN, TIERS)


def test_the_margin_of_a_raise() -> None:
    assert with_margin(0.65, 0.05) == pytest.approx(0.65 - 0.012 - 0.01)
    assert with_margin(0.04, 0.05) == pytest.approx(0.03)


def make_budget(tiers: tuple[tuple[float, int], ...] = ()) -> Budget:
    return Budget(top=3, reserve=0.05, tiers=tiers, every_s=10.0, raise_s=60.0)


def lasting(rung: int, charge: float = 0.65) -> float:
    """The need that ``rung`` just meets."""
    return lasts_s(charge, 0.05, rung, DRAIN)


def raising(rung: int, charge: float = 0.65) -> float:
    """The need that ``rung`` just meets with the margin of a raise."""
    return lasts_s(with_margin(charge, 0.05), 0.05, rung, DRAIN)


@pytest.mark.parametrize("rung", [0, 1, 2, 3])
def test_starts_at_the_highest_rung_that_lasts_with_a_margin(rung: int) -> None:
    assert make_budget().update(0.65, raising(rung), DRAIN, 5.0) == rung
    assert make_budget().update(0.65, raising(rung) + 0.1, DRAIN, 5.0) == max(0, rung - 1)


def test_says_at_once_that_it_is_short() -> None:
    budget = make_budget()
    assert budget.rung == 3 and not budget.short
    assert budget.update(0.65, lasting(0), DRAIN, 0.0) == 0
    assert not budget.short
    assert make_budget().update(0.65, lasting(0) + 1, DRAIN, 0.0) == 0
    short = make_budget()
    short.update(0.65, lasting(0) + 1, DRAIN, 0.0)
    assert short.short
    # Being short ends with a margin, not with the first better number.
    short.update(0.65, lasting(0) - 1, DRAIN, 10.0)
    assert short.short
    short.update(0.65, raising(0) + 0.1, DRAIN, 20.0)
    assert short.short
    short.update(0.65, raising(0), DRAIN, 30.0)
    assert not short.short


def test_falls_a_rung_for_every_look() -> None:
    budget = make_budget()
    assert budget.update(0.65, raising(3), DRAIN, 0.0) == 3
    need = lasting(1)
    rungs = [budget.update(0.65, need, DRAIN, float(second)) for second in range(1, 41)]
    assert rungs == [3] * 9 + [2] * 10 + [1] * 21
    # What just lasts is kept.
    assert budget.update(0.65, lasting(1), DRAIN, 60.0) == 1
    assert budget.update(0.65, lasting(1) + 0.1, DRAIN, 70.0) == 0
    assert budget.update(0.65, lasting(0) + 0.1, DRAIN, 80.0) == 0


def test_rises_when_it_has_been_allowed_for_long_enough() -> None:
    budget = make_budget()
    assert budget.update(0.65, raising(1), DRAIN, 0.0) == 1
    rungs = [budget.update(0.65, raising(3), DRAIN, 10.0 * look) for look in range(1, 16)]
    assert rungs == [1] * 6 + [2] * 7 + [3] * 2
    assert budget.update(0.65, 0.0, DRAIN, 1000.0) == 3


def test_what_interrupts_the_permission_starts_the_wait_again() -> None:
    budget = make_budget()
    budget.update(0.65, raising(1), DRAIN, 0.0)
    for now in (10.0, 20.0, 30.0, 40.0, 50.0, 60.0):
        assert budget.update(0.65, raising(2), DRAIN, now) == 1
    assert budget.update(0.65, raising(2) + 0.1, DRAIN, 70.0) == 1
    for now in (80.0, 90.0, 100.0, 110.0, 120.0, 130.0):
        assert budget.update(0.65, raising(2), DRAIN, now) == 1
    assert budget.update(0.65, raising(2), DRAIN, 140.0) == 2


def test_a_lowering_starts_the_wait_again_too() -> None:
    budget = make_budget()
    budget.update(0.65, raising(2), DRAIN, 0.0)
    for now in (10.0, 20.0, 30.0, 40.0, 50.0, 60.0):
        budget.update(0.65, raising(3), DRAIN, now)
    assert budget.update(0.65, lasting(2) + 1, DRAIN, 65.0 + 5.0) == 1
    for now in (80.0, 90.0, 100.0, 110.0, 120.0, 130.0):
        assert budget.update(0.65, raising(3), DRAIN, now) == 1
    assert budget.update(0.65, raising(3), DRAIN, 140.0) == 2


def test_restart_chooses_afresh() -> None:
    budget = make_budget()
    budget.update(0.65, lasting(0) + 9, DRAIN, 0.0)
    assert (budget.rung, budget.short) == (0, True)
    budget.restart()
    assert (budget.rung, budget.short) == (3, False)
    assert budget.update(0.65, raising(2), DRAIN, 1.0) == 2


def test_tiers_are_foreseen() -> None:
    need = lasts_s(with_margin(0.6, 0.05), 0.05, 3, DRAIN, TIERS)
    assert make_budget(TIERS).update(0.6, need, DRAIN, 0.0) == 3
    assert make_budget().update(0.6, need, DRAIN, 0.0) == 1
    assert make_budget(TIERS).lasts_s(0.6, 3, DRAIN) == lasts_s(0.6, 0.05, 3, DRAIN, TIERS)


def test_spare() -> None:
    budget = make_budget()
    supply = with_margin(0.65, 0.05) - 0.05
    assert budget.spare(0.65, 1000.0, 1e-4) == pytest.approx(supply / 1000.0 - 1e-4)
    assert budget.spare(0.65, supply / 1e-4 + 1, 1e-4) == 0.0
    assert budget.spare(0.65, 0.5, 1e-4) == pytest.approx(supply / 0.5 - 1e-4)
    assert budget.spare(0.65, 0.0, 1e-4) == 0.0
    assert budget.spare(0.65, -1.0, 1e-4) == 0.0
    assert budget.spare(0.05, 1000.0, 0.0) == 0.0
