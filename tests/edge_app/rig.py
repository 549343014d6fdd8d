"""A governor on a machine in memory, with its invariants asserted at every step.

``Rig`` joins the real readers, the real governor and a heat that follows what runs; ``Watch``
holds what must be true of any sequence of decisions, whatever was read. The invariants' numbers
are those of docs/governor.md.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise

from fake_root import Machine
from faults import FAULTS
from governor_samples import LEVELS, PROFILE, a_policy

from edge_app.clock import ManualClock
from edge_app.governor import Decision, Governor, Policy
from edge_app.governor.caps import thermal_limits
from edge_app.governor.energy import Profile
from edge_app.sensors import Quality, Sample, Zone
from edge_app.sensors.validators import implausible_temperature

HOUR_S = 3600.0
TICK_S = 1.0
ACTIVE_W = 3.0
CAPS = ("thermal", "battery", "deadline", "load", "throttle", "failsafe", "policy")
ROUNDING_S = 1e-6


def accepted(zone: Zone, now: float, policy: Policy) -> float | None:
    """The temperature of a zone, if it is one that counts."""
    reading, value = zone.reading, zone.reading.value
    if reading.quality is not Quality.OK or value is None or implausible_temperature(value):
        return None
    return value if now - reading.time <= policy.thermal.max_age_s else None


@cache
def policy_of(*overrides: str) -> Policy:
    """The defaults with some keys set; read once, for properties that are tried a thousand times."""
    return a_policy(*overrides)


def governor_of(*overrides: str, clock: ManualClock | None = None) -> Governor:
    """A governor of four levels that starts at the time 0."""
    return Governor(policy_of(*overrides), LEVELS, PROFILE, clock or ManualClock())


@dataclass
class Watch:
    """Asserts the invariants of a governor's decisions, one after the other."""

    governor: Governor
    newest: Decision | None = None
    changed_at: float = -math.inf
    changes: deque[float] = field(default_factory=deque)
    critical: dict[str, int] = field(default_factory=dict)
    seen_at: dict[str, float] = field(default_factory=dict)
    granted: deque[float] = field(default_factory=deque)
    reloaded: bool = False
    seconds_in: dict[int, float] = field(default_factory=dict)
    began: float = 0.0

    def decided(self, sample: Sample, decision: Decision) -> None:
        """Take in what the governor made of a sample."""
        self._stays_on_the_ladder(decision)
        self._critical_means_the_lowest_rung(sample, decision)
        self._blind_means_fail_safe(sample, decision)
        if self.newest is None:
            self.began = decision.time
        else:
            self._one_cause_for_every_change(self.newest, decision)
            self._raises_keep_their_distance(self.newest, decision)
            held = decision.time - self.newest.time
            self.seconds_in[self.newest.rung] = self.seconds_in.get(self.newest.rung, 0.0) + held
        if decision.changed:
            self.changed_at = decision.time
            self._changes_are_few(decision)
        self.newest, self.reloaded = decision, False

    def asked(self, bits: int, margin: float, now: float) -> int | None:
        """Ask for an escalation; what it says stays within the ceiling and the bucket (I12)."""
        granted = self.governor.escalate(bits, margin)
        if granted is None:
            return None
        assert bits < granted <= self.governor.level, "an escalation leads above the ceiling"
        confidence = self.governor.policy.confidence
        self.granted.append(now)
        for ago, since in enumerate(reversed(self.granted), 1):
            allowed = confidence.burst + confidence.max_per_s * (now - since)
            assert ago <= allowed + ROUNDING_S, f"{ago} escalations in {now - since:g} s"
        while now - self.granted[0] > HOUR_S:
            self.granted.popleft()
        return granted

    def reload(self) -> None:
        """A policy has been replaced: the ladder may be another from the next step on."""
        self.reloaded = True
        self.changed_at = self.newest.time if self.newest is not None else -math.inf
        self.granted.clear()

    def _stays_on_the_ladder(self, decision: Decision) -> None:
        """I1."""
        governor, levels = self.governor, self.governor.policy.levels
        assert 0 <= decision.rung <= governor.ladder.top
        rung = governor.ladder.rungs[decision.rung]
        assert decision.bits == rung.bits == governor.level
        assert levels.min_bits <= decision.bits <= levels.max_bits
        assert governor.first_level <= governor.level
        assert governor.first_level in {rung.bits for rung in governor.ladder.rungs}
        assert governor.frame_interval_s == (math.inf if governor.paused else rung.interval_s)
        assert decision.paused == governor.paused

    def _critical_means_the_lowest_rung(self, sample: Sample, decision: Decision) -> None:
        """I2: two readings in a row at the critical temperature."""
        policy = self.governor.policy
        for zone in sample.zones:
            value = accepted(zone, decision.time, policy)
            limit = thermal_limits(zone, policy.thermal).critical_c
            if value is None:
                self.critical.pop(zone.name, None)
            elif self.governor.obeys(zone.name):
                hot = value >= limit
                self.critical[zone.name] = self.critical.get(zone.name, 0) + 1 if hot else 0
        if max(self.critical.values(), default=0) >= 2:
            assert decision.rung == 0, f"critical, but on rung {decision.rung}"

    def _blind_means_fail_safe(self, sample: Sample, decision: Decision) -> None:
        """I8."""
        policy, ladder = self.governor.policy, self.governor.ladder
        for zone in sample.zones:
            if self.governor.obeys(zone.name):
                if accepted(zone, decision.time, policy) is not None:
                    self.seen_at[zone.name] = decision.time
        silent = decision.time - max(self.seen_at.values(), default=decision.time)
        if silent >= policy.failsafe.after_s:
            allowed = ladder.at_most(policy.failsafe.lost_thermal_sensor_bits)
            assert decision.rung <= allowed, f"blind for {silent:g} s on rung {decision.rung}"
        if decision.distrusted and self.newest is not None and not self.reloaded:
            assert decision.rung <= self.newest.rung, "raised while a sensor is distrusted"

    def _one_cause_for_every_change(self, before: Decision, decision: Decision) -> None:
        """I15."""
        assert decision.time >= before.time
        assert decision.cause in (*CAPS, "none")
        assert set(decision.caps) <= set(CAPS)
        if self.reloaded:
            return
        assert decision.changed == (decision.rung != before.rung)
        assert decision.previous_bits == before.bits
        if decision.rung < before.rung:
            assert decision.cause in decision.caps, "lowered without a cap that says so"
            assert decision.caps[decision.cause] == min(decision.caps.values())
        # What costs as much as what ran is no rung on the way down.
        costs = {rung.cost for rung in self.governor.ladder.rungs[decision.rung : before.rung + 1]}
        if decision.rung < before.rung - 1 and len(costs) > 2:
            least = min(decision.caps["thermal"], decision.caps["failsafe"])
            assert decision.bits >= least, "fell faster than anything urgent asked for"

    def _raises_keep_their_distance(self, before: Decision, decision: Decision) -> None:
        """I3, and one step at a time: a rung, or several that cost the same."""
        ladder = self.governor.ladder
        if self.reloaded or decision.rung <= before.rung:
            return
        costs = {rung.cost for rung in ladder.rungs[before.rung + 1 : decision.rung + 1]}
        assert len(costs) == 1, "raised by more than a step"
        assert decision.bits <= min(decision.caps.values()), "raised above a cap"
        apart = decision.time - self.changed_at
        dwell = self.governor.policy.stability.raise_dwell_s
        assert apart >= dwell - ROUNDING_S, f"raised {apart:g} s after a change"
        assert decision.rung <= ladder.top

    def _changes_are_few(self, decision: Decision) -> None:
        """I4: a raise and the lowering that follows for each dwell, after a first descent."""
        self.changes.append(decision.time)
        while decision.time - self.changes[0] > HOUR_S:
            self.changes.popleft()
        dwell = self.governor.policy.stability.raise_dwell_s
        limit = 2 * HOUR_S / dwell + self.governor.ladder.top
        assert len(self.changes) <= limit, f"{len(self.changes)} changes in an hour"


