"""The battery cap: tiers by charge, and the budget for `until`.

The tracker sees samples only. Readings that are not sound, or too old, count as silence: then the
last cap holds and falls a rung every while, for charge does not wait.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edge_app.governor.budget import Budget
from edge_app.governor.caps import Cap
from edge_app.governor.decision import Event
from edge_app.governor.drain import Drain
from edge_app.governor.energy import Profile
from edge_app.governor.ladder import Ladder
from edge_app.governor.state import number, table
from edge_app.governor.tracking import usable
from edge_app.governor.until import EndTime, duration
from edge_app.policy.model import Policy, Tier
from edge_app.sensors import Battery, Sample

BATTERY_MAX_AGE_S = 60.0
"""Fuel gauges update once a minute at worst."""
AC_SETTLES_S = 60.0
"""A charger that is there for less is a loose contact: the discharge that it interrupts goes on."""
DOUBT = 0.25
"""How much more power than a profile says a device may well take while nothing was measured."""
RECHARGED = 0.05
"""More charge than before a restart of the program by so much: it was charged in between."""
NO_BATTERY = "no battery in use"


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
        return Cap("battery", ladder.top, NO_BATTERY)
    rung, why = ladder.top, f"battery {charge * 100:.1f} %"
    for tier, applies in zip(tiers, active, strict=True):
        if applies and ladder.at_most(tier.max_bits) <= rung:
            rung = ladder.at_most(tier.max_bits)
            why = f"battery {charge * 100:.1f} %: in the tier below {tier.below:g} %"
    return Cap("battery", rung, why)


def drains(battery: Battery) -> bool:
    """Whether charge is being used; if nothing says so, it is."""
    if battery.discharging is not None:
        return battery.discharging
    return battery.on_ac is not True


class BatteryTracker:
    """Charge, tiers and budget over time: median of three, running minimum while it discharges.

    ``charge``: 0..1, None if it cannot be read. ``end_s``: seconds until the reserve is reached at
    the rung that runs; ``until_s``: seconds to the policy's `until`; ``spare_w``: watts, in the
    profile's measure, that may be spent beside that rung and `until` is still reached. None where
    nothing can be said or nothing limits.
    """

    def __init__(self, policy: Policy, ladder: Ladder, profile: Profile) -> None:
        self._raw: deque[float] = deque(maxlen=3)
        self._lowest = 1.0
        self._restored: float | None = None
        self._expected = False
        self._time: float | None = None
        self._seen = -math.inf
        self._lost = False
        self._ac_since: float | None = None
        self._events: list[Event] = []
        self._end = EndTime(policy.battery.until)
        self._drain = Drain(policy, ladder, profile)
        self._configure(policy, ladder)
        self._cap = Cap("battery", ladder.top, NO_BATTERY)
        self.charge: float | None = None
        self.end_s: float | None = None
        self.until_s: float | None = None
        self.spare_w: float | None = None

    def replace(self, policy: Policy, ladder: Ladder, profile: Profile) -> None:
        """Another policy from now on; what is known of the battery stays."""
        if policy.battery.until != self._policy.battery.until:
            self._end = EndTime(policy.battery.until)
        self._drain.replace(policy, ladder, profile)
        # While the battery cannot be read the old cap goes on.
        held = self._ladder.rungs[self._cap.rung]
        self._cap = replace(self._cap, rung=ladder.not_above(held))
        self._configure(policy, ladder)

    def events(self) -> tuple[Event, ...]:
        """What has happened since the last call."""
        happened, self._events = tuple(self._events), []
        return happened

    def state(self) -> dict[str, Any]:
        """What a restart of the program must not forget. JSON-able, without times."""
        lowest = self._lowest if self._restored is None else self._restored
        return {"lowest": lowest, "drain": self._drain.state()}

    def restore(self, state: object) -> None:
        """Take up what ``state`` gave. Anything else in it is ignored."""
        entries = table(state)
        self._restored = number(entries.get("lowest"), 0.0, 1.0)
        self._drain.restore(entries.get("drain"))

    def update(
        self,
        sample: Sample,
        now: float,
        current_rung: int,
        observed_fps: float | None = None,
        observed_w: float | None = None,
    ) -> Cap:
        """The cap at ``now``. ``observed_fps``: frames a second that ran since the last call;
        ``observed_w``: what they should have taken by the profile, idling included."""
        step_s = 0.0 if self._time is None else max(0.0, now - self._time)
        self._time = now
        event = self._end.update(sample.wall, now)
        self.until_s = None if self._end.at is None else self._end.at - now
        self.charge = self.end_s = self.spare_w = None
        battery = sample.battery
        if not (battery.present or self._expected):
            return battery_cap(None, self._held, self._ladder, self._policy.battery.tiers)
        self._expected = True
        if event is not None:
            self._events.append(event)
        charge = usable(battery.charge, now, BATTERY_MAX_AGE_S) if battery.present else None
        if charge is not None and 0.0 <= charge <= 1.0:
            self._raw.append(charge)
            self.charge = sorted(self._raw)[len(self._raw) // 2]
        in_use = drains(battery)
        self._drain.update(
            battery if in_use else None,
            self.charge,
            now,
            step_s,
            current_rung,
            observed_fps,
            observed_w,
        )
        if not in_use:
            self._powered(now)
            if self._policy.battery.on_ac == "ignore":
                self._seen = now
                self._cap = Cap("battery", self._ladder.top, "on external power")
                return self._cap
        else:
            self._ac_since = None
        if self.charge is None:
            return self._unreadable(now)
        self._found(now)
        return self._readable(self.charge, now, in_use, current_rung)

    def _configure(self, policy: Policy, ladder: Ladder) -> None:
        battery = policy.battery
        self._policy = policy
        self._ladder = ladder
        self._held: tuple[bool, ...] = (False,) * len(battery.tiers)
        self._budget = Budget(
            ladder.top,
            battery.reserve * 0.01,
            [(tier.below * 0.01, ladder.at_most(tier.max_bits)) for tier in battery.tiers],
            battery.budget_s,
            battery.budget_raise_s,
        )
        self._planned = False
        self._told: set[str] = set()

    def _powered(self, now: float) -> None:
        """Something else supplies the device."""
        if self._ac_since is None:
            self._ac_since = now
        if now - self._ac_since >= AC_SETTLES_S:
            self._lowest, self._restored = 1.0, None
            self._held = (False,) * len(self._held)
            self._budget.restart()
            self._planned = False
            self._told.clear()

    def _readable(self, charge: float, now: float, in_use: bool, current: int) -> Cap:
        battery = self._policy.battery
        if self._restored is not None:
            if charge <= self._restored + RECHARGED:
                self._lowest = self._restored
            self._restored = None
        self._lowest = min(self._lowest, charge) if in_use else charge
        self._held = active_tiers(self._lowest, self._held, battery.tiers, battery.hysteresis)
        self._cap = battery_cap(self._lowest, self._held, self._ladder, battery.tiers)
        if in_use:
            budget = self._budgeted(now, current)
            if budget is not None and budget.rung < self._cap.rung:
                self._cap = budget
        return self._cap

    def _budgeted(self, now: float, current: int) -> Cap | None:
        """What the budget allows; None if it has nothing to say."""
        level, drain = self._drain.level, self._drain.per_second()
        budget, need_s = self._budget, self.until_s
        if level is not None and drain is not None:
            self.end_s = budget.lasts_s(level, current, drain)
        if self._policy.battery.until is None:
            return None
        if need_s is None:
            text = f"until {self._end.name}: this device does not know the time of day"
            self._tell_once("no_clock", text)
            return None
        if level is None or drain is None:
            text = "the battery does not say what it holds: it is learned from the first percents; "
            self._tell_once("capacity_unknown", text + "set battery.capacity_wh to know it at once")
            return None
        if self._drain.stuck:
            text = f"the gauge stands at {self._lowest:.0%} although charge is used; "
            self._tell_once("gauge_stuck", text + "what is left is counted by the power model")
        was_short = budget.short
        rung = budget.update(level, need_s, drain, now)
        self.spare_w = self._drain.active_w(budget.spare(level, need_s, drain[current]))
        self._declare(was_short, need_s, level, drain, now)
        name, left = self._end.name, duration(need_s)
        why = f"battery {level * 100:.1f} % must last until {name}, {left}"
        if budget.short:
            why = f"battery {level * 100:.1f} % {self._shortage(level, drain, now)}"
        elif rung < self._ladder.top:
            above = budget.lasts_s(level, rung + 1, drain)
            point = self._ladder.rungs[rung + 1].name
            why += f"; at {point} it would last until {self._end.shown(above, now)}"
        return Cap("battery", rung, why)

    def _declare(
        self, was_short: bool, need_s: float, level: float, drain: Sequence[float], now: float
    ) -> None:
        """Say at the start whether `until` can be reached, and later if that changes."""
        short, name = self._budget.short, self._end.name
        if short and not (was_short and self._planned):
            self._events.append(Event("cannot_last", self._shortage(level, drain, now)))
        elif not short and (was_short or not self._planned):
            doubtful = self._budget.lasts_s(level, 0, [rate * (1.0 + DOUBT) for rate in drain])
            point = self._ladder.rungs[self._budget.rung].name
            kind, text = "can_last", f"can last until {name}, {duration(need_s)}"
            if doubtful < need_s and not self._drain.certain:
                end = self._end.shown(doubtful, now)
                kind, text = (
                    "may_not_last",
                    f"may last until {name}, {duration(need_s)}, or only until {end}",
                )
            self._events.append(Event(kind, f"{text}; allows {point} now"))
        self._planned = True

    def _shortage(self, level: float, drain: Sequence[float], now: float) -> str:
        point = self._ladder.rungs[0].name
        end = self._end.shown(self._budget.lasts_s(level, 0, drain), now)
        return f"cannot last until {self._end.name}: at {point} it lasts until {end}"

    def _tell_once(self, kind: str, text: str) -> None:
        """An event, once in each discharge."""
        if kind not in self._told:
            self._told.add(kind)
            self._events.append(Event(kind, text))

    def _unreadable(self, now: float) -> Cap:
        """The last cap, and a rung less for every while it lasts."""
        if self._seen == -math.inf:
            self._seen = now
        if self._policy.battery.until is not None:
            self.spare_w = 0.0  # What is not known to be there is not spent.
        failsafe, silent = self._policy.failsafe, now - self._seen
        if silent >= failsafe.after_s and not self._lost:
            self._lost = True
            text = f"the battery gives no charge for {silent:.0f} s; the level falls a step every "
            self._events.append(Event("battery_lost", text + f"{failsafe.battery_step_s:g} s"))
        steps = int(silent / failsafe.battery_step_s)
        rung = max(min(self._ladder.full, self._cap.rung), self._cap.rung - steps)
        return Cap("battery", rung, f"the battery gives no charge for {silent:.0f} s")

    def _found(self, now: float) -> None:
        self._seen = now
        if self._lost:
            self._lost = False
            self._events.append(Event("battery_back", "the battery gives its charge again"))
