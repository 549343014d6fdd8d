"""Decides what a raw reading is worth. State per sensor, no I/O."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_app.sensors.types import Quality, Reading

STALE_AFTER_S = 5.0
"""How long the last value stands in for one that cannot be read."""

TEMPERATURE_RANGE_C = (-40.0, 125.0)
UNIT_MIX_UP_C = 0.2
"""The kernel counts in millidegrees. A driver that reports 61 instead of 61000, or 0 because it
is switched off, lands below this; a working chip hardly ever does."""

STUCK_AFTER_S = 300.0
STUCK_LOAD_SWING = 0.4
LIVELY_STANDSTILLS = 60
LIVELY_AFTER_S = 60.0
LIVELY_FACTOR = 10.0
NOISY_REVERSALS = 60
NOISY_STANDSTILL_S = 20.0
NOISY_AFTER_S = 120.0
LOAD_SMOOTHING_S = 30.0

JUMP_FRACTION = 0.15
JUMP_WINDOW_S = 30.0
JUMP_SETTLES_S = 60.0


def implausible_temperature(celsius: float) -> str | None:
    """Why no chip has this temperature, or None if one can."""
    low, high = TEMPERATURE_RANGE_C
    if not math.isfinite(celsius):
        return "not a number"
    if not low <= celsius <= high:
        return f"{celsius:g} °C is outside {low:g}..{high:g} °C"
    if abs(celsius) < UNIT_MIX_UP_C:
        return f"{celsius:g} °C: switched off, or not in millidegrees"
    return None


def implausible_charge(fraction: float) -> str | None:
    """Why no battery has this charge, or None if one can."""
    if not math.isfinite(fraction):
        return "not a number"
    if not 0.0 <= fraction <= 1.0:
        return f"{fraction:.0%} is outside 0..100 %"
    return None


@dataclass
class Validator:
    """Turns what was read of one sensor into a ``Reading``.

    ``implausible``: says what is wrong with a value. ``fault`` explains the newest reading that
    is not OK.
    """

    name: str
    implausible: Callable[[float], str | None]
    fault: str = ""
    _last: float | None = None
    _last_time: float = -math.inf

    def reading(self, value: float | None, time: float, error: str = "") -> Reading:
        """``value`` is None if nothing could be read, ``error`` then says why."""
        if value is None:
            self.fault = error or "no value"
            if self._last is not None and time - self._last_time <= STALE_AFTER_S:
                return Reading(self._last, self._last_time, Quality.STALE, self.name)
            return Reading(None, time, Quality.MISSING, self.name)
        reason = self.implausible(value)
        if reason is not None:
            self.fault = reason
            return Reading(value, time, Quality.IMPLAUSIBLE, self.name)
        self.fault = ""
        self._last, self._last_time = value, time
        return Reading(value, time, Quality.OK, self.name)


@dataclass
class StuckDetector:
    """Finds a thermometer that reports one value for ever.

    A constant value alone proves nothing: an idle chip in a cool room may keep its temperature
    to the last digit for an hour. So there must be a reason for it to move: the load of the
    CPUs, smoothed over half a minute, swung by 40 points while the value stood still. Then it is
    stuck after five minutes, or already a minute after that swing if it has always flickered: if
    ten times its longest standstill so far is less.

    One that has gone up and down all the time and never stood still for more than some seconds
    needs no reason: noise does not end. A fine thermometer that climbs step by step does not go up
    and down, and its steps become slow before they end.
    """

    _value: float | None = None
    _since: float = 0.0
    _low: float = 1.0
    _high: float = 0.0
    _swung: float | None = None
    _rose: bool | None = None
    _reversals: int = 0
    _standstills: int = 0
    _longest: float = 0.0

    def stuck(self, value: float, time: float, smoothed_load: float | None) -> bool:
        """``smoothed_load``: 0..1 over all CPUs, from ``Smoothed``; None if it is not known."""
        if value != self._value:
            if self._value is not None:
                self._standstills += 1
                self._longest = max(self._longest, time - self._since)
                self._reversals += self._rose is not None and self._rose is not (
                    value > self._value
                )
                self._rose = value > self._value
            self._value, self._since, self._swung = value, time, None
            self._low, self._high = 1.0, 0.0
        if smoothed_load is not None:
            self._low = min(self._low, smoothed_load)
            self._high = max(self._high, smoothed_load)
        if self._swung is None and self._high - self._low >= STUCK_LOAD_SWING:
            self._swung = time
        still_s = time - self._since
        if self._reversals >= NOISY_REVERSALS and self._longest <= NOISY_STANDSTILL_S:
            if still_s >= max(NOISY_AFTER_S, LIVELY_FACTOR * self._longest):
                return True
        if self._swung is None:
            return False
        lively = self._standstills >= LIVELY_STANDSTILLS
        patience = max(LIVELY_AFTER_S, LIVELY_FACTOR * self._longest)
        return still_s >= STUCK_AFTER_S or (lively and time - self._swung >= patience)


@dataclass
class Smoothed:
    """First-order low-pass of a value sampled at uneven times."""

    time_constant_s: float = LOAD_SMOOTHING_S
    value: float | None = None
    _time: float = field(default=0.0)

    def update(self, value: float | None, time: float) -> float | None:
        if value is None:
            return self.value
        if self.value is None:
            self.value = value
        else:
            step = max(0.0, time - self._time)
            self.value += (value - self.value) * (1.0 - math.exp(-step / self.time_constant_s))
        self._time = time
        return self.value


@dataclass
class JumpDetector:
    """Finds a fuel gauge that leaps: 100, 0, 55 % within seconds.

    A charge that moved by more than 15 points since less than 30 s ago is not believed, until
    the gauge has stayed near its new value for a minute (it has relearned, or the battery was
    exchanged).
    """

    _trusted: float | None = None
    _trusted_time: float = 0.0
    _candidate: float = 0.0
    _candidate_since: float | None = None

    def jumped(self, fraction: float, time: float) -> bool:
        if self._trusted is None or self._accepts(fraction, time):
            self._trusted, self._trusted_time = fraction, time
            self._candidate_since = None
            return False
        if self._candidate_since is None or abs(fraction - self._candidate) > JUMP_FRACTION:
            self._candidate, self._candidate_since = fraction, time
        return True

    def _accepts(self, fraction: float, time: float) -> bool:
        assert self._trusted is not None
        if abs(fraction - self._trusted) <= JUMP_FRACTION:
            return True
        if self._candidate_since is None:
            return time - self._trusted_time >= JUMP_WINDOW_S
        settled = abs(fraction - self._candidate) <= JUMP_FRACTION
        return settled and time - self._candidate_since >= JUMP_SETTLES_S
