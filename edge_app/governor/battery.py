"""The battery cap: what charge allows."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from edge_app.governor.caps import Cap
from edge_app.governor.energy import Profile
from edge_app.governor.ladder import Ladder
from edge_app.governor.policy import Policy, Tier
from edge_app.governor.tracking import usable
from edge_app.sensors import Battery, Sample

BATTERY_MAX_AGE_S = 60.0
"""Fuel gauges update once a minute at worst."""


def active_tiers(
    charge: float, held: Sequence[bool], tiers: Sequence[Tier], hysteresis: float
) -> tuple[bool, ...]:
    """Which tiers apply at ``charge`` (0..1), given which did before: one that holds ends only
    ``hysteresis`` points above its bound."""
    percent = charge * 100.0
    return tuple(
        percent < tier.below + (hysteresis if was else 0.0)
        for tier, was in zip(tiers, held, strict=True)
    )


def battery_cap(
    charge: float | None, active: Sequence[bool], ladder: Ladder, tiers: Sequence[Tier]
) -> Cap:
    """The strictest of the active tiers. ``charge`` None: no battery, or it does not count."""
    if charge is None:
        return Cap("battery", ladder.top, "no battery in use")
    rung, why = ladder.top, f"battery {charge * 100:.1f} %"
    for tier, applies in zip(tiers, active, strict=True):
        if applies and ladder.at_most(tier.max_bits) <= rung:
            rung = ladder.at_most(tier.max_bits)
            why = f"battery {charge * 100:.1f} %: in the tier below {tier.below:g} %"
    return Cap("battery", rung, why)


class BatteryTracker:
    """Charge and tiers: median of three, running minimum while it discharges."""

    def __init__(self, policy: Policy, ladder: Ladder, profile: Profile) -> None:
        self._policy = policy
        self._ladder = ladder
        self._profile = profile
        self._held: tuple[bool, ...] = (False,) * len(policy.battery.tiers)
        self._raw: deque[float] = deque(maxlen=3)
        self._lowest = 1.0
        self._seen = -math.inf
        self._cap = battery_cap(None, self._held, ladder, policy.battery.tiers)
        self.charge: float | None = None

    def update(
        self, sample: Sample, now: float, current_rung: int, observed_fps: float | None = None
    ) -> Cap:
        """The cap at ``now``."""
        battery = sample.battery
        policy, tiers = self._policy.battery, self._policy.battery.tiers
        self.charge = None
        if not battery.present:
            return battery_cap(None, self._held, self._ladder, tiers)
        value = usable(battery.charge, now, BATTERY_MAX_AGE_S)
        if value is not None and 0.0 <= value <= 1.0:
            self._raw.append(value)
            self.charge = sorted(self._raw)[len(self._raw) // 2]
        if not self._drains(battery) and policy.on_ac == "ignore":
            self._lowest, self._held = 1.0, (False,) * len(tiers)
            self._seen = now
            self._cap = Cap("battery", self._ladder.top, "on external power")
            return self._cap
        if self.charge is None:
            return self._unreadable(now)
        self._seen = now
        if self._drains(battery):
            self._lowest = min(self._lowest, self.charge)
        else:
            self._lowest = self.charge
        self._held = active_tiers(self._lowest, self._held, tiers, policy.hysteresis)
        self._cap = battery_cap(self._lowest, self._held, self._ladder, tiers)
        return self._cap

    @staticmethod
    def _drains(battery: Battery) -> bool:
        """Whether charge is being used; if nothing says so, it is."""
        if battery.discharging is not None:
            return battery.discharging
        return battery.on_ac is not True

    def _unreadable(self, now: float) -> Cap:
        """The last cap, and a rung less for every while it lasts: charge does not wait."""
        if self._seen == -math.inf:
            self._seen = now
        silent = now - self._seen
        steps = int(silent / self._policy.failsafe.battery_step_s)
        rung = max(min(self._ladder.full, self._cap.rung), self._cap.rung - steps)
        return Cap("battery", rung, f"the battery gives no charge for {silent:.0f} s")
