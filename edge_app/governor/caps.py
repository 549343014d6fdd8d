"""The caps: each says, from what is known now, up to which rung it allows.

Pure functions: same arguments, same cap. Each is monotone (hotter, emptier, slower or busier
never allows more) as long as the rest of its arguments stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_app.governor.ladder import Ladder
from edge_app.policy.model import Policy, Thermal
from edge_app.sensors import Zone

CAP_NAMES = ("thermal", "battery", "deadline", "load", "throttle", "failsafe", "policy")
"""In the order in which they are named: of two that allow the same, the first binds."""

PASSIVE_MARGIN_C = 2.0
CRITICAL_MARGIN_C = 8.0
PAUSE_MARGIN_C = 3.0
"""How far the policy's limits stay below the device's own trip points."""

NO_THERMOMETER = "no thermal sensor on this device"

DEADLINE_QUANTILE = 1.645
"""95 % of a normal distribution lie below this many standard deviations above the mean."""
DEADLINE_GUARD = 0.9
"""Share of the deadline that a higher level than the current one must keep to."""


@dataclass(frozen=True)
class Cap:
    """The highest rung that a cap allows, and why. ``urgent``: it must be kept to at once, not one
    rung at a time."""

    name: str
    rung: int
    why: str
    urgent: bool = False


@dataclass(frozen=True)
class ThermalLimits:
    """Temperatures in °C that hold for one zone."""

    on_c: float
    control_c: float
    critical_c: float
    pause_c: float


def thermal_limits(zone: Zone, policy: Thermal) -> ThermalLimits:
    """The policy's limits, lowered where the device's own trip points are below them.

    The distance from ``on_c`` to ``control_c`` is kept: it is the controller's gain.
    """
    control, critical, pause = policy.control_c, policy.critical_c, policy.pause_c
    if policy.use_trips:
        if zone.critical_c is not None:
            critical = min(critical, zone.critical_c - CRITICAL_MARGIN_C)
            pause = min(pause, zone.critical_c - PAUSE_MARGIN_C)
        if zone.passive_c is not None:
            control = min(control, zone.passive_c - PASSIVE_MARGIN_C)
        control = min(control, critical - PASSIVE_MARGIN_C)
    on = control - (policy.control_c - policy.on_c)
    return ThermalLimits(on, control, critical, pause)


@dataclass(frozen=True)
class Heat:
    """The zone that is nearest to its limit.

    ``forecast_c``: temperature expected after ``forecast_s``, never below the present one.
    ``integral_bits``: what the controller's memory of past excess takes off the budget (<= 0).
    ``critical``: some zone has reached its critical temperature.
    """

    zone: str
    temperature_c: float
    forecast_c: float
    limits: ThermalLimits
    integral_bits: float
    critical: bool

    @property
    def headroom(self) -> float:
        """1 at ``on_c``, 0 at ``control_c``, negative above: of the forecast."""
        return self.room(self.forecast_c)

    def room(self, celsius: float) -> float:
        """The same of any temperature."""
        return (self.limits.control_c - celsius) / (self.limits.control_c - self.limits.on_c)


def thermal_budget(heat: Heat, sustainable_bits: float) -> float:
    """Bits that the heat allows: the kernel's power allocator in units of bits.

    ``sustainable_bits`` at ``control_c``; the gain below it is twice the gain above, so that at
    ``on_c`` it is three times as much.
    """
    headroom = heat.headroom
    gain = 2.0 if headroom >= 0 else 1.0
    return sustainable_bits * (1.0 + gain * headroom) + heat.integral_bits


def thermal_cap(heat: Heat | None, current: int, ladder: Ladder, policy: Policy) -> Cap:
    """The highest rung whose cost the budget covers; above ``current`` with some to spare."""
    if heat is None:
        return Cap("thermal", ladder.top, "no temperature")
    where = f"{heat.zone} {heat.temperature_c:.1f} °C"
    if heat.critical:
        why = f"{where}: critical ({heat.limits.critical_c:g} °C)"
        return Cap("thermal", 0, why, urgent=True)
    budget = thermal_budget(heat, policy.thermal.sustainable_bits)
    running, guard = ladder.rungs[current].cost, policy.stability.guard_bits
    needs = [rung.cost + (guard if rung.cost > running else 0.0) for rung in ladder.rungs]
    allowed = max((index for index, bits in enumerate(needs) if bits <= budget), default=0)
    ahead = f", {heat.forecast_c:.1f} °C ahead" if heat.forecast_c > heat.temperature_c else ""
    why = f"{where}{ahead}: budget {max(0.0, budget):.1f} bits"
    if allowed < ladder.top:
        lowest, highest = ladder.rungs[allowed + 1], ladder.rungs[ladder.above(allowed)]
        alike = "" if lowest is highest else f" needs as much as {highest.name}:"
        why += f"; {lowest.name}{alike or ' needs'} {needs[allowed + 1]:.1f}"
    return Cap("thermal", allowed, why)


def deadline_cap(
    slowdown: float,
    deviation: float,
    profile_s: Mapping[int, float],
    current: int,
    ladder: Ladder,
    deadline_s: float,
) -> Cap:
    """The highest level whose predicted time is within the deadline for 95 % of the frames.

    Predicted: the profiled seconds times a slow-down of that mean and standard deviation.
    """
    if deadline_s <= 0:
        return Cap("deadline", ladder.top, "no deadline")
    factor = slowdown + DEADLINE_QUANTILE * deviation
    allowed = ladder.full
    for index in range(ladder.full, len(ladder.rungs)):
        predicted = profile_s.get(ladder.rungs[index].bits, 0.0) * factor
        share = DEADLINE_GUARD if index > current else 1.0
        if predicted <= deadline_s * share:
            allowed = index
    why = f"frames take {slowdown:.2f} times their profile"
    if allowed < ladder.top:
        bits = ladder.rungs[allowed + 1].bits
        needed = profile_s.get(bits, 0.0) * factor * 1e3
        why += f"; {bits} bits need {needed:.1f} ms of {deadline_s * 1e3:g} ms"
    return Cap("deadline", allowed, why)


def failsafe_cap(state: str, detail: str, current: int, ladder: Ladder, policy: Policy) -> Cap:
    """What blindness allows. ``state``: ``seeing``, ``never`` (no temperature yet), ``waiting``
    (silent for less than ``after_s``) or ``lost``. Blind, nothing is ever raised."""
    if state == "never":
        rung = ladder.at_most(policy.failsafe.no_thermal_sensor_bits)
        return Cap("failsafe", rung, detail or NO_THERMOMETER, urgent=True)
    if state == "waiting":
        return Cap("failsafe", current, detail, urgent=True)
    if state == "lost":
        rung = ladder.at_most(policy.failsafe.lost_thermal_sensor_bits)
        return Cap("failsafe", min(rung, current), detail, urgent=True)
    return Cap("failsafe", ladder.top, "sensors are sound", urgent=True)