@dataclass
class Heat:
    """One thermal node: temperature settles at ambient + K/W x W, as fast as ``settle_s``."""

    ambient_c: float = 25.0
    k_per_w: float = 8.0
    idle_w: float = 2.0
    w_per_bit: float = 0.5
    settle_s: float = 120.0
    celsius: float = 40.0

    def second(self, cost: float, seconds: float = TICK_S) -> float:
        """The temperature after ``seconds`` with a rung of that cost."""
        steady = self.ambient_c + self.k_per_w * (self.idle_w + self.w_per_bit * cost)
        self.celsius += (steady - self.celsius) * (1.0 - math.exp(-seconds / self.settle_s))
        return self.celsius


class Rig:
    """A machine, its readers, a governor, and the watch over it.

    ``heat``: what the first zone's temperature follows; None leaves it to the test. The batteries
    give what the profile says of the rung that runs, times ``power_error``.
    """

    def __init__(
        self,
        machine: Machine | None = None,
        *overrides: str,
        profile: Mapping[int, float] = PROFILE,
        heat: Heat | None = None,
        power_error: float = 1.0,
    ) -> None:
        self.machine = Machine() if machine is None else machine
        self.sensors = self.machine.sensors()
        self.heat = heat
        self.profile = profile
        self.power_error = power_error
        self.policy = policy_of(*overrides)
        self.governor = self.new_governor()
        self.watch = Watch(self.governor)
        self.sample: Sample | None = None

    def new_governor(self) -> Governor:
        return Governor(self.policy, LEVELS, self.profile, self.machine.clock)

    def second(self, seconds: float = TICK_S) -> Decision:
        """Pass a second, read, decide, and hold the invariants against it."""
        rung = self.governor.ladder.rungs[self.watch.newest.rung if self.watch.newest else 0]
        idle = self.governor.paused
        costs = Profile.from_seconds(self.profile, self.policy.energy.idle_w, ACTIVE_W)
        for pack in self.machine.packs.values():
            watts = costs.idle_w if idle else costs.watts(rung.bits, rung.fps)
            pack.power_w = watts * self.power_error / len(self.machine.packs)
        self.machine.tick(seconds)
        if self.heat is not None:
            zone = next(iter(self.machine.celsius))
            self.machine.celsius[zone] = self.heat.second(0.0 if idle else rung.cost, seconds)
        sample = self.sensors.sample()
        self.sample = replace(sample, wall=self.machine.wall)
        decision = self.governor.step(self.sample)
        self.watch.decided(self.sample, decision)
        return decision

    def run(self, seconds: int, each: Callable[[int], None] | None = None) -> list[Decision]:
        """One step a second; ``each`` is called before every one with its number."""
        decisions = []
        for second in range(seconds):
            if each is not None:
                each(second)
            decisions.append(self.second())
        return decisions

    def frames(self, slowdown: float, count: int = 20) -> None:
        """Some frames that take ``slowdown`` times their profile."""
        for _ in range(count):
            bits = self.governor.level
            self.governor.observe_latency(bits, self.profile[bits] * slowdown)

    def reload(self, *overrides: str) -> None:
        """Another policy, from the next step on."""
        self.policy = policy_of(*overrides)
        self.governor.replace_policy(self.policy)
        self.watch.reload()


def begin(rig: Rig, name: str, calm_s: int = 30) -> None:
    """Some calm, in which the highest level runs, and then the fault."""
    assert rig.run(calm_s)[-1].bits == 8
    FAULTS[name].begin(rig.machine)


def events(decisions: list[Decision]) -> list[str]:
    """The kinds of all events, in order."""
    return [event.kind for decision in decisions for event in decision.events]


def changes(decisions: list[Decision]) -> int:
    return sum(a.rung != b.rung for a, b in pairwise(decisions))
