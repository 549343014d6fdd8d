"""The governor: takes in samples, asks every cap, and lets the arbiter move the rung.

What heat, battery, deadline, load, throttling and blindness allow is decided in modules of their
own; this one knows who needs what, and what both threads share.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from edge_app.clock import Clock
from edge_app.errors import EXIT_USAGE, AppError
from edge_app.governor.arbiter import Arbiter
from edge_app.governor.battery import BatteryTracker
from edge_app.governor.caps import (
    NO_THERMOMETER,
    Cap,
    deadline_cap,
    failsafe_cap,
    thermal_cap,
)
from edge_app.governor.decision import Decision, Event
from edge_app.governor.frames import Frames, Given
from edge_app.governor.hidden import Evidence, HiddenThrottle
from edge_app.governor.ladder import Ladder, Rung, build_ladder
from edge_app.governor.load import LOAD_MAX_AGE_S, LoadCap, others_idle
from edge_app.governor.state import SCHEMA, finite, table
from edge_app.governor.tracking import GAP_S, Sight, ThermalTracker, usable
from edge_app.governor.wallclock import WallClock
from edge_app.policy.model import Policy
from edge_app.sensors import Sample
from edge_app.sensors.validators import Smoothed

PACES = 10
"""Samples of the CPU's frequency that are looked back upon."""


