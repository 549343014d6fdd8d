"""A device made of equations: two thermal nodes, a battery, and a kernel that throttles.

Heat: C_chip dT_chip/dt = P - (T_chip - T_case)/R_chip, and the same from case to surroundings
with C_case and R_case; explicit Euler steps well below the shorter time constant. Battery: charge
counted in coulombs, a lithium-ion open-circuit voltage curve, an internal resistance and a mild
form of Peukert's law. Kernel: from ``throttle_c`` on it lowers the clock step by step, as its
`step_wise` governor does, which makes frames slower and cheaper.

Only + - * / on doubles: the same numbers on every machine. Every parameter is an assumption; the
plant compares governors, it does not describe a board.
"""

from __future__ import annotations

from dataclasses import dataclass

CLOCK_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
"""Shares of the full clock in the kernel's cooling states."""
THROTTLE_HYSTERESIS_C = 2.0
STEPS_PER_TIME_CONSTANT = 20.0

# Share of charge and volts of one lithium-ion cell at rest: the usual shape.
OPEN_CIRCUIT_V = (
    (0.00, 3.00),
    (0.05, 3.35),
    (0.10, 3.50),
    (0.20, 3.60),
    (0.40, 3.70),
    (0.60, 3.82),
    (0.80, 3.98),
    (1.00, 4.18),
)
PEUKERT_FREE_C_RATE = 0.2
"""Below a fifth of its capacity an hour a cell gives all that is printed on it."""
CHARGE_EFFICIENCY = 0.97

Profile = tuple[tuple[float, float], ...]
"""(hours, value) in growing order; straight lines between them, level before and after."""


def at(profile: Profile, x: float) -> float:
    """The value of a profile at ``x``."""
    previous_x, previous_y = profile[0]
    if x <= previous_x:
        return previous_y
    for next_x, next_y in profile[1:]:
        if x < next_x:
            share = (x - previous_x) / (next_x - previous_x)
            return previous_y + (next_y - previous_y) * share
        previous_x, previous_y = next_x, next_y
    return previous_y


@dataclass(frozen=True)
class Thermals:
    """Heat capacities in J/K and resistances in K/W, and where the chip protects itself (deg C).

    ``throttle_c``: the kernel or the firmware slows the clock. ``shutdown_c``: it switches off.
    """

    chip_j_per_k: float = 4.0
    chip_k_per_w: float = 3.0
    case_j_per_k: float = 60.0
    case_k_per_w: float = 9.0
    throttle_c: float = 85.0
    shutdown_c: float = 110.0


class Heat:
    """Temperatures of chip and case in deg C; both start at ``start_c``."""

    def __init__(self, thermals: Thermals, start_c: float) -> None:
        self.thermals = thermals
        self.chip_c = self.case_c = start_c
        self.into_surroundings_j = 0.0
        shortest = min(
            thermals.chip_j_per_k * thermals.chip_k_per_w,
            thermals.case_j_per_k * thermals.case_k_per_w,
        )
        self._steps = max(1, int(STEPS_PER_TIME_CONSTANT / shortest) + 1)

    def second(self, watts: float, ambient_c: float) -> None:
        """One second at ``watts``."""
        thermals, step = self.thermals, 1.0 / self._steps
        for _ in range(self._steps):
            flow = (self.chip_c - self.case_c) / thermals.chip_k_per_w
            out = (self.case_c - ambient_c) / thermals.case_k_per_w
            self.chip_c += (watts - flow) / thermals.chip_j_per_k * step
            self.case_c += (flow - out) / thermals.case_j_per_k * step
            self.into_surroundings_j += out * step

    @property
    def stored_j(self) -> float:
        """Heat in chip and case, from 0 deg C."""
        thermals = self.thermals
        return self.chip_c * thermals.chip_j_per_k + self.case_c * thermals.case_j_per_k


class KernelThrottle:
    """One cooling state more for every second at ``throttle_c``, one less when cooler."""

    def __init__(self, throttle_c: float) -> None:
        self._throttle_c = throttle_c
        self.state = 0

    def second(self, chip_c: float) -> None:
        if chip_c >= self._throttle_c:
            self.state = min(self.state + 1, len(CLOCK_SHARES) - 1)
        elif chip_c < self._throttle_c - THROTTLE_HYSTERESIS_C:
            self.state = max(self.state - 1, 0)

    @property
    def clock(self) -> float:
        """Share of the full clock."""
        return CLOCK_SHARES[self.state]


@dataclass(frozen=True)
class Pack:
    """A battery pack: what is printed on it, and how well it tells.

    ``peukert``: by how much of itself a current of one capacity an hour drains more.
    ``gauge_step``, ``gauge_noise``: of the reported charge (0..1). ``tells_power``: it reports
    watts. ``tells_energy``: it reports joules.
    """

    capacity_wh: float
    cells: int = 1
    resistance_ohm: float = 0.08
    peukert: float = 0.05
    gauge_step: float = 0.01
    gauge_noise: float = 0.003
    tells_power: bool = True
    tells_energy: bool = True

    @property
    def nominal_v(self) -> float:
        """Mean of the open-circuit voltage over the charge: capacity_wh is ampere-hours times
        this."""
        area = 0.0
        for (x0, y0), (x1, y1) in zip(OPEN_CIRCUIT_V, OPEN_CIRCUIT_V[1:], strict=False):
            area += (x1 - x0) * (y0 + y1) / 2.0
        return area * self.cells

    @property
    def full_coulombs(self) -> float:
        return self.capacity_wh * 3600.0 / self.nominal_v


class Cell:
    """State of a pack. ``charge``: share of its coulombs. ``drawn_j``: energy given out."""

    def __init__(self, pack: Pack, charge: float) -> None:
        self.pack = pack
        self.charge = charge
        self.drawn_j = 0.0
        self.lost_j = 0.0
        self._full_c = pack.full_coulombs
        self.volts = self.open_circuit_v

    @property
    def open_circuit_v(self) -> float:
        return at(OPEN_CIRCUIT_V, self.charge) * self.pack.cells

    @property
    def empty(self) -> bool:
        return self.charge <= 0.0

    def second(self, watts: float) -> None:
        """One second of ``watts`` out of it; negative: into it.

        The current is that of the terminal voltage a second ago, which changes slowly: a
        quadratic equation saved.
        """
        pack = self.pack
        amperes = watts / self.volts
        open_v = self.open_circuit_v
        self.volts = open_v - amperes * pack.resistance_ohm
        if amperes > 0:
            hourly = amperes * 3600.0 / self._full_c
            used = amperes * (1.0 + pack.peukert * max(0.0, hourly - PEUKERT_FREE_C_RATE))
        else:
            used = amperes * CHARGE_EFFICIENCY
        self.charge = min(1.0, max(0.0, self.charge - used / self._full_c))
        self.drawn_j += watts
        self.lost_j += open_v * used - watts
