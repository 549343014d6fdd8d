"""Throttling that no thermometer tells of, and thermometers that lie.

How much slower frames run than their profile is a second thermometer: a chip that holds its
frequency down because of heat is slow, whatever its temperature file says. So is one whose power
supply is too weak. While such pressure lasts, the throttle cap goes down rung by rung; if the
thermometers claim to be cool meanwhile, they are not believed any more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_app.governor.backdown import Backdown
from edge_app.governor.caps import Cap
from edge_app.governor.decision import Event
from edge_app.governor.ladder import Ladder
from edge_app.governor.state import age, number, rows, since, text
from edge_app.policy.model import DAY_S, Policy

MOVED_C = 1.0
"""A thermometer that is not believed must move by this before it is again. The fall to the fail-safe
level alone moves a working one by more; one that flickers by its last digit is not enough."""
FADING = 0.2
"""Seconds of evidence that a second without any takes away."""
MOST_WEIGHT = 4.0
"""Frames that are twice as much too slow as is suspicious tell twice as much; up to this."""


@dataclass(frozen=True)
class Evidence:
    """What is known at one time.

    ``slowdown``: how many times its profile a frame takes; None if there was none lately.
    ``throttled``: whether the kernel or the firmware says that it throttles. ``others_idle``:
    whether other programs are known to leave the CPU alone. ``cool``: whether even the hottest
    thermometer is below where heat counts. ``temperatures``: of all thermometers that give one, by
    name.
    """

    slowdown: float | None = None
    throttled: bool = False
    under_voltage: bool = False
    others_idle: bool = False
    cool: bool = False
    temperatures: Mapping[str, float] = field(default_factory=dict)


class Lasting:
    """For how long something has held without a break."""

    def __init__(self) -> None:
        self.start = math.inf

    def update(self, holds: bool, now: float) -> float:
        """Seconds up to ``now``; -inf while it does not hold."""
        self.start = min(self.start, now) if holds else math.inf
        return now - self.start


class Mounting:
    """Evidence that adds up while it is there and fades, five times as slowly, while it is not.

    A governor that keeps its deadline by lowering the level cools the chip: a throttled one is
    slow again and again for some seconds, and seldom for long.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._time = math.inf
        self._weight = 0.0

    def update(self, weight: float, now: float) -> float:
        """Seconds of evidence up to ``now``, where it has ``weight``; 0 is none."""
        step = max(0.0, now - self._time)
        gained = min(weight, self._weight) * step if weight > 0 else -FADING * step
        self.seconds = max(0.0, self.seconds + gained)
        self._time, self._weight = now, weight
        return self.seconds


