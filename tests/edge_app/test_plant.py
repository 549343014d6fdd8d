"""The simulated device: heat and charge against closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.governor.simulation.plant import (
    CLOCK_SHARES,
    OPEN_CIRCUIT_V,
    Cell,
    Heat,
    KernelThrottle,
    Pack,
    Thermals,
    at,
)

IDEAL = Pack(10.0, resistance_ohm=0.0, peukert=0.0)

thermals = st.builds(
    Thermals,
    chip_j_per_k=st.floats(1, 80),
    chip_k_per_w=st.floats(1, 5),
    case_j_per_k=st.floats(10, 300),
    case_k_per_w=st.floats(2, 15),
)


@settings(max_examples=30, deadline=None)
@given(thermals, st.lists(st.tuples(st.floats(0, 15), st.floats(-10, 50)), min_size=1, max_size=50))
def test_heat_is_neither_made_nor_lost(parts: Thermals, seconds: list[tuple[float, float]]) -> None:
    heat = Heat(parts, 25.0)
    before = heat.stored_j
    for watts, ambient_c in seconds:
        heat.second(watts, ambient_c)
    put_in = sum(watts for watts, _ in seconds)
    assert heat.stored_j - before == pytest.approx(put_in - heat.into_surroundings_j, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(thermals, st.floats(0, 12), st.floats(-10, 50))
def test_settles_at_two_resistances_in_a_row(
    parts: Thermals, watts: float, ambient_c: float
) -> None:
    heat = Heat(parts, ambient_c + watts * (parts.chip_k_per_w + parts.case_k_per_w) * 0.98)
    both = parts.chip_k_per_w + parts.case_k_per_w
    slowest = parts.chip_j_per_k * both + parts.case_j_per_k * parts.case_k_per_w
    for _ in range(int(slowest * 8)):
        heat.second(watts, ambient_c)
    case_c = ambient_c + watts * parts.case_k_per_w
    assert heat.case_c == pytest.approx(case_c, abs=0.05)
    assert heat.chip_c == pytest.approx(case_c + watts * parts.chip_k_per_w, abs=0.05)


def test_warms_up_with_its_time_constant() -> None:
    parts = Thermals(chip_j_per_k=0.5, chip_k_per_w=1.0, case_j_per_k=60.0, case_k_per_w=5.0)
    heat = Heat(parts, 20.0)
    for _ in range(round(60.0 * 5.0)):
        heat.second(4.0, 20.0)
    assert (heat.case_c - 20.0) / (4.0 * 5.0) == pytest.approx(0.632, abs=0.01)


def test_kernel_throttles_step_by_step_and_lets_go_with_hysteresis() -> None:
    kernel = KernelThrottle(85.0)
    states = []
    for celsius in (84.9, 85.0, 85.0, 84.0, 83.0, 82.9, 82.9, 82.9):
        kernel.second(celsius)
        states.append(kernel.state)
    assert states == [0, 1, 2, 2, 2, 1, 0, 0]
    for _ in range(50):
        kernel.second(100.0)
    assert kernel.clock == CLOCK_SHARES[-1]


def test_an_ideal_battery_gives_what_is_printed_on_it() -> None:
    cell = Cell(IDEAL, 1.0)
    while not cell.empty:
        cell.second(5.0)
    assert cell.drawn_j == pytest.approx(10.0 * 3600.0, rel=0.005)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 20), min_size=1, max_size=200))
def test_a_battery_drains_as_its_current_is_integrated(watts: list[float]) -> None:
    cell, coulombs = Cell(IDEAL, 0.9), 0.0
    for load in watts:
        coulombs += load / cell.volts
        cell.second(load)
        assert cell.volts >= OPEN_CIRCUIT_V[0][1]
    assert 0.9 - cell.charge == pytest.approx(coulombs / IDEAL.full_coulombs)


def test_resistance_and_high_currents_cost_energy() -> None:
    def given_out(pack: Pack, watts: float) -> tuple[float, float]:
        cell = Cell(pack, 1.0)
        while not cell.empty:
            cell.second(watts)
        return cell.drawn_j, cell.drawn_j + cell.lost_j

    gentle, total = given_out(Pack(10.0), 1.0)
    hard, hard_total = given_out(Pack(10.0), 15.0)
    assert hard < 0.97 * gentle < gentle < 36000.0
    assert total == pytest.approx(36000.0, rel=0.01) == hard_total


def test_charging_fills_no_further_than_full() -> None:
    cell = Cell(Pack(1.0), 0.95)
    for _ in range(600):
        cell.second(-3.0)
    assert cell.charge == 1.0 and cell.lost_j > 0


def test_courses_are_straight_between_their_points() -> None:
    course = ((1.0, 10.0), (3.0, 20.0))
    assert [at(course, x) for x in (0.0, 1.0, 2.0, 3.0, 9.0)] == [10.0, 10.0, 15.0, 20.0, 20.0]
