"""How fast each rung empties the battery: the profile, corrected by what is measured."""

from __future__ import annotations

import math
from typing import Any

from edge_app.governor.energy import Profile
from edge_app.governor.gauge import Gauge
from edge_app.governor.ladder import Ladder
from edge_app.governor.power_fit import PowerFit
from edge_app.governor.state import table
from edge_app.governor.tracking import GAP_S, usable
from edge_app.policy.model import Policy
from edge_app.sensors import Battery

JOULES_PER_WH = 3600.0
POWER_MAX_AGE_S = 60.0
RATE_SMOOTHING_S = 10.0
SLOWEST_SHARE = 0.9
"""A source that gives less than this share of the rung's frame rate cannot give more."""
RATIOS = 0.02, 50.0
"""Of measured to predicted power. Beyond these the driver has its units wrong."""
AGREEMENT = 0.03
"""The energy that a driver gives counts if it fits the charge that it gives to so much."""


class Drain:
    """Charge in use, and charge per second that each rung takes.

    Power is predicted by the profile and, where the battery's driver gives it, corrected by what is
    measured (``PowerFit``). Both are only as good as that driver and that profile; the fall of the
    charge itself corrects them in turn (``Gauge``). ``level``: 0..1, None while it is not known.
    ``stuck``: whether the gauge stands still although charge is used.
    """

    def __init__(self, policy: Policy, ladder: Ladder, profile: Profile) -> None:
        self._gauge = Gauge()
        self._measured: bool | None = None
        self._power_w = 0.0
        self._power_time = -math.inf
        self._source_fps: float | None = None
        self._fps: float | None = None
        self._rung: int | None = None
        self._fit = PowerFit()
        self._profile = profile
        self.stuck = False
        self.replace(policy, ladder, profile)

    def replace(self, policy: Policy, ladder: Ladder, profile: Profile) -> None:
        """Predict for another ladder from now on. With another profile, what was learned of the
        old one's mistakes is forgotten."""
        if profile != self._profile:
            self._gauge.unlearn()
            self._fit, self._measured = PowerFit(), None
            self._power_time = -math.inf
            self._profile = profile
        self._ladder = ladder
        self._start_bits = policy.confidence.start_bits
        self._capacity_wh = policy.battery.capacity_wh
        self._rung = self._fps = None

    @property
    def level(self) -> float | None:
        return self._gauge.level

    def per_second(self) -> list[float] | None:
        """Fraction of charge per second by rung; None while it is not known."""
        per_joule = self._gauge.per_joule
        if per_joule is None:
            return None
        return [per_joule * self._watts(rung) for rung in range(len(self._ladder.rungs))]

    @property
    def certain(self) -> bool:
        """Whether more than the profile and the stated capacity says how fast it empties."""
        return self._measured is True or self._gauge.learned

    def active_w(self, per_second: float) -> float | None:
        """How many of the profile's watts above idling take this fraction of charge per second."""
        per_joule = self._gauge.per_joule
        if per_joule is None or not per_joule * self._fit.gain > 0.0:
            return None
        return per_second / (per_joule * self._fit.gain)

    def update(
        self,
        battery: Battery | None,
        charge: float | None,
        now: float,
        step_s: float,
        rung: int,
        observed_fps: float | None,
        observed_w: float | None,
    ) -> None:
        """Take in ``step_s`` at ``rung``. ``battery`` None: it is not in use. ``charge``: as it
        can be believed now. For what was observed see ``BatteryTracker.update``."""
        self._note_rate(rung, observed_fps, step_s)
        self.stuck = False
        if battery is None or step_s > GAP_S:
            self._gauge.restart()
            self._power_time = -math.inf
            if battery is None:
                return
            step_s = 0.0
        self._gauge.full_j = self._full_j(battery)
        predicted_w = self._predicted(rung) if observed_w is None else observed_w
        spent_w = self._measure(battery, now, step_s, predicted_w)
        self._gauge.spend(spent_w * step_s)
        if charge is not None:
            sure = battery.discharging is True
            self._gauge.read(self._finest(battery, charge, now), sure, step_s)
            self.stuck = sure and self._gauge.stuck

    def state(self) -> dict[str, Any]:
        """What was learned of the battery, JSON-able."""
        return {"measured": self._measured, "gauge": self._gauge.state()}

    def restore(self, state: object) -> None:
        """Take up what ``state`` gave; anything else is ignored."""
        entries = table(state)
        measured = entries.get("measured")
        if isinstance(measured, bool) and self._gauge.restore(entries.get("gauge")):
            self._measured = measured

    def _watts(self, rung: int) -> float:
        """What a rung really takes, as far as is known."""
        predicted = self._predicted(rung)
        return self._fit.predict(predicted - self._profile.idle_w) if self._measured else predicted

    def _predicted(self, index: int) -> float:
        """The profile's watts at a rung where no frame is run twice."""
        rung, source = self._ladder.rungs[index], self._source_fps
        fps = rung.fps
        if source is not None and (fps == 0.0 or fps > source):
            fps = source
        return self._profile.watts(min(rung.bits, self._start_bits), fps)

    def _note_rate(self, rung: int, observed_fps: float | None, step_s: float) -> None:
        """Learn what the source gives from a rung that asks for more."""
        if rung != self._rung:
            # What was observed is partly the other rung's.
            self._rung, self._fps = rung, None
            return
        if observed_fps is None or not (math.isfinite(observed_fps) and observed_fps > 0.0):
            return
        if self._fps is None:
            self._fps = observed_fps
        self._fps += (observed_fps - self._fps) * (1.0 - math.exp(-step_s / RATE_SMOOTHING_S))
        wanted = self._ladder.rungs[rung].fps
        if wanted == 0.0 or self._fps < SLOWEST_SHARE * wanted:
            self._source_fps = self._fps
        elif rung >= self._ladder.full:
            self._source_fps = None

    def _measure(self, battery: Battery, now: float, step_s: float, predicted_w: float) -> float:
        """Watts that are drawn, as well as can be told."""
        power = usable(battery.power, now, POWER_MAX_AGE_S)
        # Its sign is not to be trusted; that the battery is in use is known otherwise.
        watts = 0.0 if power is None else abs(power)
        if predicted_w > 0.0 and RATIOS[0] <= watts / predicted_w <= RATIOS[1]:
            self._count_by(measured=True)
            idle_w = min(self._profile.idle_w, predicted_w)
            self._fit.update(watts, idle_w, predicted_w - idle_w, step_s)
            self._power_w, self._power_time = watts, now
        elif now - self._power_time > POWER_MAX_AGE_S:
            self._count_by(measured=False)
        return self._power_w if self._measured else predicted_w

    def _count_by(self, measured: bool) -> None:
        """Count energy by measured or by predicted power. What was learned of the one says nothing
        of the other."""
        if measured is not self._measured:
            if self._measured is not None:
                self._gauge.unlearn()
                self._fit = PowerFit()
            self._measured = measured

    def _full_j(self, battery: Battery) -> float | None:
        if self._capacity_wh is not None and self._capacity_wh > 0.0:
            return self._capacity_wh * JOULES_PER_WH
        full = battery.full_j
        return full if full is not None and math.isfinite(full) and full > 0.0 else None

    def _finest(self, battery: Battery, charge: float, now: float) -> float:
        """The charge from the energy where that is given, which moves in finer steps."""
        energy = usable(battery.energy, now, POWER_MAX_AGE_S)
        if energy is not None and battery.full_j is not None and battery.full_j > 0.0:
            fine = energy / battery.full_j
            if abs(fine - charge) <= AGREEMENT:
                return min(1.0, max(0.0, fine))
        return charge