class Episode:
    """Begins when something is seen and ends when it has not been seen for a while, so that what
    flickers is told of once."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._seen_at = -math.inf
        self._on = False

    def update(self, reason: str, now: float, quiet_s: float) -> tuple[Event, ...]:
        """``reason`` is empty while it is not seen."""
        if reason:
            begins, self._on, self._seen_at = not self._on, True, now
            return (Event(self._kind, reason),) if begins else ()
        if self._on and now - self._seen_at >= quiet_s:
            self._on = False
            return (Event(f"{self._kind}_over", f"not seen for {quiet_s:g} s"),)
        return ()


class HiddenThrottle:
    """The throttle cap and the distrust of thermometers.

    ``distrusted``: names of thermometers that are readable and not believed, ``detail`` says why.
    The way out: one of the thermometers gives sound readings that have moved and nothing throttles
    for ``failsafe.recover_s``; or none has moved, for a device may settle where it was, and nothing
    has throttled for ``stability.forget_s``. Twice as long each time it happens again, up to the
    longest dwell or a day.
    """

    def __init__(self, policy: Policy, ladder: Ladder) -> None:
        self._policy = policy
        self._backdown = Backdown(ladder, 0, policy.throttle.step_s)
        self._why = "nothing throttles the CPU"
        self._hidden, self._lie = Lasting(), Mounting()
        self._sound, self._quiet = Lasting(), Lasting()
        self._throttled, self._weak_supply = Episode("throttled"), Episode("under_voltage")
        self._reference: dict[str, float] = {}
        self._moved: set[str] = set()
        self._times = 0
        self.distrusted: tuple[str, ...] = ()
        self.detail = ""
        self.events: list[Event] = []

    def update(self, evidence: Evidence, current: int, now: float) -> Cap:
        """The cap at ``now``; ``current`` is the rung that runs."""
        throttle = self._policy.throttle
        reason = self._suspicion(evidence)
        hidden = bool(reason) and not evidence.throttled
        hidden_s = self._hidden.update(hidden, now)
        self._judge(evidence, reason, now)
        seen = reason if evidence.throttled or hidden_s >= throttle.after_s else ""
        supply = "weak power supply: its voltage is too low" if evidence.under_voltage else ""
        self.events += self._throttled.update(seen, now, throttle.step_s)
        self.events += self._weak_supply.update(supply, now, throttle.step_s)
        self._why = seen or supply or self._why
        rung = self._backdown.update(bool(seen or supply), current, now)
        return Cap("throttle", rung, self._why)

    def restart(self) -> None:
        """After a gap in which nobody looked, nothing has lasted."""
        self._hidden, self._lie = Lasting(), Mounting()
        self._sound, self._quiet = Lasting(), Lasting()

    def replace_policy(self, policy: Policy, ladder: Ladder) -> None:
        """Go on under another policy with its ladder."""
        self._policy = policy
        self._backdown.replace(ladder, 0, policy.throttle.step_s)

    def _slow(self, evidence: Evidence) -> bool:
        slowdown = evidence.slowdown
        return slowdown is not None and slowdown > self._policy.throttle.slowdown

    def _suspicion(self, evidence: Evidence) -> str:
        """What speaks for throttling at this moment; empty if nothing does."""
        if evidence.throttled:
            return "the kernel throttles the CPU"
        if self._slow(evidence) and evidence.others_idle:
            return f"frames take {evidence.slowdown:.2f} times their profile"
        return ""

    def _judge(self, evidence: Evidence, reason: str, now: float) -> None:
        """Believe the thermometers or not."""
        weight = self._weight(evidence) if reason and evidence.cool else 0.0
        lying = self._lie.update(weight, now)
        if not self.distrusted:
            if lying >= self._policy.throttle.after_s and evidence.temperatures:
                self._distrust(evidence.temperatures, reason)
            return
        for name, celsius in evidence.temperatures.items():
            if abs(celsius - self._reference.setdefault(name, celsius)) >= MOVED_C:
                self._moved.add(name)
        # Slow because of others is no sign of trouble, but none of health either.
        quiet = bool(evidence.temperatures) and not (evidence.throttled or self._slow(evidence))
        quiet_s = self._quiet.update(quiet, now)
        moves = quiet and any(name in self._moved for name in evidence.temperatures)
        names = ", ".join(self.distrusted)
        if self._sound.update(moves, now) >= self._recover_s:
            self._trust(f"{names} moves and nothing throttles any more")
        elif quiet_s >= self._forget_s:
            self._trust(f"nothing has throttled for {quiet_s / 60.0:.0f} min; {names} is believed")

    def _weight(self, evidence: Evidence) -> float:
        """1 for frames that are just slow enough to be suspicious, more for slower ones."""
        slowdown, suspicious = evidence.slowdown, self._policy.throttle.slowdown
        if slowdown is None:
            return 1.0
        return min(max(1.0, (slowdown - 1.0) // (suspicious - 1.0)), MOST_WEIGHT)

    def _distrust(self, temperatures: Mapping[str, float], reason: str) -> None:
        self.distrusted = tuple(sorted(temperatures))
        self._reference, self._moved = dict(temperatures), set()
        self._sound, self._quiet, self._lie = Lasting(), Lasting(), Mounting()
        self._times += 1
        claims = ", ".join(f"{name} {temperatures[name]:.1f} °C" for name in self.distrusted)
        self.detail = f"{claims} is not believed: {reason}"
        self.events.append(Event("distrusted", self.detail))

    def _trust(self, reason: str) -> None:
        self.events.append(Event("trusted", reason))
        self.distrusted, self.detail = (), ""
        # What spoke against them meanwhile has been answered.
        self._lie = Mounting()

    @property
    def _recover_s(self) -> float:
        """Seconds of sound readings that move until thermometers are believed again."""
        return self._doubled(
            self._policy.failsafe.recover_s, self._policy.stability.raise_backoff_max_s
        )

    @property
    def _forget_s(self) -> float:
        """Seconds without throttling until they are believed again, unmoved."""
        return self._doubled(self._policy.stability.forget_s, DAY_S)

    def _doubled(self, first: float, longest: float) -> float:
        """Twice as long each time that thermometers were distrusted."""
        # The exponent is bounded because nothing else bounds it on a device that runs for years.
        return min(first * 2.0 ** min(self._times - 1, 16), max(first, longest))

    def state(self, now: float) -> dict[str, Any]:
        """What a restart must not forget."""
        return {
            "steps": self._backdown.steps,
            "hidden_s": age(self._hidden.start, now),
            "lie_s": self._lie.seconds,
            "times": self._times,
            "distrusted": [[name, self._reference.get(name)] for name in self.distrusted],
            "detail": self.detail,
        }

    def restore(self, state: Mapping[str, Any], now: float) -> None:
        """Take over what ``state`` tells; what it does not tell stays as it is."""
        self._backdown.restore(int(number(state.get("steps"), 0, 64) or 0), now)
        start = since(state.get("hidden_s"), now)
        self._hidden.start = start if math.isfinite(start) else math.inf
        self._lie.seconds = number(state.get("lie_s"), 0, 1e9) or 0.0
        self._times = int(number(state.get("times"), 0, 1e9) or 0)
        known = {
            name: number(celsius, -273.15, 1000.0)
            for name, celsius in rows(state.get("distrusted"), 2)
            if text(name)
        }
        self.distrusted = tuple(sorted(known))
        self._reference = {name: value for name, value in known.items() if value is not None}
        if self.distrusted:
            self.detail = text(state.get("detail")) or "not believed before the restart"
            self._times = max(1, self._times)