class Governor:
    """Decides which level runs. One slow loop calls ``step`` about once a second; the frame path
    reads ``level``, ``first_level``, ``frame_interval_s`` and ``paused`` and calls
    ``observe_latency`` and ``escalate``.

    ``levels``: bits of the model's levels. ``profile``: what each costs on the undisturbed machine;
    a mapping from bits to seconds stands for the policy's stated model of energy. AppError if the
    policy permits none of the levels.

    Until the first step the lowest rung holds. Plain attributes are all that the threads share:
    the frame path takes no lock.
    """

    def __init__(
        self,
        policy: Policy,
        levels: Sequence[int],
        profile: Given,
        clock: Clock,
    ) -> None:
        self.policy = policy
        self._levels = tuple(levels)
        self._clock = clock
        self._frames = Frames(policy, profile, clock.now())
        self.ladder = self._ladder(policy)
        self._thermal = ThermalTracker(policy)
        self._battery = BatteryTracker(policy, self.ladder, self._frames.profile)
        self._throttle = HiddenThrottle(policy, self.ladder)
        self._load = LoadCap(policy, self.ladder)
        self._paces: deque[float] = deque(maxlen=PACES)
        self._effort = Smoothed()
        self._wall = WallClock()
        self._arbiter = Arbiter(self.ladder, policy.stability, self._limited)
        self._time: float | None = None
        self._next_policy: Policy | None = None
        self._next_profile: Given | None = None
        self._publish()

    # What the frame path uses ------------------------------------------------------------------

    @property
    def level(self) -> int:
        """Bits that a frame may run at most now."""
        return self._level

    @property
    def first_level(self) -> int:
        """Bits that a frame starts with: those of ``confidence.start_bits``, as far as allowed."""
        return self._first_level

    @property
    def frame_interval_s(self) -> float:
        """Least seconds from one frame to the next; infinite while paused."""
        return self._interval

    @property
    def paused(self) -> bool:
        """Whether no frame may run: the device is about to shut itself down."""
        return self._paused

    def observe_latency(self, bits: int, seconds: float) -> None:
        """One inference at ``bits`` took ``seconds``."""
        self._frames.observe(bits, seconds)

    def escalate(self, bits: int, margin: float) -> int | None:
        """Bits at which to run again a frame whose two highest probabilities were ``margin`` apart
        at ``bits``; the budget is charged for it. None: keep the result."""
        ceiling = bits if self._paused else self._level
        return self._frames.escalate(bits, ceiling, margin, self._clock.now())

    # What the slow loop uses -------------------------------------------------------------------

    @property
    def slowdown(self) -> float:
        """How many times its profile a frame takes at present."""
        return self._frames.slowdown.mean

    def obeys(self, zone: str) -> bool:
        """Whether the policy names this thermal zone."""
        return self._thermal.obeys(zone)

    def replace_policy(self, policy: Policy) -> None:
        """Decide by ``policy`` from the next step on. What is known of sensors stays, nothing is
        raised without a dwell. May be called from any thread. AppError, and everything stays as
        it is, if the policy permits none of the model's levels."""
        self._ladder(policy)
        self._next_policy = policy

    def replace_profile(self, profile: Given) -> None:
        """Another model with the same levels runs, and costs ``profile``, from the next step on. May
        be called from any thread."""
        self._next_profile = profile

    def fail_safe(self, reason: str) -> Decision:
        """Go to the lowest rung because the governor cannot do its work any more."""
        now = self._clock.now()
        before = self._arbiter.point
        self._arbiter.fall(now)
        self._publish()
        caps = {"failsafe": self._arbiter.point.bits}
        events = (Event("failsafe", reason),)
        reasons = {"failsafe": reason}
        return self._decision(now, before, "failsafe", caps, reason, None, events, reasons)

    def step(self, sample: Sample) -> Decision:
        """Take in a sample and decide. No I/O."""
        first = self._time is None
        now, step_s = self._advance(sample.time)
        before = self._arbiter.point
        events = self._adopt(now) + self._watch_time(sample, now, step_s)
        caps = self._caps(sample, now, step_s)
        move = self._arbiter.move(caps, now)
        self._publish()
        after = self._arbiter.point
        self._effort.update(0.0 if self._paused else after.cost / self.ladder.rungs[-1].cost, now)
        # A policy that changes the rate itself leaves no cap that could bind.
        cause = "policy" if move.cause == "none" and after != before and not first else move.cause
        in_bits = {cap.name: self.ladder.rungs[cap.rung].bits for cap in caps}
        # Of what has risen or will, the cap that had held it down has the most to say.
        why = next((cap.why for cap in caps if cap.name == cause), move.binding.why)
        if self._paused:
            why = f"{why}; paused"
        elif move.wait_s is not None:
            allowed = in_bits[move.binding.name]
            why = f"{why}; allows {allowed} bits, next raise in {move.wait_s:.0f} s"
        events += self._collect_events(first)
        start = after if first else before
        reasons = {cap.name: cap.why for cap in caps}
        return self._decision(now, start, cause, in_bits, why, move.wait_s, events, reasons)

    def _advance(self, time: float) -> tuple[float, float]:
        """A time that never goes backwards, and how far it went."""
        known = finite(time)
        if self._time is None:
            self._time = 0.0 if known is None else known
            return self._time, 0.0
        now = self._time if known is None else max(self._time, known)
        step_s, self._time = now - self._time, now
        return now, step_s

    def _adopt(self, now: float) -> tuple[Event, ...]:
        """Take up another policy or another model; either makes another ladder."""
        given, self._next_profile = self._next_profile, None
        reloaded, self._next_policy = self._next_policy, None
        policy = self.policy = reloaded or self.policy
        if given is not None:
            self._frames.replace_profile(policy, given)
        elif reloaded is not None:
            self._frames.replace_policy(policy)
        else:
            return ()
        self.ladder = self._ladder(policy)
        self._thermal.replace_policy(policy)
        self._battery.replace(policy, self.ladder, self._frames.profile)
        self._throttle.replace_policy(policy, self.ladder)
        self._load.replace_policy(policy, self.ladder)
        self._arbiter.replace(self.ladder, policy.stability, self._limited, now)
        if reloaded is None:
            return ()
        return (Event("policy_reloaded", f"policy {policy.name} applies from now on"),)

    def _watch_time(self, sample: Sample, now: float, step_s: float) -> tuple[Event, ...]:
        """After a suspend or a jump of the wall clock nothing has been allowed for long."""
        events: tuple[Event, ...] = ()
        jump_s = self._wall.update(sample.wall, now)
        if step_s > GAP_S:
            self._throttle.restart()
            events += (Event("suspended", f"no sample for {step_s:.0f} s"),)
        if jump_s:
            events += (Event("clock_jump", f"the wall clock jumped by {jump_s:+.0f} s"),)
        if events:
            self._arbiter.restart(now)
        return events

    def _caps(self, sample: Sample, now: float, step_s: float) -> list[Cap]:
        """All caps; of two that allow the same the first is named."""
        policy, ladder, current = self.policy, self.ladder, self._arbiter.rung
        self._thermal.update(sample, now, step_s, self._effort.value)
        use = self._frames.look(now)
        heat = thermal_cap(self._thermal.heat, current, ladder, policy)
        throttle = self._throttle.update(self._evidence(sample, now), current, now)
        sight = self._thermal.sight
        if self._throttle.distrusted and sight.state != "lost":
            sight = Sight("lost", self._throttle.detail)
        fps, watts = (None, None) if use is None else (use.fps, use.watts)
        battery = self._battery.update(sample, now, current, fps, watts)
        self._frames.spare(self._battery.spare_w)
        return [
            heat,
            battery,
            deadline_cap(
                self._frames.slowdown.mean,
                self._frames.slowdown.deviation,
                self._frames.seconds,
                current,
                ladder,
                policy.frame.deadline_ms * 1e-3,
            ),
            self._load.update(sample, current, now),
            throttle,
            failsafe_cap(sight.state, sight.detail, current, ladder, policy),
            Cap("policy", ladder.top, f"policy {policy.name} allows {ladder.rungs[-1].bits} bits"),
        ]

    def _evidence(self, sample: Sample, now: float) -> Evidence:
        """What speaks for and against throttling."""
        return Evidence(
            slowdown=self._unexplained_slowdown(sample, now),
            throttled=usable(sample.throttled, now, LOAD_MAX_AGE_S) == 1.0,
            under_voltage=usable(sample.under_voltage, now, LOAD_MAX_AGE_S) == 1.0,
            others_idle=others_idle(sample, self.policy.load, now),
            cool=self._thermal.cool(),
            temperatures=self._thermal.temperatures(),
        )

    def _unexplained_slowdown(self, sample: Sample, now: float) -> float | None:
        """How much slower frames are than the CPU's own choice of frequency accounts for.

        A kernel that saves power turns the frequency down because there is little to do: frames are
        slow then, and no chip is hot. The lowest frequency of late is taken, in doubt for the chip.
        """
        slowdown = self._frames.recent_slowdown(now)
        share = usable(sample.cpu_frequency, now, LOAD_MAX_AGE_S)
        if share is not None and 0.0 < share <= 1.0:
            self._paces.append(share)
        else:
            self._paces.clear()
        return slowdown if slowdown is None or not self._paces else slowdown * min(self._paces)

    def _collect_events(self, first: bool) -> tuple[Event, ...]:
        """What has happened in the parts since the last step."""
        events = [*self._thermal.events, *self._throttle.events, *self._battery.events()]
        self._thermal.events.clear()
        self._throttle.events.clear()
        if first and self._thermal.sight.state == "never":
            allowed = self.policy.failsafe.no_thermal_sensor_bits
            bits = self.ladder.rungs[self.ladder.at_most(allowed)].bits
            text = f"{self._thermal.sight.detail or NO_THERMOMETER}: {bits} bits at most"
            events.append(Event("no_thermal_sensor", text))
        return tuple(events)

    def _ladder(self, policy: Policy) -> Ladder:
        try:
            return build_ladder(self._levels, policy, self._frames.profile)
        except ValueError as error:
            raise AppError(str(error), EXIT_USAGE) from None

    @property
    def _limited(self) -> bool:
        """Whether the policy forbids levels that the model has."""
        return max(self._levels) > self.ladder.rungs[-1].bits

    def _publish(self) -> None:
        point = self._arbiter.point
        self._level = point.bits
        start = self.ladder.rungs[self.ladder.at_most(self.policy.confidence.start_bits)].bits
        self._first_level = min(start, point.bits)
        self._paused = self._thermal.paused
        self._interval = math.inf if self._paused else point.interval_s

    def _decision(
        self,
        time: float,
        before: Rung,
        cause: str,
        caps: dict[str, int],
        why: str,
        wait_s: float | None,
        events: tuple[Event, ...],
        reasons: dict[str, str],
    ) -> Decision:
        after = self._arbiter.point
        heat = self._thermal.heat if self._thermal.fresh else None
        charge = self._battery.charge
        return Decision(
            time=time,
            bits=after.bits,
            rung=self._arbiter.rung,
            changed=after != before,
            previous_bits=before.bits,
            cause=cause,
            caps=caps,
            why=why,
            next_raise_s=wait_s,
            temperature_c=None if heat is None else round(heat.temperature_c, 2),
            battery_charge=None if charge is None else round(charge, 4),
            fps=after.fps,
            paused=self._paused,
            forecast_c=None if heat is None else round(heat.forecast_c, 2),
            slowdown=round(self.slowdown, 3),
            battery_end_s=self._battery.end_s,
            until_s=self._battery.until_s,
            distrusted=self._throttle.distrusted,
            events=events,
            reasons=reasons,
        )

    # What survives a restart -------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a restart must not forget, as JSON values; see ``state`` for the times in it."""
        now = self._clock.now() if self._time is None else self._time
        return {
            "schema": SCHEMA,
            "arbiter": self._arbiter.state(now),
            "thermal": self._thermal.state(now),
            "throttle": self._throttle.state(now),
            "battery": self._battery.state(),
        }

    def restore(self, state: object) -> None:
        """Go on where a governor was whose ``state`` this is; before the first step. Whatever is
        not understood is left out: this never raises."""
        entries = table(state)
        if entries.get("schema") != SCHEMA:
            return
        now = self._clock.now()
        self._arbiter.restore(table(entries.get("arbiter")), now)
        self._thermal.restore(entries.get("thermal"), now)
        self._throttle.restore(table(entries.get("throttle")), now)
        self._battery.restore(entries.get("battery"))
